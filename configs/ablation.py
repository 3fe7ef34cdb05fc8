"""An ablation of FundusGAN's parts: which settings are varied, around the --base configuration, and for how long each run trains."""

from ml_collections import ConfigDict


def get_config() -> ConfigDict:
    """One setting at a time, 2 seeds, 20,000 photographs a run: 16 settings and the base, 34 runs with configs/cpu.py.

    It is read by python -m fundusgan_jax.studies.ablation, whose flags of the same names change it.
    """
    config = ConfigDict()
    config.vary = (
        "model.first_dilation=1,4,8,12",
        "loss.l2=0.1,10",  # a tenth of the default and ten times as much, here and below
        "loss.lpips=0.08,8",
        "loss.reg=0.0005,0.05",
        "model.delta=0,1,2,4",
        "encoder.backbone=resnet18,resnet50",
        "model.constant_base=True",
    )
    config.product = False  # all combinations in place of one setting at a time
    config.seeds = 2
    config.photographs = 20_000  # that each run trains on; 0 where minutes say it
    config.minutes = 0.0
    return config
