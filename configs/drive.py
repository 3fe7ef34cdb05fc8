"""DRIVE (40 photographs): the published model on the smallest set; more skips, because 20 do not teach a prior."""

from ml_collections import ConfigDict

from . import default


def get_config() -> ConfigDict:
    """20 training photographs."""
    config = default.get_config()
    config.model.delta = 5
    config.train.num_steps = 10_000
    config.train.eval_every = 1000
    config.eval.features = "inception"  # FID and KID: weights fetch inception
    return config
