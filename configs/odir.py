"""ODIR-5K (7,000 photographs of 3,500 patients, both eyes): the published model."""

from ml_collections import ConfigDict

from . import default


def get_config() -> ConfigDict:
    """default.py with steps for 6,300 training photographs."""
    config = default.get_config()
    config.train.num_steps = 150_000
    config.eval.features = "inception"  # FID and KID: weights fetch inception
    return config
