"""FundusGAN whose base map and styles come from a small latent, 16x16x16 at 128 px: what configs/latent.py draws."""

from ml_collections import ConfigDict

from . import default


def get_config() -> ConfigDict:
    """Narrow layers, no noise maps, L1 and LPIPS of the squeeze kind; other sizes follow data.resolution.

    The skips take the widened latent past the dilated shallow layers, whose filters blur it: without them no disc is
    where it was (docs/new_eyes.md).
    """
    config = default.get_config()
    config.data.resolution = 128
    config.model.resolution = config.data.get_ref("resolution")
    config.model.base_size = config.data.get_ref("resolution") // 8
    config.model.latent_channels = 16
    config.model.latent_noise = 0.2
    config.model.channel_base = 3072
    config.model.channel_max = 192
    config.model.w_dim = 128
    config.model.delta = 3
    config.model.noise_mode = "none"
    config.encoder.backbone = "resnet18"
    config.encoder.norm = "group"
    config.encoder.fpn_channels = 64
    config.encoder.head_channels = 32
    config.loss.l1 = 1.0
    config.loss.l2 = 0.0
    config.loss.lpips = 1.0
    config.loss.reg = 0.0
    config.loss.latent = 0.005
    config.loss.perceptual_net = "squeezenet"
    config.loss.perceptual_heads = True
    config.optim.encoder_lr = 1e-3
    config.optim.generator_lr = 2e-3
    config.optim.generator_b1 = 0.9
    config.optim.warmup_steps = 50
    config.optim.decay = "cosine"
    config.train.batch_size = 8
    config.train.num_steps = 3200
    config.train.log_every = 20
    config.train.grid_every = 500
    config.train.eval_every = 2000
    config.train.checkpoint_every = 250
    config.eval.num = 200
    config.eval.batch_size = 16
    return config
