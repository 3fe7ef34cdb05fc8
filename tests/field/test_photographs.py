"""Photographs as people have them, in one folder through prepare: which files are photographs, what their numbers mean, how
they are framed, how well they can be read. What happens with each is told apart by its name."""

from __future__ import annotations

import io
import os
import re
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import tifffile
from PIL import Image
from scipy import ndimage

from fundusgan_jax.data.phantom.render import render
from fundusgan_jax.data.prepare.preprocess import frame_image
from tests.support.dicom import write_dicom
from tests.support.field import Bench, Run, likeness, verdict
from tests.support.weight_files import LFS_POINTER

pytestmark = pytest.mark.slow
SIDE = 64


def eye(seed: int) -> np.ndarray:
    """uint8 [340, 440, 3]: a rendered eye of 300 pixels on a camera's black frame."""
    frame = np.zeros((340, 440, 3), np.uint8)
    frame[20:320, 70:370] = render(seed, 300).image
    return frame


def encoded(image: np.ndarray, form: str, **options: object) -> bytes:
    buffer = io.BytesIO()
    Image.fromarray(image).save(buffer, form, **options)
    return buffer.getvalue()


def tiff(values: np.ndarray, **options: object) -> bytes:
    buffer = io.BytesIO()
    tifffile.imwrite(buffer, values, **options)
    return buffer.getvalue()


def changed(data: bytes, at: float, part: bytes) -> bytes:
    """With `part` at a share of the file's length."""
    place = int(at * len(data))
    return data[:place] + part + data[place + len(part) :]


def grey(image: np.ndarray) -> np.ndarray:
    return image[..., 1]


def as_grey(image: np.ndarray) -> np.ndarray:
    return np.repeat(image[..., 1:2], 3, 2)


def dicom(folder: Path, pixels: np.ndarray, colours: str, **fields: object) -> bytes:
    path = write_dicom(folder / "one.dcm", pixels, colours, **fields)
    data = path.read_bytes()
    path.unlink()
    return data


# Kind 2. name -> content of eye, and what the reason says; '' where it is kept.
FILES: dict[str, tuple[Callable[[np.ndarray], bytes], str]] = {
    "files/scan.jpg.download": (lambda x: encoded(x, "JPEG", quality=95), ""),
    "files/OD 2021.PNG": (lambda x: encoded(x, "PNG"), ""),
    "files/no_suffix": (lambda x: tiff(x, photometric="rgb"), ""),
    "files/said_to_be.bmp": (lambda x: encoded(x, "WEBP", lossless=True), ""),
    ".Trash-1000/files/a.png": (lambda x: encoded(x, "PNG"), "hidden folder"),
    "#snapshot/b.png": (lambda x: encoded(x, "PNG"), "folder of a NAS"),
    "files/_thumbs/c.png": (lambda x: encoded(x, "PNG"), "folder of thumbnails"),
    "files/drawing.svg": (lambda _: b"<svg xmlns='http://www.w3.org/2000/svg'/>", r"not an image \(text\)"),
    "files/film.jpg": (lambda _: b"\0\0\0\x20ftypisom\0\0\2\0isomiso2avc1mp41", "film"),
    "score/eval.json": (lambda _: b"{}", "output of an evaluation"),
    "score/report.html": (lambda _: b"<html>", "output of an evaluation"),
    "score/tsne.png": (lambda x: encoded(x, "PNG"), "output of an evaluation"),
}  # fmt: skip


