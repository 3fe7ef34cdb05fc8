"""What a device can do at most: arithmetic and memory by the vendors' datasheets, measured where there is none."""

from __future__ import annotations

import functools
import time
from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp

from fundusgan_jax.ops.conv import conv2d


class DevicePeak(NamedTuple):
    """One JAX device (of TPU v3: one core of a chip's two), dense, without sparsity.

    bfloat16: TFLOP/s of matrix units. default_float32: TFLOP/s of float32 arrays at JAX's default precision, which
    takes TF32 on NVIDIA's Ampere and later and bfloat16 products on TPUs. float32: TFLOP/s of true float32, 0 where
    the vendor names none. bandwidth: of the memory, GB/s.
    """

    bfloat16: float
    default_float32: float
    float32: float
    bandwidth: float


# By words of jax.Device.device_kind; the first row whose words are all in it counts. NVIDIA: datasheets of V100, T4,
# A100, L4, H100, H200; V100 and T4 have no bfloat16 units (their half precision is float16's), so float32's rate
# stands there. Google: system architecture pages of Cloud TPU.
PEAKS: tuple[tuple[tuple[str, ...], DevicePeak], ...] = (
    (("h200",), DevicePeak(989, 494, 67, 4800)),
    (("h100", "pcie"), DevicePeak(756, 378, 51, 2000)),
    (("h100", "nvl"), DevicePeak(835, 417, 60, 3900)),
    (("h100",), DevicePeak(989, 494, 67, 3350)),
    (("a100", "80gb", "pcie"), DevicePeak(312, 156, 19.5, 1935)),
    (("a100", "80gb"), DevicePeak(312, 156, 19.5, 2039)),
    (("a100",), DevicePeak(312, 156, 19.5, 1555)),
    (("v100", "pcie"), DevicePeak(14, 14, 14, 900)),
    (("v100",), DevicePeak(15.7, 15.7, 15.7, 900)),
    (("nvidia", "l4"), DevicePeak(121, 60, 30.3, 300)),
    (("t4",), DevicePeak(8.1, 8.1, 8.1, 320)),
    (("tpu", "v6"), DevicePeak(918, 918, 0, 1638)),
    (("tpu", "v6e"), DevicePeak(918, 918, 0, 1638)),
    (("tpu", "v5", "lite"), DevicePeak(197, 197, 0, 819)),
    (("tpu", "v5e"), DevicePeak(197, 197, 0, 819)),
    (("tpu", "v5"), DevicePeak(459, 459, 0, 2765)),
    (("tpu", "v5p"), DevicePeak(459, 459, 0, 2765)),
    (("tpu", "v4"), DevicePeak(275, 275, 0, 1228)),
    (("tpu", "v3"), DevicePeak(61.5, 61.5, 0, 450)),
)

# jax.default_matmul_precision's names for products of float32 as they are, without TF32 or bfloat16 parts.
FULL_PRECISION = ("highest", "float32")


def known_peak(kind: str) -> DevicePeak | None:
    """The row of a device_kind, or None.

    >>> known_peak("NVIDIA A100-SXM4-80GB").bandwidth, known_peak("NVIDIA L40S"), known_peak("TPU v5 lite").bfloat16
    (2039, None, 197)
    """
    words = set(kind.lower().replace("-", " ").replace("_", " ").split())
    return next((peak for names, peak in PEAKS if words.issuperset(names)), None)


def default_precision() -> str:
    """Of products of float32, as jax.default_matmul_precision has set it; 'default' where nobody has."""
    return str(getattr(jax.config, "jax_default_matmul_precision", None) or "default")


def peak_flops(device: jax.Device, dtype: str, precision: str = "") -> tuple[float | None, str]:
    """FLOP/s that a device reaches at most, and where the figure is from.

    Args:
        device: one of jax.devices().
        dtype: 'float32' or 'bfloat16'.
        precision: of products of float32, as jax.default_matmul_precision takes it; '' for what is set.

    Returns:
        The figure of the 'datasheet'; 'measured' by a large convolution and a large product now (the processor, a
        device that is not in PEAKS); or None, 'unknown', where a device has no room to measure it.
    """
    precision = precision or default_precision()
    peak = known_peak(device.device_kind) if device.platform != "cpu" else None
    if peak is None:
        flops = measured_flops(device, dtype, precision)
        return flops, "unknown" if flops is None else "measured"
    if dtype == "bfloat16":
        return peak.bfloat16 * 1e12, "datasheet"
    true_float32 = precision.lower() in FULL_PRECISION and peak.float32
    return (peak.float32 if true_float32 else peak.default_float32) * 1e12, "datasheet"


def measured_flops(device: jax.Device, dtype: str, precision: str = "default") -> float | None:
    """FLOP/s of the faster of a 3x3 convolution (32x32, 512 channels) and a matrix product, random numbers, the best
    of six calls. It takes a second on two cores, and elsewhere at most three matrices of 256 MiB. The convolution's
    FLOP are counted as it is defined: on processors it takes a third of them (ops/cpu/winograd.py), so that this is more
    than the arithmetic units do.

    None where the device cannot run them: beside a training there may be no room, which libraries that find none for
    their handles call by other names too. That is no reason to lose what the caller has measured.
    """
    of_products = dtype == "float32" and device.platform != "cpu"
    try:
        return _measured(device, dtype, precision if of_products else "default")
    except jax.errors.JaxRuntimeError:
        return None


# A failure is not kept: later there may be room.
@functools.lru_cache
def _measured(device: jax.Device, dtype: str, precision: str) -> float:
    batch, side = (4, 2048) if device.platform == "cpu" else (64, 8192)
    with jax.default_device(device), jax.default_matmul_precision(precision):
        keys = jax.random.split(jax.random.key(0), 4)
        x = jax.random.normal(keys[0], (batch, 32, 32, 512), dtype)
        kernel = jax.random.normal(keys[1], (3, 3, 512, 512), dtype)
        convolution = _fastest(lambda x, kernel: conv2d(x, kernel, padding=1), x, kernel)
        del x
        left, right = (jax.random.normal(key, (side, side), dtype) for key in keys[2:])
        product = _fastest(jnp.matmul, left, right)
    return max(2 * 9 * batch * 32**2 * 512**2 / convolution, 2 * side**3 / product)


def _fastest(function: Callable[..., Any], *arguments: Any) -> float:
    compiled = jax.jit(function)
    jax.block_until_ready(compiled(*arguments))
    seconds = []
    for _ in range(6):
        start = time.perf_counter()
        jax.block_until_ready(compiled(*arguments))
        seconds.append(time.perf_counter() - start)
    return min(seconds)
