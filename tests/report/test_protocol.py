"""report/protocol.py: whatever decides a figure is in a protocol, and differences are named."""

from fundusgan_jax.report.protocol import Protocol, RealSet, protocol
from fundusgan_jax.weights.features import load_features

REAL = RealSet("abc", "test", 6, 64, "data.prepare")


def test_everything_that_decides_a_figure():
    settings = protocol(
        "reconstruction", REAL, 6, load_features("pixels", "", "clean"), None, 3, "all"
    ).settings()
    assert settings["real.fingerprint"] == "abc" and settings["real.preprocessing"] == "data.prepare"
    assert settings["features.network"] == "pixels" and settings["features.resize"] == "clean"
    assert settings["dtype"] == "float32" and settings["seed"] == 3 and settings["evaluation"] == 1
    assert settings["perceptual"] is None and len(settings["features.weights"]) == 16


def test_differences_are_named():
    first, second = (protocol("samples", REAL, number, None, None, 0, "none") for number in (6, 7))
    assert first.differences(second) == ["num_generated (6 and 7)"]
    assert first.differences(first) == [] and first.fingerprint != second.fingerprint
    later = Protocol({**first.content, "colour": "linear"})
    assert first.differences(later) == ["colour (None and linear)"]


def test_a_fingerprint_of_an_earlier_version_stays():
    # Of the dictionary that version 1 wrote, in its order.
    used = protocol("samples", REAL, 6, None, None, 0, "none")
    assert used.fingerprint == "ac8c4cc1f956a541"
