"""The verify command on the golden files (the parity test of ResNet, LPIPS, Inception and figures of sets), and its
exit codes."""

import json
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

from fundusgan_jax.weights.__main__ import main, verify
from fundusgan_jax.weights.public_weights import WEIGHTS_FOLDER_VARIABLE

SETS = {"fid", "kid_all", "precision", "recall"}
NETWORKS = {
    *(f"resnet{depth}/{output}" for depth in (18, 50) for output in ("c3", "c4", "c5", "logits")),
    *("lpips_vgg", "lpips_alex", "lpips_squeeze", "inception_pool3_legacy"),
}


@pytest.fixture
def small(shared: Path, tmp_path: Path) -> dict[str, np.ndarray]:
    """What of networks.npz is quickly computed."""
    with np.load(shared / "golden" / "networks.npz") as file:
        return {name: file[name] for name in ("salt", "images", "distorted", "resnet18/logits", "fid")}


@pytest.mark.slow
def test_golden_networks_are_within_tolerance(shared: Path) -> None:
    result = verify(shared / "golden" / "networks.npz")
    assert set(result.differences) == NETWORKS | SETS
    assert max(result.differences.values()) < 1e-5
    assert not result.not_checked
    assert all(ok for _, ok in result.verdicts(1e-4).values())


@pytest.fixture
def sets() -> dict[str, np.ndarray]:
    """Two sets, their squared distance of means (covariances are equal) and how many lie where."""
    line = np.arange(10.0)[:, None]
    return {
        "set_a": np.concatenate([line, line * 0], 1),
        "set_b": np.concatenate([line + 4, line * 0], 1),
        "fid": np.float64(16),
        "precision": np.float64(0.9),
        "recall": np.float64(np.float32(0.9)),
    }


