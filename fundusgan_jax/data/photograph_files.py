"""Which files of a folder are photographs: one definition, by content, for every command; the rest is named with its reason."""

from __future__ import annotations

import csv
import os
import stat
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import NamedTuple

HEAD = 1024  # bytes that tell what a file is
SUFFIXES = (".jpg", ".jpeg", ".jpe", ".jfif", ".png", ".tif", ".tiff", ".bmp", ".dib", ".gif", ".webp", ".ppm", ".pgm",
            ".pnm", ".pbm", ".jp2", ".j2k", ".jpx", ".jpc", ".dcm", ".dicom", ".avif")  # fmt: skip
DICOM_SUFFIXES = (".dcm", ".dicom")
SYSTEM_FOLDERS = {
    "__macosx": "macOS' archiver",
    "@eadir": "a Synology NAS (thumbnails)",
    "#recycle": "a NAS (deleted files)",
    "@recycle": "a NAS (deleted files)",
    "#snapshot": "a NAS (snapshots)",
    "@recently-snapshot": "a NAS (snapshots)",
    "$recycle.bin": "Windows (deleted files)",
    "system volume information": "Windows",
    "lost+found": "the file system",
    "__pycache__": "Python",
}
THUMBNAIL_FOLDERS = ("thumbnails", "thumbnail", "thumbs", "_thumbs")
SYSTEM_FILES = ("thumbs.db", "desktop.ini", "ehthumbs.db", "icon\r", "dicomdir")
THUMBNAIL_FILES = ("synophoto_thumb_", "thumb_synophoto")
# A record that a command of ours leaves -> the command, what it leaves beside the record (one of these has to be there), and
# which pictures, or folders of pictures, it drew.
OWN: dict[str, tuple[str, tuple[str, ...], tuple[str, ...]]] = {
    "eval.json": ("an evaluation", ("report.html", "evaluation"),
                  ("tsne.png", "ranked.png", "memorisation.png", "evaluation", "samples")),
    "prepare.json": ("data.prepare", ("packed", "tfds", "splits.csv"),
                     ("quality_kept.jpg", "quality_borderline.jpg", "quality_rejected.jpg")),
    "manifest.json": ("a training", ("metrics.jsonl", "checkpoints"), ("samples", "evaluation")),
    "segmentation.json": ("vessels segment", ("probability", "vessels"), ("probability", "vessels", "field_of_view")),
    "gradcam.json": ("studies.gradcam", ("gradcam.csv", "report.html"), ("grid.png", "means.png", "gradcam.png")),
}  # fmt: skip
# --mode=generate: its index names the images, which are images like others; these are pictures of several of them.
GENERATED_INDEX = "index.csv"
GENERATED_SHEETS = ("grid.png", "strip.png", "animation.webp")
COMPARED = "-compared.png"

_MAGIC = (
    (b"\xff\xd8\xff", "JPEG"),
    (b"\x89PNG\r\n\x1a\n", "PNG"),
    (b"II*\0", "TIFF"),
    (b"MM\0*", "TIFF"),
    (b"II+\0", "TIFF"),
    (b"MM\0+", "TIFF"),
    (b"GIF87a", "GIF"),
    (b"GIF89a", "GIF"),
    (b"\0\0\0\x0cjP  ", "JPEG 2000"),
    (b"\xff\x4f\xff\x51", "JPEG 2000"),
)
_OTHERS = (
    (b"version https://git-lfs", "a Git LFS pointer, not the photograph: run git lfs pull"),
    (b"%PDF", "a PDF document, not an image"),
    (b"PK\x03\x04", "a ZIP archive or Office document, not an image"),
    (b"\x1f\x8b", "a gzip archive, not an image: unpack it"),
    (b"Rar!", "a RAR archive, not an image: unpack it"),
    (b"7z\xbc\xaf\x27\x1c", "a 7z archive, not an image: unpack it"),
    (b"\xd0\xcf\x11\xe0", "an Office document or thumbnail database, not an image"),
    (b"\x93NUMPY", "a NumPy array, not an image"),
    (b"\x89HDF", "an HDF5 file, not an image"),
    (b"MATLAB 5.0", "a MATLAB file, not an image"),
    (b"\xff\x0a", "JPEG XL, which is not read: save it as PNG or JPEG"),
    (b"\0\0\0\x0cJXL ", "JPEG XL, which is not read: save it as PNG or JPEG"),
    (b"8BPS", "a Photoshop document: save it as PNG or TIFF"),
)
_DICOM_TYPES = (b"UL", b"UI", b"CS", b"DA", b"TM", b"SH", b"LO", b"OB", b"DT", b"PN", b"ST")
_HEIC = (b"heic", b"heix", b"hevc", b"hevx", b"heim", b"heis", b"mif1", b"msf1")


class PhotographFiles(NamedTuple):
    """photographs: what is read as one, in a fixed order. left_out: (name, reason) of every other file; a name is
    relative to the folder."""

    photographs: tuple[Path, ...]
    left_out: tuple[tuple[str, str], ...]