def numbers(folder: Path) -> dict[str, tuple[Callable[[np.ndarray], bytes], Callable | None, str]]:
    """Kind 5. name -> content of an eye, what is to be seen (None: nothing, it is rejected), and what the reason says."""
    same = lambda x: x  # noqa: E731
    return {
        "numbers/twelve_in_sixteen.png": (lambda x: encoded(grey(x).astype(np.uint16) * 16, "PNG"), as_grey, ""),
        "numbers/planes.tif": (
            lambda x: tiff(x.transpose(2, 0, 1).astype(np.uint16) * 257, photometric="rgb", planarconfig="separate"), same, ""
        ),
        "numbers/float.tif": (lambda x: tiff((x / 255).astype(np.float32), photometric="rgb"), same, ""),
        "numbers/min_is_white.tif": (lambda x: tiff(255 - grey(x), photometric="miniswhite"), as_grey, ""),
        "numbers/cmyk.jpg": (lambda x: cmyk(x), same, ""),
        "numbers/palette.png": (lambda x: palette(x), same, ""),
        "numbers/grey_alpha.png": (lambda x: encoded(np.dstack([grey(x), np.full(x.shape[:2], 255, np.uint8)]), "PNG"), as_grey, ""),
        "numbers/monochrome1.dcm": (lambda x: dicom(folder, 255 - grey(x), "MONOCHROME1"), as_grey, ""),
        "numbers/ten_bits.dcm": (lambda x: dicom(folder, grey(x).astype(np.uint16) * 4, "MONOCHROME2", bits=10), as_grey, ""),
        "numbers/window.dcm": (
            lambda x: dicom(folder, grey(x).astype(np.uint16) + 1000, "MONOCHROME2", WindowCenter=1128, WindowWidth=256), as_grey, ""
        ),
        "numbers/planes.dcm": (
            lambda x: dicom(folder, np.ascontiguousarray(x.transpose(2, 0, 1)).reshape(x.shape), "RGB", PlanarConfiguration=1), same, ""
        ),
        "numbers/cut.jpg": (lambda x: encoded(x, "JPEG")[:-3000], None, "truncated"),
        "numbers/zeros.jpg": (lambda x: changed(encoded(x, "JPEG"), 0.5, bytes(60)), None, "damaged JPEG"),
        "numbers/flipped.png": (lambda x: changed(encoded(x, "PNG"), 0.5, b"\x55\xaa"), None, "damaged PNG|corrupt|truncated"),
        "numbers/nan.tif": (
            lambda x: tiff(np.where(x == x.max(), np.nan, x / 255).astype(np.float32), photometric="rgb"), None, "not finite"
        ),
        "numbers/cut.dcm": (lambda x: dicom(folder, x, "RGB")[:-5000], None, "truncated DICOM"),
        "numbers/pointer.dcm": (lambda _: LFS_POINTER, None, "Git LFS"),
        "numbers/phone.heic": (lambda _: b"\0\0\0\x18ftypheic\0\0\0\0mif1heic", None, "HEIC"),
    }  # fmt: skip


def cmyk(image: np.ndarray) -> bytes:
    buffer = io.BytesIO()
    Image.fromarray(image).convert("CMYK").save(buffer, "JPEG", quality=98)
    return buffer.getvalue()


def palette(image: np.ndarray) -> bytes:
    buffer = io.BytesIO()
    Image.fromarray(image).quantize(256).save(buffer, "PNG")
    return buffer.getvalue()


def around(image: np.ndarray, colour: tuple[int, int, int]) -> np.ndarray:
    """With another colour outside the eye."""
    frame = np.zeros(image.shape[:2], bool)
    frame[20:320, 70:370] = render(0, 300).fov
    return np.where(frame[..., None], image, np.uint8(colour))


def in_frame(image: np.ndarray) -> np.ndarray:
    frame = np.zeros((1500, 1100, 3), np.uint8)
    frame[600:940, 300:740] = image
    return frame


def squeezed(image: np.ndarray) -> np.ndarray:
    return np.asarray(Image.fromarray(image).resize((340, 340), Image.Resampling.BICUBIC))


# Kind 6. name -> picture of an eye, and what the reason says; '' where the same circle is to be found.
FRAMES: dict[str, tuple[Callable[[np.ndarray], np.ndarray], str]] = {
    "frames/bar_at_left.png": (lambda x: np.concatenate([np.full((340, 60, 3), 255, np.uint8), x], 1), ""),
    "frames/beige_paper.png": (lambda x: around(x, (240, 228, 205)), ""),
    "frames/green_wall.png": (lambda x: around(x, (20, 120, 40)), ""),
    "frames/phone_adapter.png": (in_frame, ""),
    "frames/squeezed.png": (squeezed, ""),
    "frames/two_eyes.png": (lambda x: np.concatenate([x, x[:, ::-1]], 1), "several fields of view"),
    "frames/inside_alone.png": (lambda x: x[80:260, 120:320], "no disc-shaped field of view"),
    "frames/a_slice.png": (lambda x: x[120:200], "zoomed in|no disc-shaped"),
    "frames/icon.png": (lambda x: np.asarray(Image.fromarray(x).resize((28, 22))), "too small"),
}


def shaded(image: np.ndarray, share: float) -> np.ndarray:
    """Dark from the left on, to a share of the width of the eye."""
    dark = image.copy()
    dark[:, : 70 + int(300 * share)] //= 60
    return dark


def blurred(image: np.ndarray, sigma: float) -> np.ndarray:
    return ndimage.gaussian_filter(image, (sigma, sigma, 0))


