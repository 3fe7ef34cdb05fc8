"""The command of heat maps: both sets in the table, lesions cropped with their photographs, nothing of a patient in the report."""

import csv
import json
import re

import numpy as np
import pytest
from PIL import Image

from configs import classifier
from fundusgan_jax.data.example import Example
from fundusgan_jax.data.packed import write_packed
from fundusgan_jax.data.phantom.render import render
from fundusgan_jax.data.prepare.preprocess import prepare_image
from fundusgan_jax.errors import UserError
from fundusgan_jax.metrics.heat_maps import share_inside
from fundusgan_jax.steps.classifier_step import first_classifier
from fundusgan_jax.studies import gradcam
from fundusgan_jax.studies.heat_map_measures import measured
from fundusgan_jax.studies.heat_map_page import HEAT, mean_map, overlay
from fundusgan_jax.studies.lesion_masks import lesion_mask, mask_files
from fundusgan_jax.weights.imported_workdir import save_workdir
from tests.support.one_device import one_device

SIZE = 64


@pytest.fixture(scope="module", autouse=True)
def alone():
    with one_device():
        yield


@pytest.fixture(scope="module")
def workdir(tmp_path_factory, alone):
    config = classifier.get_config()
    config.data.resolution, config.data.classes, config.data.dir = SIZE, "N,G", "."
    config.classifier.network, config.classifier.width = "squeezenet", 0.125
    folder = tmp_path_factory.mktemp("classifier") / "run"
    save_workdir(folder, config, first_classifier(config, np.array([0.5, 0.5])), "none")
    return folder


def eyes(count, side, start=0):
    return [render(number + start, side).image for number in range(count)]


@pytest.fixture(scope="module")
def prepared(tmp_path_factory):
    folder = tmp_path_factory.mktemp("prepared")
    examples = [
        Example(image, n % 2, f"patient{n // 2}", "left", "test", f"photo{n}.jpg")
        for n, image in enumerate(eyes(6, SIZE))
    ]
    write_packed(folder, examples, {"test": 6}, SIZE, ("N", "G"), True)
    return folder


@pytest.fixture(scope="module")
def result(workdir, prepared, tmp_path_factory):
    folder = tmp_path_factory.mktemp("gradcam")
    for number, image in enumerate(eyes(4, SIZE, 20)):
        (folder / "made").mkdir(exist_ok=True)
        Image.fromarray(image).save(folder / "made" / f"sample{number}.png")
    words = [
        f"--workdir={workdir}",
        "--step=latest",
        f"--images={prepared}",
        f"--synthetic={folder / 'made'}",
    ]
    assert gradcam.main([*words, f"--output={folder / 'out'}", "--target=G"]) == 0
    return folder / "out"


@pytest.mark.slow
def test_both_sets_in_the_table(result, workdir, prepared):
    with open(result / "gradcam.csv", newline="") as handle:
        rows = list(csv.DictReader(handle))
    assert [row["set"] for row in rows] == ["photographs"] * 6 + ["synthetic images"] * 4
    assert {row["class"] for row in rows} == {"G"}
    record = json.loads((result / "gradcam.json").read_text())
    assert [one["images"] for one in record["sets"]] == [6, 4]
    for one in record["sets"]:
        own = [float(row["in_field"]) for row in rows if row["set"] == one["set"] and row["in_field"]]
        known = one["measures"].get("in_field")
        assert (known is None and not own) or known["mean"] == pytest.approx(np.mean(own), rel=1e-5)
        silent = sum(float(row["peak"]) <= 0 for row in rows if row["set"] == one["set"])
        assert one["without_evidence"] == silent
    with Image.open(result / "grid.png") as grid:
        assert grid.width > 6 * 192


def test_the_report_shows_no_photograph(result, workdir, prepared, tmp_path):
    page = (result / "report.html").read_text()
    text = re.sub(r"data:image/png;base64,[^\"]+", "", page)
    assert page.count("data:image/png") == 1 and "photo1" not in text and "patient1" not in text
    assert "share of the map in the field of view" in text and "shows no photograph" in text
    words = [f"--workdir={workdir}", "--step=latest", f"--images={prepared}", f"--output={tmp_path / 'out'}"]
    assert gradcam.main([*words, "--photographs", "--num=2"]) == 0
    assert (tmp_path / "out" / "report.html").read_text().count("data:image/png") == 2


