"""Examples in docstrings give what they show."""

import doctest
import importlib
from pathlib import Path

import pytest

import fundusgan_jax
from fundusgan_jax.weights.public_weights import WEIGHTS_FOLDER_VARIABLE

ROOT = Path(fundusgan_jax.__file__).parents[1]
MODULES = sorted(
    ".".join(file.relative_to(ROOT).with_suffix("").parts)
    for file in (ROOT / "fundusgan_jax").rglob("*.py")
    if ">>> " in file.read_text()
)


@pytest.mark.filterwarnings("ignore:LPIPS is left out")
@pytest.mark.parametrize("name", MODULES)
def test_examples_of_docstrings(name, tmp_path, monkeypatch):
    monkeypatch.setenv(WEIGHTS_FOLDER_VARIABLE, str(tmp_path))
    failed, tried = doctest.testmod(importlib.import_module(name))
    assert tried and not failed


def test_the_public_interface_has_examples():
    assert "fundusgan_jax.interface.images" in MODULES
