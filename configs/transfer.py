"""Fine-tunes a prior to a rare disease from a few photographs (Kim et al., Sci Rep 2022): give --init_from=WORKDIR."""

from ml_collections import ConfigDict

from . import stylegan2


def get_config(configuration: str = "auto") -> ConfigDict:
    """Learning rate 0.0001; the best checkpoint by the distance to the new photographs is kept and marked.

    configuration: that of the prior, as in configs/stylegan2.py.
    """
    config = stylegan2.get_config(configuration)
    config.optim.generator_lr = 1e-4
    config.optim.discriminator_lr = 1e-4
    # The prior's moving average is worth keeping, and few photographs need augmentation soon.
    config.train.ema_rampup = 0.0
    config.augment.kimg = 100.0
    config.train.num_steps = 5000
    config.train.grid_every = 250
    config.train.eval_every = 250
    config.train.checkpoint_every = 250
    return config
