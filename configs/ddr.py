"""DDR (13,673 photographs, 5 grades) as in the FundusGAN paper: 512 px in, 1024 generator, pooled to 512."""

from ml_collections import ConfigDict

from . import default


def get_config() -> ConfigDict:
    """default.py is the paper's model; DDR brings a validation split of its own."""
    config = default.get_config()
    config.data.eval_split = "valid"
    config.train.num_steps = 200_000
    config.eval.features = "inception"  # FID and KID: weights fetch inception
    return config
