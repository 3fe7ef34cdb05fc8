"""Devices are told by their names, and what has no datasheet is measured."""

import contextlib
import math

import jax
import pytest

from fundusgan_jax.devices import peaks
from fundusgan_jax.devices.peaks import known_peak, peak_flops


@pytest.mark.parametrize(
    "kind, bfloat16, bandwidth",
    [
        ("NVIDIA A100-SXM4-40GB", 312, 1555),
        ("NVIDIA A100-SXM4-80GB", 312, 2039),
        ("NVIDIA A100 80GB PCIe", 312, 1935),
        ("NVIDIA H100 80GB HBM3", 989, 3350),
        ("NVIDIA H100 PCIe", 756, 2000),
        ("NVIDIA H100 NVL", 835, 3900),
        ("NVIDIA H200", 989, 4800),
        ("Tesla V100-SXM2-16GB", 15.7, 900),
        ("Tesla T4", 8.1, 320),
        ("NVIDIA L4", 121, 300),
        ("TPU v3", 61.5, 450),
        ("TPU v4", 275, 1228),
        ("TPU v5 lite", 197, 819),
        ("TPU v5p", 459, 2765),
        ("TPU v5", 459, 2765),
        ("TPU v6 lite", 918, 1638),
        ("TPU v6e", 918, 1638),
    ],
)
def test_a_device_is_told_by_its_name(kind, bfloat16, bandwidth):
    peak = known_peak(kind)
    assert peak is not None and (peak.bfloat16, peak.bandwidth) == (bfloat16, bandwidth)
    assert peak.default_float32 <= peak.bfloat16


def test_unknown_devices_are_measured():
    assert known_peak("NVIDIA L40S") is None and known_peak("cpu") is None
    flops, source = peak_flops(jax.devices()[0], "float32")
    assert source == "measured" and flops > 1e9


class Card:
    platform, device_kind = "gpu", "NVIDIA H100 80GB HBM3"


def test_float32_counts_by_the_precision_that_is_set():
    assert peak_flops(Card(), "bfloat16") == (989e12, "datasheet")
    assert peak_flops(Card(), "float32") == (494e12, "datasheet")
    with jax.default_matmul_precision("highest"):
        assert peak_flops(Card(), "float32") == (67e12, "datasheet")
        assert peak_flops(Card(), "float32", "default") == (494e12, "datasheet")
    assert peak_flops(Card(), "float32", "highest") == (67e12, "datasheet")
    assert peak_flops(Card(), "bfloat16", "highest") == (989e12, "datasheet")


class Unknown:
    platform, device_kind = "gpu", "NVIDIA GeForce RTX 2070"


@pytest.mark.slow
def test_a_device_without_room_has_no_peak_until_it_has(monkeypatch):
    def exhausted(function, *arguments):
        raise jax.errors.JaxRuntimeError("RESOURCE_EXHAUSTED: Out of memory while trying to allocate 9 bytes")

    peaks._measured.cache_clear()
    device = jax.devices()[0]
    with monkeypatch.context() as patch:
        patch.setattr(peaks, "_fastest", exhausted)
        assert peak_flops(device, "float32") == (None, "unknown")
    flops, source = peak_flops(device, "float32")
    assert source == "measured" and flops > 1e9


def test_an_unknown_card_is_measured_in_little_memory_at_the_precision_asked_for(monkeypatch):
    seen = []

    def fastest(function, *arguments):
        seen.append((jax.config.jax_default_matmul_precision, arguments))
        return 1.0

    monkeypatch.setattr(peaks, "_fastest", fastest)
    monkeypatch.setattr(jax, "default_device", lambda device: contextlib.nullcontext())
    found = []
    for precision in ("", "highest"):  # nothing is computed
        jax.eval_shape(lambda: found.append(peak_flops(Unknown(), "float32", precision)))  # noqa: B023
    assert [name for name, _ in seen] == ["default"] * 2 + ["highest"] * 2
    assert found == [(2 * 8192**3, "measured")] * 2
    for _, arguments in seen:
        assert sum(4 * math.prod(one.shape) for one in arguments) <= 2**29
