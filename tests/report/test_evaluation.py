"""report/evaluation.py, report/comparison.py: what is written can be read, and results of two protocols are not compared."""

import dataclasses
import json
import re

import numpy as np
import pytest

from fundusgan_jax.errors import UserError
from fundusgan_jax.metrics.confidence import Interval
from fundusgan_jax.report.comparison import compare
from fundusgan_jax.report.evaluation import (
    Evaluation,
    Match,
    Signatures,
    as_json,
    environment,
    evaluation_of,
    read_evaluation,
    write_evaluation,
)
from fundusgan_jax.report.protocol import RealSet, protocol
from fundusgan_jax.weights.features import load_features

REAL = RealSet("abc", "test", 6, 64, "data.prepare")


def _write(path, resize="clean", shift=0.0, seed=0, **changes):
    source = load_features("pixels", "", resize)
    used = protocol("reconstruction", REAL._replace(**changes), 6, source, None, seed, "all")
    values = np.array([1.0, 2.0, 3.0, 4.0, 5.0, 6.0]) + shift + np.array([0, 0.01, 0, 0.02, 0, 0.01])
    evaluation = Evaluation(
        "test",
        6,
        64,
        {"ssim": float(values.mean()), "frechet": 3.0},
        {},
        used,
        environment(),
        intervals={"ssim": Interval(1.5, np.nan)},
        per_image={"ssim": values},
        patient_number=np.arange(6),
    )
    write_evaluation(path, evaluation)
    return path


def test_what_is_written_is_plain_json_with_everything_that_decides_a_figure(tmp_path):
    record = json.loads(_write(tmp_path / "eval.json").read_text())
    flat = str(record["protocol"])
    for fact in ("abc", "test", "data.prepare", "pixels", "clean", "float32", "weights", "evaluation"):
        assert fact in flat, fact
    assert record["intervals"]["ssim"] == [1.5, None]
    assert re.fullmatch("[0-9a-f]{16}", record["protocol_fingerprint"])
    assert "jax" in record["environment"]["versions"]
    assert read_evaluation(tmp_path).model["frechet"] == 3.0  # the folder will do


def test_one_protocol_is_compared_pair_by_pair(tmp_path):
    first, second = _write(tmp_path / "a.json"), _write(tmp_path / "b.json", shift=0.5)
    table = compare(first, second)
    assert "differ" in table and "0.5000 to 0.5000" in table and "frechet" in table
    assert "may be equal" in compare(first, first)


@pytest.mark.parametrize(
    ("change", "named"),
    [
        ({"resize": "legacy"}, "features.resize (clean and legacy)"),
        ({"fingerprint": "xyz"}, "real.fingerprint (abc and xyz)"),
        ({"num_images": 7}, "real.num_images (6 and 7)"),
        ({"split": "train"}, "real.split"),
        ({"seed": 1}, "seed (0 and 1)"),
    ],
)
def test_two_protocols_are_not(tmp_path, change, named):
    first, second = _write(tmp_path / "a.json"), _write(tmp_path / "b.json", **change)
    with pytest.raises(UserError, match=re.escape(named)):
        compare(first, second)


def test_other_files_are_refused_by_name(tmp_path):
    (tmp_path / "old.json").write_text('{"model": {}}')
    (tmp_path / "broken.json").write_text("{")
    for name in ("old.json", "broken.json"):
        with pytest.raises(UserError, match=f"{name} is no eval.json with a protocol"):
            read_evaluation(tmp_path / name)
    with pytest.raises(UserError, match="none.json cannot be read"):
        read_evaluation(tmp_path / "none.json")


def test_every_field_comes_back(tmp_path):
    signatures = Signatures(
        {"vessel_recall": np.nan}, {"vessel_recall": Interval(0.1, 0.2)}, {}, {"vessel_recall": 3}
    )
    path = _write(tmp_path / "eval.json")
    evaluation = dataclasses.replace(
        read_evaluation(path), step=4, kimg=0.5, signatures=signatures, floors={"a (3 and 3)": {"fid": 2.0}}
    )
    write_evaluation(path, evaluation)
    again = read_evaluation(path)
    assert as_json(again) == as_json(evaluation) == json.loads(path.read_text())
    assert np.isnan(again.signatures.model["vessel_recall"]) and again.step == 4
    assert again.signatures.intervals["vessel_recall"] == Interval(0.1, 0.2)
    np.testing.assert_array_equal(again.per_image["ssim"], evaluation.per_image["ssim"])
    assert again.protocol == evaluation.protocol


def test_what_is_not_there_is_left_out_and_other_names_are_passed_over():
    content = {
        "split": "test",
        "num_images": 3,
        "resolution": 64,
        "model": {"psnr": None},
        "baselines": {},
        "later": 1,
    }
    evaluation = evaluation_of({**content, "perceptual_name": None, "step": 2})
    assert np.isnan(evaluation.model["psnr"]) and evaluation.perceptual_name is None
    assert set(as_json(evaluation)) == {"split", "num_images", "resolution", "model", "baselines", "step"}
    assert Match("held_out", 1, "a.png", 0.5, np.nan, 1.0, 0.1).held_out_correlation is None
    with pytest.raises(TypeError):
        evaluation_of({"model": {}})