def test_figures_of_sets_have_their_own_tolerances(
    sets: dict, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    file = tmp_path / "sets.npz"
    np.savez(file, **sets)
    assert main(["verify", str(file)]) == 0
    table = capsys.readouterr().out
    assert "sets of features" in table and "1e-06" in table and "exact" in table
    np.savez(file, **sets | {"fid": sets["fid"] * (1 + 1e-5), "kid_all": 0.1})
    assert main(["verify", str(file), "--json", "--tolerance=0.5"]) == 1
    record = {entry["name"]: entry for entry in json.loads(capsys.readouterr().out)["outputs"]}
    assert {name: (entry["tolerance"], entry["ok"]) for name, entry in record.items()} == {
        "fid": (1e-6, False),
        "kid_all": (1e-6, False),
        "precision": (0.0, True),
        "recall": (0.0, True),
    }
    np.savez(file, **sets | {"recall": np.float64(0.9 + 1e-6)})
    assert main(["verify", str(file)]) == 1
    np.savez(file, fid=1.0, set_a=sets["set_a"])
    capsys.readouterr()
    assert "no known form" in _refused(["verify", str(file)], capsys)


@pytest.mark.slow
def test_inception_alone_with_another_salt(shared: Path, tmp_path: Path) -> None:
    with np.load(shared / "golden" / "networks.npz") as file:
        part = {name: file[name] for name in ("salt", "images", "inception_pool3_legacy")}
    part["images"], part["inception_pool3_legacy"] = part["images"][:1], part["inception_pool3_legacy"][:1]
    np.savez(tmp_path / "same.npz", **part)
    np.savez(tmp_path / "other.npz", **part | {"salt": part["salt"] + 1})
    assert verify(tmp_path / "same.npz").differences["inception_pool3_legacy"] < 1e-5
    assert verify(tmp_path / "other.npz").differences["inception_pool3_legacy"] > 1e-2


@pytest.mark.slow
def test_golden_generators_are_within_tolerance(shared: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["verify", str(shared / "golden" / "stylegan2_32_labels.npz")]) == 0
    table = capsys.readouterr().out
    assert "image_noise_const" in table and "FAIL" not in table
    assert "d_logits" in table and "not checked" not in table
    lines = {line.split()[0]: line.split() for line in table.splitlines() if line.endswith((" ok", " FAIL"))}
    assert lines["image_noise_const"][2] == lines["d_logits"][2] == "1e-04"
    assert lines["d_r1_per_image"][2] == lines["pl_lengths"][2] == "1e-03"
    assert {line[2] for name, line in lines.items() if name.startswith("grad/")} == {"1e-03"}
    result = verify(shared / "golden" / "dilated_128.npz")
    assert set(result.differences) == {"image", "image_no_noise", "image_from_constant"}
    assert not result.not_checked
    assert max(result.differences.values()) < 1e-5


@pytest.mark.slow
def test_the_golden_training_step_is_within_tolerance(shared: Path, tmp_path: Path) -> None:
    file = shared / "golden" / "training_step.npz"
    result = verify(file)
    assert not result.not_checked
    with np.load(file) as npz:
        step = dict(npz)
    outputs = {name for name in step if name.startswith(("loss/", "grad/")) or "_after" in name}
    phases = {f"grad/{phase}" for phase in ("Gmain", "Greg", "Dmain", "Dreg")}
    assert set(result.differences) == outputs | phases and len(outputs) > 220
    assert {name: result.tolerances[name] for name in ("loss/pl_penalty", "grad/Greg")} == {
        "loss/pl_penalty": 1e-5, "grad/Greg": 1e-4,
    }  # fmt: skip
    assert all(ok for _, ok in result.verdicts(0.0).values()), result.differences


@pytest.mark.slow
def test_another_training_step_shows_in_its_own_phase(shared: Path, tmp_path: Path) -> None:
    with np.load(shared / "golden" / "training_step.npz") as npz:
        step = dict(npz)
    file = tmp_path / "step.npz"
    np.savez(
        file, **step | {"pl_mean": np.float32(0.31), "label": (step["label"] + 1) % 3, "more": np.zeros(1)}
    )
    result = verify(file)
    assert result.differences["grad/Greg"] > 1e-3 < result.differences["grad/Dreg"]
    assert set(result.not_checked) == {"more"}


@pytest.mark.slow
def test_exit_codes_and_json(small: dict, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    good, bad = tmp_path / "good.npz", tmp_path / "bad.npz"
    np.savez(good, **small)
    assert main(["verify", str(good), "--json"]) == 0
    record = json.loads(capsys.readouterr().out)
    assert record["outputs"][0]["tolerance"] == 1e-4
    assert [entry["name"] for entry in record["outputs"]] == ["resnet18/logits"]
    assert record["outputs"][0]["ok"] and "fid" in record["not_checked"]
    np.savez(bad, **small | {"resnet18/logits": small["resnet18/logits"] * np.float32(1.001)})
    assert main(["verify", str(bad)]) == 1
    assert "FAIL" in capsys.readouterr().out
    assert main(["verify", str(bad), "--tolerance=0.01"]) == 0
    np.savez(bad, **small | {"resnet18/logits": small["resnet18/logits"] * np.nan})
    assert main(["verify", str(bad), "--json"]) == 1


def test_another_salt_makes_other_weights(small: dict, tmp_path: Path) -> None:
    np.savez(tmp_path / "other.npz", **small | {"salt": small["salt"] + 1})
    assert main(["verify", str(tmp_path / "other.npz")]) == 1


def _refused(arguments: list[str], capsys: pytest.CaptureFixture[str]) -> str:
    assert main(arguments) == 2
    captured = capsys.readouterr()
    assert captured.out == ""
    assert captured.err.startswith("error: ") and captured.err.count("\n") == 1
    return captured.err


def test_bad_files_and_flags(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    garbage, unknown, cut = (tmp_path / f"{name}.npz" for name in ("garbage", "unknown", "cut"))
    garbage.write_bytes(b"PK\x03\x04garbage")
    np.savez(unknown, a=np.zeros(3))
    np.savez(cut, **{"salt": 0, "resnet18/logits": np.zeros((2, 4))})
    assert "garbage.npz" in _refused(["verify", str(garbage)], capsys)
    assert "no known form" in _refused(["verify", str(unknown)], capsys)
    assert "lacks 'images'" in _refused(["verify", str(cut)], capsys)
    assert "none.npz" in _refused(["verify", str(tmp_path / "none.npz")], capsys)
    assert "--tolerance" in _refused(["verify", str(unknown), "--tolerance=nan"], capsys)
    assert "--help" in _refused(["verify"], capsys)
    np.savez(cut, **{"salt": 0, "images": np.zeros((2, 64, 64, 3), np.uint8), "fid": 1.0})
    assert "nothing in" in _refused(["verify", str(cut)], capsys)


def test_missing_heads(tmp_path: Path, monkeypatch, capsys: pytest.CaptureFixture[str]) -> None:
    monkeypatch.setenv(WEIGHTS_FOLDER_VARIABLE, str(tmp_path / "nowhere"))
    images = np.zeros((1, 64, 64, 3), np.uint8)
    folder = tmp_path / "golden"
    folder.mkdir()
    np.savez(folder / "file.npz", salt=0, images=images, distorted=images, lpips_alex=np.zeros(1))
    assert "give --heads=FILE" in _refused(["verify", str(folder / "file.npz")], capsys)
    assert "no.npz" in _refused(["verify", str(folder / "file.npz"), "--heads=no.npz"], capsys)


def test_list_names_every_file_and_its_place(tmp_path: Path) -> None:
    (tmp_path / "vgg16_imagenet.npz").touch()
    run = subprocess.run(
        [sys.executable, "-m", "fundusgan_jax.weights", "list"],
        capture_output=True,
        text=True,
        check=True,
        env={"PATH": "", "JAX_PLATFORMS": "cpu", WEIGHTS_FOLDER_VARIABLE: str(tmp_path)},
        cwd=Path(__file__).resolve().parents[2],
    )
    names = "vgg16-397923af.pth or vgg16_imagenet.npz"
    assert f"{tmp_path}, as {names} (vgg16_imagenet.npz is there)" in run.stdout
    assert f"{tmp_path}, as vgg.pth or lpips_heads.npz (not there)" in run.stdout
    assert f"--config.encoder.weights={tmp_path / 'resnet50-0676ba61.pth'}" in run.stdout
    assert "https://download.pytorch.org/models/resnet50-0676ba61.pth" in run.stdout
    assert "0676ba61b6795bbe1773cffd859882e5e297624d384b6993f7c9e683e722fb8a" in run.stdout
