"""The comparison of two sets: its files, what is shown of whom, a difference that is there, mistakes in one line."""

import csv
import json

import jax
import numpy as np
import pytest
from PIL import Image

from configs import vessels as configuration
from fundusgan_jax.anatomy.photograph_measures import TITLES
from fundusgan_jax.data.image_sets import ImageSet
from fundusgan_jax.data.phantom.render import render
from fundusgan_jax.errors import UserError
from fundusgan_jax.steps.segmentation_step import first_segmentation
from fundusgan_jax.vessels.__main__ import main
from fundusgan_jax.vessels.compare_page import write_page
from fundusgan_jax.vessels.comparison import AdjustedP, compared, most_abnormal, verdict
from fundusgan_jax.vessels.measured_sets import CAMERA, FILTER, NETWORK, MeasuredSet, shows_nobody
from fundusgan_jax.weights.vessel_weights import write_vessel_weights

SIDE = 128


@pytest.fixture(scope="module")
def folders(tmp_path_factory):
    """Weights of an untrained narrow network, five rendered eyes, and four others, one without vessels."""
    folder = tmp_path_factory.mktemp("compare")
    config = configuration.get_config()
    config.vessels.width, config.vessels.fov_diameter = 2, 0
    write_vessel_weights(folder / "tiny.npz", config, jax.device_get(first_segmentation(config).ema), 0.4)
    for kind, numbers in (("real", range(3)), ("drawn", range(10, 13))):
        (folder / kind).mkdir()
        for number in numbers:
            image = render(number, SIDE).image
            if number == 12:
                image = np.where(image.max(-1, keepdims=True) > 20, np.uint8([160, 80, 40]), image)
            Image.fromarray(image.astype(np.uint8)).save(folder / kind / f"{number}.png")
    return folder


def words(folder, output, *more):
    return [
        "compare",
        f"--real={folder / 'real'}",
        f"--synthetic={folder / 'drawn'}",
        f"--output={output}",
        f"--weights={folder / 'tiny.npz'}",
        "--preprocess=none",
        *more,
    ]


@pytest.mark.slow
def test_compares_two_folders_and_shows_nobody(folders, tmp_path, capsys):
    assert main(words(folders, tmp_path / "out", f"--camera={folders / 'drawn'}")) == 0
    told = capsys.readouterr().out
    assert "3 photographs, 3 synthetic images, 128 px" in told and "another camera: 3 photographs" in told
    rows = list(csv.DictReader((tmp_path / "out" / "measures.csv").open()))
    assert len(rows) == 2 * 9 and [row["set"] for row in rows].count(CAMERA) == 6
    assert {row["segmenter"] for row in rows} == {NETWORK, FILTER}
    result = json.loads((tmp_path / "out" / "compare.json").read_text())
    column = {
        kind: [float(r["vessel_area"]) for r in rows if (r["set"], r["segmenter"]) == (kind, FILTER)]
        for kind in ("real", "synthetic")
    }
    found = result["differences"][FILTER]["vessel_area"]
    assert found["real"]["mean"] == pytest.approx(np.mean(column["real"]), rel=1e-5)
    assert found["difference"] == pytest.approx(
        np.mean(column["synthetic"]) - np.mean(column["real"]), rel=1e-5
    )
    for measures in result["differences"].values():
        for one in measures.values():  # the other camera's photographs are the synthetic images here
            assert one["camera"]["ks"] == one["ks"] and one["camera"]["hedges_g"] == one["hedges_g"]
    page = (tmp_path / "out" / "report.html").read_text()
    assert "As the paper has it" in page and "image/png" in page and "another camera: g" in page
    # The images came without an index.csv that says of what they were made: they may show a patient.
    assert "image/jpeg" not in page and "12.png" not in page and "--photographs" in page
    with pytest.raises(UserError, match="holds a comparison"):
        main(words(folders, tmp_path / "out"))


def test_only_what_was_drawn_from_noise_shows_nobody(tmp_path):
    assert not shows_nobody(tmp_path)
    for line, answer in (("a.png,,yes", True), ("a.png,eye.jpg,yes", False), ("a.png,,", False)):
        (tmp_path / "index.csv").write_text(f"file,sources,synthetic\n{line}\n")
        assert shows_nobody(tmp_path) == answer


def measured_set(values, patients=None):
    files = tuple(f"{number}.png" for number in range(len(values["pieces"])))
    images = ImageSet(
        "set", "0", "", "none", files, patients, None, lambda number: np.full((96, 96, 3), 90, np.uint8)
    )
    nothing = np.full(len(files), np.nan)
    return MeasuredSet(images, {NETWORK: {name: values.get(name, nothing) for name in TITLES}}, [])


def test_a_difference_is_found_and_the_abnormal_named(tmp_path):
    rng = np.random.default_rng(0)
    real = measured_set(
        {"pieces": rng.normal(20, 3, 2000), "tortuosity": rng.normal(1.1, 0.02, 2000), "gaps": np.ones(2000)},
        tuple(f"p{number // 2}" for number in range(2000)),
    )
    drawn = {"pieces": rng.normal(26, 3, 900), "tortuosity": rng.normal(1.1, 0.02, 900), "gaps": np.ones(900)}
    drawn["tortuosity"][7], drawn["pieces"][9] = 1.4, np.nan
    synthetic = measured_set(drawn)
    maps = {NETWORK: lambda image, mask: mask}
    result = compared(real, synthetic, maps, 0, 128, "tiny", 1)
    differences, adjusted = result.differences[NETWORK], result.adjusted_p[NETWORK]
    assert (
        list(differences) == ["tortuosity", "pieces", "gaps"]
        and differences["pieces"].other.num_images == 899
    )
    answers = {name: verdict(adjusted[name]) for name in differences}
    assert answers == {"pieces": "differ", "tortuosity": "equivalent", "gaps": "undecided"}
    assert differences["pieces"].ks > differences["pieces"].halves.ks
    worst = most_abnormal(real, synthetic, NETWORK)
    assert (worst[0].number, worst[0].measure, worst[0].value) == (7, "tortuosity", 1.4) and len(worst) == 6
    assert worst[0].deviations == pytest.approx(0.3 / 0.02, rel=0.15)
    (tmp_path / "index.csv").write_text("file,sources,synthetic\n7.png,eye.jpg,yes\n")
    for photographs in (False, True):
        write_page(tmp_path / "report.html", result, maps, tmp_path, photographs)
        page = (tmp_path / "report.html").read_text()
        assert ("image/jpeg" in page) == ("7.png" in page) == ("and their file names" in page) == photographs


@pytest.mark.parametrize(
    "difference, equivalence, answer",
    [(0.01, 0.3, "differ"), (0.01, 0.02, "differ slightly"), (0.4, 0.02, "equivalent"), (0.4, 0.3, "undecided"),
     (np.nan, np.nan, "undecided")],
)  # fmt: skip
def test_verdicts(difference, equivalence, answer):
    assert verdict(AdjustedP(difference, equivalence)) == answer


def test_mistakes_are_one_line(folders, tmp_path):
    (tmp_path / "small").mkdir()
    Image.fromarray(render(1, 96).image).save(tmp_path / "small" / "a.png")
    with pytest.raises(UserError, match="is 96x96, the real images are 128x128"):
        main([*words(folders, tmp_path / "a"), f"--synthetic={tmp_path / 'small'}"])
    with pytest.raises(UserError, match="is no folder"):
        main([*words(folders, tmp_path / "b"), "--real=nowhere"])
    with pytest.raises(UserError, match="--seed=-1 must be at least 0"):
        main(words(folders, tmp_path / "c", "--seed=-1"))
