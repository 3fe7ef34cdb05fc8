"""The vessels command: maps of photographs of any size, scores of folders, weights in and out, mistakes in one line."""

import csv
import json

import jax
import numpy as np
import pytest
from PIL import Image
from sklearn.metrics import roc_auc_score

from configs import vessels as configuration
from fundusgan_jax.data.phantom.render import render
from fundusgan_jax.data.traced import Traced
from fundusgan_jax.errors import UserError
from fundusgan_jax.evaluate.segmentation import Segmenter, score_photographs
from fundusgan_jax.steps.segmentation_step import first_segmentation
from fundusgan_jax.vessels.__main__ import main
from fundusgan_jax.vessels.score import partner, score_folders
from fundusgan_jax.weights.vessel_weights import OURS, read_vessel_weights, write_vessel_weights

SIDE = 160


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """Weights of an untrained narrow network; two photographs of two sizes and a file that is none."""
    folder = tmp_path_factory.mktemp("vessels")
    config = configuration.get_config()
    config.vessels.width, config.vessels.fov_diameter = 2, 100
    variables = jax.device_get(first_segmentation(config).ema)
    write_vessel_weights(folder / "tiny.npz", config, variables, 0.4)
    (folder / "photos" / "more").mkdir(parents=True)
    eye = render(3, SIDE)
    Image.fromarray(eye.image).save(folder / "photos" / "01_test.png")
    wide = np.pad(render(4, SIDE).image, ((0, 0), (20, 11), (0, 0)))
    Image.fromarray(wide).save(folder / "photos" / "more" / "02.jpg")
    (folder / "photos" / "broken.png").write_bytes(b"no image")
    for name, values in (("truth/01_manual1", eye.vessels), ("masks/01_test_mask", eye.fov)):
        path = folder / f"{name}.png"
        path.parent.mkdir(exist_ok=True)
        Image.fromarray(np.uint8(255) * values).save(path)
    return folder


def test_segments_measures_and_scores(folder, capsys):
    output = folder / "out"
    words = [
        "segment",
        f"--images={folder / 'photos'}",
        f"--output={output}",
        f"--weights={folder / 'tiny.npz'}",
    ]
    assert main([*words, "--measures"]) == 0
    assert "broken left out: not an image" in capsys.readouterr().out
    about = json.loads((output / "segmentation.json").read_text())
    assert about["photographs"] == 2 and about["threshold"] == 0.4 and list(about["left_out"]) == ["broken"]
    weights = read_vessel_weights(folder / "tiny.npz")
    for name, file in (("01_test", "01_test.png"), ("more/02", "more/02.jpg")):
        image = np.asarray(Image.open(folder / "photos" / file))
        value, vessels = (
            np.asarray(Image.open(output / kind / f"{name}.png")) for kind in ("probability", "vessels")
        )
        assert value.shape == vessels.shape == image.shape[:2] and set(np.unique(vessels)) <= {0, 255}
        from fundusgan_jax.anatomy.field_of_view import fov_mask

        mask = fov_mask(image[None])[0]
        probability = Segmenter(weights.config, weights.variables).probability(image, mask)
        np.testing.assert_array_equal(value, np.rint(255 * probability).astype(np.uint8))
        np.testing.assert_array_equal(vessels > 0, (probability >= 0.4) & mask)
    rows = list(csv.DictReader((output / "measures.csv").open()))
    assert [row["file"] for row in rows] == ["01_test", "more/02"]
    for row in rows:  # untrained: nothing, or everything, is a vessel; what is NaN has its reason
        values = {name: float(x) for name, x in row.items() if name not in ("file", "reason")}
        assert bool(row["reason"]) == any(np.isnan(x) for x in values.values())
    with pytest.raises(UserError, match="holds maps"):
        main(words)
    only = folder / "only"
    only.mkdir()
    (output / "probability" / "01_test.png").rename(only / "01_test.png")
    assert (
        main(["score", f"--predictions={only}", f"--truth={folder / 'truth'}", f"--masks={folder / 'masks'}"])
        == 0
    )
    printed = capsys.readouterr().out
    assert (
        "1 photographs, threshold 0.5" in printed and "Betti-1 error" in printed and "AUC, pooled" in printed
    )


def test_scores_of_a_known_map(folder, tmp_path):
    truth = np.asarray(Image.open(folder / "truth" / "01_manual1.png"))
    Image.fromarray(truth).save(tmp_path / "01_test.png")
    (tmp_path / "segmentation.json").write_text('{"threshold": 0.3}')
    perfect = score_folders(tmp_path, folder / "truth", folder / "masks", None)
    assert perfect.figures["dice"] == perfect.figures["auc"] == perfect.figures["cldice"] == 1
    assert perfect.figures["betti0_error"] == 0
    Image.fromarray(truth[:-1]).save(tmp_path / "01_test.png")
    with pytest.raises(UserError, match="must agree"):
        score_folders(tmp_path, folder / "truth", folder / "masks", None)


