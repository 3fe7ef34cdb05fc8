"""Images that nobody photographed: a rectified flow over the latents of an autoencoder; give --init_from=WORKDIR."""

from ml_collections import ConfigDict

from . import latent_autoencoder


def get_config() -> ConfigDict:
    """The FundusGAN's sizes are taken from --init_from; --config.model.num_labels=K draws K classes apart."""
    config = latent_autoencoder.get_config()
    config.task = "latent"
    config.data.cache = "device"
    config.flow.patch = 1
    config.loss.lpips = 0.0
    config.loss.perceptual_heads = False
    config.optim.warmup_steps = 200
    config.train.batch_size = 32
    config.train.num_steps = 10_000
    config.train.log_every = 50
    config.train.grid_every = 1000
    config.train.eval_every = 500
    config.train.checkpoint_every = 250
    config.eval.num = 0
    config.eval.features = "none"
    return config
