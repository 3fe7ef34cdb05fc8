"""A convolutional autoencoder with a small latent, 16x16x8 at 128 px: what configs/latent.py draws."""

from ml_collections import ConfigDict

from . import default


def get_config() -> ConfigDict:
    """L1, LPIPS of the squeeze kind, a little noise on the latent; other sizes follow data.resolution."""
    config = default.get_config()
    config.data.resolution = 128
    config.model.resolution = config.data.get_ref("resolution")
    config.model.latent_channels = 8
    config.model.latent_stride = 8
    config.model.noise_mode = "none"
    config.encoder.norm = "group"
    config.loss.l1 = 1.0
    config.loss.l2 = 0.0
    config.loss.lpips = 1.0
    config.loss.reg = 0.0
    config.loss.latent = 0.001
    config.loss.perceptual_net = "squeezenet"
    config.loss.perceptual_heads = True
    config.optim.encoder_lr = 2e-3
    config.optim.generator_lr = 2e-3
    config.optim.encoder_b1 = 0.9
    config.optim.generator_b1 = 0.9
    config.optim.warmup_steps = 50
    config.optim.decay = "cosine"
    config.train.batch_size = 8
    config.train.num_steps = 4400
    config.train.log_every = 20
    config.train.grid_every = 500
    config.train.eval_every = 2200
    config.train.checkpoint_every = 250
    config.eval.num = 200
    config.eval.batch_size = 16
    return config
