"""The layers that StyleGAN2's networks are made of: equalised dense and convolution, modulated convolution."""

from __future__ import annotations

import math
from typing import TypeVar

import jax.numpy as jnp
from flax import linen as nn
from jax import Array, lax
from jax.nn import initializers

from fundusgan_jax.models.plan import Kind
from fundusgan_jax.ops.activation import clamp_low_precision, lrelu
from fundusgan_jax.ops.conv import conv2d
from fundusgan_jax.ops.full_precision import small_product
from fundusgan_jax.ops.gpu.epilogue import Convolved, modulated
from fundusgan_jax.ops.places import spread, wide
from fundusgan_jax.ops.resample import blur
from fundusgan_jax.ops.up_conv import transposed_conv, up_conv

Module = TypeVar("Module", bound=nn.Module)


def rematerialised(module: type[Module], remat: bool, static_argnums: tuple[int, ...] = ()) -> type[Module]:
    """The class, or one of the same names and numbers that keeps only its input for the gradient and computes the rest again.

    static_argnums: arguments of __call__ that are no arrays, 1 for the first.
    """
    return nn.remat(module, static_argnums=static_argnums) if remat else module


def second_moment_normalize(x: Array) -> Array:
    """x * rsqrt(mean(x^2, last axis) + 1e-8)."""
    return x * lax.rsqrt(jnp.mean(jnp.square(x), -1, keepdims=True) + 1e-8)


class EqualDense(nn.Module):
    """Fully connected layer with equalised learning rate (Karras et al. 2018).

    Parameters are N(0, 1) / lr_mul and used times lr_mul / sqrt(fan_in); [..., I] -> [..., features].
    """

    features: int
    lr_mul: float = 1.0
    bias_init: float = 0.0
    activate: bool = False

    @nn.compact
    def __call__(self, x: Array) -> Array:
        fan_in = x.shape[-1]
        kernel = self.param("kernel", initializers.normal(1 / self.lr_mul), (fan_in, self.features))
        bias = self.param("bias", initializers.constant(self.bias_init / self.lr_mul), (self.features,))
        x = small_product(x, kernel * (self.lr_mul / math.sqrt(fan_in))) + bias * self.lr_mul
        return lrelu(x) if self.activate else x


def modulated_convolution(
    x: Array | Convolved,
    kernel: Array,
    styles: Array,
    *,
    kind: Kind = "plain",
    dilation: int = 1,
    demodulate: bool = True,
) -> Array:
    """y = conv(x * s, W) * d with d_o = rsqrt(sum (W_kio s_i)^2 + 1e-8): StyleGAN2, equations 1 to 3.

    Scaling the input instead of the kernel makes it one dense convolution for the whole batch; the
    result is the same as that of one kernel per sample. In half precision W and s are scaled to at most
    1 first, which demodulation undoes; demodulation itself runs in float32.

    Args:
        x: [N, H, W, I], or what becomes that.
        kernel: [kh, kw, I, O], float32.
        styles: [N, I], float32.
        kind: 'plain', 'up' (output 2H x 2W) or 'blur' (dilated blur, then the flipped kernel: what
            upsampling becomes on a dense map).
        dilation: distance between the taps.
        demodulate: whether to scale by d.

    Returns:
        [N, H, W, O], or [N, 2H, 2W, O] for 'up', in the dtype of `x`.
    """
    y, scale = _convolved(x, kernel, styles, kind, dilation, demodulate)
    return y if scale is None else (wide(y) * spread(scale, y)).astype(y.dtype)


