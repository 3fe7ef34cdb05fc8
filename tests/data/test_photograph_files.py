"""Which files are photographs: by content; everything else is named with its reason."""

import os
from pathlib import Path

import pytest
from PIL import Image

from fundusgan_jax.data.photograph_files import (
    every_file,
    image_format,
    photograph_files,
    shown_name,
    summary_line,
    why_no_photograph,
)

PICTURE = Image.new("RGB", (20, 20), (90, 40, 10))
FORMATS = {"jpg": "JPEG", "png": "PNG", "tif": "TIFF", "gif": "GIF", "bmp": "BMP", "webp": "WebP", "ppm": "PNM",
           "jp2": "JPEG 2000", "avif": "AVIF"}  # fmt: skip


def saved(path: Path) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    PICTURE.save(path, format="PNG")
    return path


@pytest.mark.parametrize("suffix", FORMATS)
def test_content_decides_and_not_the_name(tmp_path: Path, suffix: str) -> None:
    PICTURE.save(tmp_path / f"a.{suffix}")
    (tmp_path / f"a.{suffix}").rename(tmp_path / "no_suffix.txt")
    assert why_no_photograph(tmp_path / "no_suffix.txt") == ""
    assert image_format((tmp_path / "no_suffix.txt").read_bytes()[:1024]) == FORMATS[suffix]


def test_folders_of_systems_and_hidden_ones_are_left_out_by_name(tmp_path: Path) -> None:
    kept = saved(tmp_path / "ill" / "1.png")
    reasons = {
        ".ipynb_checkpoints/1-checkpoint.png": "hidden folder",
        ".cache/deep/er/1.png": "hidden folder",
        "__MACOSX/ill/1.png": "macOS",
        "ill/@eaDir/1.png/SYNOPHOTO_THUMB_M.png": "Synology",
        "#recycle/1.png": "deleted files",
        "$RECYCLE.BIN/1.png": "deleted files",
        "Thumbnails/1.png": "thumbnails",
        "ill/._1.png": "hidden file",
        "ill/SYNOPHOTO_THUMB_XL.png": "thumbnail",
        "ill/Thumbs.db": "file of the system",
    }
    for name in reasons:
        saved(tmp_path / name)
    found = photograph_files(tmp_path)
    assert found.photographs == (kept,)
    assert {name for name, _ in found.left_out} == set(reasons)
    for name, reason in found.left_out:
        assert reasons[name] in reason
    assert summary_line(found.left_out).startswith("10 other files left out: 2 in a hidden folder, 1")
    assert summary_line(()) == ""


def test_what_is_no_image_is_called_what_it_is(tmp_path: Path) -> None:
    contents = {
        "pointer.png": (b"version https://git-lfs.github.com/spec/v1\noid sha256:0", "git lfs pull"),
        "phone.heic": (b"\0\0\0\x18ftypheic\0\0\0\0mif1heic", "HEIC"),
        "pointer.dcm": (b"version https://git-lfs.github.com/spec/v1\noid sha256:0", "git lfs pull"),
        "phone.jpg": (b"\0\0\0\x18ftypmif1\0\0\0\0mif1heic", "HEIC"),
        "film.jpg": (b"\0\0\0\x18ftypmp42\0\0\0\0mp42isom", "film"),
        "page.jpg": (b"\n<!DOCTYPE html><html>", "web page"),
        "list.csv": (b"file,label\na,b\n", "not an image (text)"),
        "sheet.xlsx": (b"PK\x03\x04aaaa", "Office"),
        "old.xls": (b"\xd0\xcf\x11\xe0aaaa", "Office"),
        "paper.pdf": (b"%PDF-1.7", "PDF"),
        "array.npy": (b"\x93NUMPY\x01\0", "NumPy"),
        "empty.png": (b"", "empty file"),
        "BMW.txt": (b"BMW drivers and their eyes, a study", "not an image (text)"),
        "P3.txt": (b"P35 and others", "not an image (text)"),
        "noise": (bytes(range(7, 255)), "not an image"),
    }
    for name, (content, _) in contents.items():
        (tmp_path / name).write_bytes(content)
    (tmp_path / "noise.png").write_bytes(
        bytes(range(7, 255))
    )  # called as an image: reading it tells its damage
    os.mkfifo(tmp_path / "pipe.png")
    (tmp_path / "link.png").symlink_to(tmp_path / "gone.png")
    found = photograph_files(tmp_path)
    assert [path.name for path in found.photographs] == ["noise.png"]
    reasons = dict(found.left_out)
    assert reasons.pop("pipe.png") == "a pipe" and "link to a file" in reasons.pop("link.png")
    assert set(reasons) == set(contents)
    for name, reason in reasons.items():
        assert contents[name][1] in reason, name


def test_own_products_are_no_photographs(tmp_path: Path) -> None:
    kept = [saved(tmp_path / "1.png"), saved(tmp_path / "sub" / "2.png")]
    for name in ("score/eval.json", "score/report.html", "score/evaluation/tsne.png", "score/tsne.png", "done/prepare.json", "done/splits.csv",
                 "done/quality/kept.png", "eval.json", "evaluation/tsne.png", "memorisation.png"):  # fmt: skip
        saved(tmp_path / name)
    (tmp_path / "eval.json").write_text("{}")
    found = photograph_files(tmp_path)
    assert sorted(found.photographs) == kept
    assert len(found.left_out) == 10


