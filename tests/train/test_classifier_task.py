"""The command with a classifier, as a user runs it: train, resume, evaluate, load, mistakes."""

import csv
import json
import shutil
from pathlib import Path

import numpy as np
import pytest

import fundusgan_jax
from fundusgan_jax import main
from fundusgan_jax.data.example import Example
from fundusgan_jax.data.packed import write_packed
from fundusgan_jax.errors import UserError
from fundusgan_jax.metrics.discrimination import auc
from tests.support.one_device import one_device
from tests.support.runs import arrays_of, rows_without_rate

# Whole runs; CI has them.
pytestmark = pytest.mark.slow

ROOT = Path(__file__).resolve().parents[2]
TINY = (
    "data.resolution=32", "data.classes=N,D", "classifier.network=squeezenet", "classifier.width=0.125",
    "classifier.dropout=0.2", "train.batch_size=4", "train.num_steps=3", "train.log_every=1",
    "train.eval_every=2", "train.checkpoint_every=2", "train.keep_last=3", "optim.warmup_steps=1", "eval.batch_size=8",
)  # fmt: skip


def words(workdir, prepared, *settings):
    given = (f"--config.{setting}" for setting in (f"data.dir={prepared}", *TINY, *settings))
    return [f"--config={ROOT / 'configs' / 'classifier.py'}", f"--workdir={workdir}", *given]


@pytest.fixture(scope="module", autouse=True)
def alone():
    """test_classifier_step.py is about many devices."""
    with one_device():
        yield


