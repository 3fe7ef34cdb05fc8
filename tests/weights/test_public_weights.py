"""A file of weights is found by its path, by its name in the weights' folder, and by its name in `weights list`."""

from pathlib import Path

import pytest

from fundusgan_jax.errors import UserError
from fundusgan_jax.weights.import_torchvision import load_backbone
from fundusgan_jax.weights.public_weights import PUBLIC_WEIGHTS, WEIGHTS_FOLDER_VARIABLE, located


def test_names_are_looked_up_in_the_weights_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    folder = tmp_path / "weights"
    folder.mkdir()
    monkeypatch.setenv(WEIGHTS_FOLDER_VARIABLE, str(folder))
    monkeypatch.chdir(tmp_path)
    file = PUBLIC_WEIGHTS["resnet50"].file
    assert located(file) == Path(file)  # nowhere yet
    (folder / file).touch()
    assert located(file) == located("resnet50") == folder / file
    assert located(f"elsewhere/{file}") == Path("elsewhere") / file
    Path(file).touch()
    assert located(file) == Path(file)  # what is here comes first
    (folder / PUBLIC_WEIGHTS["vgg16"].also).touch()
    assert located("vgg16") == folder / PUBLIC_WEIGHTS["vgg16"].also


def test_a_missing_backbone_is_answered_with_the_command_that_brings_it(tmp_path: Path, monkeypatch) -> None:
    monkeypatch.setenv(WEIGHTS_FOLDER_VARIABLE, str(tmp_path))
    with pytest.raises(UserError, match=r"mine.pth is neither there nor in .*fetch resnet18 brings"):
        load_backbone("mine.pth", 18, "batch")
