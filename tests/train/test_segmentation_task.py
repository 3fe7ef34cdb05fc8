"""Training of a segmenter, as a user runs it: train, resume to the same bits, evaluate, segment; several devices."""

import json
import shutil

import numpy as np
import pytest
from PIL import Image

from fundusgan_jax import main
from fundusgan_jax.data.phantom.render import render
from fundusgan_jax.vessels.__main__ import main as vessels
from tests.support.one_device import one_device
from tests.support.runs import arrays_of, rows_without_rate

# Whole runs; CI has them.
pytestmark = pytest.mark.slow

TINY = (
    "data.resolution=32", "vessels.width=2", "vessels.fov_diameter=0", "train.batch_size=8", "train.num_steps=3",
    "train.log_every=1", "train.eval_every=2", "train.checkpoint_every=2", "train.grid_every=2", "train.keep_last=3",
    "optim.warmup_steps=1",
)  # fmt: skip


def train(workdir, folder):
    given = (f"--config.{setting}" for setting in (f"data.dir={folder}", *TINY))
    return main.main(["--config=configs/vessels.py", f"--workdir={workdir}", *given])


@pytest.fixture(scope="module")
def traced(tmp_path_factory):
    """Three phantoms with their vessels, laid out as FIVES."""
    folder = tmp_path_factory.mktemp("traced")
    for seed, split in ((1, "train"), (2, "train"), (3, "test")):
        eye = render(seed, 96)
        for name, pixels in (("Original", eye.image), ("Ground truth", np.uint8(255) * eye.vessels)):
            (folder / split / name).mkdir(parents=True, exist_ok=True)
            Image.fromarray(pixels).save(folder / split / name / f"{seed}.png")
    return folder


@pytest.fixture(scope="module")
def trained(tmp_path_factory, traced):
    """A workdir with all its 3 steps, of one device."""
    workdir = tmp_path_factory.mktemp("segmenter") / "run"
    with one_device():
        assert train(workdir, traced) == 0
    return workdir


def test_a_run_is_scored_and_segments(trained, traced, tmp_path):
    rows = rows_without_rate(trained)
    assert [row["step"] for row in rows if row["kind"] == "train"] == [1, 2, 3]
    assert main.main([f"--workdir={trained}", "--mode=eval"]) == 0
    model = json.loads((trained / "eval.json").read_text())["model"]
    assert 0 <= model["dice"] <= 1 and 0 <= model["auc"] <= 1
    words = [
        f"--workdir={trained}",
        f"--images={traced / 'test' / 'Original'}",
        f"--output={tmp_path / 'out'}",
    ]
    assert vessels(["segment", *words]) == 0
    assert np.asarray(Image.open(tmp_path / "out" / "probability" / "3.png")).shape == (96, 96)


def test_an_interrupted_run_resumes_to_the_same_bits(trained, traced, tmp_path):
    workdir = shutil.copytree(trained, tmp_path / "run")
    shutil.rmtree(workdir / "checkpoints" / "3")
    with one_device():
        assert train(workdir, traced) == 0
    first, second = arrays_of(trained, 3), arrays_of(workdir, 3)
    assert set(first) == set(second)
    assert not [name for name in first if not np.array_equal(first[name], second[name])]
    assert rows_without_rate(trained) == rows_without_rate(workdir)


def test_eight_devices_train_what_one_does(trained, traced, tmp_path):
    """But for the order of sums, which Adam's first steps make larger: statistics of normalisations are over all devices."""
    assert train(tmp_path / "run", traced) == 0
    first, second = arrays_of(trained, 3), arrays_of(tmp_path / "run", 3)
    assert set(first) == set(second)
    losses = [
        [row["loss"] for row in rows_without_rate(run) if row["kind"] == "train"]
        for run in (trained, tmp_path / "run")
    ]
    np.testing.assert_allclose(*losses, rtol=1e-3)
    means = [name for name in first if "batch_stats" in name and name.endswith("mean")]
    assert means
    for name in means:
        np.testing.assert_allclose(first[name], second[name], atol=2e-3)
