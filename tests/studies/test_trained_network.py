"""Networks as the classifiers of a study: the same budget in every arm, resumption to the same bits, what stays, mistakes."""

import json
import shutil

import numpy as np
import pytest

import fundusgan_jax
from fundusgan_jax.data.example import Example
from fundusgan_jax.data.packed import write_packed
from fundusgan_jax.errors import UserError
from fundusgan_jax.studies import augmentation, imbalance
from fundusgan_jax.studies.frozen_probe import Classifier, Labelled, fit_logistic
from fundusgan_jax.studies.study_flags import request_of
from fundusgan_jax.studies.study_images import open_photographs
from fundusgan_jax.studies.trained_network import _settings_of_run, study_settings, trained_network
from fundusgan_jax.workdir.manifest import config_of_workdir
from tests.support.one_device import one_device
from tests.support.runs import arrays_of

SIZE = 32
TINY = [f"--config.{setting}" for setting in (
    "classifier.width=0.125", "train.batch_size=8", "train.num_steps=4", "train.eval_every=2", "train.checkpoint_every=2",
    "train.log_every=2", "train.keep_last=3", "optim.warmup_steps=1", "eval.batch_size=32",
)]  # fmt: skip


@pytest.fixture(scope="module", autouse=True)
def alone():
    """test_classifier_step.py is about many devices."""
    with one_device():
        yield


@pytest.fixture(scope="module")
def data(tmp_path_factory):
    """Photographs of noise, 15 patients of class G, which are brighter, and 30 of N; a third is held out."""
    folder, rng = tmp_path_factory.mktemp("data"), np.random.default_rng(0)
    examples = [
        Example(rng.integers(60 * (patient % 3 == 0), 256, (SIZE, SIZE, 3), np.uint8), int(patient % 3 == 0), f"p{patient}",
                "left", "test" if patient < 15 else "train", f"{patient}.jpg")
        for patient in range(45)
    ]  # fmt: skip
    write_packed(folder, examples, {"train": 30, "test": 15}, SIZE, ("N", "G"), True)
    return folder


def probe():
    def colours(images):
        return images.mean((1, 2)).astype(np.float32)

    return Classifier("colours", colours, fit_logistic)


def words(data, workdir, *more):
    return [f"--data={data}", "--classes=G,N", f"--workdir={workdir}", "--seeds=1", *TINY, *more]


@pytest.fixture(scope="module")
def study(data, tmp_path_factory, alone):
    workdir = tmp_path_factory.mktemp("study") / "work"
    given = words(data, workdir, "--networks=probe,squeezenet", "--arms=real,augmented")
    assert augmentation.main(given, probe()) == 0
    return given, workdir, json.loads((workdir / "study.json").read_text())


def runs_of(record, network):
    return {run["arm"]: run for run in record["runs"] if run["condition"] == f"all photographs, {network}"}


@pytest.mark.slow
def test_a_network_beside_the_probe(study):
    _, workdir, record = study
    ours = runs_of(record, "squeezenet")
    assert set(ours) == set(runs_of(record, "probe")) == {"real", "augmented"}
    for run in ours.values():
        # The same budget: as many steps, evaluated as often.
        assert [row["step"] for row in run["curve"] if "loss" in row] == [2, 4]
        assert [row["step"] for row in run["curve"] if "auc" in row] == [2, 4]
        assert np.asarray(run["test"]).shape == (15, 2)
    assert ours["real"]["test"] != ours["augmented"]["test"]
    assert all(run["curve"] == [] for run in runs_of(record, "probe").values())
    assert {one["condition"] for one in record["summaries"]} == {
        f"all photographs, {one}" for one in ("probe", "squeezenet")
    }
    page = (workdir / "report.html").read_text()
    kept = [
        (one["condition"], one["arm"], [part["set"] for part in one["sets"]]) for one in record["heat_maps"]
    ]
    assert kept == [("all photographs, squeezenet", "real", ["photographs"])]
    assert record["heat_maps"][0]["sets"][0]["images"] == 5 and "Where networks find G" in page
    assert "<h2>Trainings</h2>" in page and "squeezenet from scratch (4 steps of 8" in page


