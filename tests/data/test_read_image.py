"""Every kind of file that a clinic hands over: read as 8-bit RGB, or refused with the reason."""

import io
import os
import struct
import subprocess
import sys
import zlib
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from fundusgan_jax.data.read_image import (
    Rejected,
    dicom_fields,
    is_deep,
    read_extent,
    read_image,
    read_photograph,
    scale_of_files,
)
from fundusgan_jax.data.value_ranges import NotFinite, scale_of
from tests.support import layouts
from tests.support.dicom import dicom_dataset, save_dicom, write_dicom

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


def png_of_zeros(path: Path, width: int, height: int, rows_written: int = 0) -> None:
    """A black 1-bit PNG of any size in a few bytes; rows_written: of them, 0 for all."""

    def chunk(kind: bytes, content: bytes) -> bytes:
        return (
            struct.pack(">I", len(content)) + kind + content + struct.pack(">I", zlib.crc32(kind + content))
        )

    packer, rows = zlib.compressobj(9), bytearray()
    for _ in range(rows_written or height):
        rows += packer.compress(bytes(1 + (width + 7) // 8))
    rows += packer.flush()
    header = struct.pack(">IIBBBBB", width, height, 1, 0, 0, 0, 0)
    path.write_bytes(
        b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", header) + chunk(b"IDAT", bytes(rows)) + chunk(b"IEND", b"")
    )


def test_a_hundred_megapixels_are_read_and_more_are_the_end(tmp_path: Path) -> None:
    png_of_zeros(tmp_path / "large.png", 9_900, 10_000)  # beyond what Pillow warns at, 89
    assert read_image(tmp_path / "large.png").shape == (10_000, 9_900, 3)
    png_of_zeros(tmp_path / "bomb.png", 30_000, 20_000, rows_written=10)
    with pytest.raises(Rejected, match="larger than 100 megapixels"):
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
                "odd.dcm": "DICOM file without an image", "strip.png": "50x4 is too small",
                "absent.png": "cannot be read: No such file"}  # fmt: skip
    for name, reason in expected.items():
        with pytest.raises(Rejected, match=reason) as refused:
            read_image(tmp_path / name)
        assert "\n" not in refused.value.reason


def test_dicom_colours_depths_and_nothing_but_age_and_sex(tmp_path: Path) -> None:
    person = {"PatientName": "Doe^Jane", "PatientID": "4711", "PatientAge": "063Y", "PatientSex": "F"}
    write_dicom(tmp_path / "rgb.dcm", RGB, "RGB", **person)
    np.testing.assert_array_equal(read_image(tmp_path / "rgb.dcm"), RGB)
    assert dicom_fields(tmp_path / "rgb.dcm") == {"age": 63, "sex": "F"}
    (tmp_path / "rgb.dcm").rename(tmp_path / "no_suffix")
    np.testing.assert_array_equal(read_image(tmp_path / "no_suffix"), RGB)
    write_dicom(tmp_path / "dark.dcm", RGB[..., 0], "MONOCHROME1")
    np.testing.assert_array_equal(read_image(tmp_path / "dark.dcm")[..., 0], 255 - RGB[..., 0])
    write_dicom(tmp_path / "deep.dcm", (RGB[..., 0].astype(np.uint16) * 257), "MONOCHROME2")
    np.testing.assert_array_equal(read_image(tmp_path / "deep.dcm")[..., 2], RGB[..., 0])
    assert dicom_fields(tmp_path / "deep.dcm") == {"age": None, "sex": ""}
    from pydicom.pixels import convert_color_space

    write_dicom(tmp_path / "ybr.dcm", convert_color_space(RGB, "RGB", "YBR_FULL"), "YBR_FULL")
    assert np.abs(read_image(tmp_path / "ybr.dcm").astype(int) - RGB).max() <= 2


def grey(image: np.ndarray) -> np.ndarray:
    """The one channel of an image without colour."""
    np.testing.assert_array_equal(image, np.repeat(image[..., :1], 3, 2))
    return image[..., 0]


def test_dicom_bits_rescale_and_windows_decide_what_black_and_white_are(tmp_path: Path) -> None:
    ten = (RGB[..., 0].astype(np.uint16) * 1023 + 127) // 255
    path = write_dicom(tmp_path / "ten.dcm", ten, "MONOCHROME2", bits=10)
    np.testing.assert_array_equal(grey(read_image(path)), np.rint(ten * (255 / 1023)))
    assert not is_deep(path)  # its header says it all

    signed = RGB[..., 0].astype(np.int16) - 128
    path = write_dicom(tmp_path / "signed.dcm", signed, "MONOCHROME2", RescaleSlope=1, RescaleIntercept=128)
    np.testing.assert_array_equal(grey(read_image(path)), RGB[..., 0])

    twelve = (RGB[..., 0].astype(np.uint16) * 2 + 3000).clip(0, 4095)
    path = write_dicom(
        tmp_path / "window.dcm", twelve, "MONOCHROME2", bits=12, WindowCenter=3255.5, WindowWidth=511
    )
    # DICOM PS3.3 C.11.2.1.2.1, with the range of 0 to 4095.
    share = ((twelve - (3255.5 - 0.5)) / (511 - 1) + 0.5).clip(0, 1)
    np.testing.assert_array_equal(grey(read_image(path)), np.rint(255 * share))
    path = write_dicom(tmp_path / "m1.dcm", ten, "MONOCHROME1", bits=10)
    np.testing.assert_array_equal(grey(read_image(path)), np.rint(255 - ten * (255 / 1023)))


def test_dicom_tables_of_values_and_colours(tmp_path: Path) -> None:
    from pydicom.dataset import Dataset
    from pydicom.sequence import Sequence

    table = Dataset()
    table.LUTDescriptor = [256, 0, 16]
    table.LUTData = (65535 - 257 * np.arange(256)).astype("<u2").tobytes()
    path = write_dicom(tmp_path / "voi.dcm", RGB[..., 0], "MONOCHROME2", VOILUTSequence=Sequence([table]))
    np.testing.assert_array_equal(grey(read_image(path)), 255 - RGB[..., 0])
    rng = np.random.default_rng(1)
    palette = rng.integers(0, 256, (3, 256)).astype(np.uint16)
    for depth, entries in ((16, palette * 257), (16, palette), (8, palette.astype(np.uint8))):
        fields = {
            f"{name}PaletteColorLookupTable{part}": value
            for name, row in zip(("Red", "Green", "Blue"), entries)
            for part, value in (("Descriptor", [256, 0, depth]), ("Data", row.tobytes()))
        }
        path = write_dicom(tmp_path / "palette.dcm", RGB[..., 0], "PALETTE COLOR", **fields)
        np.testing.assert_array_equal(read_image(path), palette.T[RGB[..., 0]])


def test_dicom_planes_frames_and_pixel_aspect(tmp_path: Path) -> None:
    planes = np.ascontiguousarray(RGB.transpose(2, 0, 1))
    path = write_dicom(tmp_path / "planes.dcm", planes.reshape(40, 50, 3), "RGB", PlanarConfiguration=1)
    np.testing.assert_array_equal(read_image(path), RGB)
    film = np.stack([RGB, 255 - RGB, RGB // 2])
    path = write_dicom(tmp_path / "film.dcm", film, "RGB", NumberOfFrames=3)
    photograph = read_photograph(path)
    np.testing.assert_array_equal(photograph.image, RGB)
    assert photograph.note == "3 frames: the first is read"
    path = write_dicom(
        tmp_path / "tall.dcm", RGB, "RGB", PixelAspectRatio=[2, 1]
    )  # pixels twice as high as wide
    assert read_image(path).shape == (80, 50, 3)
    assert np.abs(read_image(path).astype(int).mean((0, 1)) - RGB.mean((0, 1))).max() < 2


def test_dicom_codestreams_say_their_colours_and_missing_decoders_are_named(tmp_path: Path) -> None:
    from pydicom.encaps import encapsulate
    from pydicom.uid import JPEG2000, JPEGLSLossless

    flat = np.zeros((64, 64, 3), np.uint8) + np.array((200, 100, 50), np.uint8)
    streams = {}
    for name, more in {"transformed": {"mct": 1, "no_jp2": True}, "boxed": {}}.items():
        buffer = io.BytesIO()
        Image.fromarray(flat).save(buffer, "JPEG2000", irreversible=True, **more)
        streams[name] = buffer.getvalue()
    assert streams["transformed"][:4] == b"\xff\x4f\xff\x51"
    for name, syntax, stream in (
        ("j2k.dcm", JPEG2000, "transformed"),
        ("boxed.dcm", JPEG2000, "boxed"),
        ("jls.dcm", JPEGLSLossless, "boxed"),
    ):
        dataset = dicom_dataset(tmp_path / name, syntax)
        dataset.Rows = dataset.Columns = 64
        dataset.SamplesPerPixel, dataset.PhotometricInterpretation = 3, "YBR_FULL"  # which is not so
        dataset.BitsAllocated = dataset.BitsStored = 8
        dataset.HighBit, dataset.PixelRepresentation, dataset.PlanarConfiguration = 7, 0, 0
        dataset.PixelData = encapsulate([streams[stream]])
        dataset["PixelData"].VR = "OB"
        save_dicom(dataset, tmp_path / name)
    for name in ("j2k.dcm", "boxed.dcm"):
        assert np.abs(read_image(tmp_path / name).astype(int) - flat).max() <= 3
    from pydicom.pixels import get_decoder

    if not get_decoder(JPEGLSLossless).is_available:
        with pytest.raises(
            Rejected, match=r"JPEG-LS.*decoder is not installed \(pip install '\.\[dicom\]'\)"
        ):
            read_image(tmp_path / "jls.dcm")


def test_dicom_without_preamble_pixels_or_end(tmp_path: Path) -> None:
    import pydicom

    path = write_dicom(tmp_path / "whole.dcm", RGB, "RGB")
    dataset = pydicom.dcmread(path)
    bare = pydicom.Dataset()
    bare.SOPClassUID = "1.2.840.10008.5.1.4.1.1.77.1.5.1"
    bare.update({element.tag: element for element in dataset})
    pydicom.dcmwrite(tmp_path / "bare", bare, implicit_vr=True, little_endian=True, enforce_file_format=False)
    assert (tmp_path / "bare").read_bytes()[:4] == b"\x08\0\x16\0"
    np.testing.assert_array_equal(read_image(tmp_path / "bare"), RGB)
    (tmp_path / "cut.dcm").write_bytes(path.read_bytes()[:-500])
    del dataset.PixelData
    save_dicom(dataset, tmp_path / "no_pixels.dcm")
    dataset = pydicom.dcmread(path)
    del dataset.PhotometricInterpretation
    save_dicom(dataset, tmp_path / "no_colours.dcm")
    dataset = pydicom.dcmread(path)
    dataset.Rows = dataset.Columns = 65535
    save_dicom(dataset, tmp_path / "bomb.dcm")
    expected = {"cut.dcm": "truncated DICOM file", "no_pixels.dcm": "without pixels",
                "no_colours.dcm": "Photometric Interpretation", "bomb.dcm": "65535x65535 is larger than"}  # fmt: skip
    for name, reason in expected.items():
        with pytest.raises(Rejected, match=reason):
            read_image(tmp_path / name)


def test_tiff_pages_bits_and_min_is_white(tmp_path: Path) -> None:
    import tifffile

    big = np.random.default_rng(2).integers(0, 256, (60, 80, 3), dtype=np.uint8)
    with tifffile.TiffWriter(tmp_path / "pages.tif") as file:
        file.write(RGB, photometric="rgb", subfiletype=1)
        file.write(big, photometric="rgb")
    photograph = read_photograph(tmp_path / "pages.tif")
    np.testing.assert_array_equal(photograph.image, big)
    assert photograph.note == "2 pages: the largest is read"
    with tifffile.TiffWriter(tmp_path / "below.tif") as file:  # the photograph is below its preview
        file.write(RGB, photometric="rgb", subfiletype=1, subifds=1)
        file.write(big, photometric="rgb")
    np.testing.assert_array_equal(read_image(tmp_path / "below.tif"), big)
    values = GREY * 16
    tifffile.imwrite(tmp_path / "white.tif", 65535 - values, photometric="miniswhite")
    expected = np.rint(values * (255 / 65535))
    assert np.abs(grey(read_image(tmp_path / "white.tif")) - expected).max() <= 1
    tifffile.imwrite(tmp_path / "signed.tif", (RGB[..., 0].astype(int) - 128).astype(np.int8))
    np.testing.assert_array_equal(grey(read_image(tmp_path / "signed.tif")), RGB[..., 0])


@pytest.mark.parametrize("order", ["<", ">"])
def test_sixteen_bit_colours_keep_their_lower_bytes(tmp_path: Path, order: str) -> None:
    import tifffile

    values = np.random.default_rng(3).integers(0, 4096, (40, 50, 3)).astype(np.uint16)
    values[0, 0] = 4095
    expected = np.rint(values * (255 / 4095))
    for planes in ("contig", "separate"):
        data = values if planes == "contig" else values.transpose(2, 0, 1)
        tifffile.imwrite(
            tmp_path / f"{planes}.tif", data, photometric="rgb", planarconfig=planes, byteorder=order
        )
        np.testing.assert_array_equal(read_image(tmp_path / f"{planes}.tif"), expected)
    png_of_words(tmp_path / "colours.png", values)
    assert is_deep(tmp_path / "colours.png")
    np.testing.assert_array_equal(read_image(tmp_path / "colours.png"), expected)
    # Of a set that uses 16 bits it is a dark one.
    extent = read_extent(tmp_path / "colours.png")
    assert extent is not None and extent.high == 4095
    scale = scale_of([extent, extent._replace(high=60_000.0)])
    np.testing.assert_array_equal(
        read_image(tmp_path / "colours.png", scale), np.rint(values * (255 / 65535))
    )


def png_of_words(path: Path, values: np.ndarray) -> None:
    """A PNG of 16-bit colours, which Pillow does not write; values: uint16 [H, W, 3]."""

    def chunk(kind: bytes, content: bytes) -> bytes:
        return (
            struct.pack(">I", len(content)) + kind + content + struct.pack(">I", zlib.crc32(kind + content))
        )

    height, width = values.shape[:2]
    rows = b"".join(b"\0" + row.astype(">u2").tobytes() for row in values)
    header = struct.pack(">IIBBBBB", width, height, 16, 2, 0, 0, 0)
    path.write_bytes(
        b"\x89PNG\r\n\x1a\n"
        + chunk(b"IHDR", header)
        + chunk(b"IDAT", zlib.compress(rows))
        + chunk(b"IEND", b"")
    )


def test_float_images_follow_one_rule_for_their_set(tmp_path: Path) -> None:
    import tifffile

    def of(low: float, high: float) -> Path:
        values = (low + (high - low) * RGB.astype(np.float64) / 255).astype(np.float32)
        path = tmp_path / f"{low}_{high}.tif"
        tifffile.imwrite(path, values, photometric="rgb")
        return path

    np.testing.assert_array_equal(read_image(of(0, 1)), RGB)
    np.testing.assert_array_equal(read_image(of(-1, 1)), RGB)
    np.testing.assert_array_equal(read_image(of(0, 255)), RGB)
    with pytest.raises(Rejected, match="none of 0 to 1, -1 to 1 and 0 to 255"):
        read_image(of(0, 3000))
    dark, bright = of(0, 0.9), of(-1, 1.0004)
    scale = scale_of(extent for path in (dark, bright) if (extent := read_extent(path)))
    expected = np.rint((0.9 * RGB / 255 + 1) * 127.5)
    assert np.abs(read_image(dark, scale).astype(int) - expected).max() <= 1
    holed = np.full((40, 50), 0.5, np.float32)
    holed[3, 4] = np.nan
    Image.fromarray(holed).save(tmp_path / "holed.tif")
    for read in (read_image, read_extent):
        with pytest.raises(NotFinite, match="1 of 2000 pixels are not finite"):
            read(tmp_path / "holed.tif")


def test_a_set_of_files_has_one_scale(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    for name, top in (("dark", 200), ("bright", 65535)):
        Image.fromarray((GREY.astype(np.float64) * top / GREY.max()).round().astype(np.uint16)).save(
            tmp_path / f"{name}.png"
        )
    paths = [tmp_path / "dark.png", tmp_path / "bright.png"]
    scale = scale_of_files(paths, "the set")
    assert [read_image(path, scale).max() for path in paths] == [1, 255]
    assert [read_image(path).max() for path in paths] == [200, 255]
    odd = {"nan.tif": np.where(RGB[..., 0] == 7, np.nan, 0.5), "far.tif": RGB[..., 0] * 1000.0}
    for name, values in odd.items():
        Image.fromarray(values.astype(np.float32)).save(tmp_path / name)
        paths.append(tmp_path / name)
    assert scale_of_files(paths, "the set") == scale
    assert "note: the set: float images from 0 to 2.55e+05, which is none of" in capsys.readouterr().out
    with pytest.raises(Rejected, match="of no range that is known"):
        read_image(tmp_path / "far.tif", scale)
    with pytest.raises(NotFinite, match="nan.tif: .* not finite .*take it out of the folder"):
        scale_of_files(paths, "the set", strict=True)
    with pytest.raises(Rejected, match="the set: float images from 0"):
        scale_of_files([tmp_path / "far.tif"], "the set", strict=True)


def test_damaged_data_are_refused(tmp_path: Path) -> None:
    layouts.photograph(1).resize((400, 320)).save(tmp_path / "whole.jpg", quality=90)
    whole = (tmp_path / "whole.jpg").read_bytes()
    read_image(tmp_path / "whole.jpg")
    # A black border hides what is left over: no warning comes of these zeros.
    start = next(at for at in range(len(whole) // 2, len(whole) - 400, 7) if hidden_damage(whole, at))
    (tmp_path / "rotten.jpg").write_bytes(whole[:start] + bytes(40) + whole[start + 40 :])
    (tmp_path / "noise.jpg").write_bytes(whole[:3000] + os.urandom(512) + whole[3512:])
    layouts.photograph(1).save(tmp_path / "whole.png")
    data = bytearray((tmp_path / "whole.png").read_bytes())
    data[len(data) // 2] ^= 1
    (tmp_path / "flipped.png").write_bytes(data)
    (tmp_path / "cut.png").write_bytes((tmp_path / "whole.png").read_bytes()[:-12])
    expected = {"rotten.jpg": "more than its pixels need", "noise.jpg": "damaged JPEG data",
                "flipped.png": "damaged PNG data|corrupt", "cut.png": "truncated"}  # fmt: skip
    for name, reason in expected.items():
        with pytest.raises(Rejected, match=reason):
            read_image(tmp_path / name)


def hidden_damage(whole: bytes, at: int) -> bool:
    """Whether 40 zeros at a place change the picture and libjpeg has nothing to say about it."""
    import simplejpeg

    data = whole[:at] + bytes(40) + whole[at + 40 :]
    try:
        changed = simplejpeg.decode_jpeg(data, strict=True)
    except ValueError:
        return False
    lower = np.abs(changed.astype(int) - simplejpeg.decode_jpeg(whole))[-40:]
    cut = data[: data.rfind(b"\xff\xd9") - 1] + b"\xff\xd9"
    try:
        simplejpeg.decode_jpeg(cut, strict=True)
    except ValueError:
        return False
    return bool(lower.max() > 20)


def test_other_files_are_called_what_they_are(tmp_path: Path) -> None:
    (tmp_path / "phone.heic").write_bytes(b"\0\0\0\x18ftypheic\0\0\0\0mif1heic" + bytes(100))
    (tmp_path / "a.jpg").write_bytes(b"version https://git-lfs.github.com/spec/v1\noid sha256:0\nsize 12\n")
    for name, reason in {"phone.heic": "HEIC", "a.jpg": "git lfs pull"}.items():
        with pytest.raises(Rejected, match=reason):
            read_image(tmp_path / name)


# VmHWM, not ru_maxrss: that one starts at what the process has taken that starts this one.
MEASURE = """
import re, sys
from pathlib import Path
from fundusgan_jax.data.read_image import Rejected, read_image
try:
    print(read_image(sys.argv[1]).shape)
except Rejected as error:
    print(error)
print(int(re.search(r"VmHWM:\\s+(\\d+)", Path("/proc/self/status").read_text())[1]) // 1024)
"""


@pytest.mark.slow
@pytest.mark.parametrize(
    "kind", ["rgb.png", "rgba.png", "progressive.jpg", "turned.jpg", "deep.png", "bomb.tif", "bomb.jp2"]
)
def test_reading_stays_below_a_gibibyte(tmp_path: Path, kind: str) -> None:
    path = tmp_path / kind
    name, _, suffix = kind.partition(".")
    if name in ("rgb", "rgba"):
        Image.new(name.upper(), (9_990, 10_000)).save(path)
    elif suffix == "jpg":
        side, more = (8_500, {"progressive": True}) if name == "progressive" else (9_990, {"exif": turned()})
        Image.new("RGB", (side, side)).save(path, **more)
    elif name == "deep":
        png_of_words(path, np.zeros((5_300, 5_300, 3), np.uint16))
    elif suffix == "tif":
        Image.new("RGB", (64, 64)).save(path)
        data = path.read_bytes()
        wide = data.replace(struct.pack("<HHII", 256, 4, 1, 64), struct.pack("<HHII", 256, 4, 1, 60_000))
        path.write_bytes(
            wide.replace(struct.pack("<HHIHH", 256, 3, 1, 64, 0), struct.pack("<HHIHH", 256, 3, 1, 60_000, 0))
        )
    else:
        Image.new("RGB", (4_400, 4_400)).save(path)
    command = [sys.executable, "-c", MEASURE, str(path)]
    said, peak = subprocess.run(command, capture_output=True, text=True, check=True).stdout.splitlines()
    print(kind, said, peak, "MiB")
    assert int(peak) < 1024


def turned() -> bytes:
    exif = Image.Exif()
    exif[0x0112] = 6
    return exif.tobytes()
