"""What every training step shares: learning-rate schedules, Adam for lazy terms, averages, and the guard against NaN."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any, TypeVar

import jax
import jax.numpy as jnp
import optax
from jax import Array, lax
from ml_collections import ConfigDict

from fundusgan_jax.steps.batch import group_blocks

State = TypeVar("State")
ANY = "any"
# A gradient below it keeps Adam finite: its square, the second moment, ends at 3e38, and an update is some learning rates long.
LARGEST = 1e18
# Smaller leaves are checked as one: biases, noise strengths, styles' layers. Kernels are not copied for it.
TOGETHER = 8192


def schedule(config: ConfigDict, rate: float, updates_per_step: float = 1.0) -> optax.Schedule:
    """Linear warm-up over optim.warmup_steps, then constant or a cosine to zero at train.num_steps.

    Args:
        config: the run's settings.
        rate: the highest learning rate.
        updates_per_step: of this optimiser, on average; its count is divided by it.
    """
    warmup, total = config.optim.warmup_steps, config.train.num_steps

    def at(count: Array) -> Array:
        step = count / updates_per_step if updates_per_step != 1.0 else count
        risen = jnp.minimum(1.0, (step + 1) / max(warmup, 1))
        if config.optim.decay == "cosine":
            share = jnp.clip((step - warmup) / max(total - warmup, 1), 0.0, 1.0)
            risen = risen * 0.5 * (1 + jnp.cos(jnp.pi * share))
        return rate * risen

    return at


def lazy_adam(
    config: ConfigDict, rate: float, b1: float, b2: float, every: int
) -> optax.GradientTransformation:
    """Adam whose regulariser is applied in a second update at every `every`-th step.

    lr * c and beta^c with c = every / (every + 1): the same speed and memory per image as without the
    second update (StyleGAN2, appendix B). every = 0: there is no second update.
    """
    correction = every / (every + 1) if every else 1.0
    updates = (every + 1) / every if every else 1.0
    return optax.adam(schedule(config, rate * correction, updates), b1**correction, b2**correction, eps=1e-8)


def moments_anew(opt_state: Any) -> Any:
    """Adam's moments and their count at zero, learning-rate schedules as they are."""

    def fresh(node: Any) -> Any:
        return jax.tree.map(jnp.zeros_like, node) if isinstance(node, optax.ScaleByAdamState) else node

    return jax.tree.map(fresh, opt_state, is_leaf=lambda node: isinstance(node, optax.ScaleByAdamState))


def sample_keys(seed: Array | int, sample: Array, purpose: int | None = None) -> Array:
    """One random key per sample from (seed, its number in the stream, what it is for).

    [N] int32 -> [N] keys: draws depend neither on the batch's division over devices nor on a resume.
    """
    keys = jax.vmap(lambda number: jax.random.fold_in(jax.random.key(seed), number))(sample)
    if purpose is None:
        return keys
    return jax.vmap(lambda key: jax.random.fold_in(key, purpose))(keys)


def blocks_on(axis_name: str | None) -> int:
    """`group_blocks` of the devices of a bound axis; of one device where there is none."""
    return group_blocks(lax.axis_size(axis_name) if axis_name is not None else 1)