def test_sheets_of_generated_images_are_told_by_their_index(tmp_path: Path) -> None:
    images = {saved(tmp_path / "made" / name) for name in ("sample-0-000000.png", "sample-0-000001.png")}
    sheets = ("sample-0-000000-compared.png", "grid.png", "strip.png", "animation.webp")
    for name in sheets:
        saved(tmp_path / "made" / name)
    mine = {saved(tmp_path / "made" / name) for name in ("mine.png", "eye-compared.png")}
    # The same names without our index are a user's photographs; so are they beside somebody else's index.
    mine |= {saved(tmp_path / folder / name) for folder in ("mine", "other") for name in sheets}
    lines = "file,synthetic\n" + "".join(f"{path.name},yes\n" for path in images)
    (tmp_path / "made" / "index.csv").write_text(lines)
    (tmp_path / "other" / "index.csv").write_text("file,label\nsample-0-000000.png,ill\n")
    found = photograph_files(tmp_path)
    assert set(found.photographs) == images | mine
    drawn = {name: reason for name, reason in found.left_out if "drawn" in reason}
    assert set(drawn) == {f"made/{name}" for name in sheets}
    assert set(drawn.values()) == {"drawn by --mode=generate of its images"}
    assert {name for name, _ in found.left_out} == {*drawn, "made/index.csv", "other/index.csv"}


def test_an_index_that_is_a_pipe_is_not_opened(tmp_path: Path) -> None:
    kept = [saved(tmp_path / "a.png"), saved(tmp_path / "grid.png")]
    os.mkfifo(tmp_path / "index.csv")
    assert sorted(photograph_files(tmp_path).photographs) == kept


def test_contact_sheets_of_a_prepared_folder_are_no_photographs(tmp_path: Path) -> None:
    sheets = ("quality_kept.jpg", "quality_borderline.jpg", "quality_rejected.jpg")
    for folder in (tmp_path / "prepared", tmp_path / "mine"):
        for name in sheets:
            saved(folder / name)
    for name in ("prepare.json", "splits.csv"):
        (tmp_path / "prepared" / name).write_text("{}")
    found = photograph_files(tmp_path / "prepared")
    assert not found.photographs
    assert {name for name, reason in found.left_out if reason == "drawn by data.prepare"} == set(sheets)
    assert len(photograph_files(tmp_path / "mine").photographs) == 3


@pytest.mark.parametrize(
    ("record", "beside", "picture"),
    [
        ("manifest.json", "metrics.jsonl", "samples/step-000100.png"),
        ("segmentation.json", "vessels/a.png", "probability/a.png"),
        ("gradcam.json", "gradcam.csv", "means.png"),
    ],
)
def test_pictures_of_the_other_commands_are_no_photographs(
    tmp_path: Path, record: str, beside: str, picture: str
) -> None:
    for name in (record, beside, picture):
        (tmp_path / "run" / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / "run" / name).write_text("{}")
    picture_file, kept = saved(tmp_path / "run" / picture), saved(tmp_path / "run" / "mine.png")
    assert photograph_files(tmp_path / "run").photographs == (kept,)
    assert photograph_files(tmp_path).photographs == ()  # inside a source nothing of an output is
    (tmp_path / "run" / record).unlink()
    assert picture_file in photograph_files(tmp_path).photographs


def test_every_file_is_either_kept_or_named_and_linked_folders_end(tmp_path: Path) -> None:
    saved(tmp_path / "a" / "1.png")
    (tmp_path / "a" / "again").symlink_to(tmp_path, target_is_directory=True)
    (tmp_path / "b").symlink_to(tmp_path / "a", target_is_directory=True)
    assert [path.name for path, _ in every_file(tmp_path)] == ["1.png"]
    name = os.fsdecode(b"caf\xe9.png")
    saved(tmp_path / name)
    found = photograph_files(tmp_path)
    assert [shown_name(path, tmp_path) for path in found.photographs] == ["caf\\xe9.png", "a/1.png"]
    shown_name(found.photographs[0]).encode()  # can be written


def test_dicom_with_and_without_its_preamble(tmp_path: Path) -> None:
    (tmp_path / "a").write_bytes(b"\0" * 128 + b"DICM" + b"\2\0\0\0UL\4\0")
    (tmp_path / "b").write_bytes(b"\x08\0\x05\0CS\x0a\0ISO_IR 100" + b"\0" * 8)
    (tmp_path / "c").write_bytes(b"\x08\0\x05\0\x0a\0\0\0ISO_IR 100" + b"\0" * 8)
    (tmp_path / "d").write_bytes(b"\x08\0\x05\x07zz\x0a\xffISO_IR 100" + b"\0" * 8)
    assert [path.name for path in photograph_files(tmp_path).photographs] == ["a", "b", "c"]
