"""Reads any image file that a clinic may hand over as 8-bit RGB, or says in one line why not."""

from __future__ import annotations

import warnings
from pathlib import Path
from typing import Any

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


def read_image(path: str | Path) -> np.ndarray:
    """Reads JPEG, PNG, TIFF, GIF, BMP or DICOM.

    EXIF rotation is applied; greyscale, palette, CMYK and transparent images become RGB; 16-bit (and
    float) ones are scaled from their range to 8 bits, not cut off.

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
    return _read_pil(path)


def _read_pil(path: Path) -> np.ndarray:
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", Image.DecompressionBombWarning)
            with Image.open(path) as image:
                _check_size(*image.size)
                image.load()
                return _to_rgb(ImageOps.exif_transpose(image))
    except Rejected:
        raise
    except Image.DecompressionBombError as error:
        raise Rejected(f"larger than {MAX_PIXELS // 1_000_000} megapixels") from error
    except UnidentifiedImageError as error:
        raise Rejected("not an image, or of a kind that cannot be read") from error
    except (OSError, SyntaxError, ValueError, EOFError, TypeError, IndexError) as error:
        truncated = "truncated" in str(error).lower() or "unexpected end" in str(error).lower()
        raise Rejected("truncated image file" if truncated else f"corrupt image file ({error})") from error


def _check_size(width: int, height: int) -> None:
    if width * height > MAX_PIXELS:
        raise Rejected(f"{width}x{height} is larger than {MAX_PIXELS // 1_000_000} megapixels")
    if min(width, height) < 16:
        raise Rejected(f"{width}x{height} is too small for a photograph")


def _to_rgb(image: Image.Image) -> np.ndarray:
    if image.mode in ("I", "F") or image.mode.startswith("I;16"):
        return _grey_to_rgb(np.asarray(image, np.float64))
    if image.mode in ("RGBA", "LA", "PA") or "transparency" in image.info:
        # What is transparent is surround: black.
        image = image.convert("RGBA")
        image = Image.alpha_composite(Image.new("RGBA", image.size, (0, 0, 0, 255)), image)
    return np.ascontiguousarray(np.asarray(image.convert("RGB")))


def _grey_to_rgb(values: np.ndarray) -> np.ndarray:
    """Scales 16-bit or float values to 0..255; the range is that of the depth they use."""
    top = float(values.max())
    depth = next((limit for limit in (1.0, 255.0, 4095.0, 65535.0) if top <= limit), top)
    scaled = np.clip(np.rint(values * (255.0 / depth)), 0, 255).astype(np.uint8)
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