# Kind 7. name -> picture of an eye, and what the reason says; '' where it is kept at the default.
QUALITY: dict[str, tuple[Callable[[np.ndarray], np.ndarray], str]] = {
    "quality/crescent.png": (lambda x: shaded(x, 0.75), "mostly black"),
    "quality/shadow.png": (lambda x: shaded(x, 0.25), ""),
    "quality/night.png": (lambda x: x // 8, "too dark"),
    "quality/dusk.png": (lambda x: x // 2, ""),
    "quality/flash.png": (lambda x: np.where(x.max(2, keepdims=True) > 20, np.uint8(255), x), "saturated"),
    "quality/fog.png": (lambda x: blurred(x, 9), "out of focus"),
    "quality/a_little_soft.png": (lambda x: blurred(x, 1), ""),
}


def whole(folder: Path) -> dict[str, bytes]:
    """Every input, each of an eye of its own."""
    contents: dict[str, bytes] = {}
    makers: dict[str, Callable[[np.ndarray], bytes]] = {name: make for name, (make, _) in FILES.items()}
    makers |= {name: make for name, (make, *_) in numbers(folder).items()}
    pictures = {name: make for name, (make, _) in (FRAMES | QUALITY).items()}
    makers |= {name: lambda x, make=make: encoded(make(x), "PNG") for name, make in pictures.items()}
    for seed, (name, make) in enumerate(makers.items()):
        contents[name] = make(eye(seed))
    return contents


@pytest.fixture(scope="module")
def done(tmp_path_factory: pytest.TempPathFactory) -> Run:
    """All of them prepared by one command."""
    work = tmp_path_factory.mktemp("photographs")
    for name, data in whole(work).items():
        path = work / "source" / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(data)
    os.mkfifo(work / "source" / "files" / "pipe.jpg")
    return Bench(work, work).prepare(work / "source", side=SIDE)


def seed_of(name: str) -> int:
    return [*FILES, *numbers(Path()), *FRAMES, *QUALITY].index(name)


def judged(done: Run, kind: int, name: str, pattern: str, expected: np.ndarray | None = None) -> None:
    """Kept where no reason is expected, with the pixels that are; else rejected for that reason."""
    reason = done.rejected.get(name, "kept" if name in done.splits else "neither kept nor named")
    right = bool(re.search(pattern, reason)) if pattern else reason == "kept"
    if right and expected is not None:
        seen = done.images[name]
        alike, light = likeness(seen, expected), seen.mean() / expected.mean()
        reason = f"kept, correlation {alike:.3f}, brightness {light:.2f}"
        right = alike > 0.96 and 0.9 < light < 1.1
    verdict(f"own {kind:02d} {name}", reason, right)


@pytest.mark.parametrize("name", [*FILES, "files/pipe.jpg"])
def test_which_files_are_photographs(done: Run, name: str) -> None:
    judged(done, 2, name, FILES[name][1] if name in FILES else "a pipe")


@pytest.mark.parametrize("name", numbers(Path()))
def test_what_numbers_mean(done: Run, name: str) -> None:
    _, shown, pattern = numbers(Path())[name]
    seen = None if shown is None else frame_image(shown(eye(seed_of(name))), SIDE).prepared.image
    judged(done, 5, name, pattern, seen)


@pytest.mark.parametrize("name", FRAMES)
def test_framing(done: Run, name: str) -> None:
    pattern = FRAMES[name][1]
    plain = frame_image(eye(seed_of(name)), SIDE).prepared.image
    judged(done, 6, name, pattern, None if pattern else plain)


def test_squares_that_are_prepared_already(bench: Bench) -> None:
    for seed in range(4):
        image = render(seed, 192).image[50:142, 50:142]  # no circle is left to find
        (bench.work / "s").mkdir(exist_ok=True)
        Image.fromarray(image).save(bench.work / "s" / f"{seed}.png")
    first, second = bench.prepare(bench.work / "s"), bench.prepare(bench.work / "s", "--preprocess=none")
    right = "--preprocess=none takes" in first.said + first.error and len(second.splits) == 4
    verdict(
        "own 06 squares without a rim",
        f"{len(first.rejected)} rejected and the hint; with --preprocess=none {len(second.splits)} kept",
        right,
    )


@pytest.mark.parametrize("name", QUALITY)
def test_quality(done: Run, name: str) -> None:
    judged(done, 7, name, QUALITY[name][1])


def test_levels_of_quality(bench: Bench) -> None:
    for seed, (name, (make, _)) in enumerate(QUALITY.items()):
        path = bench.work / "s" / name
        path.parent.mkdir(parents=True, exist_ok=True)
        Image.fromarray(make(eye(seed))).save(path)
    off, good = (bench.prepare(bench.work / "s", f"--quality={level}") for level in ("off", "good"))
    verdict("own 07 --quality=off", f"{off.rejected}", off.code == 0 and len(off.splits) == len(QUALITY))
    wanted = {
        "quality/shadow.png",
        "quality/crescent.png",
        "quality/night.png",
        "quality/flash.png",
        "quality/fog.png",
    }
    verdict("own 07 --quality=good", f"{good.rejected}", wanted <= set(good.rejected) and good.code == 0)
