"""Settings that every test shares: 8 simulated devices, and the folder of reference data where there is one."""

import os
from pathlib import Path

# Before jax is imported anywhere: the device count is read once, when the backend starts.
os.environ["XLA_FLAGS"] = (
    os.environ.get("XLA_FLAGS", "") + " --xla_force_host_platform_device_count=8"
).strip()
os.environ.setdefault("JAX_PLATFORMS", "cpu")
os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")

import pytest  # noqa: E402


@pytest.fixture(scope="session")
def shared() -> Path:
    """../shared beside the checkout: golden files, real weights, real photographs."""
    folder = Path(__file__).resolve().parents[2] / "shared"
    if not folder.is_dir():
        pytest.skip("no ../shared folder beside the checkout: reference files are absent")
    return folder
