"""Every kind of file that a clinic hands over: read as 8-bit RGB, or refused with the reason."""

import struct
import zlib
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from fundusgan_jax.data.read_image import Rejected, dicom_fields, read_image

RGB = np.random.default_rng(0).integers(0, 256, (40, 50, 3), dtype=np.uint8)
GREY = np.arange(40 * 50, dtype=np.uint16).reshape(40, 50)


def test_lossless_formats_come_back_as_they_were(tmp_path: Path) -> None:
    for suffix in ("png", "tif", "bmp"):
        Image.fromarray(RGB).save(tmp_path / f"a.{suffix}")
        np.testing.assert_array_equal(read_image(tmp_path / f"a.{suffix}"), RGB)


def test_a_name_does_not_decide_the_format(tmp_path: Path) -> None:
    Image.fromarray(RGB).save(tmp_path / "a.png")
    (tmp_path / "a.png").rename(tmp_path / "a.JPG")
    np.testing.assert_array_equal(read_image(tmp_path / "a.JPG"), RGB)


def test_grey_palette_cmyk_and_transparent_pictures_become_rgb(tmp_path: Path) -> None:
    grey = Image.fromarray(RGB[..., 0])
    grey.save(tmp_path / "grey.png")
    np.testing.assert_array_equal(read_image(tmp_path / "grey.png"), np.repeat(RGB[..., :1], 3, 2))
    few = Image.fromarray(RGB).quantize(16)
    few.save(tmp_path / "few.gif")
    np.testing.assert_array_equal(read_image(tmp_path / "few.gif"), np.asarray(few.convert("RGB")))
    Image.fromarray(np.full_like(RGB, (200, 100, 50))).convert("CMYK").save(tmp_path / "c.jpg", quality=95)
    assert np.abs(read_image(tmp_path / "c.jpg").astype(int) - (200, 100, 50)).max() <= 4
    alpha = np.where(np.arange(50) < 25, 255, 0) * np.ones((40, 1))
    Image.fromarray(np.dstack([RGB, alpha.astype(np.uint8)])).save(tmp_path / "alpha.png")
    seen = read_image(tmp_path / "alpha.png")
    np.testing.assert_array_equal(seen[:, :25], RGB[:, :25])
    assert not seen[:, 25:].any()


@pytest.mark.parametrize(("top", "depth"), [(65535, 65535), (4000, 4095), (200, 255)])
def test_deep_pictures_are_scaled_and_not_cut_off(tmp_path: Path, top: int, depth: int) -> None:
    values = (GREY.astype(np.float64) * top / GREY.max()).round().astype(np.uint16)
    Image.fromarray(values).save(tmp_path / "deep.png")
    expected = np.rint(values * (255 / depth))
    np.testing.assert_array_equal(read_image(tmp_path / "deep.png")[..., 1], expected)


@pytest.mark.parametrize("orientation", range(1, 9))
def test_exif_orientation_is_applied(tmp_path: Path, orientation: int) -> None:
    turned = {1: lambda x: x, 2: np.fliplr, 3: lambda x: np.rot90(x, 2), 4: np.flipud,
              5: lambda x: x.transpose(1, 0, 2), 6: lambda x: np.rot90(x, 1),
              7: lambda x: np.rot90(x, 2).transpose(1, 0, 2), 8: lambda x: np.rot90(x, -1)}  # fmt: skip
    exif = Image.Exif()
    exif[0x0112] = orientation
    Image.fromarray(np.ascontiguousarray(turned[orientation](RGB))).save(
        tmp_path / "a.png", exif=exif.tobytes()
    )
    np.testing.assert_array_equal(read_image(tmp_path / "a.png"), RGB)


