"""The StyleGAN2 prior at 512 px: what FundusGAN's generator starts from, and a source of images by itself.

--config=configs/stylegan2.py is the 'auto' configuration of NVIDIA's stylegan2-ada-pytorch, what its users run;
--config=configs/stylegan2.py:stylegan2 is the paper's network at full width. For another size set data.resolution and
model.resolution (64 to 1024): what depends on size and batch follows them, unless it is set itself.
"""

from ml_collections import ConfigDict

from . import default

CONFIGURATIONS = ("auto", "stylegan2")


def get_config(configuration: str = "auto") -> ConfigDict:
    """StyleGAN2-ADA's settings (arXiv 2006.06676), by the name that stylegan2-ada-pytorch gives them (--cfg)."""
    if configuration not in CONFIGURATIONS:
        raise ValueError(f"'{configuration}' is not one of {', '.join(CONFIGURATIONS)}")
    config = default.get_config()
    config.task = "prior"
    config.data.resolution = 512
    config.model.resolution = 512
    config.model.discriminator_mapping_layers = 8
    config.loss.lpips = 0.0
    config.loss.reg = 0.0
    config.augment.mode = "ada"
    config.train.batch_size = 32
    config.train.num_steps = 200_000
    config.train.grid_every = 500
    config.train.eval_every = 2000
    config.eval.features = "pixels"
    config.eval.batch_size = 16
    if configuration == "stylegan2":
        config.model.mapping_layers = 8
        config.loss.r1_gamma = 10.0
        config.optim.generator_lr = 2e-3
        config.optim.discriminator_lr = 2e-3
        config.train.ema_halflife_kimg = 10.0
        config.train.ema_rampup = 0.0
        return config
    side, batch = config.data.get_ref("resolution"), config.train.get_ref("batch_size")
    config.model.mapping_layers = 2
    # (side + 256) // 768 is 0 up to 256 px and 1 from 512 px on.
    config.model.channel_base = 16384 * (1 + (side + 256) // 768)
    config.loss.r1_gamma = -1.0  # 0.0002 side^2 / batch
    # 0.0025, and 0.002 at 1024 px.
    config.optim.generator_lr = 25e-4 - 5e-4 * (side // 1024).to_float()
    config.optim.discriminator_lr = 25e-4 - 5e-4 * (side // 1024).to_float()
    config.train.ema_halflife_kimg = batch.to_float() * 10 / 32
    config.train.ema_rampup = 0.05
    return config
