"""Decodes the first frame of a DICOM file with pydicom's own functions, and reads what is known of the person's eye."""

from __future__ import annotations

import warnings
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np

from fundusgan_jax.data.decoded import Decoded, Rejected, check_size
from fundusgan_jax.data.photograph_files import HEAD, is_dicom

if TYPE_CHECKING:
    from pydicom import Dataset

# Of decoded frame, its copies, and of grey frames doubles for table and window.
COLOUR_BYTES, GREY_BYTES = 16.0, 32.0
JPEG_2000_HEAD = 4096  # bytes of a frame that hold its codestream's header
SRGB = 16  # the number of that colour space
EXTRA = "pip install '.[dicom]'"


def decode_dicom(path: Path) -> Decoded:
    """The first frame: palette, modality table, window, photometric interpretation and pixel aspect applied.

    Raises:
        Rejected: no pixels, damaged, too large, or compressed in a way for which no decoder is installed.
    """
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # of fields that are not used
            header = read_header(path)
            _check(header)
            frame = _first_frame(path, header)
            frames = int(header.get("NumberOfFrames") or 1)
            note = f"{frames} frames: the first is read" if frames > 1 else ""
            return _square_pixels(_meaning(frame, header), header)._replace(note=note)
    except Rejected:
        raise
    except Exception as error:  # pydicom's decoders raise whatever they meet
        said = " ".join(str(error).split()) or type(error).__name__
        if "less than expected" in said or "cannot reshape" in said:
            raise Rejected("truncated DICOM file: it holds fewer pixels than its header says") from error
        raise Rejected(f"DICOM file that cannot be decoded ({type(error).__name__}: {said[:300]})") from error


def read_header(path: Path, *tags: str) -> Dataset:
    """Everything before the pixels, or only some of it; a missing preamble is no hindrance."""
    import pydicom
    from pydicom import uid

    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        header = pydicom.dcmread(path, stop_before_pixels=True, force=True, specific_tags=list(tags) or None)
    if not header.file_meta.get("TransferSyntaxUID"):
        implicit, little = header.original_encoding
        plain = uid.ImplicitVRLittleEndian if implicit else uid.ExplicitVRLittleEndian
        header.file_meta.TransferSyntaxUID = plain if little else uid.ExplicitVRBigEndian
    return header


def is_deep(path: Path) -> bool:
    """Whether the numbers' black and white depend on the other files of the set."""
    try:
        header = read_header(path)
        return (
            str(header.get("PhotometricInterpretation", "")).startswith("MONOCHROME")
            and _ends(header) is None
        )
    except Exception:  # damaged: who reads it says why
        return False


def _check(header: Dataset) -> None:
    from pydicom.pixels import get_decoder

    if not header.get("Rows") or not header.get("Columns"):
        kind = header.get("SOPClassUID")
        raise Rejected(f"DICOM file without an image ({kind.name if kind else 'of no kind that is named'})")
    if not header.get("PhotometricInterpretation"):
        raise Rejected("DICOM file without Photometric Interpretation (0028,0004): export it anew")
    _check_enlarged(header)
    syntax = header.file_meta.TransferSyntaxUID
    try:
        decoder = get_decoder(syntax)
    except NotImplementedError as error:
        raise Rejected(f"DICOM file in {syntax.name}, which is not read: export it uncompressed") from error
    twelve_bits = syntax.name.startswith("JPEG Extended") and int(header.get("BitsStored") or 8) > 8
    if not decoder.is_available or (twelve_bits and decoder.available_plugins == ("pillow",)):
        raise Rejected(f"DICOM file in {syntax.name}: its decoder is not installed ({EXTRA})")


def _check_enlarged(header: Dataset) -> None:
    """Rejected where the frame, or what `_square_pixels` makes of it, takes more than reading may."""
    kind = GREY_BYTES if int(header.get("SamplesPerPixel") or 1) == 1 else COLOUR_BYTES
    width, height = int(header.Columns), int(header.Rows)
    check_size(width, height, kind)
    down, across = _enlargement(header)
    try:
        check_size(round(width * across), round(height * down), kind)
    except Rejected as error:
        raise Rejected(f"with square pixels, as its header wants them, {error}") from error


