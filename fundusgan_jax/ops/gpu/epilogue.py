"""What lies between two convolutions of the generator, as one kernel: FIR filter, demodulation, noise, bias, leaky ReLU,
clamp, and the next convolution's modulation.

XLA filters in several passes and writes gradients in float32 on the way; these maps are bound by memory. The kernels are in
ops/gpu/epilogue_kernels.py; what is no card computes the same by XLA. The gradient reads the modulated map alone: what
entered the activation follows from it. Arrays are NHWC.
"""

from __future__ import annotations

import functools
from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from jax import Array, lax

from fundusgan_jax.ops.activation import activation_of, clamp_low_precision, lrelu
from fundusgan_jax.ops.places import spread, sum_over_places, wide
from fundusgan_jax.ops.resample import fir


class Convolved(NamedTuple):
    """A convolution's result, and what a layer does to it before it is a map: to be given to `modulated`.

    convolved: [N, H, W, C], float32 or half precision. scale: [N, C] float32, above 0: the demodulation. noise: [N, H', W', 1]
    float32, where H' = H, or H' = H - 1 of a transposed convolution, which the FIR filter follows. bias: [C] float32.
    """

    convolved: Array
    scale: Array
    noise: Array
    bias: Array

    @property
    def filtered(self) -> bool:
        """Whether [1, 3, 3, 1] of gain 4 is to be applied."""
        return self.convolved.shape[1] != self.noise.shape[1]


class Gradients(NamedTuple):
    """Of the inputs: Convolved's, and [N, C] of the styles."""

    convolved: Array
    scale: Array
    noise: Array
    bias: Array
    styles: Array


def modulated(layer: Convolved, styles: Array, interpret: bool = False) -> Array:
    """clamp(lrelu(FIR(convolved) * scale + noise + bias)) * styles, one pass on NVIDIA's GPUs; to any order of derivative.

    Args:
        layer: see there.
        styles: [N, C] float32, of the convolution that follows; a channel's gradient is lost where one is exactly 0.
        interpret: run the kernel's source on any platform, for tests.

    Returns:
        [N, H', W', C] in the dtype of `layer.convolved`.
    """
    return _modulated(*layer, styles, layer.filtered, interpret)


@functools.partial(jax.custom_vjp, nondiff_argnums=(5, 6))
def _modulated(
    convolved: Array,
    scale: Array,
    noise: Array,
    bias: Array,
    styles: Array,
    filtered: bool,
    interpret: bool,
) -> Array:
    from fundusgan_jax.ops.gpu import epilogue_kernels as kernels  # Pallas: nobody else need wait for it

    inputs = (convolved, scale, noise, bias, styles)
    return _by_platform(kernels.forward, modulated_by_xla, filtered, interpret, inputs)  # type: ignore[no-any-return]


def modulated_by_xla(
    convolved: Array, scale: Array, noise: Array, bias: Array, styles: Array, *, filtered: bool
) -> Array:
    """`modulated` as XLA fuses it."""
    x = wide(convolved)
    if filtered:
        x = fir(x, padding=1) * 4
    x = x * spread(scale, x) + noise + spread(bias, x)
    y = wide(clamp_low_precision(lrelu(x), convolved.dtype))
    return (y * spread(styles, y)).astype(convolved.dtype)


def gradients_by_xla(
    result: Array,
    scale: Array,
    noise: Array,
    bias: Array,
    styles: Array,
    dy: Array,
    *,
    filtered: bool,
) -> Gradients:
    """The gradients of `modulated` as XLA fuses them. result, dy: [N, H', W', C] in the map's dtype."""
    y, dz = wide(result), wide(dy)
    after, before, dx = activation_of(y, spread(styles, y), dz, result.dtype)
    dconvolved = dx * spread(scale, dx)
    if filtered:
        dconvolved = fir(dconvolved, padding=2) * 4
    return Gradients(
        dconvolved.astype(dy.dtype),
        sum_over_places(dx * (before - noise - spread(bias, dx))) / scale,
        jnp.sum(dx, -1, keepdims=True),
        jnp.sum(sum_over_places(dx), 0),
        sum_over_places(dz * after),
    )


@functools.partial(jax.custom_vjp, nondiff_argnums=(2, 3))
def _gradients(saved: tuple[Array, ...], dy: Array, filtered: bool, interpret: bool) -> Gradients:
    """saved: result, scale, noise, bias, styles."""
    from fundusgan_jax.ops.gpu import epilogue_kernels as kernels

    def kernel(*inputs: Array, filtered: bool, interpret: bool = False) -> Gradients:
        dconvolved, dnoise, sums = kernels.backward(*inputs, filtered=filtered, interpret=interpret)
        return Gradients(dconvolved, sums[1] / saved[1], dnoise, jnp.sum(sums[0], 0), sums[2])

    return _by_platform(kernel, gradients_by_xla, filtered, interpret, (*saved, dy))  # type: ignore[no-any-return]


def _by_platform(
    kernel: Callable[..., Any],
    plain: Callable[..., Any],
    filtered: bool,
    interpret: bool,
    inputs: tuple[Array, ...],
) -> Any:
    kernel, plain = (functools.partial(form, filtered=filtered) for form in (kernel, plain))
    channels = inputs[1].shape[1]
    if channels & (channels - 1):  # Triton's arrays have sides of powers of two
        return plain(*inputs)
    if interpret:
        return kernel(*inputs, interpret=True)
    return lax.platform_dependent(*inputs, cuda=kernel, default=plain)


def _forward(*arguments: Any) -> tuple[Array, tuple[Array, ...]]:
    result = _modulated(*arguments)
    return result, (result, *arguments[1:5])


def _backward(filtered: bool, interpret: bool, saved: tuple[Array, ...], dy: Array) -> tuple[Array, ...]:
    return tuple(_gradients(saved, dy, filtered, interpret))


def _gradients_backward(
    filtered: bool, interpret: bool, inputs: tuple[tuple[Array, ...], Array], cotangents: Gradients
) -> tuple[tuple[Array, ...], Array]:
    saved, dy = inputs
    plain = functools.partial(gradients_by_xla, filtered=filtered)
    *dsaved, ddy = jax.vjp(plain, *saved, dy)[1](cotangents)
    return tuple(dsaved), ddy


_modulated.defvjp(_forward, _backward)
_gradients.defvjp(
    lambda saved, dy, *static: (_gradients(saved, dy, *static), (saved, dy)), _gradients_backward
)
