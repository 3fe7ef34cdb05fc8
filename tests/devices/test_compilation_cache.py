"""Where compiled programs are kept, and how that is switched off."""

from pathlib import Path

import jax
import pytest

from fundusgan_jax.devices.compilation_cache import compiled_folder, keep_compiled_programs


@pytest.fixture
def unset(monkeypatch):
    for name in ("FUNDUSGAN_JAX_COMPILED", "JAX_COMPILATION_CACHE_DIR"):
        monkeypatch.delenv(name, raising=False)
    before = jax.config.jax_enable_compilation_cache, jax.config.jax_compilation_cache_dir
    yield monkeypatch
    jax.config.update("jax_enable_compilation_cache", before[0])
    jax.config.update("jax_compilation_cache_dir", before[1])


def test_the_folder(unset):
    assert compiled_folder() is None  # a CPU keeps nothing unasked
    unset.setattr(jax, "default_backend", lambda: "gpu")
    assert compiled_folder() == Path.home() / ".cache" / "fundusgan_jax" / "compiled"
    unset.setenv("JAX_COMPILATION_CACHE_DIR", "theirs")
    assert compiled_folder() == Path("theirs")
    unset.setenv("FUNDUSGAN_JAX_COMPILED", "ours")
    assert compiled_folder() == Path("ours")
    unset.setenv("FUNDUSGAN_JAX_COMPILED", "off")
    assert compiled_folder() is None


def test_jax_is_told(unset, tmp_path):
    unset.setenv("FUNDUSGAN_JAX_COMPILED", str(tmp_path))
    keep_compiled_programs()
    assert jax.config.jax_compilation_cache_dir == str(tmp_path)
    unset.setenv("FUNDUSGAN_JAX_COMPILED", "off")
    keep_compiled_programs()
    assert not jax.config.jax_enable_compilation_cache
