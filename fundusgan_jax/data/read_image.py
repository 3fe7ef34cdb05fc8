"""Reads any image file that a clinic may hand over as 8-bit RGB, or says in one line why not."""

from __future__ import annotations

import contextlib
import warnings
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any, Literal

import numpy as np
from PIL import Image, ImageOps, UnidentifiedImageError

MAX_PIXELS = 500_000_000
# Pillow warns at its limit and refuses at twice that (179 megapixels by default): the second is ours.
Image.MAX_IMAGE_PIXELS = MAX_PIXELS // 2


class Rejected(Exception):
    """A photograph that is left out; its message is the reason, one line."""

    @property
    def reason(self) -> str:
        return str(self)


# A 16-bit or float image's kind, and black and white of either.
Deep = Literal["float", "integer"]
Scale = Mapping[Deep, tuple[float, float]]


def read_image(path: str | Path, scale: Scale | None = None) -> np.ndarray:
    """Reads JPEG, PNG, TIFF, GIF, BMP or DICOM.

    EXIF rotation is applied; greyscale, palette, CMYK and transparent images become RGB; 16-bit (and
    float) ones are scaled from their range to 8 bits, not cut off.

    Args:
        path: of the file.
        scale: of the set that the file belongs to (`value_ranges.scale_of`); None guesses it from this file alone.

    Returns:
        uint8 [H, W, 3].

    Raises:
        Rejected: empty, truncated, not an image, or above 500 megapixels.
    """
    path = Path(path)
    try:
        with open(path, "rb") as handle:
            head = handle.read(132)
    except OSError as error:
        raise Rejected(f"cannot be read: {error.strerror}") from error
    if not head:
        raise Rejected("empty file (0 bytes)")
    if head[128:132] == b"DICM" or path.suffix.lower() in (".dcm", ".dicom"):
        return _read_dicom(path)
    with opened(path) as image:
        return _to_rgb(ImageOps.exif_transpose(image), scale)


@contextlib.contextmanager
def opened(path: Path) -> Iterator[Image.Image]:
    """The image of a file that Pillow reads, loaded.

    Raises:
        Rejected: damaged, not an image, too small or too large.
    """
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            with Image.open(path) as image:
                _check_size(*image.size)
                image.load()
                yield image
    except Rejected:
        raise
    except Image.DecompressionBombError as error:
        raise Rejected(f"larger than {MAX_PIXELS // 1_000_000} megapixels") from error
    except UnidentifiedImageError as error:
        raise Rejected("not an image, or of a kind that cannot be read") from error
    except Exception as error:  # of damaged files the libraries' decoders raise whatever they come to
        truncated = "truncated" in str(error).lower() or "unexpected end" in str(error).lower()
        said = str(error).split("\n")[0] or type(error).__name__
        raise Rejected("truncated image file" if truncated else f"corrupt image file ({said})") from error


def _check_size(width: int, height: int) -> None:
    if width * height > MAX_PIXELS:
        raise Rejected(f"{width}x{height} is larger than {MAX_PIXELS // 1_000_000} megapixels")
    if min(width, height) < 16:
        raise Rejected(f"{width}x{height} is too small for a photograph")


def is_deep(image: Image.Image) -> bool:
    """Whether its pixels are 16-bit or float numbers."""
    return image.mode in ("I", "F") or image.mode.startswith("I;16")


def _to_rgb(image: Image.Image, scale: Scale | None) -> np.ndarray:
    if is_deep(image):
        kind: Deep = "float" if image.mode == "F" else "integer"
        return _grey_to_rgb(np.asarray(image, np.float64), scale.get(kind) if scale else None)
    if image.mode in ("RGBA", "LA", "PA") or "transparency" in image.info:
        # What is transparent is surround: black.
        image = image.convert("RGBA")
        image = Image.alpha_composite(Image.new("RGBA", image.size, (0, 0, 0, 255)), image)
    return np.ascontiguousarray(np.asarray(image.convert("RGB")))


def _grey_to_rgb(values: np.ndarray, ends: tuple[float, float] | None = None) -> np.ndarray:
    """Scales 16-bit or float values to 0..255; ends: black and white, None takes the depth that these values use."""
    if ends is None:
        top = float(values.max())
        ends = (0.0, next((limit for limit in (1.0, 255.0, 4095.0, 65535.0) if top <= limit), top))
    black, white = ends
    scaled = np.clip(np.rint((values - black) * (255.0 / (white - black))), 0, 255).astype(np.uint8)
    return np.repeat(scaled[:, :, None], 3, 2) if scaled.ndim == 2 else scaled


def _read_dicom(path: Path) -> np.ndarray:
    import pydicom
    from pydicom.pixels import pixel_array

    try:
        dataset = pydicom.dcmread(path)
        _check_size(int(dataset.Columns), int(dataset.Rows))
        # Luminance and chrominance (YBR), what most cameras store, come out as RGB.
        pixels = np.asarray(pixel_array(dataset))
        colours = str(dataset.PhotometricInterpretation)
    except Rejected:
        raise
    except Exception as error:  # pydicom's decoders raise whatever they meet
        raise Rejected(f"DICOM file that cannot be decoded ({type(error).__name__}: {error})") from error
    if pixels.ndim == 4 or (pixels.ndim == 3 and pixels.shape[-1] not in (3, 4)):
        pixels = pixels[0]
    if pixels.ndim == 2:
        inverted = pixels.max() - pixels if colours == "MONOCHROME1" else pixels
        return _grey_to_rgb(inverted.astype(np.float64))
    if pixels.dtype != np.uint8:
        pixels = _grey_to_rgb(pixels.astype(np.float64))
    return np.ascontiguousarray(pixels[:, :, :3])


def dicom_fields(path: str | Path) -> dict[str, Any]:
    """{'age': years or None, 'sex': 'M', 'F', 'O' or ''} of a DICOM file; nothing else is taken from it."""
    import pydicom

    dataset = pydicom.dcmread(path, stop_before_pixels=True, specific_tags=["PatientAge", "PatientSex"])
    text = str(dataset.get("PatientAge", "") or "")
    age = int(text[:3]) if text[:3].isdigit() and text[3:] in ("Y", "") else None
    return {"age": age, "sex": str(dataset.get("PatientSex", "") or "")}
