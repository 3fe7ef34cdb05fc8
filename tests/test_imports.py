"""Imports: the package itself is quick, the core brings in none of the heavy libraries, no module starts JAX's backend."""

import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
HEAVY = ("tensorflow", "tensorflow_datasets", "clu", "orbax.checkpoint")
CORE = [
    "adversary",
    "atomic",
    "augment",
    "batch",
    "errors",
    "flops",
    "latents",
    "losses",
    "optimise",
    "prior_step",
    "progress",
    "step",
    "step_flops",
    "trees",
    "models",
    "metrics",
    "ops",
]
CODE = """
import importlib, pkgutil, sys
import fundusgan_jax
print([name for name in ("jax", "numpy", "tensorflow") if name in sys.modules])
core, heavy = sys.argv[1].split(), sys.argv[2].split()
for found in pkgutil.walk_packages(fundusgan_jax.__path__, "fundusgan_jax."):
    if found.name.split(".")[1] in core:
        importlib.import_module(found.name)
print("jax" in sys.modules, [name for name in heavy if name in sys.modules])
for found in pkgutil.walk_packages(fundusgan_jax.__path__, "fundusgan_jax."):
    importlib.import_module(found.name)
from jax._src import xla_bridge
print(xla_bridge.backends_are_initialized(), "tensorflow" in sys.modules)
"""


def test_core_and_backend():
    words = [sys.executable, "-c", CODE, " ".join(CORE), " ".join(HEAVY)]
    answer = subprocess.run(words, cwd=ROOT, capture_output=True, text=True, timeout=120)
    assert answer.stdout.splitlines() == ["[]", "True []", "False False"], answer.stderr


def test_help_imports_no_jax():
    code = (
        "import sys\nfrom fundusgan_jax import main\nmain.parser().format_help()\nprint('jax' in sys.modules)"
    )
    answer = subprocess.run(
        [sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True, timeout=60
    )
    assert answer.stdout.strip() == "False", answer.stderr