def photograph_files(folder: Path) -> PhotographFiles:
    """Tells the photographs below a folder from everything else.

    A photograph is a regular file whose content begins as an image or a DICOM file does, whatever it is called; and one
    called as an image of which nothing else is known, so that its damage is told when it is read. Left out are files of
    hidden and system folders, thumbnails, pipes, links to nothing, other documents, and what commands of ours drew.
    """
    photographs: list[Path] = []
    left_out: list[tuple[str, str]] = []
    for path, reason in every_file(folder):
        reason = reason or why_no_photograph(path)
        if reason:
            left_out.append((shown_name(path, folder), reason))
        else:
            photographs.append(path)
    return PhotographFiles(tuple(photographs), tuple(left_out))


def every_file(folder: Path) -> Iterator[tuple[Path, str]]:
    """(file, why its name or folder rules it out or '') for everything below a folder, in a fixed order; linked folders
    are followed, each once. A folder that cannot be listed comes as itself, with the reason."""
    visited: set[str] = set()
    reasons = {str(folder): ""}
    unlisted: list[tuple[Path, str]] = []

    def note(error: OSError) -> None:
        unlisted.append((Path(error.filename), f"folder that cannot be listed: {error.strerror}"))

    for directory, folders, files in os.walk(folder, followlinks=True, onerror=note):
        yield from unlisted
        unlisted.clear()
        real = os.path.realpath(directory)
        if real in visited:
            folders.clear()
            continue
        visited.add(real)
        folders.sort()
        above = reasons.pop(directory, "")
        here = {*files, *folders}
        own = _own_output(here)
        drawn = _drawn(Path(directory), here)
        for name in folders:
            reasons[os.path.join(directory, name)] = above or _why_not_folder(name) or drawn.get(name, "")
        if own and directory != str(folder) and not above:
            # An output inside the folder: nothing of it is a photograph of the source.
            above = f"the output of {own}"
            reasons.update({os.path.join(directory, name): above for name in folders})
        for name in sorted(files):
            yield Path(directory, name), above or drawn.get(name, "") or _why_not_name(name)
    yield from unlisted


def walk_files(folder: Path) -> Iterator[Path]:
    """The files below a folder that their names and folders do not rule out, in a fixed order."""
    return (path for path, reason in every_file(folder) if not reason)


def _own_output(here: set[str]) -> str:
    """The command of ours whose output folder holds these names, '' for none."""
    return next(
        (what for record, (what, beside, _) in OWN.items() if record in here and here & {*beside}), ""
    )


def _drawn(folder: Path, here: set[str]) -> dict[str, str]:
    """{name: 'drawn by ...'} of the pictures in a folder that commands of ours drew: never by their names alone, always by
    the record that lies beside them."""
    reasons = {}
    for record, (what, beside, pictures) in OWN.items():
        if record in here and here & {*beside}:
            reasons.update({name: f"drawn by {what}" for name in here if name.lower() in pictures})
    images = generated_images(folder) if GENERATED_INDEX in here else frozenset()
    for name in here - images if images else ():
        of_one = name.endswith(COMPARED) and f"{name.removesuffix(COMPARED)}.png" in images
        if of_one or name in GENERATED_SHEETS:
            reasons[name] = "drawn by --mode=generate of its images"
    return reasons


def generated_images(folder: Path) -> frozenset[str]:
    """The names of the images that --mode=generate put into a folder, by its index.csv; of another index nothing."""
    index = folder / GENERATED_INDEX
    try:
        if not index.is_file():  # a pipe is not opened
            return frozenset()
        with open(index, newline="", encoding="utf-8") as handle:
            rows = csv.DictReader(handle)
            if not {"file", "synthetic"} <= {*(rows.fieldnames or ())}:
                return frozenset()
            return frozenset(str(row["file"]) for row in rows if row["synthetic"] == "yes")
    except (OSError, UnicodeError, csv.Error):
        return frozenset()


def _why_not_folder(name: str) -> str:
    if name.lower() in SYSTEM_FOLDERS:
        return f"in a folder of {SYSTEM_FOLDERS[name.lower()]}"
    if name.lower() in THUMBNAIL_FOLDERS:
        return "in a folder of thumbnails"
    return "in a hidden folder" if name.startswith(".") else ""


def _why_not_name(name: str) -> str:
    if name.startswith("."):
        return "a hidden file"
    if name.lower() in SYSTEM_FILES:
        return "a file of the system"
    return "a thumbnail" if name.lower().startswith(THUMBNAIL_FILES) else ""


