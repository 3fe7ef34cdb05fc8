"""What --mode=plan prints: the networks, memory by batch size, the largest batch that fits, hours by one step that is timed."""

from __future__ import annotations

import jax
import numpy as np
from ml_collections import ConfigDict

from fundusgan_jax.devices.memory import advice, device_memory, gib
from fundusgan_jax.errors import UserError
from fundusgan_jax.models.fundusgan import latent_shape
from fundusgan_jax.progress import waiting
from fundusgan_jax.steps.flops import STEP, phase_flops
from fundusgan_jax.steps.fundusgan_step import model_config
from fundusgan_jax.train.calls import calls
from fundusgan_jax.train.plan import (
    EXHAUSTED,
    Need,
    Planner,
    kept_photographs,
    parameter_counts,
    read_off,
    search,
    training_photographs,
)
from fundusgan_jax.train.step_time import TIMED_SECONDS, step_seconds
from fundusgan_jax.validation import validate

REMAT = "train.remat=True"
# FLOP/s that two cores reach even where they are slow: a step that would take longer than TIMED_SECONDS by it is timed at
# the smallest batch size.
SLOW_FLOPS = 3e10


def print_plan(config: ConfigDict) -> None:
    """Prints the plan of a training on this machine's devices.

    Raises:
        UserError: settings that training would refuse, or photographs that cannot be counted (`kept_photographs`).
    """
    if config.task in ("vessels", "classifier"):
        raise UserError(
            f"--mode=plan plans FundusGAN, its prior and flows over its latents; start a run of task={config.task} without it"
        )
    validate(config, jax.device_count())
    planner = Planner(config, num_resident=kept_photographs(config), photographs=training_photographs(config))
    device = planner.parallel.local[0]
    limit = device_memory(device)
    _print_model(planner, device, limit)
    wanted = config.train.batch_size // planner.devices
    sizes = planner.sizes()
    first = max(size for size in sizes if size <= wanted)
    compiled = search(planner, sizes, first, limit) if limit is not None else [planner.need(first)]
    known = next(need for need in compiled if need.per_device == first)
    other = _other_needs(planner, first, sizes[-1])
    saves = REMAT in other and _saves(known, other[REMAT])
    best = max((need for need in compiled if limit and need.total <= limit), default=None)
    needs = {need.per_device: need for need in compiled}
    last = 2 * max(best.per_device if best else 1, first)
    for size in [*(size for size in sizes if size <= last), wanted]:
        needs.setdefault(size, read_off(compiled, size))
    _print_memory(planner, needs, other, limit)
    print()
    _print_advice(planner, needs[wanted], best, limit, saves)
    # Last, and with all else printed: it may find no memory.
    print(flush=True)
    fitting = [
        size
        for size, need in sorted(needs.items())
        if size in sizes and (limit is None or need.total <= limit)
    ]
    if fitting:
        _print_rate(planner, sizes, min(first, fitting[-1]))
    else:
        print("no step is timed: none fits")


def _other_needs(planner: Planner, first: int, most: int) -> dict[str, Need]:
    """Memory with activations computed again, and of twice as many images in twice as many parts."""
    config = planner.config
    other = {} if config.train.remat else {REMAT: planner.need(first, remat=True)}
    # The same parts, twice as many: what the gradient's sum and the photographs cost.
    finer = 2 * config.train.accumulate
    if 2 * first <= most and planner.divides(2 * first, accumulate=finer):
        other[f"train.accumulate={finer}"] = planner.need(2 * first, accumulate=finer)
    return other


def _saves(known: Need, other: Need) -> bool:
    """Whether `other` needs less memory than what is known, or nobody can tell."""
    return known.total >= EXHAUSTED or other.total < known.total


def _print_model(planner: Planner, device: jax.Device, limit: int | None) -> None:
    config = planner.config
    memory = f"{gib(limit)} each" if limit is not None else "of unknown memory"
    print(f"devices: {planner.devices} x {device.device_kind}, {memory}")
    if planner.photographs is not None:
        print(f"photographs to train with: {planner.photographs}")
    if planner.num_resident:
        what, each_bytes = "photographs", config.data.resolution**2 * 3
        if config.task == "latent":
            what, each_bytes = (
                "photographs' latents",
                8 * int(np.prod(latent_shape(model_config(config, None)))),
            )
        size = gib(planner.num_resident * each_bytes)
        print(f"{what} kept on every device (data.cache=device): {planner.num_resident}, {size}")
    counted = parameter_counts(config, planner.task(config).shapes(config.train.num_steps))
    each = ", ".join(f"{name} {count / 1e6:.2f} M" for name, count in counted.items())
    print(f"parameters: {sum(counted.values()) / 1e6:.2f} M ({each})")
    flops = phase_flops(config)
    each = ", ".join(f"{name} {value / 1e9:.4g}" for name, value in flops.items() if name != STEP)
    print(f"GFLOP per image of a step: {flops[STEP] / 1e9:.4g} on average ({each})", flush=True)


def _print_memory(
    planner: Planner, needs: dict[int, Need], other: dict[str, Need], limit: int | None
) -> None:
    print("\n| train.batch_size | images a device | memory a device | |\n|---|---|---|---|")
    named = [("", needs[size]) for size in sorted(needs)] + [
        (f", {name}", need) for name, need in other.items()
    ]
    for name, need in named:
        size = need.per_device
        source = "compiled" if need.compiled else "estimate"
        fits = "" if limit is None or need.total <= limit else ", does not fit"
        print(f"| {size * planner.devices}{name} | {size} | {_amount(need)} | {source}{fits} |")


def _amount(need: Need) -> str:
    return gib(need.total) if need.total < EXHAUSTED else "more than there is"


def _print_rate(planner: Planner, sizes: list[int], first: int) -> None:
    """Times one step; `first`: images a device, of the settings."""
    config, devices = planner.config, planner.devices
    if jax.devices()[0].platform == "cpu" and (
        phase_flops(config)[STEP] * first * devices / SLOW_FLOPS > TIMED_SECONDS
    ):
        first = sizes[0]
    with waiting(f"timing a step of {first * devices} images"):
        ahead = calls(
            planner.task(config),
            planner.first_planned(planner.task(config)),
            config.train.num_steps,
            config.train.steps_per_call,
        )
        seconds = step_seconds(planner.compiled(first), ahead)
    rate = first * devices / seconds
    steps = 3600 * rate / config.train.batch_size
    print(
        f"measured: a step of {first * devices} images takes {seconds:.3g} s here ({rate:.3g} img/s): {steps:.3g} steps an "
        f"hour at batch_size={config.train.batch_size}, {config.train.num_steps / steps:.3g} hours for "
        f"num_steps={config.train.num_steps}, without evaluations"
    )


def _print_advice(planner: Planner, wanted: Need, best: Need | None, limit: int | None, remat: bool) -> None:
    config, devices = planner.config, planner.devices
    size = config.train.batch_size
    if limit is None:
        print(f"train.batch_size={size} needs {_amount(wanted)} a device; this device names no limit")
        return
    fits = best.per_device * devices if best else 0
    if best is not None:
        print(
            f"largest batch that fits: --config.train.batch_size={fits} ({gib(best.total)} of {gib(limit)})"
        )
    if wanted.total <= limit:
        print(f"train.batch_size={size} fits: {gib(wanted.total)} of {gib(limit)}")
    else:
        print(f"train.batch_size={size} does not fit; {advice(config, fits, devices, remat)}")
