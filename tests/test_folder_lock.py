"""An output folder has one owner: whoever comes second is refused in one line, and the first loses nothing."""

import os
import subprocess
import sys
from contextlib import nullcontext
from pathlib import Path

import pytest

from fundusgan_jax.errors import UserError
from fundusgan_jax.folder_lock import LOCK, locked, owned_folder, owned_name

ROOT = Path(__file__).resolve().parents[1]


def test_a_second_training_process_is_refused_until_the_first_ends(tmp_path: Path) -> None:
    workdir = tmp_path / "run"
    code = (
        "import sys\nfrom pathlib import Path\nfrom fundusgan_jax.folder_lock import locked\n"
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


def test_a_commands_folder_is_free_again_after_it(tmp_path: Path) -> None:
    folder = tmp_path / "deep" / "out"
    with owned_folder(folder) as held:
        assert held == folder and [path.name for path in folder.iterdir()] == [LOCK]
        (folder / "result").touch()
        with pytest.raises(UserError, match=f"another process is writing to {folder}"), owned_folder(folder):
            pass
        assert (folder / "result").exists() and (folder / LOCK).exists()
    assert [path.name for path in folder.iterdir()] == ["result"]
    with pytest.raises(UserError, match="a mistake"), owned_folder(tmp_path / "new" / "out"):
        raise UserError("a mistake")
    assert [path.name for path in tmp_path.iterdir()] == ["deep"]
    folder.chmod(0o500)
    refused = pytest.raises(UserError, match="cannot be used") if os.getuid() else nullcontext()
    with refused, owned_folder(folder):
        pass


def test_what_gets_its_name_when_it_is_whole_has_one_maker(tmp_path: Path) -> None:
    file = tmp_path / "new" / "weights.npz"
    with owned_name(file):
        with pytest.raises(UserError, match="another process is writing to .*weights.npz"), owned_name(file):
            pass
        with owned_name(file.with_name("other.npz")):
            file.touch()
    assert [path.name for path in file.parent.iterdir()] == ["weights.npz"]
    with pytest.raises(UserError, match="a mistake"), owned_name(tmp_path / "no" / "file"):
        raise UserError("a mistake")
    assert not (tmp_path / "no").exists()


def test_a_lock_that_its_owner_took_away_meanwhile_is_none(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Between opening the file and locking it the owner ended, and a third process began: the third is the owner."""
    import fcntl

    flock, third = fcntl.flock, []

    def late(handle, operation):
        if not third and operation & fcntl.LOCK_EX:
            (tmp_path / LOCK).unlink()
            third.append(open(tmp_path / LOCK, "w"))  # noqa: SIM115  # noqa: SIM115
            flock(third[0], fcntl.LOCK_EX)
        flock(handle, operation)

    monkeypatch.setattr(fcntl, "flock", late)
    with pytest.raises(UserError, match="another process is writing"), owned_folder(tmp_path):
        pass
    third[0].close()
    with owned_folder(tmp_path):
        pass


def test_a_file_system_without_locks_is_said(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys) -> None:
    import fcntl

    def absent(handle, operation):
        raise OSError(38, "Function not implemented")

    monkeypatch.setattr(fcntl, "flock", absent)
    with owned_folder(tmp_path):
        pass
    assert "has no locks" in capsys.readouterr().err
