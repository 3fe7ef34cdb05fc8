"""A prior's generator as its settings say it: its sizes, the side that is painted at a step, and painting."""

from __future__ import annotations

from typing import Any

from jax import Array
from ml_collections import ConfigDict

from fundusgan_jax.models.generator import NoiseMode, Synthesis
from fundusgan_jax.models.plan import GeneratorConfig
from fundusgan_jax.models.progressive import AdaINSynthesis, Growth, alpha_at, stage_at
from fundusgan_jax.steps.adversary import channel_table, computation


def generator_config(config: ConfigDict, *, training: bool = False) -> GeneratorConfig:
    """The plain StyleGAN2 generator (base_size 4) of the run's settings; training: see `steps.fundusgan_step.model_config`."""
    return GeneratorConfig(
        resolution=config.model.resolution,
        base_size=4,
        channel_base=config.model.channel_base,
        channel_max=config.model.channel_max,
        w_dim=config.model.w_dim,
        fused=training and config.model.fused_layers,
        **computation(config, training),
    )


def growth(config: ConfigDict) -> Growth:
    """The schedule of resolutions; a StyleGAN2 is painted at its full size from the start."""
    full = config.model.resolution
    start = config.growth.start if config.model.style == "adain" else full
    return Growth(start, full, config.growth.fade_kimg, config.growth.stable_kimg)


def resolution_at(config: ConfigDict, step: int) -> int:
    """Side that is painted in step number `step` (counted from 1), and so of the checkpoint of that step."""
    done = max(step - 1, 0) * config.train.batch_size
    return stage_at(growth(config), done)[0]


def fade_in(config: ConfigDict, step: Array | int, resolution: int) -> Array | float:
    """Alpha of a network of side `resolution` after `step` steps, in [0, 1]; 1 where nothing fades in."""
    return alpha_at(growth(config), resolution, step * config.train.batch_size)


def synthesis_network(config: ConfigDict, resolution: int, training: bool = False) -> Any:
    """The module that paints at side `resolution`; training: see `paint`."""
    sizes = generator_config(config, training=training)
    if config.model.style == "adain":
        table = channel_table(config, resolution)
        return AdaINSynthesis(resolution, table, sizes.w_dim, sizes.num_ws, **computation(config, training))
    return Synthesis(sizes)


def paint(
    config: ConfigDict,
    params: dict[str, Any],
    noise: Any,
    w_plus: Array,
    *,
    resolution: int,
    alpha: Array | float = 1.0,
    noise_mode: NoiseMode,
    noise_keys: Array | None = None,
    training: bool = False,
) -> Array:
    """w_plus [N, num_ws, w_dim] -> images [N, resolution, resolution, 3] float32, nominally in [-1, 1].

    training: compute by model.dtype and train.remat, not in float32.
    """
    network = synthesis_network(config, resolution, training)
    variables = {"params": params["synthesis"], "noise": noise}
    extra = (alpha,) if config.model.style == "adain" else ()
    return network.apply(variables, w_plus, *extra, noise_mode=noise_mode, noise_keys=noise_keys)  # type: ignore[no-any-return]