def _parted(rows: Any, parts: int, blocks: int) -> Any:
    """[N, ...] -> [parts, N / parts, ...]; a part takes its share of each of `blocks` equal blocks."""

    def divided(x: Array) -> Array:
        whole = x.reshape(blocks, parts, x.shape[0] // (blocks * parts), *x.shape[1:])
        return jnp.moveaxis(whole, 1, 0).reshape(parts, -1, *x.shape[1:])

    return jax.tree.map(divided, rows)


def _joined(rows: Any, blocks: int) -> Any:
    """The inverse of `_parted`: [parts, N / parts, ...] -> [N, ...] in the order of the batch."""

    def whole(x: Array) -> Array:
        parted = x.reshape(x.shape[0], blocks, -1, *x.shape[2:])
        return jnp.moveaxis(parted, 0, 1).reshape(-1, *x.shape[2:])

    return jax.tree.map(whole, rows)


def in_parts(compute: Callable[[Any], Any], rows: Any, parts: int) -> Any:
    """compute(rows), a function of each sample by itself, on `parts` parts of the rows one after another."""
    if parts == 1:
        return compute(rows)
    return _joined(lax.map(compute, _parted(rows, parts, 1)), 1)


def mean_gradient(
    objective: Callable[[Any, Any], tuple[Array, tuple[Any, Any]]],
    params: Any,
    rows: Any,
    parts: int,
    blocks: int = 1,
) -> tuple[Any, tuple[Any, Any]]:
    """The gradient of a mean over samples, computed on `parts` parts of them one after another: less memory at a time.

    Args:
        objective: (params, rows) -> (mean over the rows, (more means, arrays with one row per sample)).
        params: what the gradient is taken to.
        rows: arrays [N, ...].
        parts: how many; 1 computes all at once. N is a multiple of parts * blocks.
        blocks: a part takes its share of each of so many blocks of the rows (`blocks_on`).

    Returns:
        As of jax.grad(objective, has_aux=True) on all rows at once, within rounding, provided that no row but those
        of its own part matters to a row.
    """
    gradient = jax.grad(objective, has_aux=True)
    if parts == 1:
        return gradient(params, rows)

    def add(total: Any, part: Any) -> tuple[Any, tuple[Any, Any]]:
        of_part, auxiliary = gradient(params, part)
        return jax.tree.map(jnp.add, total, of_part), auxiliary

    zeros = jax.tree.map(jnp.zeros_like, params)
    total, (means, arrays) = lax.scan(add, zeros, _parted(rows, parts, blocks))
    means = jax.tree.map(lambda x: jnp.mean(x, 0), means)
    return jax.tree.map(lambda x: x / parts, total), (means, _joined(arrays, blocks))


def ema_decay(config: ConfigDict, step: Array) -> Array:
    """Decay of the moving average: half-life ema_halflife_kimg, shorter at first (ema_rampup times the images seen
    before this step; 0 in the first), so that a short run's average is not its initialisation (StyleGAN2-ADA)."""
    batch = config.train.batch_size
    halflife = config.train.ema_halflife_kimg * 1000.0
    if config.train.ema_rampup > 0:
        halflife = jnp.minimum(halflife, step * batch * config.train.ema_rampup)
    return 0.5 ** (batch / jnp.maximum(halflife, 1e-8))


def averaged(old: Any, new: Any, decay: Array | float) -> Any:
    """new + (old - new) * decay, leaf by leaf."""
    return jax.tree.map(lambda a, b: b + (a - b) * decay, old, new)


def all_below(tree: Any, most: float = LARGEST) -> Array:
    """Whether every number of every leaf is finite and its size below `most`; a bool scalar."""
    leaves = [leaf for leaf in jax.tree.leaves(tree) if jnp.issubdtype(leaf.dtype, jnp.inexact)]
    small = [leaf.ravel() for leaf in leaves if leaf.size < TOGETHER]
    # A sum of its own for each of some 500 biases and noise strengths is an eighth of its phase's compilation (NOTES).
    checked = [leaf for leaf in leaves if leaf.size >= TOGETHER] + ([jnp.concatenate(small)] if small else [])
    checks = [jnp.all(jnp.abs(leaf) < most) for leaf in checked]
    return jnp.all(jnp.stack(checks)) if checks else jnp.asarray(True)


def _branched(condition: Array, first: State, second: State) -> State:
    # Not where(): XLA:CPU would fuse all the checks into each of its selections and compile for minutes.
    return lax.cond(condition, lambda a, b: a, lambda a, b: b, first, second)  # type: ignore[no-any-return]


def _selected(condition: Array, first: State, second: State) -> State:
    # Not cond(): a GPU's host would wait for the device in every phase, and the state would be copied.
    return jax.tree.map(lambda a, b: jnp.where(condition, a, b), first, second)  # type: ignore[no-any-return]


def either(condition: Array, first: State, second: State) -> State:
    """`first` where `condition`, a bool scalar, holds, otherwise `second`, of the same structure; both are computed."""
    return lax.platform_dependent(condition, first, second, cpu=_branched, default=_selected)  # type: ignore[no-any-return]


def guarded(old: State, new: State, checked: Mapping[str, Any]) -> tuple[State, dict[str, Array]]:
    """`new`, or `old` where anything checked is not finite or above LARGEST: a bad update leaves no trace in the state.

    Args:
        old, new: the state before and after an update, of one structure.
        checked: name of a term, or 'gradient of NAME' -> array or tree, the same on every device. All that is in `new` and
            neither in `old` nor made by Adam of a gradient is to be among it, as batch statistics are. `new` itself is not
            looked at: every update would be written twice, once to be checked and once to be kept.

    Returns:
        The state to go on with and, per name, whether it was not finite; under `ANY`, whether one was.
    """
    bad = {name: ~all_below(tree) for name, tree in checked.items()}
    any_bad = jnp.any(jnp.stack(list(bad.values())))
    return either(any_bad, old, new), {ANY: any_bad, **bad}
