"""A folder of your own photographs on one GPU: 512 px in and out, from scratch, without downloads but LPIPS' VGG16."""

from ml_collections import ConfigDict

from . import default


def get_config() -> ConfigDict:
    """The native 512 generator costs less; rates and skips for training from scratch."""
    config = default.get_config()
    config.model.resolution = 512
    config.model.delta = 6
    config.optim.encoder_lr = 5e-4
    config.optim.generator_lr = 1e-3
    config.optim.generator_b1 = 0.9
    config.optim.warmup_steps = 100
    config.optim.decay = "cosine"
    config.train.num_steps = 50_000
    config.train.eval_every = 2000
    return config