def test_the_field_of_view_beside_the_maps_is_taken(folder, tmp_path, capsys):
    maps = tmp_path / "probability"
    maps.mkdir()
    truth = np.asarray(Image.open(folder / "truth" / "01_manual1.png"))
    Image.fromarray(truth).save(maps / "01_test.png")
    whole = score_folders(maps, folder / "truth", None, 0.5)
    assert "in the whole image" in capsys.readouterr().out
    field = np.zeros_like(truth)
    field[20:60, 20:140] = 255
    (tmp_path / "field_of_view").mkdir()
    Image.fromarray(field).save(tmp_path / "field_of_view" / "01_test.png")
    inside = score_folders(maps, folder / "truth", None, 0.5)
    assert "inside the field of view of" in capsys.readouterr().out
    assert inside.figures["betti0"] != whole.figures["betti0"]


def test_maps_of_sixteen_bits_have_one_scale(tmp_path):
    for name in ("maps", "truth"):
        (tmp_path / name).mkdir()
    truth = np.zeros((32, 32), np.uint8)
    truth[10:12] = 255
    for name, top in (("a", 65535), ("b", 250)):
        Image.fromarray(truth).save(tmp_path / "truth" / f"{name}.png")
        Image.fromarray(np.where(truth, top, 0).astype(np.uint16)).save(tmp_path / "maps" / f"{name}.png")
    scored = score_folders(tmp_path / "maps", tmp_path / "truth", None, 0.5)
    np.testing.assert_array_equal(scored.per_photograph["sensitivity"], [1, 0])


def test_the_pooled_area_is_that_of_all_pixels_at_once():
    rng = np.random.default_rng(0)
    photographs = []
    for number in range(3):
        truth, mask = rng.random((2, 40, 50)) < [[[0.15]], [[0.8]]]
        value = np.clip(rng.normal(90 + 40 * truth, 40 + 10 * number), 0, 255).astype(np.uint8)
        photographs.append(Traced(str(number), value, truth, mask))
    scored = score_photographs(lambda one: one.image / np.float32(255), photographs, 0.5)
    truth, value = (
        np.concatenate([getattr(one, name)[one.mask] for one in photographs]) for name in ("truth", "image")
    )
    assert scored.figures["auc_pooled"] == pytest.approx(roc_auc_score(truth, value), abs=1e-12)
    assert scored.figures["auc_pooled"] != pytest.approx(scored.figures["auc"], abs=1e-4)


def test_names_of_drive_and_hrf_find_each_other(tmp_path):
    files = {name: tmp_path / name for name in ("01_manual1", "02_manual1", "03_dr_mask", "03_h_mask")}
    assert partner("01_test", files, tmp_path).name == "01_manual1"
    assert partner("03_dr", files, tmp_path).name == "03_dr_mask"
    for name in ("04_test", "03_x"):
        with pytest.raises(UserError, match=f"not one file for {name}"):
            partner(name, files, tmp_path)


def test_our_weights_are_whole_and_others_are_refused(folder, tmp_path):
    ours = read_vessel_weights()
    assert OURS.stat().st_size < 1_000_000 and 0.3 < ours.threshold < 0.6
    assert sum(leaf.size for leaf in jax.tree.leaves(ours.variables.params)) == 68482
    with np.load(folder / "tiny.npz") as file:
        arrays = {name: file[name] for name in file.files}
    changed = dict(arrays)
    changed[next(name for name in arrays if name.startswith("params"))] = np.zeros(3, np.float32)
    bad = {name: x if name == "about" else x * np.float32(np.nan) for name, x in arrays.items()}
    for number, (content, words) in enumerate(
        [({"x": np.zeros(2)}, "no vessel weights"), (changed, "other arrays"), (bad, "not finite")]
    ):
        path = tmp_path / f"{number}.npz"
        np.savez(path, **content)
        with pytest.raises(UserError, match=words):
            read_vessel_weights(path)
    with pytest.raises(UserError, match="is no file"):
        read_vessel_weights(tmp_path / "none.npz")


@pytest.mark.parametrize(
    "words, message",
    [
        (["segment", "--images=nowhere", "--output=x"], "nowhere is no folder"),
        (["segment", "--images=x", "--output=y", "--threshold=2"], "must lie between 0 and 1"),
        (["segment", "--images=x", "--output=y", "--workdir=a", "--weights=b"], "give one of them"),
        (["export", "--workdir=x", "--output=y.txt"], "must end with .npz"),
        (["segmnt"], "did you mean segment"),
    ],
)
def test_mistakes_are_one_line(words, message):
    with pytest.raises(UserError, match=message):
        main(words)


@pytest.mark.slow
def test_our_weights_reach_their_figures_on_drive(shared, tmp_path, capsys):
    drive = shared / "data" / "DRIVE" / "test"
    assert main(["segment", f"--images={drive / 'images'}", f"--output={tmp_path / 'out'}"]) == 0
    scored = score_folders(tmp_path / "out" / "probability", drive / "1st_manual", drive / "mask", None)
    assert scored.figures["dice"] > 0.815 and scored.figures["auc"] > 0.978
