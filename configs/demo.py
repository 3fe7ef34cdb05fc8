"""The built-in default: phantom eyes at 64 px on two CPU cores, a few minutes, nothing to download or bring."""

from ml_collections import ConfigDict

from . import default


def get_config() -> ConfigDict:
    """Narrow layers, every skip, squared error alone: it shows the whole job in minutes. Sharp vessels need the
    perceptual loss, whose weights would have to be downloaded."""
    config = default.get_config()
    config.data.dataset = "phantom"
    config.data.resolution = 64
    config.model.resolution = 64
    config.model.channel_base = 2048
    config.model.channel_max = 64
    config.model.w_dim = 64
    config.model.delta = 4
    config.model.noise_mode = "none"
    config.encoder.backbone = "resnet18"
    config.encoder.norm = "group"
    config.encoder.fpn_channels = 64
    config.encoder.head_channels = 32
    config.loss.lpips = 0.0
    config.optim.encoder_lr = 1e-3
    config.optim.generator_lr = 2e-3
    config.optim.generator_b1 = 0.9
    config.optim.warmup_steps = 20
    config.optim.decay = "cosine"
    config.train.batch_size = 8
    config.train.num_steps = 800
    config.train.log_every = 10
    config.train.grid_every = 200
    config.train.eval_every = 400
    config.train.checkpoint_every = 200
    return config
