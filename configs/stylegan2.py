"""The StyleGAN2 prior at 512 px: what FundusGAN's generator starts from, and a source of images by itself."""

from ml_collections import ConfigDict

from configs import default


def get_config() -> ConfigDict:
    """StyleGAN2-ADA's settings (arXiv 2006.06676) for 64 to 1024 px: set data.resolution and model.resolution."""
    config = default.get_config()
    config.task = "prior"
    config.data.resolution = 512
    config.model.resolution = 512
    config.loss.lpips = 0.0
    config.loss.reg = 0.0
    config.optim.generator_lr = 2.5e-3  # 2e-3 at 1024 px
    config.optim.discriminator_lr = 2.5e-3
    config.augment.mode = "ada"
    config.train.batch_size = 32
    config.train.num_steps = 200_000
    config.train.grid_every = 500
    config.train.eval_every = 2000
    config.train.best_metric = "frechet"
    config.eval.features = "pixels"
    config.eval.batch_size = 16
    return config
