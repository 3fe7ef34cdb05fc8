"""The smallest settings and batches that still exercise every part; shared by tests."""

import numpy as np
from ml_collections import ConfigDict

from configs import default, latent, stylegan2
from fundusgan_jax.steps.batch import Batch

NARROW = {
    "data.resolution": 64,
    "model.resolution": 64,
    "model.channel_base": 128,
    "model.channel_max": 8,
    "model.w_dim": 8,
    "encoder.fpn_channels": 8,
    "encoder.head_channels": 4,
    "train.batch_size": 8,
    "train.num_steps": 40,
    "eval.batch_size": 4,
}


def tiny_config(**changes) -> ConfigDict:
    """default.py at 64 px with narrow layers; changes as dotted names with '__' for the dot."""
    config = default.get_config()
    small = {
        **NARROW,
        "model.delta": 3,
        "encoder.backbone": "resnet18",
        "encoder.norm": "group",
        "loss.lpips": 0.0,
    }
    config.update_from_flattened_dict(
        small | {name.replace("__", "."): value for name, value in changes.items()}
    )
    return config


def tiny_latent_config(**changes) -> ConfigDict:
    """latent.py over an autoencoder with a latent of 16x16x4; changes as for `tiny_config`."""
    config = latent.get_config()
    small = {
        **NARROW,
        "model.latent_stride": 4,
        "model.latent_channels": 4,
        "model.latent_width": 8,
        "flow.channels": 8,
        "flow.blocks": 1,
        "optim.warmup_steps": 0,
    }
    config.update_from_flattened_dict(
        small | {name.replace("__", "."): value for name, value in changes.items()}
    )
    return config


def random_batch(size: int, resolution: int = 64, seed: int = 0) -> Batch:
    """Uniform noise in [-1, 1] with distinct sample numbers."""
    rng = np.random.default_rng(seed)
    image = rng.uniform(-1, 1, (size, resolution, resolution, 3)).astype(np.float32)
    zeros = np.zeros(size, np.int32)
    return Batch(image, zeros, zeros, np.arange(size, dtype=np.int32) + size * seed)


def tiny_prior_config(**changes) -> ConfigDict:
    """stylegan2.py at 16 px with narrow layers; changes as for `tiny_config`."""
    config = stylegan2.get_config()
    small = {
        "data.resolution": 16,
        "model.resolution": 16,
        "model.channel_base": 128,
        "model.channel_max": 8,
        "model.w_dim": 8,
        "model.z_dim": 8,
        "model.mapping_layers": 2,
        "train.batch_size": 8,
        "train.num_steps": 8,
        "eval.batch_size": 4,
        "eval.num_samples": 8,
        "growth.start": 8,
        # A program with all transforms takes three times as long to compile; test_augment.py has them.
        "augment.transforms": "brightness",
    }
    config.update_from_flattened_dict(
        small | {name.replace("__", "."): value for name, value in changes.items()}
    )
    return config
