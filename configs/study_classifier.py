"""The networks that the studies of synthetic images train: of full width, 300 steps of 32 photographs in every arm.

python -m fundusgan_jax.studies.augmentation and imbalance read it; their --networks names them, --pretrained starts from
ImageNet. Photographs are changed in the arm 'augmented' alone; in every arm, as Kim et al. (2022) have it, with
--config.classifier.augment=True --config.data.flip=True.
"""

from ml_collections import ConfigDict

from . import classifier


def get_config() -> ConfigDict:
    """--config.train.num_steps=1000 trains longer; six evaluations on validation patients choose the checkpoint."""
    config = classifier.get_config()
    config.classifier.width = 1.0
    config.classifier.augment = False
    config.data.flip = False
    config.optim.warmup_steps = 30
    config.train.num_steps = 300
    config.train.log_every = 10
    config.train.eval_every = 50
    config.train.checkpoint_every = 50
    config.train.keep_last = 1
    return config
