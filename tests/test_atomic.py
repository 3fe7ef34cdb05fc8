"""A file or folder is whole or not there."""

import resource
from pathlib import Path

import pytest

from fundusgan_jax.atomic import atomic_folder, atomic_write, check_writable
from fundusgan_jax.errors import UserError


def test_a_finished_write_replaces_and_leaves_nothing_else(tmp_path: Path) -> None:
    path = tmp_path / "new folder" / "a.json"
    for text in ("first", "second"):
        with atomic_write(path) as temporary:
            assert temporary.suffix == ".json" and temporary != path
            temporary.write_text(text)
        assert path.read_text() == text
    assert [file.name for file in path.parent.iterdir()] == ["a.json"]


@pytest.mark.parametrize("error", [KeyboardInterrupt, ValueError])
def test_an_interrupted_write_leaves_what_was_there(tmp_path: Path, error: type[BaseException]) -> None:
    path = tmp_path / "a.txt"
    path.write_text("before")
    with pytest.raises(error), atomic_write(path) as temporary:
        temporary.write_text("hal")
        raise error
    assert path.read_text() == "before" and [file.name for file in tmp_path.iterdir()] == ["a.txt"]


def test_a_full_disk_is_one_line_that_names_the_file(tmp_path: Path) -> None:
    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (1000, before[1]))
    try:
        with (
            pytest.raises(UserError, match=r"a\.txt.*free some space"),
            atomic_write(tmp_path / "a.txt") as temporary,
        ):
            temporary.write_text("x" * 5000)
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, before)
    assert not list(tmp_path.iterdir())


def test_a_folder_that_is_a_file_is_named(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(UserError, match="cannot write"), atomic_write(tmp_path / "file" / "a.txt"):
        pass


def test_a_folder_that_nothing_can_be_written_to_is_named_before_the_work(tmp_path: Path) -> None:
    assert check_writable(tmp_path / "new") == tmp_path / "new" and not list((tmp_path / "new").iterdir())
    (tmp_path / "file").touch()
    with pytest.raises(UserError, match="cannot write .*choose another folder"):
        check_writable(tmp_path / "file")


def test_an_error_of_reading_is_not_called_one_of_writing(tmp_path: Path) -> None:
    with (
        pytest.raises(FileNotFoundError, match="photo.png"),
        atomic_write(tmp_path / "new" / "a.txt") as temporary,
    ):
        temporary.write_text((tmp_path / "photo.png").read_text())
    with (
        pytest.raises(FileNotFoundError, match="photo.png"),
        atomic_folder(tmp_path / "new" / "a") as temporary,
    ):
        (temporary / "copy").write_text((tmp_path / "photo.png").read_text())
    with pytest.raises(UserError, match="cannot write .*a.txt"), atomic_write(tmp_path / "new" / "a.txt"):
        pass  # nothing is written
    with pytest.raises(UserError, match="free some space"), atomic_write(tmp_path / "a.npy"):
        raise OSError("128 requested and 0 written")  # NumPy's, of a full disk
    assert not list(tmp_path.iterdir())


def test_what_fails_leaves_no_folder_that_it_made(tmp_path: Path) -> None:
    (tmp_path / "there").mkdir()
    for folder in ("there", "new/deep"):
        for write in (atomic_write, atomic_folder):
            with pytest.raises(KeyboardInterrupt), write(tmp_path / folder / "a"):
                raise KeyboardInterrupt
    assert [path.name for path in tmp_path.rglob("*")] == ["there"]


def test_a_folder_gets_its_name_when_it_is_whole(tmp_path: Path) -> None:
    (tmp_path / "a").mkdir()
    with atomic_folder(tmp_path / "a") as temporary:
        (temporary / "file").write_text("first")
        assert not list((tmp_path / "a").iterdir())
    with pytest.raises(FileExistsError), atomic_folder(tmp_path / "a") as temporary:
        (temporary / "file").write_text("second")
    assert [path.name for path in tmp_path.iterdir()] == ["a"]
    assert (tmp_path / "a" / "file").read_text() == "first"


def test_two_writers_in_one_process_have_two_temporary_folders(tmp_path: Path) -> None:
    path = tmp_path / "a"
    with pytest.raises(FileExistsError), atomic_folder(path) as first:
        (first / "file").write_text("first")
        with atomic_folder(path) as second:
            (second / "file").write_text("second")
    assert (path / "file").read_text() == "second"
    assert [left.name for left in tmp_path.iterdir()] == ["a"]
