"""A classifier of prepared photographs of 128 px: a ResNet18 of half the width, 96,000 photographs (28 epochs of ODIR-2019).

Kim et al. (2022) trained a ResNet152 on 512 px by Adam: --config.classifier.network=resnet152 --config.classifier.width=1
--config.data.resolution=512 --config.train.batch_size=10 --config.classifier.learning_rate=0.0001
--config.classifier.weight_decay=0 --config.optim.decay=constant; their augmentation is classifier.augment.
"""

from ml_collections import ConfigDict

from . import default


def get_config() -> ConfigDict:
    """--config.data.classes=N,D tells two classes apart; --config.classifier.network=densenet121 takes another network."""
    config = default.get_config()
    config.task = "classifier"
    config.data.resolution = 128
    config.encoder.norm = "group"
    config.classifier.width = 0.5
    config.loss.lpips = 0.0
    config.loss.reg = 0.0
    config.optim.decay = "cosine"
    config.optim.warmup_steps = 100
    config.train.batch_size = 32
    config.train.num_steps = 3000
    config.train.ema_halflife_kimg = 1.0
    config.train.log_every = 50
    config.train.eval_every = 500
    config.train.checkpoint_every = 250
    config.eval.batch_size = 64
    return config
