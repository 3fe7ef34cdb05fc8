"""devices/processors.py: settings where a processor computes; the user's own stay."""

import os
import subprocess
import sys

import pytest

from fundusgan_jax.devices import processors


@pytest.fixture
def machine(monkeypatch, tmp_path):
    """A machine without accelerators."""
    monkeypatch.setattr(processors, "DEVICES", tmp_path / "dev")
    return tmp_path


@pytest.mark.parametrize("files, platforms, some", [
    ([], "", True), (["nvidia0"], "", False), (["nvidia0"], "cpu", True), (["vfio/0"], "", False), (["kfd"], "cuda", False),
])  # fmt: skip
def test_only_where_a_processor_computes(machine, files, platforms, some):
    for name in files:
        (machine / "dev" / name).parent.mkdir(parents=True, exist_ok=True)
        (machine / "dev" / name).touch()
    assert bool(processors.settings({"JAX_PLATFORMS": platforms})) == some


def test_what_the_user_set_stays(machine):
    found = processors.settings({"XLA_FLAGS": "--xla_a=1"})
    assert found == {"XLA_FLAGS": "--xla_a=1 --xla_cpu_experimental_ynn_fusion_type="}
    assert processors.settings(found) == {}
    own = {"XLA_FLAGS": "--xla_cpu_experimental_ynn_fusion_type=LIBRARY_FUSION_TYPE_DOT"}
    assert processors.settings(own) == {}


def test_a_flag_that_this_jaxlib_may_not_know_is_not_given(machine, monkeypatch):
    monkeypatch.setattr(processors, "KNOWN_BY", ("0.9.",))
    assert "XLA_FLAGS" not in processors.settings({})


def test_the_process_itself_gets_the_flag(machine, monkeypatch):
    monkeypatch.setattr(os, "environ", {"XLA_FLAGS": "--xla_a=1"})
    processors.begin()
    assert os.environ == {"XLA_FLAGS": f"--xla_a=1 {processors.XLA_FLAG}="}


ACCURACY = """
import jax, numpy as np
from jax import lax
rng = np.random.default_rng(0)
x, k = (rng.standard_normal(shape).astype(np.float32) for shape in ((8, 9, 9, 64), (3, 3, 64, 48)))

def convolved(x, k):
    return lax.conv_general_dilated(x, k, (2, 2), "VALID", dimension_numbers=("NHWC", "HWIO", "NHWC"))

y, vjp = jax.vjp(jax.jit(convolved), x, k)
dy = rng.standard_normal(y.shape).astype(np.float32)
exact, dx, dk = np.zeros(y.shape), np.zeros(x.shape), np.zeros(k.shape)
for a in range(3):
    for b in range(3):
        seen = x[:, a : a + 7 : 2, b : b + 7 : 2].astype(np.float64)
        exact += seen @ k[a, b]
        dk[a, b] = np.einsum("nhwi,nhwo->io", seen, dy)
        dx[:, a : a + 7 : 2, b : b + 7 : 2] += dy.astype(np.float64) @ k[a, b].T
for found, wanted in zip((y, *vjp(dy)), (exact, dx, dk)):
    print(np.abs(found - wanted).max() / np.abs(wanted).max())
"""


def test_its_convolutions_are_accurate(monkeypatch):
    monkeypatch.delenv("XLA_FLAGS")
    environment = {**os.environ, **processors.settings({"JAX_PLATFORMS": "cpu"})}
    done = subprocess.run([sys.executable, "-c", ACCURACY], capture_output=True, text=True, env=environment)
    errors = [float(word) for word in done.stdout.split()]
    assert len(errors) == 3 and max(errors) < 1e-6, (done.stdout, done.stderr)
