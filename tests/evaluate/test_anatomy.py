"""evaluate/anatomy.py: distributions of drawn images beside those of photographs, in eval.json, in the report and in print."""

import json

import numpy as np
import pytest
from PIL import Image
from scipy import ndimage

from fundusgan_jax.anatomy.plausibility import MEASURES
from fundusgan_jax.data.example import Example
from fundusgan_jax.data.packed import write_packed
from fundusgan_jax.data.phantom.render import render
from fundusgan_jax.errors import UserError
from fundusgan_jax.evaluate.__main__ import main
from fundusgan_jax.evaluate.anatomy import compared_anatomy, measured_images

SIDE = 64


@pytest.fixture(scope="module")
def prepared(tmp_path_factory):
    """24 rendered eyes as a prepared dataset, and 10 blurred ones as a folder of images."""
    root = tmp_path_factory.mktemp("anatomy")
    eyes = [render(seed, SIDE).image for seed in range(24)]
    examples = [
        Example(eye, 0, f"p{number}", "right", "test" if number % 3 == 0 else "train", f"{number}.png")
        for number, eye in enumerate(eyes)
    ]
    write_packed(root / "prepared", examples, {"train": 16, "test": 8}, SIDE, ("0",), True)
    (root / "drawn").mkdir()
    for number in range(10):
        blurred = ndimage.gaussian_filter(render(100 + number, SIDE).image, (1.5, 1.5, 0))
        Image.fromarray(blurred).save(root / "drawn" / f"{number}.png")
    return root


def test_rows_of_held_out_photographs_and_of_anatomy(prepared, tmp_path, capsys):
    line = [f"--real={prepared / 'prepared'}", "--split=train", f"--fake={prepared / 'drawn'}"]
    assert main([*line, f"--output={tmp_path / 'out'}", "--features=pixels", "--anatomy=6"]) == 0
    record = json.loads((tmp_path / "out" / "eval.json").read_text())
    assert list(record["floors"]) == ["held-out photographs (8 and 16)", "as many drawn images (8 and 16)"]
    ratio = record["floors"]["as many drawn images (8 and 16)"]["frechet"]
    ratio /= record["floors"]["held-out photographs (8 and 16)"]["frechet"]
    assert record["ratios"]["frechet"] == pytest.approx(ratio)
    anatomy = record["anatomy"]
    assert [anatomy[f"num_{side}"] for side in ("generated", "photographs", "others")] == [6, 6, 6]
    blurred = anatomy["measures"]["sharpness"]
    assert blurred["distance"] == 1 and blurred["generated"] < blurred["photographs"]
    assert blurred["distance_photographs"] < 1
    said, page = capsys.readouterr().out, (tmp_path / "out" / "report.html").read_text()
    for text in ("KS, other patients", "6 drawn images and 6 photographs, 6 of other patients"):
        assert text in said and text in page
    assert "a clear optic disc (share)" in page and "1.png" not in page


def test_held_out_photographs_are_a_split(prepared, tmp_path):
    line = [f"--real={prepared / 'prepared'}", f"--fake={prepared / 'drawn'}", f"--output={tmp_path / 'out'}"]
    with pytest.raises(UserError, match="no split 'val'; give --held_out="):
        main([*line, "--split=train", "--features=pixels", "--held_out=val"])
    folders = [f"--real={prepared / 'drawn'}", *line[1:], "--preprocess=none", "--features=pixels"]
    with pytest.raises(UserError, match="has no splits; leave it out"):
        main([*folders, "--held_out=test"])
    with pytest.raises(UserError, match="--anatomy=-1 must be at least 0"):
        main([*line, "--anatomy=-1"])


def largest_difference(first, second):
    """Of the two distribution functions, at every value."""
    at = np.concatenate([first, second])
    functions = [(values[None] <= at[:, None]).mean(1) for values in (first, second)]
    return np.abs(functions[0] - functions[1]).max()


def test_distances_are_between_distribution_functions_and_unknown_values_do_not_count():
    rng = np.random.default_rng(0)
    first, second = (
        {name: rng.normal(shift, 1, count) for name in MEASURES} for shift, count in ((0, 40), (0.5, 30))
    )
    first["disc_found"] = np.repeat([1.0, 0.0], [30, 10])
    first["macula_darkness"][:10] = np.nan
    second["vessel_width"][:] = np.nan
    found = compared_anatomy(first, second, None).measures
    known = first["macula_darkness"][10:]
    assert found["macula_darkness"].known_generated == 0.75
    distance = largest_difference(known, second["macula_darkness"])
    assert found["macula_darkness"].distance == pytest.approx(distance, abs=1e-12)
    assert found["macula_darkness"].generated == np.median(known)
    assert found["disc_found"].generated == 0.75 and found["disc_found"].distance_photographs is None
    assert np.isnan(found["vessel_width"].distance) and found["vessel_width"].known_photographs == 0


def test_only_so_many_are_measured():
    eye = render(1, SIDE).image
    measured = measured_images(iter([eye, eye, eye]), 2, "")
    assert len(measured["sharpness"]) == 2 and measured["red"][0] == measured["red"][1]
