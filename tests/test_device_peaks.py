"""Devices are told by their names, and what has no datasheet is measured."""

import jax
import pytest

from fundusgan_jax.device_peaks import known_peak, peak_flops


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
