"""workdir/contents.py: one training process at a time."""

import subprocess
import sys
from pathlib import Path

import pytest

from fundusgan_jax.config import flatten
from fundusgan_jax.devices import distributed
from fundusgan_jax.errors import UserError
from fundusgan_jax.workdir.contents import check_network, locked, open_shared_checkpoints
from tests.support.tiny import tiny_config

ROOT = Path(__file__).resolve().parents[2]


def test_a_second_training_process_is_refused_until_the_first_ends(tmp_path: Path) -> None:
    workdir = tmp_path / "run"
    code = (
        "import sys\nfrom pathlib import Path\nfrom fundusgan_jax.workdir.contents import locked\n"
        f"with locked(Path({str(workdir)!r})):\n    print('held', flush=True)\n    sys.stdin.read()"
    )
    words = [sys.executable, "-c", code]
    first = subprocess.Popen(words, cwd=ROOT, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
    assert first.stdout is not None and first.stdout.readline().strip() == "held"
    with pytest.raises(UserError, match="another process is training in"), locked(workdir):
        pass
    first.kill()
    first.wait()
    with locked(workdir):
        pass


def test_a_workdir_that_cannot_be_is_named(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(UserError, match="name another folder"), locked(tmp_path / "file" / "run"):
        pass


def test_a_start_that_fails_leaves_no_folders_and_no_lock_but_what_there_was(tmp_path: Path) -> None:
    workdir = tmp_path / "runs" / "first"
    with pytest.raises(UserError), locked(workdir):
        (workdir / "checkpoints").mkdir()
        raise UserError("a mistake")
    assert not list(tmp_path.iterdir())
    workdir.mkdir(parents=True)
    with pytest.raises(UserError), locked(workdir):
        (workdir / "phantom" / "packed").mkdir(parents=True)
        (workdir / "phantom" / "packed" / "train.npy").touch()
        raise UserError("a mistake")
    assert (workdir / "phantom" / "packed" / "train.npy").exists()


def test_a_workdir_that_is_not_shared_is_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(distributed, "is_first", lambda: False)
    with pytest.raises(UserError, match="file system that all processes share"):
        open_shared_checkpoints(tiny_config(), tmp_path)
    (tmp_path / "checkpoints").mkdir()
    open_shared_checkpoints(tiny_config(), tmp_path)[0].close()
    monkeypatch.setattr(distributed, "first_says", lambda work: 8)
    with pytest.raises(UserError, match="file system that all processes share"):
        open_shared_checkpoints(tiny_config(), tmp_path)


def test_settings_of_another_network_are_refused(tmp_path: Path) -> None:
    trained = tiny_config()
    same = tiny_config(model__noise_mode="none", model__dtype="bfloat16", eval__features="pixels", seed=4)
    check_network(tmp_path, trained, same)
    for name, value in {"model.first_dilation": 2, "model.delta": 1, "encoder.norm": "batch"}.items():
        other = tiny_config(**{name.replace(".", "__"): value})
        old = flatten(trained)[name]
        with pytest.raises(
            UserError, match=f"{name}={old}, this command says {value}.*--config.{name}={old}"
        ):
            check_network(tmp_path, trained, other)
