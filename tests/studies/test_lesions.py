"""studies.lesions: outlines land where they were drawn, planted lesions are measured, reduced ones are blurred, the command."""

import csv
import json

import numpy as np
import pytest
from PIL import Image
from scipy import ndimage

from fundusgan_jax.errors import UserError
from fundusgan_jax.studies import lesions
from fundusgan_jax.studies.lesion_figures import (
    Outline,
    measured,
    read_outlined,
    summary,
    weighted_medians,
    without_outlines,
)

HEIGHT, WIDTH, RADIUS = 420, 480, 200
ROWS, COLUMNS = np.indices((HEIGHT, WIDTH))
DISC = np.hypot(ROWS - 210, COLUMNS - 240) < RADIUS
# Class, row, column, standard deviation, contrast.
PLANTED = [
    (1, 150, 200, 2.0, -45),
    (1, 260, 300, 2.2, -40),
    (2, 120, 280, 2.3, -50),
    (3, 300, 200, 2.0, 60),
    (3, 210, 140, 2.1, 50),
]


@pytest.fixture(scope="module")
def source(tmp_path_factory):
    """Two photographs with their class maps."""
    folder = tmp_path_factory.mktemp("outlined")
    for name in ("images", "masks"):
        (folder / name).mkdir()
    for number in range(2):
        green = 110 + 0.03 * COLUMNS + 70 * (np.hypot(ROWS - 200, COLUMNS - 370) < 22)
        classes = np.zeros((HEIGHT, WIDTH), np.uint8)
        for kind, row, col, sigma, contrast in PLANTED[number:]:
            far = np.hypot(ROWS - row, COLUMNS - col)
            green = green + contrast * np.exp(-(far**2) / (2 * sigma**2))
            classes[far <= 2 * sigma] = kind
        green = green + np.random.default_rng(number).normal(0, 1.0, green.shape)
        image = np.stack([green + 60, green, green - 50], -1) * DISC[..., None]
        Image.fromarray(np.clip(image, 0, 255).astype(np.uint8)).save(folder / "images" / f"eye{number}.png")
        Image.fromarray(classes).save(folder / "masks" / f"eye{number}.png")
    return folder


def no_vessels(image, mask):
    return np.zeros_like(mask)


def noisy(image):
    """Texture alone: spots as wide and as strong as the planted lesions."""
    rng = np.random.default_rng(5)
    texture = ndimage.gaussian_filter(rng.normal(size=image.shape[:2]), 2.0)
    return np.clip(120 + 40 * (texture / texture.std())[..., None] + np.zeros(3), 0, 255).astype(np.uint8)


def test_a_place_without_lesion_is_far_from_every_outline():
    seen = np.zeros((60, 80), bool)
    seen[5:55, 5:75] = True
    outlines = [
        Outline("haemorrhages", "dark", 20.0, 30.0, 5.0),
        Outline("haemorrhages", "dark", 2.0, 78.0, 1.0),
    ]
    clear = without_outlines(seen, outlines)
    rows, columns = np.indices(seen.shape)
    far = (np.hypot(rows - 20, columns - 30) > 15) & (np.hypot(rows - 2, columns - 78) > 8)
    np.testing.assert_array_equal(clear, seen & far)


def test_outlines_land_where_they_were_drawn(source):
    first = next(iter(read_outlined(source, 400)))
    assert first.image.shape == (400, 400, 3) and len(first.outlines) == 5
    for outline in first.outlines:
        near = first.image[..., 1][
            round(outline.row) - 6 : round(outline.row) + 7, round(outline.col) - 6 : round(outline.col) + 7
        ].astype(float)
        away = np.abs(near - np.median(near))
        rows, columns = np.indices(near.shape) - 6
        assert np.hypot((away * rows).sum(), (away * columns).sum()) / away.sum() < 1.0