def _first_frame(path: Path, header: Dataset) -> np.ndarray:
    """[H, W] or [H, W, 3], colours as RGB, palette numbers as they are."""
    import pydicom
    from pydicom.misc import is_dicom as has_preamble
    from pydicom.pixels import convert_color_space, pixel_array

    source: Any = path
    if not has_preamble(path):  # without preamble the syntax is a guess, which the dataset carries
        source = pydicom.dcmread(path, force=True)
        source.file_meta = header.file_meta
    if "PixelData" not in source if source is not path else not _has_pixels(path):
        raise Rejected("DICOM file without pixels: no pixel data follows its header")
    colours = str(header.PhotometricInterpretation)
    if "JPEG 2000" not in header.file_meta.TransferSyntaxUID.name or not colours.startswith("YBR"):
        return np.asarray(pixel_array(source, index=0))
    # A codestream says itself whether its decoder makes RGB of it, and headers claim otherwise.
    frame = np.asarray(pixel_array(source, index=0, raw=True))
    if colours.startswith("YBR_FULL") and not _transformed(path):
        return np.asarray(convert_color_space(frame, "YBR_FULL", "RGB"))
    return frame


def _has_pixels(path: Path) -> bool:
    import pydicom

    with open(path, "rb") as handle:
        pydicom.dcmread(handle, stop_before_pixels=True, force=True)
        return len(handle.read(8)) == 8


def _transformed(path: Path) -> bool:
    """Whether the first JPEG 2000 codestream has its multiple component transform (ISO 15444-1, A.6.1), or its box says sRGB
    (I.5.3.3)."""
    import pydicom

    with open(path, "rb") as handle:
        pydicom.dcmread(handle, stop_before_pixels=True)
        head = handle.read(JPEG_2000_HEAD)
    box = head.find(b"colr\x01")
    if box >= 0 and int.from_bytes(head[box + 7 : box + 11], "big") == SRGB:
        return True
    at = head.find(b"\xff\x4f\xff\x51")
    at = head.find(b"\xff\x52", at) if at >= 0 else -1  # after its size comes the coding style
    return at >= 0 and head[at + 8 : at + 9] == b"\x01"


def _meaning(frame: np.ndarray, header: Dataset) -> Decoded:
    """What the numbers of a frame stand for."""
    from pydicom.pixels import apply_color_lut, apply_modality_lut, apply_voi_lut

    colours = str(header.PhotometricInterpretation)
    if colours == "PALETTE COLOR":
        frame = apply_color_lut(frame, header)[..., :3]
        # 16-bit entries, of which some exporters fill the lower byte alone.
        deep = frame.dtype == np.uint16 and frame.max() > 255
        return Decoded(frame, "DICOM palette", (0.0, 65535.0)) if deep else Decoded(frame.astype(np.uint8))
    if frame.ndim == 3:
        white = 2.0 ** int(header.BitsStored) - 1
        whole = frame.dtype == np.uint8 and white == 255
        return Decoded(np.ascontiguousarray(frame[..., :3]), *(() if whole else ("DICOM RGB", (0.0, white))))
    values = apply_voi_lut(apply_modality_lut(frame, header), header)
    kind = f"integer DICOM {int(header.BitsStored)} bits"
    if "RescaleSlope" in header:
        kind += f" x {float(header.RescaleSlope):g} + {float(header.get('RescaleIntercept', 0)):g}"
    return Decoded(np.asarray(values), kind, _ends(header), inverted=colours == "MONOCHROME1")


