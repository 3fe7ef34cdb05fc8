"""Lesions: planted blobs of known size, place and contrast are found and measured; blur, shift and loss are told."""

import numpy as np
import pytest
from scipy import ndimage

from fundusgan_jax.anatomy.lesions import BRIGHT, DARK, Blob, lesion_candidates, off_vessels, outlined_lesions
from fundusgan_jax.anatomy.optic_disc import Disc
from fundusgan_jax.metrics.lesion_recovery import detection, recovery

SIDE = 320
ROWS, COLUMNS = np.indices((SIDE, SIDE))
MASK = np.hypot(ROWS - 160, COLUMNS - 160) < 155
PLANTED = [
    Blob(90.3, 100.6, 1.6, 40.0),
    Blob(120.0, 210.2, 2.4, 30.0),
    Blob(200.7, 90.0, 2.0, -35.0),
    Blob(230.2, 170.5, 1.7, -45.0),
    Blob(170.0, 240.4, 2.6, -30.0),
    Blob(140.4, 130.1, 1.5, 35.0),
]
VESSEL = np.abs(ROWS - 250 + 0.2 * COLUMNS) < 3
SEEN = off_vessels(MASK, VESSEL)
DISC = Disc(70.0, 200.0, 30.0, 1.0)


def picture(blobs=PLANTED, noise=1.5, seed=0) -> np.ndarray:
    """A shaded retina with a vessel, a disc and Gaussian blobs."""
    green = 110 + 0.06 * COLUMNS - 0.04 * ROWS - 30.0 * VESSEL
    green += 60 * (np.hypot(ROWS - DISC.row, COLUMNS - DISC.col) < 15)
    for blob in blobs:
        squared = (ROWS - blob.row) ** 2 + (COLUMNS - blob.col) ** 2
        green = green + blob.contrast * np.exp(-squared / (2 * blob.sigma**2))
    green = green + noise * np.random.default_rng(seed).standard_normal(green.shape)
    image = np.stack([green + 60, green, green - 50], -1) * MASK[..., None]
    return np.clip(np.rint(image), 0, 255).astype(np.uint8)


@pytest.fixture(scope="module")
def found():
    return lesion_candidates(picture(), MASK, VESSEL, DISC)


def nearest(blob, others):
    return min(others, key=lambda other: np.hypot(other.row - blob.row, other.col - blob.col))


def test_planted_blobs_are_found_and_measured(found):
    assert len(found) == len(PLANTED) and {one.kind for one in found} == {BRIGHT, DARK}
    for blob in PLANTED:
        again = nearest(blob, found)
        assert (again.row, again.col) == pytest.approx((blob.row, blob.col), abs=0.15)
        assert again.sigma == pytest.approx(blob.sigma, rel=0.08)
        assert again.contrast == pytest.approx(blob.contrast, rel=0.08)
    assert lesion_candidates(picture([]), MASK, VESSEL, DISC) == []
    assert lesion_candidates(np.zeros((SIDE, SIDE, 3), np.uint8), MASK, VESSEL) == []


def test_blur_shift_and_loss_are_told(found):
    same = recovery(found, picture(seed=1), SEEN)
    assert (same.num_lesions, same.recall) == (6, 1) and same.shift < 0.15
    assert same.contrast == pytest.approx(1, abs=0.06) and same.sharpness == pytest.approx(1, abs=0.06)
    blurred = [one._replace(sigma=np.hypot(one.sigma, 1.5)) for one in PLANTED]
    blurred = [b._replace(contrast=b.contrast * (a.sigma / b.sigma) ** 2) for a, b in zip(PLANTED, blurred)]
    told = recovery(found, picture(blurred, 1.0), SEEN)
    wanted = np.median([b.sigma / a.sigma for a, b in zip(PLANTED, blurred)])
    assert told.recall == 1 and told.sharpness == pytest.approx(wanted, rel=0.08)
    assert told.contrast == pytest.approx(np.median([b.contrast / a.contrast for a, b in zip(PLANTED, blurred)]), rel=0.1)  # fmt: skip
    moved = recovery(found, picture([one._replace(row=one.row + 1.2) for one in PLANTED]), SEEN)
    assert moved.recall == 1 and moved.shift == pytest.approx(1.2, abs=0.15)
    assert recovery(found, picture(PLANTED[:4]), SEEN).recall == pytest.approx(4 / 6)
    gone = recovery(found, picture([]), SEEN)
    assert gone.recall == 0 and np.isnan(gone.sharpness)
    inverted = recovery(found, picture([one._replace(contrast=-one.contrast) for one in PLANTED]), SEEN)
    assert inverted.recall == 0
    # A filter's own blur agrees with the formula that the pictures above were made by.
    filtered = ndimage.gaussian_filter(picture(noise=0).astype(float), (1.5, 1.5, 0))
    again = recovery(found, np.rint(filtered).astype(np.uint8), SEEN)
    assert again.sharpness == pytest.approx(told.sharpness, rel=0.05)
    assert np.isnan(recovery([], picture(), SEEN).recall)


def test_candidates_against_outlines(found):
    classes = np.zeros((SIDE, SIDE), int)
    for number, blob in enumerate(PLANTED[:4]):
        kind = 1 if number < 3 else 2
        classes[np.hypot(ROWS - blob.row, COLUMNS - blob.col) <= 2 * blob.sigma] = kind
    classes[np.hypot(ROWS - 40, COLUMNS - 160) <= 4] = 1
    outlined = outlined_lesions(classes, 1)
    assert len(outlined) == 4 and outlined[0] == pytest.approx((40, 160, 4), abs=0.2)
    told = detection(found, outlined, 1.0)
    assert (told.num_lesions, told.recall, told.precision) == (4, 0.75, 0.5)
    assert np.isnan(detection([], outlined, 1.0).precision) and detection([], outlined, 1.0).recall == 0
    assert np.isnan(detection(found, [], 1.0).recall)