def test_lesions_are_measured_and_a_reduced_photograph_has_them_blurred(source):
    photographs = list(read_outlined(source, 400))
    paints = lesions.paints_of(None, "best", [200, 50]) | {"the same": lambda image: image, "noise": noisy}
    record = summary(measured(photographs, no_vessels, paints), list(paints), 0)
    assert {kind: record[kind]["outlined"] for kind in record} == {
        "microaneurysms": 3,
        "haemorrhages": 2,
        "hard exudates": 4,
        "soft exudates": 0,
        "all": 9,
    }
    everything = record["all"]
    assert everything["small"] == everything["measured"] == 9 and "painted" not in record["soft exudates"]
    assert everything["candidate_recall"] == 1 and record["microaneurysms"]["candidate_precision"] > 0.8
    same, half, tiny = (
        everything["painted"][name] for name in ("the same", "reduced to 200 px", "reduced to 50 px")
    )
    assert same["recall"]["value"] == 1 and same["sharpness"]["value"] == pytest.approx(1, abs=0.01)
    assert same["shift"]["value"] < 0.05 and same["chance"]["value"] == 0
    # Where nothing but texture is, some are found by chance.
    noise = everything["painted"]["noise"]
    assert 0 < noise["chance"]["value"] < 1 and noise["chance"]["low"] <= noise["chance"]["value"]
    assert half["recall"]["value"] == 1 and 1.02 < half["sharpness"]["value"] < 1.5
    assert tiny["recall"]["value"] < 1 and half["contrast"]["low"] <= half["contrast"]["value"] <= 1


def test_weighted_medians_against_repetition():
    rng = np.random.default_rng(0)
    values, weights = rng.normal(size=9), rng.integers(0, 4, (20, 9)).astype(np.float32)
    values[3] = np.nan
    for found, times in zip(weighted_medians(values, weights), weights.astype(int)):
        repeated = np.sort(np.repeat(values, times)[~np.isnan(np.repeat(values, times))])
        assert found == repeated[(len(repeated) - 1) // 2]
    assert np.isnan(weighted_medians(np.array([np.nan]), np.ones((2, 1)))).all()


@pytest.mark.slow
def test_the_command_writes_tables_and_pictures_only_where_asked(source, tmp_path, capsys):
    output = tmp_path / "out"
    words = [f"--source={source}", f"--output={output}", "--resolution=192", "--reduced=96"]
    assert lesions.main(words) == 0
    assert "all: 9 outlined" in capsys.readouterr().out
    record = json.loads((output / "lesions.json").read_text())
    assert record["photographs"] == 2 and set(record["kinds"]["all"]["painted"]) == {"reduced to 96 px"}
    with open(output / "lesions.csv", newline="") as file:
        rows = list(csv.DictReader(file))
    assert len(rows) == record["kinds"]["all"]["measured"] and "reduced to 96 px, sharpness" in rows[0]
    assert not (output / "lesions.png").exists()
    with pytest.raises(UserError, match="give --overwrite"):
        lesions.main(words)
    assert lesions.main([*words, "--overwrite", "--photographs"]) == 0 and (output / "lesions.png").exists()


def test_mistakes_are_one_line(source, tmp_path):
    def line(*words):
        return [f"--source={source}", f"--output={tmp_path / 'out'}", *words]

    with pytest.raises(UserError, match="must be sides below 512"):
        lesions.main(line("--reduced=600"))
    with pytest.raises(UserError, match="shows no lesion"):
        lesions.main(line("--resolution=64"))
    with pytest.raises(UserError, match="has no folders images and masks"):
        list(read_outlined(tmp_path, 128))
    broken = tmp_path / "broken"
    (broken / "masks").mkdir(parents=True)
    (broken / "images").mkdir()
    photograph = source / "images" / "eye0.png"
    (broken / "images" / "eye0.png").write_bytes(photograph.read_bytes())
    with pytest.raises(UserError, match="has no class map"):
        list(read_outlined(broken, 128))
    Image.fromarray(np.full((5, 5), 1, np.uint8)).save(broken / "masks" / "eye0.png")
    with pytest.raises(UserError, match="with classes up to 1; it must be"):
        list(read_outlined(broken, 128))
