"""One of the simulated devices for tests in this process: programs for one compile and run in half the time of those for eight."""

import contextlib
from collections.abc import Iterator

import jax
import pytest

from fundusgan_jax.devices import local


@contextlib.contextmanager
def one_device() -> Iterator[None]:
    """JAX names its first device alone, and programs for all local devices are made anew for it."""
    first = jax.devices()[:1]
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(jax, "devices", lambda *given: first)
        patch.setattr(jax, "local_devices", lambda *given, **named: first)
        patch.setattr(jax, "device_count", lambda *given: 1)
        _forget_devices()
        yield
    _forget_devices()


def _forget_devices() -> None:
    local.local_program.cache_clear()
    local._mesh.cache_clear()