def _convolved(
    x: Array | Convolved,
    kernel: Array,
    styles: Array,
    kind: Kind,
    dilation: int,
    demodulate: bool = True,
    filtered: bool = True,
) -> tuple[Array, Array | None]:
    """`modulated_convolution` before its demodulation, and d [N, O] in float32 or None.

    filtered: else the FIR filter of 'up' is left out: [N, 2H + 1, 2W + 1, O].
    """
    dtype = _map_of(x).dtype
    if demodulate and jnp.finfo(dtype).bits < 32:
        fan_in = math.prod(kernel.shape[:3])
        kernel = kernel / (math.sqrt(fan_in) * jnp.max(jnp.abs(kernel), (0, 1, 2)))
        styles = styles / jnp.max(jnp.abs(styles), 1, keepdims=True)
    if isinstance(x, Convolved):
        y = modulated(x, styles)
    else:
        # In float32, as the sums over places that are the styles' gradients; XLA fuses the conversions.
        y = (wide(x) * spread(styles, x)).astype(dtype)
    weights = kernel.astype(dtype)
    if kind == "up":
        y = up_conv(y, weights) if filtered else transposed_conv(y, weights)
    elif kind == "blur":
        y = blur(y, dilation=dilation, padding=2 * dilation)
        y = conv2d(y, weights[::-1, ::-1], dilation=dilation)
    else:
        y = conv2d(y, weights, padding=dilation * (kernel.shape[0] // 2), dilation=dilation)
    if not demodulate:
        return y, None
    power = small_product(jnp.square(styles), jnp.sum(jnp.square(kernel), (0, 1)))
    return y, lax.rsqrt(power + 1e-8)


class ModulatedConv(nn.Module):
    """One synthesis layer: modulated 3x3 convolution, noise, bias, leaky ReLU.

    x [N, H, W, I], w [N, w_dim], noise [N or 1, H', W', 1] or None -> [N, H', W', features]. fused: what lies between two
    convolutions is one kernel on NVIDIA's GPUs; x may be, and the result is a `Convolved`, of which `activated` makes a map.
    """

    features: int
    kind: Kind = "plain"
    dilation: int = 1
    fused: bool = False

    @nn.compact
    def __call__(self, x: Array | Convolved, w: Array, noise: Array | None) -> Array | Convolved:
        channels = _map_of(x).shape[-1]
        styles = EqualDense(channels, bias_init=1.0, name="affine")(w)
        kernel = self.param("kernel", initializers.normal(1.0), (3, 3, channels, self.features))
        strength = self.param("noise_strength", initializers.zeros, ())
        bias = self.param("bias", initializers.zeros, (self.features,))
        if self.fused:
            return self._pending(
                x, kernel, styles, jnp.zeros(()) if noise is None else noise * strength, bias
            )
        assert isinstance(x, Array)  # the layer before it is not fused either
        y = modulated_convolution(x, kernel, styles, kind=self.kind, dilation=self.dilation)
        y = wide(y)
        if noise is not None:
            y = y + noise * spread(strength, y)
        return clamp_low_precision(lrelu(y + spread(bias, y)), x.dtype)

    def _pending(
        self, x: Array | Convolved, kernel: Array, styles: Array, noise: Array, bias: Array
    ) -> Convolved:
        y, scale = _convolved(x, kernel, styles, self.kind, self.dilation, filtered=False)
        assert scale is not None  # it demodulates
        height, width = (side - (self.kind == "up") for side in y.shape[1:3])
        return Convolved(y, scale, jnp.broadcast_to(noise, (y.shape[0], height, width, 1)), bias)


def _map_of(x: Array | Convolved) -> Array:
    return x.convolved if isinstance(x, Convolved) else x


def activated(x: Array | Convolved) -> Array:
    """The map [N, H, W, C] of a layer that may be fused with the next one."""
    if isinstance(x, Convolved):
        return modulated(x, jnp.ones_like(x.scale))
    return x


class ToRGB(nn.Module):
    """1x1 modulated convolution to RGB, without demodulation; [N, H, W, I] (or what becomes that), [N, w_dim] -> float32
    [N, H, W, 3]."""

    @nn.compact
    def __call__(self, x: Array | Convolved, w: Array) -> Array:
        channels = _map_of(x).shape[-1]
        styles = EqualDense(channels, bias_init=1.0, name="affine")(w) / math.sqrt(channels)
        kernel = self.param("kernel", initializers.normal(1.0), (1, 1, channels, 3))
        bias = self.param("bias", initializers.zeros, (3,))
        y = modulated_convolution(x, kernel, styles, demodulate=False)
        return wide(clamp_low_precision(wide(y) + spread(bias, y), y.dtype))
