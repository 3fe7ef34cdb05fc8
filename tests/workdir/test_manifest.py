"""manifest.json: what made a workdir, and who may go on in it."""

import json
import subprocess
from pathlib import Path

import pytest

from fundusgan_jax.errors import UserError
from fundusgan_jax.workdir.manifest import (
    check_manifest,
    config_of_workdir,
    git_commit,
    read_manifest,
    write_manifest,
)
from tests.support.tiny import tiny_config


def test_it_says_what_made_the_run(tmp_path: Path) -> None:
    config = tiny_config()
    write_manifest(tmp_path, config, "abc", label_names=("healthy", "ill"))
    record = json.loads((tmp_path / "manifest.json").read_text())
    assert record["label_names"] == ["healthy", "ill"]
    assert record["config"] == config.to_dict() and record["seed"] == 0
    assert record["dataset_fingerprint"] == "abc"
    assert {"jax", "flax", "optax", "orbax-checkpoint", "numpy", "python"} <= set(record["versions"])
    assert record["devices"]["platform"] == "cpu" and record["devices"]["count"] == 8
    write_manifest(tmp_path, config, "abc")
    starts = json.loads((tmp_path / "manifest.json").read_text())["starts"]
    assert len(starts) == 2 and {"time", "command", "git", "devices", "versions"} <= set(starts[0])


def test_another_configuration_or_dataset_is_refused(tmp_path: Path) -> None:
    check_manifest(tmp_path, tiny_config(), "abc")  # a new workdir
    write_manifest(tmp_path, tiny_config(), "abc")
    check_manifest(tmp_path, tiny_config(train__log_every=3), "abc")
    with pytest.raises(
        UserError, match=r"made with loss\.l2=1\.0, this run says 2\.0; .*--config\.loss\.l2=1\.0"
    ):
        check_manifest(tmp_path, tiny_config(loss__l2=2.0), "abc")
    with pytest.raises(UserError, match="and 1 more setting"):
        check_manifest(tmp_path, tiny_config(loss__l2=2.0, seed=3), "abc")
    with pytest.raises(UserError, match="another dataset"):
        check_manifest(tmp_path, tiny_config(), "abd")


def test_other_perceptual_weights_are_refused(tmp_path: Path) -> None:
    write_manifest(tmp_path, tiny_config(), "abc", "features")
    check_manifest(tmp_path, tiny_config(), "abc", "features")
    with pytest.raises(UserError, match="other weights of the perceptual network"):
        check_manifest(tmp_path, tiny_config(), "abc", "other features")


def test_the_configuration_comes_back(tmp_path: Path) -> None:
    with pytest.raises(UserError, match="is not the workdir of a run"):
        config_of_workdir(tmp_path, [])
    write_manifest(tmp_path, tiny_config(), "abc")
    config = config_of_workdir(tmp_path, ["--config.eval.batch_size=3"])
    assert config.eval.batch_size == 3 and config.model.delta == 3
    (tmp_path / "manifest.json").write_text("{")
    with pytest.raises(UserError, match=r"manifest\.json is damaged"):
        read_manifest(tmp_path)


def test_a_surrounding_repository_is_not_the_packages(tmp_path: Path) -> None:
    def git(*words: str) -> None:
        who = ("-c", "user.name=a", "-c", "user.email=a@b")
        subprocess.run(["git", *who, *words], cwd=tmp_path, check=True, capture_output=True)

    package = tmp_path / "environment" / "fundusgan_jax"
    package.mkdir(parents=True)
    (package / "__init__.py").touch()
    (tmp_path / "analysis.py").touch()
    git("init")
    git("add", "analysis.py")
    git("commit", "-m", "somebody's work")
    assert git_commit(package) is None
    git("add", "environment")
    git("commit", "-m", "now it is part of it")
    record = git_commit(package)
    assert record is not None and len(record["commit"]) == 40 and record["modified"] is False
    (package / "__init__.py").write_text("# changed")
    changed = git_commit(package)
    assert changed is not None and changed["modified"] is True and len(changed["changes"]) == 12


def test_paths_are_whole_so_that_commands_work_from_any_folder(tmp_path: Path, monkeypatch) -> None:
    monkeypatch.chdir(tmp_path)
    config = tiny_config(
        data__dir="prepared", loss__perceptual_weights="vgg16.npz", eval__vessel_weights="v.npz"
    )
    write_manifest(tmp_path / "run", config, "abc")
    kept = config_of_workdir(tmp_path / "run", [])
    assert kept.data.dir == str(tmp_path / "prepared") and config.data.dir == "prepared"
    assert kept.loss.perceptual_weights == str(tmp_path / "vgg16.npz") and kept.eval.features_weights == ""
    assert kept.eval.vessel_weights == str(tmp_path / "v.npz")
    check_manifest(tmp_path / "run", config, "abc")