def test_what_stays_is_a_workdir_that_predicts_the_same(study, data):
    _, workdir, record = study
    assert [path.name for path in (workdir / "networks").iterdir()] == [
        "all-photographs,-squeezenet_real_seed0"
    ]
    folder = workdir / "networks" / "all-photographs,-squeezenet_real_seed0"
    model = fundusgan_jax.load(folder)
    _, photographs = open_photographs(data, (("G",), ("N",)))
    predicted = model.predict(photographs.images[photographs.test])
    assert model.classes == ("G", "N")
    np.testing.assert_allclose(predicted, runs_of(record, "squeezenet")["real"]["test"], rtol=1e-5)
    # Chosen by patients of the training side.
    config = config_of_workdir(folder, [])
    assert (config.data.train_split, config.data.eval_split, config.train.best_metric) == (
        "train",
        "valid",
        "auto",
    )


@pytest.mark.slow
def test_a_killed_run_goes_on_to_the_same_bits(study):
    given, workdir, record = study
    files = {path.name: path.stat().st_mtime_ns for path in (workdir / "runs").iterdir()}
    name = "all-photographs,-squeezenet_real_seed0"
    folder = workdir / "networks" / name
    first = arrays_of(folder, 4)
    # As after a kill between the two checkpoints: the second is not there, nor the record.
    assert {path.name for path in (folder / "checkpoints").iterdir()} >= {"2", "4"}
    shutil.rmtree(folder / "checkpoints" / "4")
    (workdir / "runs" / f"{name}.json").unlink()
    assert augmentation.main(given, probe()) == 0
    changed = [
        path.name for path in (workdir / "runs").iterdir() if files[path.name] != path.stat().st_mtime_ns
    ]
    assert changed == [f"{name}.json"]
    second = arrays_of(folder, 4)
    assert not [leaf for leaf in first if not np.array_equal(first[leaf], second[leaf])]
    redone = json.loads((workdir / "runs" / f"{name}.json").read_text())
    whole = runs_of(record, "squeezenet")["real"]
    assert {**redone, "seconds": 0} == {**whole, "seconds": 0}


def test_settings_of_arms(data, tmp_path):
    flags = augmentation.parser().parse_with_settings(words(data, tmp_path, "--networks=squeezenet"))
    config = study_settings(request_of(*flags), "squeezenet", ("G", "N"), SIZE)
    images, label = np.zeros((2, SIZE, SIZE, 3), np.uint8), np.array([0, 1])
    plain = Labelled(images, label, np.ones(2))
    for training, weighting, augment in (
        (plain, "none", False),
        (plain._replace(weighting="balanced"), "balanced", False),
        (plain._replace(weighting="logit_adjusted"), "logit_adjusted", False),
        (plain._replace(augmented=True), "none", True),
    ):
        chosen = _settings_of_run(config, training, 7)
        assert chosen.seed == 7 and chosen.loss.class_weighting == weighting
        assert chosen.classifier.augment == chosen.data.flip == augment
        assert chosen.train.num_steps == config.train.num_steps == 4
    assert not trained_network(config).augments
    everywhere = ["--config.classifier.augment=True", "--config.data.flip=True"]
    flags = augmentation.parser().parse_with_settings(
        words(data, tmp_path, "--networks=squeezenet", *everywhere)
    )
    assert trained_network(study_settings(request_of(*flags), "squeezenet", ("G", "N"), SIZE)).augments


@pytest.mark.slow
def test_the_plan_says_how_long(data, tmp_path, capsys):
    workdir = tmp_path / "w"
    assert (
        imbalance.main(
            words(data, workdir, "--networks=squeezenet", "--ratios=0.5", "--num_normal=10", "--plan")
        )
        == 0
    )
    printed = capsys.readouterr().out
    assert "squeezenet: 6 runs of" in printed and "6 runs, 6 to do" in printed
    assert not (workdir / "runs").exists() and not (workdir / "networks").exists()


@pytest.mark.parametrize(
    "more, text",
    [
        (["--networks=resnet20"], "resnet20 is none; there are probe, resnet18"),
        (["--networks="], "--networks is empty"),
        (["--networks=probe"], "is of networks that are trained"),
        (["--networks=squeezenet", "--config=configs/demo.py"], "is of task=fundusgan"),
        (["--networks=densenet121", "--pretrained"], r"set classifier.width=1"),
        (["--networks=resnet18", "--pretrained", "--config.classifier.width=1"], "weights fetch resnet18"),
    ],
)  # fmt: skip
def test_mistakes(data, tmp_path, more, text, monkeypatch):
    monkeypatch.setenv("FUNDUSGAN_JAX_WEIGHTS", str(tmp_path))
    with pytest.raises(UserError, match=text):
        augmentation.main(words(data, tmp_path / "w", *more))
    assert not (tmp_path / "w" / "runs").exists()
