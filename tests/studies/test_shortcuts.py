"""Shortcuts: inputs against scikit-image, folds that keep patients apart, labels whose answer is known, the command."""

import json

import numpy as np
import pytest
from skimage.transform import downscale_local_mean
from sklearn.metrics import roc_auc_score

from fundusgan_jax.data.example import Example
from fundusgan_jax.data.packed import write_packed
from fundusgan_jax.errors import UserError
from fundusgan_jax.metrics.confidence import Interval
from fundusgan_jax.studies import shortcuts
from fundusgan_jax.studies.shortcut_probes import (
    Probe,
    Task,
    camera,
    colour,
    file_facts,
    out_of_fold,
    thumbnail,
)

RNG = np.random.default_rng(0)


def prepared(folder, shift, names=("no", "yes"), patients=30):
    """Noise of two photographs a patient; class 1 is brighter by `shift`."""
    rng = np.random.default_rng(1)

    def photograph(label):
        return np.clip(rng.normal(100 + shift * label, 20, (16, 16, 3)), 0, 255).astype(np.uint8)

    examples = [
        Example(
            photograph(patient % 2),
            patient % 2,
            f"p{patient}",
            eye,
            "test" if patient < 10 else "train",
            f"{patient}_{eye}.jpg",
        )
        for patient in range(patients)
        for eye in ("left", "right")
    ]
    write_packed(
        folder,
        examples,
        {**({"test": 20} if patients >= 10 else {}), "train": 2 * patients - 20},
        16,
        names,
        True,
    )
    return folder


def test_inputs_against_scikit_image():
    images = RNG.integers(0, 256, (3, 32, 32, 3), np.uint8)
    reference = np.stack([downscale_local_mean(image / 255.0, (4, 4, 1)) for image in images])
    np.testing.assert_allclose(thumbnail(images), reference.reshape(3, -1), atol=1e-12)
    assert thumbnail(images[:, :30, :30]).shape == (3, 192)
    np.testing.assert_allclose(colour(images)[1, 4], (images[1, ..., 1] / 255.0).std(), atol=1e-12)


def test_a_patient_is_on_one_side_of_each_fold():
    # Each patient has a place of its own and a random label: only photographs of the same patient tell it.
    groups = np.repeat(np.arange(60), 4)
    positive = np.repeat(RNG.permutation(np.arange(60) % 2 == 0), 4)
    values = np.repeat(RNG.standard_normal((60, 200)), 4, 0) + 0.01 * RNG.standard_normal((240, 200))
    grouped = roc_auc_score(positive, out_of_fold(values, positive, groups, 0))
    mixed = roc_auc_score(positive, out_of_fold(values, positive, np.arange(240), 0))
    assert grouped < 0.7 and mixed > 0.95


def test_file_facts(tmp_path):
    from PIL import Image

    Image.new("RGB", (40, 20)).save(tmp_path / "a.png")
    Image.new("RGB", (20, 20)).save(tmp_path / "b.jpg")
    facts = file_facts(["a.png", "b.jpg"], tmp_path)
    np.testing.assert_array_equal(facts[:, :2], [[0, 1], [1, 0]])
    np.testing.assert_allclose(facts[:, 3:], [[np.log(40), np.log(20), 2], [np.log(20), np.log(20), 1]])
    with pytest.raises(UserError, match=r"missing\.png cannot be read"):
        file_facts(["missing.png"], tmp_path)


