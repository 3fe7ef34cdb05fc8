"""The imbalance study: a planted signal, resumption, patients' sides, provenance, the table; features are means of colours."""

import csv
import json
import re
from pathlib import Path

import numpy as np
import pytest

from fundusgan_jax.data.example import Example
from fundusgan_jax.data.packed import open_packed, write_packed
from fundusgan_jax.errors import UserError
from fundusgan_jax.generate.marks import save_synthetic
from fundusgan_jax.generate.origin import FILE, Origin
from fundusgan_jax.generate.request import write_index
from fundusgan_jax.studies import augmentation, imbalance
from fundusgan_jax.studies.arms import Pool, select
from fundusgan_jax.studies.frozen_probe import (
    VIEWS,
    Classifier,
    FitInputs,
    Fitted,
    Labelled,
    adjusted,
    fit_logistic,
    turned,
)
from fundusgan_jax.studies.provenance import provenance
from fundusgan_jax.studies.study_flags import class_groups
from fundusgan_jax.studies.study_images import label_name, open_photographs, read_synthetic, validation_mask
from fundusgan_jax.studies.study_runs import Inputs, training_of

SIZE, BLOCK = 32, 4


def image(rng, sick, informative=True):
    """Noise in blocks; of the sick the corner is brighter, which says most where `informative`."""
    noise = rng.normal(100, 25, (SIZE // BLOCK, SIZE // BLOCK, 3))
    noise[:4, :4] += 7 * sick * informative
    return np.clip(noise, 0, 255).astype(np.uint8).repeat(BLOCK, 0).repeat(BLOCK, 1)


@pytest.fixture(scope="module")
def data(tmp_path_factory):
    """60 sick and 120 healthy patients, two photographs each; a quarter is held out."""
    folder, rng = tmp_path_factory.mktemp("data"), np.random.default_rng(0)
    examples = [
        Example(image(rng, patient < 60), int(patient >= 60), f"p{patient}", eye,
                "test" if patient % 4 == 0 else "train", f"{patient}_{eye}.jpg")
        for patient in range(180) for eye in ("left", "right")
    ]  # fmt: skip
    write_packed(folder, examples, {"train": 270, "test": 90}, SIZE, ("G", "N"), True)
    return folder


def generated(folder, informative, labels=("G", "N"), num=60, **origin):
    rng, rows = np.random.default_rng(1), []
    for label in labels:
        for number in range(num):
            file = f"{label}{number}.png"
            save_synthetic(folder / file, image(rng, label in ("G", "0"), informative))
            rows.append({"file": file, "label": label, "copy": "yes" if number < 5 else "no"})
    write_index(folder / "index.csv", rows)
    if origin:
        whole = Origin("run", "latent", "latest", "prepared", "", "train", "", "")._replace(**origin)
        (folder / FILE).write_text(json.dumps(whole._asdict()))
    return folder


def pixels(images):
    pixels.images += len(images)
    return images[:, ::BLOCK, ::BLOCK].reshape(len(images), -1).astype(np.float32)


def probe():
    pixels.images = 0
    return Classifier("logistic regression on pixels", pixels, fit_logistic)


@pytest.fixture(scope="module")
def study(data, tmp_path_factory):
    folder = tmp_path_factory.mktemp("good")
    synthetic = generated(folder, True, fingerprint=open_packed(data).fingerprint)
    workdir = tmp_path_factory.mktemp("study") / "work"
    words = [f"--data={data}", "--classes=G,N", f"--synthetic={synthetic}", f"--workdir={workdir}",
             "--ratios=1,0.2", "--seeds=2", "--arms=real,weighted,augmented,logit_adjusted,synthetic_balance,placebo"]  # fmt: skip
    assert imbalance.main(words, probe()) == 0
    return words, workdir, json.loads((workdir / "study.json").read_text())


def arm(study, condition, name):
    return next(one for one in study["summaries"] if (one["condition"], one["arm"]) == (condition, name))


def test_effects_that_were_planted_come_out(study):
    _, _, record = study
    real, made = arm(record, "ratio 0.2", "real"), arm(record, "ratio 0.2", "synthetic_balance")
    assert made["figures"]["auc"]["value"] > real["figures"]["auc"]["value"] + 0.05
    assert made["differences"]["auc"]["interval"]["low"] > 0
    # Weights move the decisions at 0.5; adjusted logits move nothing but them.
    weights = arm(record, "ratio 0.2", "weighted")["figures"]
    assert weights["sensitivity_half"]["value"] > real["figures"]["sensitivity_half"]["value"]
    same = arm(record, "ratio 0.2", "logit_adjusted")
    assert same["differences"]["auc"]["value"] == 0 and same["differences"]["auc"]["p"] == 1
    assert same["figures"]["sensitivity_half"]["value"] > real["figures"]["sensitivity_half"]["value"]
    assert arm(record, "ratio 0.2", "placebo")["figures"]["auc"]["value"] < made["figures"]["auc"]["value"]


def test_counts_and_sides(study, data):
    _, _, record = study
    fixed = record["design"]["num_normal"]
    assert arm(record, "ratio 1", "real")["real"] == [fixed, fixed]
    assert arm(record, "ratio 0.2", "real")["real"] == [round(0.2 * fixed), fixed]
    assert arm(record, "ratio 0.2", "synthetic_balance")["synthetic"] == [fixed - round(0.2 * fixed), 0]
    test = np.asarray(record["photographs"]["test"])
    assert test.sum() == 90 and all(len(run["test"]) == 90 for run in record["runs"])
    for run in record["runs"]:
        assert not test[run["validation_rows"]].any()
    _, photographs = open_photographs(data, (("G",), ("N",)))
    first, second = validation_mask(photographs, 0), validation_mask(photographs, 1)
    assert (first != second).any()
    for held in (first, second):
        assert not set(photographs.patient[held]) & set(photographs.patient[~held])
        assert not (held & photographs.test).any()
        for label, patients in ((0, 45), (1, 90)):
            chosen = set(photographs.patient[held & (photographs.label == label)])
            assert len(chosen) == patients // 5


def test_no_run_trains_on_a_test_or_validation_patient(data, tmp_path):
    probe()
    _, photographs = open_photographs(data, (("G",), ("N",)))
    known = {bytes(one): place for place, one in enumerate(pixels(photographs.images).astype(np.uint8))}
    seen = []

    def fit(fit_inputs):
        training, validation, num_classes = fit_inputs.training, fit_inputs.validation, fit_inputs.num_classes
        seen.append([known[bytes(one.astype(np.uint8))] for one in training.inputs])
        held = {photographs.patient[known[bytes(one.astype(np.uint8))]] for one in validation.inputs}
        patients = {photographs.patient[place] for place in seen[-1]}
        assert not patients & held and not photographs.test[seen[-1]].any()
        return Fitted([np.full((len(one), num_classes), 1 / num_classes) for one in fit_inputs.others])

    words = [f"--data={data}", "--classes=G,N", f"--workdir={tmp_path / 'w'}", "--ratios=1,0.5", "--seeds=2"]
    arms = "--arms=real,oversampled,undersampled,weighted"
    assert imbalance.main([*words, arms], Classifier("spy", pixels, fit)) == 0
    assert len(seen) == 16
    # Of one seed the photographs of the smaller ratio are among those of the larger one.
    assert set(seen[4]) < set(seen[0])


def test_a_study_goes_on_and_does_nothing_twice(study):
    words, workdir, record = study
    files = sorted((workdir / "runs").iterdir())
    assert len(files) == 24
    before = {path: path.stat().st_mtime_ns for path in files}
    lost = files[3]
    content = json.loads(lost.read_text())
    lost.unlink()
    again = probe()
    assert imbalance.main(words, again) == 0
    assert pixels.images == 0  # the inputs were there
    assert [path for path in files if path.stat().st_mtime_ns != before[path]] == [lost]
    redone = json.loads(lost.read_text())
    assert {**redone, "seconds": 0} == {**content, "seconds": 0}
    fresh = json.loads((workdir / "study.json").read_text())
    assert fresh["summaries"] == record["summaries"]
    with pytest.raises(UserError, match=r"holds a study with ratios=\[1\.0, 0\.2\], this one has"):
        imbalance.main([*words, "--ratios=1,0.5"], probe())


def test_arms_without_images_may_run_before_there_are_any(study, tmp_path):
    words, _, record = study
    words = [word for word in words if not word.startswith(("--workdir", "--arms"))]
    words += [f"--workdir={tmp_path}", "--ratios=1", "--seeds=2"]
    alone = [word for word in words if not word.startswith("--synthetic")]
    assert imbalance.main([*alone, "--arms=real,weighted"], probe()) == 0
    before = {path: path.stat().st_mtime_ns for path in (tmp_path / "runs").iterdir()}
    assert len(before) == 4
    more = "--arms=real,weighted,synthetic"
    assert imbalance.main([*words, "--num_synthetic=50", more], probe()) == 0
    assert all(path.stat().st_mtime_ns == time for path, time in before.items())
    whole = json.loads((tmp_path / "study.json").read_text())
    assert sum(arm(whole, "ratio 1", "synthetic")["synthetic"]) == 50
    for name in ("real", "weighted"):
        assert arm(whole, "ratio 1", name)["figures"] == arm(record, "ratio 1", name)["figures"]
    for changed in (alone, [*words, "--num_synthetic=60"]):
        with pytest.raises(UserError, match="holds a study with (synthetic|num_synthetic)="):
            imbalance.main([*changed, "--arms=real,weighted"], probe())


def test_table_report_and_plan(study, capsys, data):
    words, workdir, _ = study
    with open(workdir / "table.csv", newline="") as handle:
        rows = list(csv.DictReader(handle))
    assert len(rows) == 12 and {row["condition"] for row in rows} == {"ratio 1", "ratio 0.2"}
    assert all(float(row["auc_low"]) <= float(row["auc"]) <= float(row["auc_high"]) for row in rows)
    page = (workdir / "report.html").read_text()
    assert page.count("data:image/png") == 5
    text = re.sub(r"data:image/png;base64,[^\"]+", "", page)
    assert not re.search(r"\bp\d+\b", text) and ".jpg" not in text  # no patient, no file
    assert "0 of 45 test patients" in page and "copies of photographs" in page
    assert "the generator saw 90 photographs of G, the classifier as few as 14" in page
    assert imbalance.main([*words, "--plan"], probe()) == 0
    assert "24 runs, 0 to do" in capsys.readouterr().out
    new = [word for word in words if not word.startswith("--workdir")]
    assert imbalance.main([*new, f"--workdir={workdir}-new", "--plan"], probe()) == 0
    printed = capsys.readouterr().out
    assert "24 runs, 24 to do" in printed and "ratio 0.2, real: G 14 + 0 synthetic, N 72" in printed


def test_images_of_one_class_have_no_placebo_and_copies_are_left_out(data, tmp_path, capsys):
    synthetic = generated(tmp_path / "one", True, labels=("G",), num=80)
    words = [f"--data={data}", "--classes=G,N", f"--synthetic={synthetic}", f"--workdir={tmp_path / 'w'}"]
    more = ["--ratios=0.2", "--seeds=1", "--without_copies", "--arms=real,synthetic_balance,placebo"]
    assert imbalance.main([*words, *more], probe()) == 0
    printed = capsys.readouterr().out
    assert "arm 'placebo' is left out" in printed and "warning: 5 synthetic images are copies" in printed
    assert "whether the generator was trained on test patients is not known" in printed
    assert "note: arm 'synthetic_balance' lacks 40 synthetic images of G" in printed
    record = json.loads((tmp_path / "w" / "study.json").read_text())
    assert len(record["synthetic"]["files"]) == 75 and record["provenance"]["leaked"] is None


def test_a_leak_is_refused(data, tmp_path):
    dataset = open_packed(data)
    whole = [
        example
        for name, split in dataset.splits.items()
        for example in (
            Example(split.images[k], int(split.label[k]), split.patient[k], "left", "train", split.file[k])
            for k in range(len(split.label))
        )
    ]
    everyone = tmp_path / "everyone"
    other = write_packed(everyone, whole, {"train": 360}, SIZE, ("G", "N"), True)
    leak = {"fingerprint": other.fingerprint, "data_dir": str(everyone)}
    synthetic = generated(tmp_path / "leak", True, num=2, **leak)
    words = [f"--data={data}", "--classes=G,N", f"--synthetic={synthetic}", f"--workdir={tmp_path / 'w'}"]
    with pytest.raises(UserError, match="trained on 45 of the study's test patients"):
        imbalance.main(words, probe())
    found = provenance(synthetic, None, dataset)
    assert found.leaked == 45 and found.seen == {"G": 120, "N": 240}
    # The same generator, whose dataset has gone.
    (everyone / "packed" / "packed.json").unlink()
    assert provenance(synthetic, None, dataset).leaked is None
    own = generated(tmp_path / "test", True, num=2, fingerprint=dataset.fingerprint, train_split="test")
    assert provenance(own, None, dataset).leaked == 45
    with pytest.raises(UserError, match=r"--generator=.* has no manifest"):
        provenance(own, tmp_path, dataset)


def test_the_fair_variants_dataset_has_what_the_runs_have(data, tmp_path, capsys):
    words = [
        f"--data={data}",
        "--classes=G,N",
        f"--workdir={tmp_path / 'w'}",
        "--ratios=0.2",
        "--num_normal=50",
        "--fixed",
    ]
    own = tmp_path / "own"
    assert imbalance.main([*words, f"--write_dataset={own}"], probe()) == 0
    assert "G 10, N 50 in split 'train'" in capsys.readouterr().out and not (tmp_path / "w").exists()
    mine = open_packed(own)
    synthetic = generated(tmp_path / "fair", True, num=60, fingerprint=mine.fingerprint, data_dir=str(own))
    given = [f"--synthetic={synthetic}", "--seeds=2", "--arms=real,synthetic_balance"]
    assert imbalance.main([*words, *given], probe()) == 0
    record = json.loads((tmp_path / "w" / "study.json").read_text())
    assert record["provenance"]["leaked"] == 0 and record["provenance"]["seen"] == {"G": 10, "N": 50}
    page = (tmp_path / "w" / "report.html").read_text()
    assert "The fair variant: the generator saw 10 photographs of G, no more than the classifier." in page
    # Both seeds have the photographs and the validation patients of the first, and no patient of the latter is in the dataset.
    first, second = (run for run in record["runs"] if run["arm"] == "real")
    assert first["validation_rows"] == second["validation_rows"] and first["test"] == second["test"]
    patients = np.asarray(record["photographs"]["patient"])
    assert not set(patients[first["validation_rows"]]) & set(mine.splits["train"].patient)
    assert set(mine.splits["test"].patient) == set(patients[np.asarray(record["photographs"]["test"])])
    for more, text in (
        ([f"--write_dataset={own}"], "exists; name a folder that is not there yet"),
        (
            [f"--write_dataset={tmp_path / 'x'}", "--ratios=1,0.5"],
            "is of one condition, here are ratio 1, ratio 0.5",
        ),
    ):
        with pytest.raises(UserError, match=text):
            imbalance.main([*words, *more], probe())


def test_an_external_set(data, tmp_path):
    rng = np.random.default_rng(5)
    examples = [
        Example(image(rng, label == 0), label, f"q{k}", "left", "train", f"q{k}.jpg")
        for k, label in enumerate([0, 1, 2] * 20)
    ]
    write_packed(tmp_path / "other", examples, {"train": 60}, SIZE, ("sick", "none", "odd"), True)
    words = [f"--data={data}", "--classes=G,N", f"--workdir={tmp_path / 'w'}", "--seeds=1", "--arms=real,weighted"]  # fmt: skip
    outer = [f"--external={tmp_path / 'other'}", "--external_classes=sick,none+odd"]
    assert augmentation.main([*words, *outer], probe()) == 0
    record = json.loads((tmp_path / "w" / "study.json").read_text())
    assert len(record["runs"][0]["external"]) == 60
    # One photograph a patient there, two in the test.
    assert record["external_summaries"][1]["independent"] is not None
    assert record["summaries"][1]["independent"] is None
    assert record["external_summaries"][0]["figures"]["auc"]["value"] > 0.7
    with pytest.raises(UserError, match="is --data itself"):
        augmentation.main([*words, f"--external={data}"], probe())


def test_three_classes(tmp_path):
    rng = np.random.default_rng(6)
    examples = [
        Example(image(rng, patient % 3 == 0), patient % 3, f"p{patient}", "left",
                "test" if patient < 30 else "train", f"{patient}.jpg")
        for patient in range(90)
    ]  # fmt: skip
    write_packed(tmp_path / "data", examples, {"train": 60, "test": 30}, SIZE, ("A", "B", "C"), True)
    words = [f"--data={tmp_path / 'data'}", "--classes=A,B,C", f"--workdir={tmp_path / 'w'}", "--seeds=1", "--arms=real,weighted"]  # fmt: skip
    assert augmentation.main(words, probe()) == 0
    record = json.loads((tmp_path / "w" / "study.json").read_text())
    figures = record["summaries"][0]["figures"]
    assert {"auc", "accuracy", "macro_f1"} <= set(figures) and "sensitivity" not in figures
    assert [task["task"] for task in record["shortcuts"]] == [f"{name} against the others" for name in "ABC"]
    assert "macro F1" in (tmp_path / "w" / "report.html").read_text()
    with pytest.raises(UserError, match="must name two classes, the rare one first"):
        imbalance.main(words, probe())


def test_small_parts():
    assert class_groups("npdr+pdr,none") == (("npdr", "pdr"), ("none",))
    p = adjusted(np.array([[0.2, 0.8], [0.5, 0.5]]), np.array([0.2, 0.8]))
    np.testing.assert_allclose(p, [[0.5, 0.5], [0.8, 0.2]])
    images = np.arange(24).reshape(1, 2, 4, 3)
    np.testing.assert_array_equal(turned(images, 3)[0], images[0, ::-1, ::-1])
    np.testing.assert_array_equal(turned(images, 1)[0], images[0, :, ::-1])
    assert label_name("1", ("A", "B"), Path("x"), "f") == "B"
    assert label_name("G", (), Path("x"), "f") == "G"
    with pytest.raises(UserError, match="class number 1, and what it means is not known"):
        label_name("1", (), Path("x"), "f")


def test_the_augmented_arm_shows_the_probe_every_view():
    rng = np.random.default_rng(0)
    photographs, views = rng.normal(size=(6, 2)), rng.normal(size=(VIEWS - 1, 4, 2))
    inputs = Inputs(photographs, views, np.zeros((0, 2)), np.zeros((0, 2)))
    pool = Pool(np.array([0, 1, 1]), np.zeros(0, np.int64), 2, 3)
    rows = np.array([0, 1, 3])
    training = training_of(inputs, rows, pool, select("augmented", pool, 0))
    np.testing.assert_array_equal(training.inputs, np.concatenate([photographs[rows], *views[:, rows]]))
    np.testing.assert_array_equal(training.label, np.tile([0, 1, 1], VIEWS))
    assert training.weight.sum() == pytest.approx(3) and training.augmented
    # A network gets the photographs once, and is told.
    alone = training_of(
        inputs._replace(turned=np.zeros((VIEWS - 1, 0))), rows, pool, select("augmented", pool, 0)
    )
    assert len(alone.inputs) == 3 and alone.augmented


def test_classes_of_an_index_go_by_name(tmp_path):
    """Numbers are the generator's own: here they run against the study's, and its dataset is not needed."""
    generated(tmp_path, True, num=2)
    with open(tmp_path / "index.csv", newline="") as handle:
        rows = list(csv.DictReader(handle))
    numbers = {"N": "0", "G": "1"}
    named = [{**row, "label": numbers[row["label"]], "label_name": row["label"]} for row in rows]
    write_index(tmp_path / "index.csv", named)
    found = read_synthetic(tmp_path, (("G",), ("N",)), (), SIZE, False)
    assert [(file[0], label) for file, label in zip(found.file, found.label)] == [("G", 0)] * 2 + [
        ("N", 1)
    ] * 2
    write_index(tmp_path / "index.csv", [{**row, "label_name": ""} for row in named])
    with pytest.raises(UserError, match="class number 1, and what it means is not known"):
        read_synthetic(tmp_path, (("G",), ("N",)), (), SIZE, False)


def test_the_probe_weighs_and_repeats_alike(tmp_path):
    rng = np.random.default_rng(0)
    x, label = rng.normal(size=(60, 5)), np.repeat([0, 1], [20, 40])
    x[label == 0] += 0.7
    held = Labelled(rng.normal(size=(20, 5)), np.repeat([0, 1], 10), np.ones(20))
    twice = np.concatenate([np.arange(60), np.arange(20)])
    repeated = Labelled(x[twice], label[twice], np.full(80, 60 / 80))
    weighted = Labelled(x, label, np.where(label == 0, 2, 1) * 60 / 80)
    first, second = (
        fit_logistic(FitInputs(one, held, [x], 2, 0, tmp_path)).probabilities[0]
        for one in (repeated, weighted)
    )
    np.testing.assert_allclose(first, second, atol=1e-4)


@pytest.mark.parametrize(
    "words, text",
    [
        (["--classes=G,N"], "--data is missing"),
        (["--data=.", "--classes=G", "--workdir=w"], "must name two classes"),
        (["--data=.", "--classes=G,G", "--workdir=w"], "names a label twice"),
        (["--data=.", "--classes=G,N", "--workdir=w", "--synthetic=nowhere"], "--synthetic=nowhere is no folder"),
        (["--data=.", "--classes=G,N", "--workdir=w", "--arms=real,magic"], "magic is no arm"),
        (["--data=.", "--classes=G,N", "--workdir=w", "--arms=real,placebo"], "placebo needs --synthetic"),
        (["--data=.", "--classes=G,N", "--workdir=w", "--arms=weighted"], "lacks real"),
        (["--data=.", "--classes=G,N", "--workdir=w", "--ratios=2"], "must lie above 0 and be at most 1"),
        (["--data=.", "--classes=G,N", "--workdir=w", "--seeds=0"], "--seeds=0 must be at least 1"),
        (["--data=.", "--classes=G,N", "--workdir=w", "--write_dataset=x"], "--write_dataset is of --fixed"),
    ],
)  # fmt: skip
def test_mistakes(words, text):
    with pytest.raises(UserError, match=text):
        imbalance.main(words, probe())


def test_mistakes_of_the_data(data, tmp_path):
    words = [f"--data={data}", f"--workdir={tmp_path / 'w'}"]
    with pytest.raises(UserError, match="X is no class of"):
        imbalance.main([*words, "--classes=G,X"], probe())
    with pytest.raises(UserError, match=r"--num_normal=9999: there are \d+"):
        imbalance.main([*words, "--classes=G,N", "--num_normal=9999"], probe())
    large = tmp_path / "large"
    save_synthetic(large / "G" / "a.png", np.zeros((64, 64, 3), np.uint8))
    save_synthetic(large / "N" / "a.png", np.zeros((64, 64, 3), np.uint8))
    with pytest.raises(UserError, match="64x64 pixels, the photographs 32x32"):
        imbalance.main([*words, "--classes=G,N", f"--synthetic={large}"], probe())
    assert not (tmp_path / "w").exists()