def png_of_zeros(path: Path, width: int, height: int) -> None:
    """A black 1-bit PNG of any size in a few bytes."""

    def chunk(kind: bytes, content: bytes) -> bytes:
        return (
            struct.pack(">I", len(content)) + kind + content + struct.pack(">I", zlib.crc32(kind + content))
        )

    packer, rows = zlib.compressobj(9), bytearray()
    for _ in range(height):
        rows += packer.compress(bytes(1 + (width + 7) // 8))
    rows += packer.flush()
    header = struct.pack(">IIBBBBB", width, height, 1, 0, 0, 0, 0)
    path.write_bytes(
        b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", header) + chunk(b"IDAT", bytes(rows)) + chunk(b"IEND", b"")
    )


def test_two_hundred_megapixels_are_read_and_five_hundred_are_the_end(tmp_path: Path) -> None:
    png_of_zeros(tmp_path / "large.png", 14_200, 14_200)  # beyond Pillow's own limit of 179
    assert read_image(tmp_path / "large.png").shape == (14_200, 14_200, 3)
    png_of_zeros(tmp_path / "bomb.png", 30_000, 20_000)
    with pytest.raises(Rejected, match="larger than 500 megapixels"):
        read_image(tmp_path / "bomb.png")


def test_what_cannot_be_read_is_refused_with_its_reason(tmp_path: Path) -> None:
    Image.fromarray(RGB).resize((400, 400)).save(tmp_path / "whole.jpg")
    whole = (tmp_path / "whole.jpg").read_bytes()
    (tmp_path / "half.jpg").write_bytes(whole[: len(whole) // 2])
    (tmp_path / "empty.png").write_bytes(b"")
    (tmp_path / "text.png").write_text("not a picture")
    (tmp_path / "odd.dcm").write_bytes(b"\0" * 128 + b"DICM" + b"\1\2")
    Image.fromarray(RGB[:4]).save(tmp_path / "strip.png")
    expected = {"half.jpg": "truncated", "empty.png": "empty file", "text.png": "not an image",
                "odd.dcm": "DICOM file that cannot be decoded", "strip.png": "50x4 is too small",
                "absent.png": "cannot be read: No such file"}  # fmt: skip
    for name, reason in expected.items():
        with pytest.raises(Rejected, match=reason) as refused:
            read_image(tmp_path / name)
        assert "\n" not in refused.value.reason


def write_dicom(path: Path, pixels: np.ndarray, colours: str, **fields: str) -> None:
    import pydicom
    from pydicom.dataset import FileDataset, FileMetaDataset
    from pydicom.uid import ExplicitVRLittleEndian, generate_uid

    meta = FileMetaDataset()
    meta.TransferSyntaxUID = ExplicitVRLittleEndian
    meta.MediaStorageSOPClassUID = "1.2.840.10008.5.1.4.1.1.77.1.5.1"
    meta.MediaStorageSOPInstanceUID = generate_uid()
    dataset = FileDataset(str(path), {}, file_meta=meta, preamble=b"\0" * 128)
    dataset.Rows, dataset.Columns = pixels.shape[:2]
    dataset.SamplesPerPixel = 3 if pixels.ndim == 3 else 1
    dataset.PhotometricInterpretation = colours
    dataset.BitsAllocated = dataset.BitsStored = 8 * pixels.itemsize
    dataset.HighBit, dataset.PixelRepresentation = dataset.BitsStored - 1, 0
    if pixels.ndim == 3:
        dataset.PlanarConfiguration = 0
    for name, value in fields.items():
        setattr(dataset, name, value)
    dataset.PixelData = pixels.tobytes()
    pydicom.dcmwrite(path, dataset)


def test_dicom_colours_depths_and_nothing_but_age_and_sex(tmp_path: Path) -> None:
    person = {"PatientName": "Doe^Jane", "PatientID": "4711", "PatientAge": "063Y", "PatientSex": "F"}
    write_dicom(tmp_path / "rgb.dcm", RGB, "RGB", **person)
    np.testing.assert_array_equal(read_image(tmp_path / "rgb.dcm"), RGB)
    assert dicom_fields(tmp_path / "rgb.dcm") == {"age": 63, "sex": "F"}
    (tmp_path / "rgb.dcm").rename(tmp_path / "no_suffix")
    np.testing.assert_array_equal(read_image(tmp_path / "no_suffix"), RGB)
    write_dicom(tmp_path / "dark.dcm", RGB[..., 0], "MONOCHROME1")
    np.testing.assert_array_equal(read_image(tmp_path / "dark.dcm")[..., 0], RGB[..., 0].max() - RGB[..., 0])
    write_dicom(tmp_path / "deep.dcm", (RGB[..., 0].astype(np.uint16) * 257), "MONOCHROME2")
    np.testing.assert_array_equal(read_image(tmp_path / "deep.dcm")[..., 2], RGB[..., 0])
    assert dicom_fields(tmp_path / "deep.dcm") == {"age": None, "sex": ""}
    from pydicom.pixels import convert_color_space

    write_dicom(tmp_path / "ybr.dcm", convert_color_space(RGB, "RGB", "YBR_FULL"), "YBR_FULL")
    assert np.abs(read_image(tmp_path / "ybr.dcm").astype(int) - RGB).max() <= 2
