"""Every task's training step, compiled for an H100 that is not here: no finding, and the compiler does not abort.

Needs XLA's CUDA plugins (pip install '.[gpu-compiler]' of jax's own version): python -m pytest -m slow tests/benchmarks/test_compiled_for_cards.py
"""

import os
import subprocess
import sys
from importlib.util import find_spec
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]
# The layers are the configurations' own, narrow: what decides whether a card's compiler takes a program is its kinds of layers.
NARROW = ["model.channel_max=32", "model.channel_base=2048"]
FUNDUSGAN = [
    "data.resolution=128",
    "model.resolution=256",
    "encoder.fpn_channels=64",
    "encoder.head_channels=16",
    *NARROW,
]
PRIOR = ["data.resolution=64", "model.resolution=64", "train.batch_size=8", *NARROW]
CASES = {
    "fundusgan": ("h100:1", "configs/ddr.py", FUNDUSGAN),
    "fundusgan against an adversary": ("h100:1", "configs/ddr.py", [*FUNDUSGAN, "loss.adv=0.1", "loss.lpips=0.0"]),
    "prior": ("h100:1", "configs/stylegan2.py", PRIOR),
    "prior on eight cards": ("h100:8", "configs/stylegan2.py", [*PRIOR, "loss.pl_weight=0.0", "loss.r1_gamma=0.0"]),
    "latent": ("h100:1", "configs/latent.py", ["flow.channels=32"]),
    "classifier": ("h100:1", "configs/classifier.py", []),
    "vessels": ("h100:1", "configs/vessels.py", []),
}  # fmt: skip

pytestmark = pytest.mark.slow


def has_plugin() -> bool:
    try:
        return any(find_spec(f"jax_plugins.xla_cuda{version}") for version in (12, 13))
    except ModuleNotFoundError:
        return False


@pytest.mark.parametrize("case", CASES)
def test_a_step_compiles_for_a_card(case):
    if not has_plugin():
        pytest.skip(
            "XLA's CUDA plugins are not installed: pip install '.[gpu-compiler]' of jax's own version"
        )
    topology, config, settings = CASES[case]
    # A process of its own: this one's JAX has started on the processor, and a compiler that aborts ends its process.
    environment = {
        name: value for name, value in os.environ.items() if name not in ("JAX_PLATFORMS", "XLA_FLAGS")
    }
    words = [f"--config={config}", f"--topology={topology}", *(f"--config.{setting}" for setting in settings)]
    done = subprocess.run(
        [sys.executable, "-m", "benchmarks.compiled", *words],
        cwd=ROOT,
        env=environment,
        capture_output=True,
        text=True,
    )
    told = done.stdout + done.stderr
    # CI installs the plugins to compile: there a compiler that does not start is a failure.
    if done.returncode == 2 and "is skipped: " in done.stderr and not os.environ.get("CI"):
        pytest.skip(done.stderr.splitlines()[-1])
    assert done.returncode == 0 and "none of what should not be there" in done.stdout, told
    assert " bf16" in done.stdout and " f32," not in done.stdout, told
