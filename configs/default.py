"""Every setting with its default: fundusgan_jax/settings.py has them with their comments, --help prints them."""

from ml_collections import ConfigDict

from fundusgan_jax.config import default_config


def get_config() -> ConfigDict:
    """FundusGAN as published (arXiv 2503.17831), 512 px photographs, a generator of 1024; other files change a few lines."""
    return default_config()
