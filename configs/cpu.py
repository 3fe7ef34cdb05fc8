"""A folder of photographs at 256 px on two CPU cores: an hour to reconstructions that show vessels and disc."""

from ml_collections import ConfigDict

from . import default


def get_config() -> ConfigDict:
    """Narrow layers, every skip, SqueezeNet features: what made the README's picture."""
    config = default.get_config()
    config.data.resolution = 256
    config.model.resolution = 256
    config.model.channel_base = 4096
    config.model.channel_max = 256
    config.model.w_dim = 256
    config.model.delta = 6
    config.model.noise_mode = "none"
    config.encoder.backbone = "resnet18"
    config.encoder.norm = "group"
    config.encoder.fpn_channels = 128
    config.encoder.head_channels = 64
    config.loss.perceptual_net = "squeezenet"
    config.loss.vessel_side = 256
    config.loss.vessel_photographs = 1
    config.optim.encoder_lr = 5e-4
    config.optim.generator_lr = 1e-3
    config.optim.generator_b1 = 0.9
    config.optim.warmup_steps = 50
    config.optim.decay = "cosine"
    config.train.batch_size = 4
    config.train.num_steps = 2000
    config.train.log_every = 10
    config.train.grid_every = 200
    config.train.eval_every = 500
    config.train.checkpoint_every = 200
    return config