def test_measures_by_hand():
    image = render(3, SIZE).image
    even, nothing = np.ones((SIZE, SIZE), np.float32), np.zeros((SIZE, SIZE), np.float32)
    lesions = np.zeros((SIZE, SIZE), bool)
    lesions[20:24, 12:16] = True
    pointed = lesions.astype(np.float32)
    found = measured(np.stack([image] * 3), np.stack([even, nothing, pointed]), [lesions, lesions, lesions])
    # An even map is what each share stands beside.
    assert found["in_field"][0] == pytest.approx(found["field"][0])
    assert (
        found["precision"][0] == pytest.approx(found["lesions"][0])
        and found["hit"][2] == found["precision"][2] == 1
    )
    if "in_disc" in found:
        assert found["in_disc"][0] == pytest.approx(found["disc"][0])
    assert np.isnan(found["in_field"][1]) and np.isnan(found["hit"][1])
    assert 0 < found["centre_precision"][0] < 1
    assert share_inside(pointed, lesions) == 1


def test_lesions_are_cropped_as_their_photograph_is(tmp_path):
    eye = render(5, 256).image
    photograph = np.zeros((300, 420, 3), np.uint8)
    photograph[20:276, 90:346] = eye
    mask = np.zeros((300, 420), np.uint8)
    mask[140:156, 200:216], mask[40:44, 200:204] = 3, 5
    Image.fromarray(photograph).save(tmp_path / "a.png")
    (tmp_path / "masks").mkdir()
    Image.fromarray(mask).save(tmp_path / "masks" / "a.png")
    found = lesion_mask(tmp_path / "a.png", tmp_path / "masks" / "a.png", (1, 2, 3, 4), SIZE)
    # The same crop of a photograph that holds the mask.
    painted = photograph.copy()
    painted[140:156, 200:216] = (255, 255, 255)
    changed = np.abs(
        prepare_image(painted, SIZE, level="off").image.astype(int)
        - prepare_image(photograph, SIZE, level="off").image
    ).max(-1)
    rows, columns = np.nonzero(found)
    weight = changed / changed.sum()
    down, across = np.indices(weight.shape)
    assert rows.mean() == pytest.approx((weight * down).sum(), abs=0.7)
    assert columns.mean() == pytest.approx((weight * across).sum(), abs=0.7)
    assert lesion_mask(tmp_path / "a.png", tmp_path / "masks" / "a.png", (), SIZE).sum() >= found.sum() > 0
    assert mask_files(tmp_path / "masks", ("x/a.jpg", "b.jpg")) == {"x/a.jpg": tmp_path / "masks" / "a.png"}
    Image.fromarray(mask[:100]).save(tmp_path / "masks" / "a.png")
    with pytest.raises(UserError, match=r"has 420x100 pixels, its photograph 420x300"):
        lesion_mask(tmp_path / "a.png", tmp_path / "masks" / "a.png", (), SIZE)


def test_overlays_do_not_scale_what_is_not_there():
    image = np.full((4, 4, 3), 100, np.uint8)
    np.testing.assert_array_equal(overlay(image, np.zeros((4, 4))), image)
    heat = np.zeros((4, 4))
    heat[1, 2] = 0.01
    shown = overlay(image, heat)
    np.testing.assert_array_equal(shown[1, 2], np.round(100 * 0.3 + HEAT * 0.7))
    assert (shown[0] == 100).all()
    assert not mean_map(np.zeros((2, 4, 4))).any()
    np.testing.assert_allclose(mean_map(np.stack([heat, np.zeros((4, 4))]))[1, 2], 1)


@pytest.mark.parametrize(
    "words, text",
    [
        ([], "--workdir is missing"),
        (["--images=nowhere"], "--images=nowhere is no folder"),
        (["--target=X"], "--target=X is no class of .*; it has N, G"),
        (["--num=0"], "--num=0 must be at least 1"),
        (["--mask_values=1"], "--mask_values is of --masks"),
        (["--mask_values=a"], "must be whole numbers"),
    ],
)  # fmt: skip
def test_mistakes(workdir, prepared, tmp_path, words, text):
    usual = [f"--workdir={workdir}", f"--images={prepared}", f"--output={tmp_path / 'out'}"] if words else []
    with pytest.raises(UserError, match=text):
        gradcam.main([*usual, *words])


def test_masks_need_photographs_as_they_were_taken(workdir, prepared, tmp_path):
    usual = [f"--workdir={workdir}", "--step=latest", f"--images={prepared}", f"--output={tmp_path / 'out'}"]
    (tmp_path / "masks").mkdir()
    with pytest.raises(UserError, match="need the photographs as they were taken"):
        gradcam.main([*usual, f"--masks={tmp_path / 'masks'}"])