def test_cameras_are_read_from_exif_and_none_is_no_input(tmp_path):
    from PIL import ExifTags, Image

    for name, model in (("a.jpg", "CR-2"), ("b.jpg", "TRC-50"), ("c.jpg", None), ("d.jpg", "CR-2")):
        exif = Image.Exif()
        if model:
            exif[ExifTags.Base.Make], exif[ExifTags.Base.Model] = "Maker\0", model
        Image.new("RGB", (20, 20)).save(tmp_path / name, exif=exif)
    files = ["a.jpg", "b.jpg", "c.jpg", "d.jpg"]
    np.testing.assert_array_equal(camera(files, tmp_path), [[0, 1, 0], [0, 0, 1], [1, 0, 0], [0, 1, 0]])
    assert camera(["c.jpg"], tmp_path) is None
    whole = (tmp_path / "a.jpg").read_bytes()
    (tmp_path / "f.jpg").write_bytes(whole.replace(b"II*\0", b"XXXX").replace(b"MM\0*", b"XXXX"))
    assert (tmp_path / "f.jpg").read_bytes() != whole
    np.testing.assert_array_equal(camera(["a.jpg", "f.jpg"], tmp_path), [[0, 1], [1, 0]])
    (tmp_path / "e.jpg").write_bytes(b"nothing")
    with pytest.raises(UserError, match=r"e\.jpg cannot be read as an image"):
        camera(["e.jpg"], tmp_path)


def test_the_command_calls_a_label_that_follows_the_camera_what_it_is(tmp_path, capsys):
    from PIL import ExifTags, Image

    data, source = prepared(tmp_path / "data", 0), tmp_path / "source"
    source.mkdir()
    for patient in range(30):
        for eye in ("left", "right"):
            exif = Image.Exif()
            exif[ExifTags.Base.Model] = f"model {patient % 2}"
            Image.new("RGB", (20, 20)).save(source / f"{patient}_{eye}.jpg", exif=exif)
    assert shortcuts.main([f"--data={data}", f"--source={source}"]) == 0
    assert "warning: camera alone predicts the label (AUC 1.000 > 0.9)" in capsys.readouterr().out


def task_of(**areas):
    probes = {name: Probe(area, Interval(area, area), np.zeros(2)) for name, area in areas.items()}
    return Task("a", np.array([True, False]), (1, 1), ("", ""), probes)


def test_warnings():
    assert "camera label" in task_of(colour=0.95).warnings()[0]
    assert "within 0.03" in task_of(thumbnail=0.80, network=0.82).warnings()[0]
    assert task_of(colour=0.6, thumbnail=0.80, network=0.84).warnings() == []
    # Of a network that knows nothing either nothing is explained.
    assert task_of(colour=0.5, thumbnail=0.5, network=0.51).warnings() == []


def test_the_command_tells_a_colour_label_from_noise(tmp_path, capsys):
    output = tmp_path / "shortcuts.json"
    data = prepared(tmp_path / "camera", 60)
    assert shortcuts.main([f"--data={data}", "--classes=no,yes", f"--output={output}"]) == 0
    printed = capsys.readouterr().out
    assert printed.startswith("yes against no: 30 photographs of 15 patients against 30 of 15")
    assert "warning: colour alone predicts the label" in printed
    task = json.loads(output.read_text())[0]
    assert task["probes"]["colour"]["auc"] > 0.99
    assert task["probes"]["file"]["auc"] == pytest.approx(0.5, abs=0.2)
    recomputed = roc_auc_score(task["positive"], task["probes"]["thumbnail"]["scores"])
    assert recomputed == pytest.approx(task["probes"]["thumbnail"]["auc"], abs=1e-12)
    assert shortcuts.main([f"--data={prepared(tmp_path / 'noise', 0)}"]) == 0
    assert "camera label" not in capsys.readouterr().out


@pytest.mark.parametrize(
    "words, text",
    [
        ([], "--data is missing"),
        (["--data=DATA", "--classes=no"], "must name two classes"),
        (["--data=DATA", "--classes=no,maybe"], "maybe is no class of .*; it has no, yes"),
        (["--data=DATA", "--source=nowhere"], "--source=nowhere is no folder"),
        (["--data=DATA"], "4 patients of one class are too few"),
    ],
)
def test_mistakes(tmp_path, words, text):
    data = prepared(tmp_path, 0, patients=10) if "few" not in text else few(tmp_path)
    with pytest.raises(UserError, match=text):
        shortcuts.main([word.replace("DATA", str(data)) for word in words])


def few(folder):
    image = np.zeros((8, 8, 3), np.uint8)
    examples = [Example(image, int(n < 4), f"p{n}", "left", "train", f"{n}.jpg") for n in range(12)]
    write_packed(folder, examples, {"train": 12}, 8, ("no", "yes"), True)
    return folder
