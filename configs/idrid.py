"""IDRiD, disease grading (516 photographs): the published model, fewer steps for a small set."""

from ml_collections import ConfigDict

from . import default


def get_config() -> ConfigDict:
    """413 training photographs: 30,000 steps of 8 show each of them about 580 times."""
    config = default.get_config()
    config.train.num_steps = 30_000
    config.train.eval_every = 1000
    config.eval.features = "inception"  # FID and KID: weights fetch inception
    return config
