"""report/protocol.py: what is written can be read, and results of two protocols are not compared."""

import json
import re

import numpy as np
import pytest

from fundusgan_jax.errors import UserError
from fundusgan_jax.report.protocol import (
    RealSet,
    compare,
    protocol,
    read_evaluation,
    stamped,
    write_evaluation,
)
from fundusgan_jax.weights.features import load_features

REAL = RealSet("abc", "test", 6, 64, "data.prepare")


def _write(path, resize="clean", shift=0.0, seed=0, **changes):
    source = load_features("pixels", "", resize)
    used = protocol("reconstruction", REAL._replace(**changes), 6, source, None, seed, "all")
    values = np.array([1.0, 2.0, 3.0, 4.0, 5.0, 6.0]) + shift + np.array([0, 0.01, 0, 0.02, 0, 0.01])
    record = {
        "model": {"ssim": float(values.mean()), "frechet": 3.0},
        "intervals": {"ssim": (1.5, np.nan)},
        "baselines": {},
        "per_image": {"ssim": values},
        "patient_number": np.arange(6),
    }
    write_evaluation(path, stamped(record, used))
    return path


def test_what_is_written_is_plain_json_with_everything_that_decides_a_figure(tmp_path):
    record = json.loads(_write(tmp_path / "eval.json").read_text())
    flat = str(record["protocol"])
    for fact in ("abc", "test", "data.prepare", "pixels", "clean", "float32", "weights", "evaluation"):
        assert fact in flat, fact
    assert record["intervals"]["ssim"] == [1.5, None]
    assert re.fullmatch("[0-9a-f]{16}", record["protocol_fingerprint"])
    assert "jax" in record["environment"]["versions"]
    assert read_evaluation(tmp_path)["model"]["frechet"] == 3.0  # the folder will do


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