@pytest.fixture(scope="module")
def prepared(tmp_path_factory):
    """Noise of three classes and of an unknown one, two photographs a patient."""
    folder, rng = tmp_path_factory.mktemp("prepared"), np.random.default_rng(0)
    counts = {"train": 24, "test": 16}
    examples = [
        Example(rng.integers(0, 256, (32, 32, 3), np.uint8), (n // 2) % 4 - 1, f"{split}{n // 2}", "unknown", split,
                f"{split}{n}.png")
        for split, count in counts.items() for n in range(count)
    ]  # fmt: skip
    write_packed(folder, examples, counts, 32, ("N", "D", "G"), has_patients=True)
    return folder


@pytest.fixture(scope="module")
def trained(tmp_path_factory, prepared, alone):
    """A workdir with all its 3 steps and a full evaluation of the last."""
    workdir = tmp_path_factory.mktemp("classifier") / "run"
    assert main.main(words(workdir, prepared)) == 0
    assert main.main([f"--workdir={workdir}", "--mode=eval"]) == 0
    return workdir


def test_a_run_leaves_rows_and_every_prediction(trained):
    rows = rows_without_rate(trained)
    assert [row["step"] for row in rows if row["kind"] == "train"] == [1, 2, 3]
    scores = [row for row in rows if row["kind"] == "eval"]
    # The test's photographs choose no checkpoint.
    assert [row["step"] for row in scores] == [2, 3] and all(row["ranked"] is False for row in scores)
    evaluation = json.loads((trained / "evaluation" / "eval.json").read_text())
    assert evaluation["model"]["auc"] == scores[-1]["auc"]
    assert evaluation["baselines"]["classes' shares"]["auc"] == 0.5
    assert evaluation["intervals"]["accuracy"][0] <= evaluation["model"]["accuracy"]
    names = ["N", "D"]
    with open(trained / "evaluation" / "predictions.csv", newline="") as file:
        table = list(csv.DictReader(file))
    assert len(table) == evaluation["num_images"] == 8 and all(
        row["patient"] and row["file"] for row in table
    )
    positive = np.array([row["label"] == names[1] for row in table])
    probability = np.array([[float(row[f"p_{name}"]) for name in names] for row in table])
    np.testing.assert_allclose(probability.sum(1), 1, atol=1e-8)
    assert evaluation["model"]["auc"] == pytest.approx(float(auc(positive, probability[:, 1])))
    chosen = np.array([row["prediction"] == names[1] for row in table])
    assert evaluation["model"]["accuracy"] == pytest.approx((chosen == positive).mean())
    report = (trained / "report.html").read_text()
    assert "squeezenet for N,D" in report and "balanced accuracy ↑" in report
    assert not any(row["file"] in report or row["patient"] in report for row in table)


def test_an_interrupted_run_resumes_to_the_same_bits(trained, prepared, tmp_path):
    workdir = shutil.copytree(trained, tmp_path / "run")
    shutil.rmtree(workdir / "checkpoints" / "3")
    assert main.main(words(workdir, prepared)) == 0
    first, second = arrays_of(trained, 3), arrays_of(workdir, 3)
    assert set(first) == set(second)
    assert not [name for name in first if not np.array_equal(first[name], second[name])]
    assert rows_without_rate(trained) == rows_without_rate(workdir)


def test_a_loaded_model_predicts_what_is_scored(trained):
    model = fundusgan_jax.load(trained, "latest")
    assert model.classes == ("N", "D")
    photographs, labels = fundusgan_jax.open_dataset(trained, "test")
    predicted = model.predict(photographs)
    assert model.resolution == 32 and model.step == 3 and predicted.shape == (len(labels), len(model.classes))
    with open(trained / "evaluation" / "predictions.csv", newline="") as file:
        table = list(csv.DictReader(file))
    kept = np.array([[float(row[f"p_{name}"]) for name in model.classes] for row in table])
    np.testing.assert_allclose(predicted, kept, rtol=1e-8)
    np.testing.assert_allclose(model.predict(photographs[:3]), predicted[:3], rtol=1e-5)
    with pytest.raises(UserError, match="64 px wide, this model's are 32"):
        model.predict(np.zeros((1, 64, 64, 3), np.uint8))
    with pytest.raises(UserError, match="leave dtype out"):
        fundusgan_jax.load(trained, dtype="bfloat16")


def test_several_labels_a_photograph(tmp_path):
    rng = np.random.default_rng(1)
    counts = {"train": 12, "test": 12}
    examples = [
        Example(rng.integers(0, 256, (32, 32, 3), np.uint8), n % 4, f"{split}{n}", "unknown", split, f"{split}{n}.png")
        for split, count in counts.items() for n in range(count)
    ]  # fmt: skip
    write_packed(tmp_path / "prepared", examples, counts, 32, ("N", "D;H", "H", "O;D"), has_patients=True)
    several = ("data.classes=", "classifier.multi_label=True", "loss.class_weighting=balanced")
    workdir = tmp_path / "run"
    assert main.main(words(workdir, tmp_path / "prepared", *several)) == 0
    assert main.main([f"--workdir={workdir}", "--mode=eval"]) == 0
    model = fundusgan_jax.load(workdir, "latest")
    assert model.classes == ("N", "D", "H", "O")
    photographs, bits = fundusgan_jax.open_dataset(workdir, "test")
    predicted = model.predict(photographs)
    assert np.abs(predicted.sum(1) - 1).max() > 0.1
    with open(workdir / "evaluation" / "predictions.csv", newline="") as file:
        table = list(csv.DictReader(file))
    assert [row["label"] for row in table[:4]] == ["N", "D;H", "H", "D;O"]
    np.testing.assert_allclose([float(row["p_H"]) for row in table], predicted[:, 2], rtol=1e-8)
    assert table[0]["prediction"] == ";".join(
        name for name, p in zip(model.classes, predicted[0]) if p >= 0.5
    )
    figures = json.loads((workdir / "evaluation" / "eval.json").read_text())["model"]
    assert figures["auc_H"] == pytest.approx(float(auc((bits >> 2) & 1 == 1, predicted[:, 2])))
    assert "every label right" in (workdir / "report.html").read_text()
    alike = [example._replace(label=example.label % 2) for example in examples]
    write_packed(tmp_path / "same", alike, counts, 32, ("A;B", "A"), has_patients=True)
    with pytest.raises(UserError, match="every photograph of split 'train' has label 'A'"):
        main.main(words(tmp_path / "other", tmp_path / "same", *several))


@pytest.mark.parametrize(
    "setting, message",
    [
        ("data.classes=N", "must name two or more different classes"),
        ("data.classes=N,X", "has no class 'X'; there are N, D, G"),
        ("data.cache=none", "set --config.data.cache=host"),
        ("data.resolution=16", "must lie between 32 and 1024"),
        ("encoder.norm=frozen", "set --config.encoder.norm=group"),
        ("encoder.weights=resnet18.pth", "this classifier has width 0.125"),
        ("classifier.network=resnet20", "did you mean resnet"),
        ("loss.class_weighting=focal", "is not one of none, balanced, logit_adjusted"),
    ],
)
def test_mistakes_are_one_line(prepared, tmp_path, setting, message):
    with pytest.raises(UserError, match=message):
        main.main(words(tmp_path / "run", prepared, setting))
    assert not (tmp_path / "run" / "manifest.json").exists()


def test_what_a_classifier_cannot_do(trained, tmp_path):
    with pytest.raises(UserError, match="paints nothing; score it with --mode=eval"):
        main.main([f"--workdir={trained}", "--mode=generate", f"--output={tmp_path / 'out'}"])
    with pytest.raises(UserError, match="start a run of task=classifier without it"):
        main.main([f"--config={ROOT / 'configs' / 'classifier.py'}", "--mode=plan"])
    with pytest.raises(UserError, match="was trained with classifier.width=0.125"):
        main.main([f"--workdir={trained}", "--mode=eval", "--config.classifier.width=1"])
