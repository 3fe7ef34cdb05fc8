"""host_memory.py: only where a processor computes, and without starting a backend."""

import sys

import pytest

from fundusgan_jax import host_memory


@pytest.mark.skipif(sys.platform != "linux", reason="glibc's malloc")
def test_the_allocator_takes_the_settings():
    # In a process of its own: the settings last.
    import subprocess

    code = "import sys; from fundusgan_jax.host_memory import keep_freed_memory as k; print(k(), 'jax' in sys.modules)"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.split() == ["True", "False"]


@pytest.mark.parametrize(
    "files, platforms, kept",
    [([], "", True), (["nvidia0"], "", False), (["nvidia0"], "cpu", True), (["vfio/0"], "", False)],
)
def test_machines_with_an_accelerator_keep_the_usual(monkeypatch, tmp_path, files, platforms, kept):
    for name in files:
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).touch()
    calls = []
    monkeypatch.setattr(host_memory, "keep_freed_memory", lambda: calls.append(True))
    monkeypatch.setattr(host_memory, "DEVICES", tmp_path)
    monkeypatch.setenv("JAX_PLATFORMS", platforms)
    host_memory.keep_on_processors()
    assert bool(calls) == kept
