"""data/dicom_files.py: pixels that are not square; the other fields are read in test_read_image.py."""

from __future__ import annotations

import tracemalloc
from pathlib import Path

import numpy as np
import pytest
from scipy import ndimage

from fundusgan_jax.data.decoded import Rejected
from fundusgan_jax.data.dicom_files import COLOUR_BYTES, GREY_BYTES, decode_dicom
from tests.support.dicom import save_dicom, write_dicom

RGB = np.random.default_rng(0).integers(0, 256, (40, 50, 3), dtype=np.uint8)


@pytest.mark.parametrize(("colours", "kind"), [("RGB", COLOUR_BYTES), ("MONOCHROME2", GREY_BYTES)])
def test_dicom_is_enlarged_to_square_pixels_within_the_memory_of_one_photograph(
    tmp_path: Path, colours: str, kind: float
) -> None:
    frame = np.random.default_rng(0).integers(0, 256, (600, 500, 3), dtype=np.uint8)
    frame = frame if colours == "RGB" else frame[..., 0]
    path = write_dicom(tmp_path / "tall.dcm", frame, colours, PixelAspectRatio=[3, 1])
    decode_dicom(path)  # imports hold memory too
    tracemalloc.start()
    pixels = decode_dicom(path).pixels
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert pixels.shape == (1800, *frame.shape[1:]) and peak < kind * 1800 * 500
    # All channels at once, as one array of float32.
    more = (3, 1, 1)[: frame.ndim]
    whole = ndimage.zoom(frame.astype(np.float32), more, order=1, grid_mode=True, mode="nearest")
    np.testing.assert_array_equal(pixels, np.rint(whole))


def test_dicom_that_enlarged_takes_too_much_is_rejected_by_its_header(tmp_path: Path) -> None:
    """Forty megapixels are read; with pixels four times as high as wide they would be 160."""
    import pydicom

    path = write_dicom(tmp_path / "tall.dcm", RGB, "RGB")
    dataset = pydicom.dcmread(path)
    dataset.Rows, dataset.Columns = 5000, 8000
    save_dicom(dataset, path)
    with pytest.raises(Rejected, match="fewer pixels than its header says"):
        decode_dicom(path)
    dataset.PixelAspectRatio = [4, 1]
    save_dicom(dataset, path)
    with pytest.raises(Rejected, match="with square pixels.* 8000x20000 is larger than 50 megapixels"):
        decode_dicom(path)