def why_no_photograph(path: Path) -> str:
    """The reason why a file cannot be a photograph, '' where it may be one. Pipes and devices are not opened."""
    try:
        mode = os.stat(path).st_mode
        if not stat.S_ISREG(mode):
            return "no regular file" if not stat.S_ISFIFO(mode) else "a pipe"
        with open(path, "rb") as handle:
            head = handle.read(HEAD)
    except FileNotFoundError:
        return "a link to a file that is not there" if path.is_symlink() else "there is no such file"
    except OSError as error:
        return f"cannot be read: {error.strerror}"
    except ValueError:  # a zero byte in a name that a damaged list gives
        return "there is no such file"
    if not head:
        return "empty file (0 bytes)"
    if image_format(head):
        return ""
    reason = other_kind(head)
    if reason or path.suffix.lower() in SUFFIXES:  # of these reading tells the damage
        return reason
    if path.suffix.lower() in (".heic", ".heif"):
        return "a HEIC image, which is not read: save it as JPEG or PNG"
    return "not an image" + (" (text)" if _is_text(head) else "")


def image_format(head: bytes) -> str:
    """'JPEG', 'PNG', 'TIFF', 'GIF', 'BMP', 'WebP', 'PNM', 'JPEG 2000', 'AVIF' or 'DICOM' by a file's first bytes; '' for
    anything else."""
    for magic, name in _MAGIC:
        if head.startswith(magic):
            return name
    if head[:4] == b"RIFF" and head[8:12] == b"WEBP":
        return "WebP"
    if head[:2] == b"BM" and head[14:18] in (
        bytes((size, 0, 0, 0)) for size in (12, 40, 52, 56, 64, 108, 124)
    ):
        return "BMP"
    if head[:1] == b"P" and head[1:2] in b"123456" and head[2:3] in b" \t\r\n" and len(head) > 3:
        return "PNM"
    if head[4:8] == b"ftyp" and {b"avif", b"avis"} & _brands(head):
        return "AVIF"
    return "DICOM" if is_dicom(head) else ""


def _brands(head: bytes) -> set[bytes]:
    """The brands of an ISO media file: its own, and those that it is compatible with."""
    end = min(int.from_bytes(head[:4], "big"), len(head))
    return {head[8:12], *(head[at : at + 4] for at in range(16, end - 3, 4))}


def is_dicom(head: bytes) -> bool:
    """Whether a file begins as DICOM does: with its preamble, or, as some exports do, at once with an element of group 2 or
    8 of which the length and the text, or the two letters of the type, are plausible."""
    if head[128:132] == b"DICM":
        return True
    if len(head) < 16 or head[:2] not in (b"\x02\0", b"\x08\0") or head[3:4] != b"\0":
        return False
    length = int.from_bytes(head[4:8], "little")
    text = head[8 : 8 + length].rstrip(b"\0 ")
    implicit = 0 < length <= 64 and length % 2 == 0 and (length == 4 or (bool(text) and _is_text(text)))
    return implicit or head[4:6] in _DICOM_TYPES


def other_kind(head: bytes) -> str:
    """What a file is that is no image which is read, for people; '' where that is not known."""
    for magic, reason in _OTHERS:
        if head.startswith(magic):
            return reason
    if head[4:8] == b"ftyp" and head[8:12] in _HEIC:
        return "a HEIC image, which is not read: save it as JPEG or PNG"
    if head[4:8] == b"ftyp" or head[:4] == b"RIFF":
        return "a film or sound, not an image"
    start = head[:200].lstrip(b"\xef\xbb\xbf \t\r\n").lower()
    if start.startswith((b"<!doctype html", b"<html", b"<head")):
        return "a web page, not an image: download the file itself"
    return ""


def _is_text(head: bytes) -> bool:
    return b"\0" not in head and all(byte >= 32 or byte in b"\t\r\n\f" for byte in head)


def shown_name(path: Path, folder: Path | None = None) -> str:
    """A path as it is written into lists: relative to the folder where it lies below it, forward slashes; bytes that are
    no UTF-8 as \\xNN."""
    path = path.relative_to(folder) if folder is not None and path.is_relative_to(folder) else path
    return os.fsencode(path.as_posix()).decode("utf-8", "backslashreplace")


def summary_line(left_out: tuple[tuple[str, str], ...]) -> str:
    """'3 other files left out: 2 in a hidden folder, 1 a pipe'; '' where there is none."""
    if not left_out:
        return ""
    counts: dict[str, int] = {}
    for _, reason in left_out:
        kind = reason.split(":")[0]
        counts[kind] = counts.get(kind, 0) + 1
    parts = [
        f"{count} {kind}" for kind, count in sorted(counts.items(), key=lambda item: (-item[1], item[0]))
    ]
    return f"{len(left_out)} other file{'s' * (len(left_out) > 1)} left out: {', '.join(parts)}"


def unread_line(notes: Iterable[tuple[str, str]]) -> str:
    """'2 files hold more than one picture: a.dcm (3 frames: the first is read), ...' of (file, note); '' where no note is."""
    several = [f"{file} ({note})" for file, note in notes if note]
    more = f" and {len(several) - 5} others" if len(several) > 5 else ""
    return (
        f"{len(several)} files hold more than one picture: {', '.join(several[:5])}{more}" if several else ""
    )
