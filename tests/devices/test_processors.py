"""devices/processors.py: settings where a processor computes, once; the user's own stay."""

import os
import subprocess
import sys

import pytest

from fundusgan_jax.devices import processors


@pytest.fixture
def machine(monkeypatch, tmp_path):
    """A machine without accelerators that gives large pages on demand."""
    kernel = tmp_path / "enabled"
    kernel.write_text("always [madvise] never\n")
    monkeypatch.setattr(processors, "KERNEL", kernel)
    monkeypatch.setattr(processors, "DEVICES", tmp_path / "dev")
    monkeypatch.setattr(os, "confstr", lambda name: "glibc 2.36")
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
    given = {"XLA_FLAGS": "--xla_a=1", "GLIBC_TUNABLES": "glibc.malloc.arena_max=2"}
    found = processors.settings(given)
    assert found == {
        "XLA_FLAGS": "--xla_a=1 --xla_cpu_experimental_ynn_fusion_type=",
        "GLIBC_TUNABLES": "glibc.malloc.arena_max=2:glibc.malloc.hugetlb=1",
    }
    # Nothing is left to set: a process is started anew once.
    assert processors.settings(given | found) == {}
    own = {"XLA_FLAGS": "--xla_cpu_experimental_ynn_fusion_type=LIBRARY_FUSION_TYPE_DOT",
           "GLIBC_TUNABLES": "glibc.malloc.hugetlb=0"}  # fmt: skip
    assert processors.settings(own) == {}


@pytest.mark.parametrize("kernel, libc", [("[always] madvise never", "glibc 2.36"), ("always [madvise] never", "glibc 2.31"),
                                          ("always [madvise] never", None)])  # fmt: skip
def test_where_pages_need_no_asking_or_cannot_be_asked_for(machine, monkeypatch, kernel, libc):
    (machine / "enabled").write_text(kernel)
    monkeypatch.setattr(os, "confstr", lambda name: libc)
    assert processors.TUNABLES not in processors.settings({})


def test_a_flag_that_this_jaxlib_may_not_know_is_not_given(machine, monkeypatch):
    monkeypatch.setattr(processors, "KNOWN_BY", ("0.9.",))
    assert "XLA_FLAGS" not in processors.settings({})


def test_a_process_is_not_started_anew_twice(machine, monkeypatch):
    monkeypatch.setattr(os, "environ", {})
    started = []
    monkeypatch.setattr(os, "execv", lambda *words: started.append(words))
    processors.begin()
    assert started[0][1][1:3] == ["-X", processors.STARTED]
    # Something took the variable away.
    monkeypatch.setattr(os, "environ", {})
    monkeypatch.setitem(sys._xoptions, processors.STARTED, True)
    processors.begin()
    assert len(started) == 1


@pytest.mark.skipif(
    not processors.settings({"JAX_PLATFORMS": "cpu"}).get("GLIBC_TUNABLES"), reason="no pages on demand"
)
def test_a_process_starts_anew_with_its_arguments_and_number():
    code = (
        "import os, sys; print(os.getpid()); sys.stdout.flush(); from fundusgan_jax import processors; processors.begin(); "
        "import jax; print(sys.argv[1:], os.environ['GLIBC_TUNABLES'], jax.default_backend())"
    )
    names = ("GLIBC_TUNABLES", "XLA_FLAGS")
    plain = {name: value for name, value in os.environ.items() if name not in names} | {
        "JAX_PLATFORMS": "cpu"
    }
    done = subprocess.run([sys.executable, "-c", code, "a b", "c"], capture_output=True, text=True, env=plain)
    first, again, last = done.stdout.splitlines()
    assert first == again and last == "['a b', 'c'] glibc.malloc.hugetlb=1 cpu", done.stderr


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
