"""StyleGAN v1 grown from 8 to 1024 px, as Kim et al. (Sci Rep 2022) trained it."""

from ml_collections import ConfigDict

from . import stylegan2


def get_config() -> ConfigDict:
    """Learning rate 0.001, R1 of weight 10 in every update, no path length, no adaptive augmentation, no ramp of the
    moving average."""
    config = stylegan2.get_config("stylegan2")
    config.data.resolution = 1024
    config.model.resolution = 1024
    config.model.style = "adain"
    config.model.channel_base = 16384  # 16 channels at 1024 px
    config.loss.pl_weight = 0.0
    config.loss.r1_gamma = 10.0
    config.optim.generator_lr = 1e-3
    config.optim.discriminator_lr = 1e-3
    config.augment.mode = "none"
    config.train.r1_every = 1
    config.train.batch_size = 16
    return config