def _ends(header: Dataset) -> tuple[float, float] | None:
    """Black and white of grey numbers after table and window; None where 16 bits, or rescaled numbers without a window, do
    not say how much of their range is used."""
    bits, signed = int(header.BitsStored), int(header.get("PixelRepresentation") or 0)
    low, high = (-(2.0 ** (bits - 1)), 2.0 ** (bits - 1) - 1) if signed else (0.0, 2.0**bits - 1)
    if header.get("VOILUTSequence"):
        return 0.0, 2.0 ** int(header.VOILUTSequence[0].LUTDescriptor[2]) - 1
    if header.get("ModalityLUTSequence"):
        return 0.0, 2.0 ** int(header.ModalityLUTSequence[0].LUTDescriptor[2]) - 1
    rescaled = "RescaleSlope" in header and "RescaleIntercept" in header
    if rescaled:
        slope, intercept = float(header.RescaleSlope), float(header.RescaleIntercept)
        low, high = low * slope + intercept, high * slope + intercept
    windowed = header.get("WindowCenter") is not None and header.get("WindowWidth") is not None
    changed = rescaled and (slope, intercept) != (1.0, 0.0)
    return (low, high) if windowed or (bits < 16 and not changed) else None


def _enlargement(header: Dataset) -> tuple[float, float]:
    """By how much the frame has to be higher and wider for square pixels; Rejected where that is too much."""
    ratio = header.get("PixelAspectRatio")
    spacing = header.get("PixelSpacing") or header.get("ImagerPixelSpacing")
    high, wide = (float(value) for value in (ratio or spacing or (1, 1)))
    if min(high, wide) <= 0 or abs(high / wide - 1) < 0.01:
        return 1.0, 1.0
    down, across = max(high / wide, 1.0), max(wide / high, 1.0)
    if max(down, across) > 4:
        raise Rejected(
            f"DICOM file whose pixels are {high:g} high and {wide:g} wide: export it with square pixels"
        )
    return down, across


def _square_pixels(decoded: Decoded, header: Dataset) -> Decoded:
    """Enlarged along one side where the header says that pixels are not square, a channel at a time: of an enlarged pixel 4
    bytes more than its own are held."""
    from scipy import ndimage

    more = _enlargement(header)
    if more == (1.0, 1.0):
        return decoded
    pixels = decoded.pixels
    channels = pixels[..., None] if pixels.ndim == 2 else pixels
    size = tuple(round(side * times) for side, times in zip(pixels.shape, more))
    enlarged = np.empty((*size, channels.shape[-1]), pixels.dtype)
    for number in range(channels.shape[-1]):
        values = ndimage.zoom(
            channels[..., number], more, output=np.float32, order=1, grid_mode=True, mode="nearest"
        )
        enlarged[..., number] = (
            np.rint(values, out=values) if np.issubdtype(pixels.dtype, np.integer) else values
        )
    return decoded._replace(pixels=enlarged[..., 0] if pixels.ndim == 2 else enlarged)


class Person(NamedTuple):
    """patient: PatientID as it stands in the file, '' for none. eye: 'right', 'left' or ''."""

    patient: str
    eye: str


def person_of(path: Path) -> Person:
    """Whose eye a DICOM file shows, and which; Person('', '') of another file."""
    try:
        with open(path, "rb") as handle:
            if not is_dicom(handle.read(HEAD)):
                return Person("", "")
        header = read_header(path, "PatientID", "Laterality", "ImageLaterality")
    except Exception:  # damaged: who reads its pixels says why
        return Person("", "")
    side = str(header.get("ImageLaterality") or header.get("Laterality") or "").strip().upper()
    return Person(str(header.get("PatientID") or "").strip(), {"R": "right", "L": "left"}.get(side, ""))


def dicom_fields(path: str | Path) -> dict[str, Any]:
    """{'age': years or None, 'sex': 'M', 'F', 'O' or ''} of a DICOM file; nothing else is taken from it."""
    dataset = read_header(Path(path), "PatientAge", "PatientSex")
    text = str(dataset.get("PatientAge", "") or "")
    age = int(text[:3]) if text[:3].isdigit() and text[3:] in ("Y", "") else None
    return {"age": age, "sex": str(dataset.get("PatientSex", "") or "")}
