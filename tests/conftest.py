"""Settings that every test shares: 8 simulated devices, and the folder of reference data where there is one."""

import gc
import os
import shutil
import tempfile
from pathlib import Path

from tests.support.processes import QUICK

# Before jax is imported anywhere: the device count is read once, when the backend starts.
# XLA_FLAGS given to pytest come later and count: --xla_cpu_use_fusion_emitters=true tests the emitter that users have.
# A GPU's programs are compiled as users' are, and processes that a test starts share its memory.
os.environ.setdefault("JAX_PLATFORMS", "cpu")
os.environ["XLA_FLAGS"] = " ".join([
    QUICK if os.environ["JAX_PLATFORMS"] == "cpu" else "",
    os.environ.get("XLA_FLAGS", ""),
    "--xla_force_host_platform_device_count=8",
])  # fmt: skip
os.environ.setdefault("XLA_PYTHON_CLIENT_PREALLOCATE", "false")
os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")
# Before numpy is imported: of two workers on two cores the threads of one's small matrices wait for the other's, and turn
# while they wait (a logistic regression of 64 figures took four times the processor's time).
os.environ.setdefault("OPENBLAS_NUM_THREADS", "1")
os.environ.setdefault("OMP_NUM_THREADS", "1")
if "JAX_COMPILATION_CACHE_DIR" not in os.environ:
    # One program is compiled once for all of pytest's processes, which inherit this.
    os.environ["JAX_COMPILATION_CACHE_DIR"] = tempfile.mkdtemp(prefix="fundusgan_tests_")
    os.environ["JAX_PERSISTENT_CACHE_MIN_COMPILE_TIME_SECS"] = "0.3"

# What tests compute is kept for no other run.
os.environ["FUNDUSGAN_JAX_CACHE"] = str(Path(os.environ["JAX_COMPILATION_CACHE_DIR"]) / "statistics")

import pytest

# Tracing makes many objects and no rubbish in circles; looking for it again and again takes half of tracing's time.
gc.set_threshold(100_000, 20, 20)

# Begun first, so that short files are left to fill the end, when one worker would wait for the other.
LONGEST = (
    "test_main.py", "test_packaging.py", "test_prior_step.py", "test_fundusgan_step.py", "test_interface.py",
    "test_distributed.py", "test_latent_step.py", "test_low_precision.py", "test_phase_programs.py", "test_compiled_programs.py",
    "test_create.py", "test_near_duplicates.py", "test_command.py", "test_fundusgan.py", "test_generator.py", "test_import_prior.py",
)  # fmt: skip


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Puts the files of the longest tests first, the longest of them at the head."""
    order = {name: place for place, name in enumerate(LONGEST)}
    items.sort(key=lambda item: order.get(item.path.name, len(order)))


def pytest_unconfigure(config: pytest.Config) -> None:
    """Ends the compilation cache with the process that made it, which is no worker of pytest-xdist."""
    folder = os.environ["JAX_COMPILATION_CACHE_DIR"]
    if not hasattr(config, "workerinput") and Path(folder).name.startswith("fundusgan_tests_"):
        shutil.rmtree(folder, ignore_errors=True)


@pytest.fixture(scope="session", autouse=True)
def eyes_rendered_once():
    """Not in tests of the renderer, data/phantom/test_render.py."""
    # Here, because jax's settings above come first.
    from tests.support.phantoms import rendered_once

    yield from rendered_once()


@pytest.fixture(scope="session")
def shared() -> Path:
    """../shared beside the checkout: golden files, real weights, real photographs."""
    folder = Path(__file__).resolve().parents[2] / "shared"
    if not folder.is_dir():
        pytest.skip("no ../shared folder beside the checkout: reference files are absent")
    return folder
