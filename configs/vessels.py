"""Segmentation of vessels: crops of DRIVE (or HRF, STARE, CHASE_DB1, FIVES; data.dir=FOLDER[,FOLDER]) train a W-Net."""

from ml_collections import ConfigDict

from . import default


def get_config() -> ConfigDict:
    """--config.vessels.network=fpn --config.data.resolution=128 takes the ResNet with a pyramid."""
    config = default.get_config()
    config.task = "vessels"
    config.data.resolution = 112
    config.loss.lpips = 0.0
    config.loss.reg = 0.0
    config.optim.decay = "cosine"
    config.optim.warmup_steps = 50
    config.train.batch_size = 8
    config.train.num_steps = 4000
    config.train.ema_halflife_kimg = 1.0
    config.train.log_every = 50
    config.train.grid_every = 1000
    config.train.checkpoint_every = 100
    config.train.eval_every = 1000
    return config
