"""workdir/contents.py: workdirs of several processes, and settings of another network."""

import json
from pathlib import Path

import numpy as np
import pytest

from fundusgan_jax.config import flatten
from fundusgan_jax.data.example import Example
from fundusgan_jax.data.packed import open_packed, write_packed
from fundusgan_jax.devices import distributed
from fundusgan_jax.errors import UserError
from fundusgan_jax.settings import SETTINGS
from fundusgan_jax.workdir.contents import check_network, label_names_of, open_shared_checkpoints
from fundusgan_jax.workdir.manifest import read_manifest, write_manifest
from tests.support.tiny import tiny_config


def test_a_workdir_that_is_not_shared_is_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(distributed, "is_first", lambda: False)
    with pytest.raises(UserError, match="file system that all processes share"):
        open_shared_checkpoints(tiny_config(), tmp_path)
    (tmp_path / "checkpoints").mkdir()
    open_shared_checkpoints(tiny_config(), tmp_path)[0].close()
    monkeypatch.setattr(distributed, "first_says", lambda work: 8)
    with pytest.raises(UserError, match="file system that all processes share"):
        open_shared_checkpoints(tiny_config(), tmp_path)


def test_names_of_classes_are_the_manifests_and_before_it_had_any_the_datasets(tmp_path: Path) -> None:
    eye = np.zeros((16, 16, 3), np.uint8)
    example = Example(eye, 0, "patient", "left", "train", "1.jpg")
    write_packed(tmp_path / "data", [example], {"train": 1}, 16, ("healthy", "ill"), True)
    config = tiny_config(data__dir=str(tmp_path / "data"))
    fingerprint = open_packed(tmp_path / "data").fingerprint
    assert label_names_of(tmp_path / "run") == ()
    write_manifest(tmp_path / "run", config, fingerprint, label_names=("A", "B"))
    assert label_names_of(tmp_path / "run") == ("A", "B")
    record = read_manifest(tmp_path / "run")
    del record["label_names"]
    (tmp_path / "run" / "manifest.json").write_text(json.dumps(record))
    assert label_names_of(tmp_path / "run") == ("healthy", "ill")
    (tmp_path / "run" / "manifest.json").write_text(json.dumps({**record, "dataset_fingerprint": "other"}))
    assert label_names_of(tmp_path / "run") == ()


def test_settings_of_another_network_are_refused(tmp_path: Path) -> None:
    trained = tiny_config()
    same = tiny_config(model__noise_mode="none", model__dtype="bfloat16", eval__features="pixels", seed=4)
    check_network(tmp_path, trained, same)
    # What may change within a workdir makes no other network.
    assert not [name for name, setting in SETTINGS.items() if setting.network and setting.may_change]
    check_network(tmp_path, trained, tiny_config(model__fused_layers=True))
    with pytest.raises(UserError, match="flow.patch=2, this command says 1"):
        check_network(tmp_path, trained, tiny_config(flow__patch=1))
    for name, value in {"model.first_dilation": 2, "model.delta": 1, "encoder.norm": "batch"}.items():
        other = tiny_config(**{name.replace(".", "__"): value})
        old = flatten(trained)[name]
        with pytest.raises(
            UserError, match=f"{name}={old}, this command says {value}.*--config.{name}={old}"
        ):
            check_network(tmp_path, trained, other)
