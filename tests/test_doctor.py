"""The doctor prints what is there, and names what is wrong with its mend."""

import os
import subprocess
import sys
from pathlib import Path
from types import SimpleNamespace

import pytest

from fundusgan_jax import doctor
from fundusgan_jax.devices import processors


def test_a_sound_machine_has_nothing_to_mend(monkeypatch, capsys):
    monkeypatch.setattr(doctor, "graphics_cards", list)  # of the machine that runs the tests
    assert doctor.main([]) == 0
    text = capsys.readouterr().out
    for part in ("jax ", "JAX computes on 8 x", "weights: ", "GFLOP/s", "nothing to mend"):
        assert part in text, part
    assert "\n!" not in text


def test_it_measures_under_the_settings_that_main_runs_with():
    environment = {**os.environ, "XLA_FLAGS": "--xla_backend_optimization_level=0", "JAX_PLATFORMS": "cpu"}
    answer = subprocess.run([sys.executable, "-m", "fundusgan_jax.doctor"], cwd=Path(__file__).parents[1],
                            env=environment, capture_output=True, text=True, timeout=120)  # fmt: skip
    wanted = {**environment, **processors.settings(environment)}
    assert f"  XLA_FLAGS: {wanted['XLA_FLAGS']}" in answer.stdout.splitlines(), answer.stderr


@pytest.mark.parametrize(
    ("change", "text"),
    [
        (
            {"_version": lambda name: {"jax": "0.10.2", "jaxlib": "0.9.1"}.get(name, "1.0")},
            "do not belong together",
        ),
        (
            {"_version": lambda name: "" if name == "optax" else "1.0"},
            "! optax is not installed: pip install",
        ),
        (
            {"graphics_cards": lambda: ["NVIDIA H200, 570.1"]},
            "! there is a card, but JAX computes on the processor",
        ),
        ({"SLOWEST_GFLOPS": 1e9}, "very slow"),
        ({"LEAST_MEMORY_GB": 1e9}, "data and checkpoints need more"),
        ({"LEAST_DISK_GB": 1e9}, "checkpoints need more"),
    ],
)
def test_what_is_wrong_is_named(change, text, monkeypatch, capsys):
    monkeypatch.delenv("JAX_PLATFORMS", raising=False)
    if "SLOWEST_GFLOPS" not in change:
        monkeypatch.setattr(doctor, "convolution", list)  # of what is no matter of speed
    for name, value in change.items():
        monkeypatch.setattr(doctor, name, value)
    assert doctor.main([]) == 1
    out = capsys.readouterr().out
    assert text in out and "to mend" in out


def test_a_processor_asked_for_is_no_problem(monkeypatch):
    monkeypatch.setattr(doctor, "graphics_cards", lambda: ["NVIDIA H200, 570.1"])
    monkeypatch.setenv("JAX_PLATFORMS", "cpu")
    assert not [each for each in doctor.devices() if each.problem]


def test_half_precision_is_named_on_a_card_alone(monkeypatch):
    assert doctor.half_precision() == []
    card = SimpleNamespace(platform="gpu", device_kind="NVIDIA H100 80GB HBM3")
    monkeypatch.setattr("jax.devices", lambda: [card])
    (found,) = doctor.half_precision()
    assert "train in float32" in found.text and "dtype=bfloat16" in found.text and "989 TFLOP/s" in found.text
    assert not found.problem
    monkeypatch.setattr("jax.devices", lambda: [SimpleNamespace(platform="gpu", device_kind="a new card")])
    assert "TFLOP" not in doctor.half_precision()[0].text


def test_tensorflow_with_cuda_is_named(monkeypatch):
    known = {"tensorflow": "2.20", "nvidia-cudnn-cu12": "9"}
    monkeypatch.setattr(doctor, "_version", lambda name: known.get(name, ""))
    monkeypatch.setattr(doctor.sys, "platform", "linux")
    (finding,) = doctor.tensorflow()
    assert finding.problem and "tensorflow-cpu" in finding.text
    known.clear()
    assert not doctor.tensorflow()[0].problem


def test_an_old_driver_and_two_plug_ins_are_named(monkeypatch):
    monkeypatch.setattr(doctor, "_version", lambda name: "0.10.2" if name == "jax-cuda12-plugin" else "")
    (finding,) = doctor.old_drivers(["NVIDIA H200, 570.1", "Tesla V100, 470.82.01"])
    assert finding.problem and "driver 470.82.01 is too old" in finding.text
    points = [
        SimpleNamespace(dist=SimpleNamespace(name=f"jax-cuda{major}-plugin")) for major in ("12", "13", "12")
    ]
    monkeypatch.setattr(doctor.importlib.metadata, "entry_points", lambda group: points)
    findings = doctor.environment()
    assert any(each.problem and "CUDA 12 and 13" in each.text for each in findings)
    assert any("XLA_FLAGS: " in each.text for each in findings)
