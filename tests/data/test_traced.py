"""Photographs with traced vessels: every layout by name, its halves, held-out patterns, crops, mistakes."""

import numpy as np
import pytest
from PIL import Image

from configs import vessels
from fundusgan_jax.data.phantom.render import render
from fundusgan_jax.data.traced import open_crops, traced_files
from fundusgan_jax.errors import UserError

SIDE = 128
EYE = render(3, SIDE)
TRACING = np.uint8(255) * EYE.vessels


def save(path, pixels):
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(pixels).save(path)


def hrf(root):
    for stem in ("05_h", "06_h"):
        save(root / "images" / f"{stem}.jpg", EYE.image)
        save(root / "manual1" / f"{stem}.tif", TRACING)
        save(root / "mask" / f"{stem}_mask.tif", np.uint8(255) * EYE.fov)
    return {"05_h": "train", "06_h": "test"}


def stare(root):
    for number in range(17):
        save(root / f"im{number:04d}.ppm", EYE.image)
        save(root / "labels" / f"im{number:04d}.ah.ppm", TRACING)
    return {f"im{number:04d}": "train" if number < 16 else "test" for number in range(17)}


def chase(root):
    names = [f"Image_{child:02d}{eye}" for child in range(1, 12) for eye in "LR"]
    for name in names:
        save(root / f"{name}.jpg", EYE.image)
        save(root / f"{name}_1stHO.png", TRACING)
    return {name: "train" if number < 20 else "test" for number, name in enumerate(names)}


def fives(root):
    for name, split in (("1_A", "train"), ("2_D", "train"), ("3_N", "test")):
        save(root / split / "Original" / f"{name}.png", EYE.image)
        save(root / split / "Ground truth" / f"{name}.png", TRACING)
    return {"1_A": "train", "2_D": "train", "3_N": "test"}


@pytest.mark.parametrize("layout", [hrf, stare, chase, fives])
def test_layouts_by_their_names(layout, tmp_path):
    expected = layout(tmp_path)
    files = traced_files(str(tmp_path))
    assert {file.name: file.split for file in files} == expected and len(files) == len(expected)
    for file in files:
        np.testing.assert_array_equal(np.asarray(Image.open(file.tracing)) > 127, EYE.vessels)
        assert file.photograph.is_file() and (file.mask is None) == (layout is not hrf)


def test_patterns_hold_photographs_out(tmp_path):
    fives(tmp_path / "a")
    hrf(tmp_path / "b")
    files = traced_files(f"{tmp_path / 'a'},{tmp_path / 'b'}", "*_A,06_*")
    assert {file.name for file in files if file.split == "test"} == {"1_A", "06_h"} and len(files) == 5


def config_of(folder):
    config = vessels.get_config()
    config.data.dir, config.data.resolution, config.vessels.fov_diameter = str(folder), 32, 0
    return config


def test_crops_are_a_function_of_their_number(tmp_path):
    fives(tmp_path)
    dataset, again = (open_crops(config_of(tmp_path)) for _ in range(2))
    train = dataset.splits["train"]
    rows = np.array([0, 1, 5])
    crops = np.asarray(train.images[rows])
    np.testing.assert_array_equal(crops, np.asarray(again.splits["train"].images[rows]))
    np.testing.assert_array_equal(crops[[2]], np.asarray(train.images[rows[[2]]]))
    assert crops.dtype == np.uint8 and crops.shape[:3] == (3, 32, 32)
    assert (crops[0] != crops[1]).any() and crops[0].std() > 0


def test_mistakes_are_one_line(tmp_path):
    with pytest.raises(UserError, match="has the layout of none of DRIVE, HRF, STARE, CHASE_DB1, FIVES"):
        traced_files(str(tmp_path))
    with pytest.raises(UserError, match="is no folder"):
        traced_files(str(tmp_path / "none"))
    fives(tmp_path)
    lost = tmp_path / "train" / "Ground truth" / "1_A.png"
    lost.unlink()
    with pytest.raises(UserError, match="has no tracing .*1_A.png; complete the folder"):
        traced_files(str(tmp_path))
