"""generator.json: what a manifest says, written and read again; a chain of runs that started from each other."""

import json

import numpy as np
import pytest

from fundusgan_jax.data.example import Example
from fundusgan_jax.data.packed import open_packed, write_packed
from fundusgan_jax.errors import UserError
from fundusgan_jax.generate.origin import FILE, origin_of, read_origin, write_origin
from fundusgan_jax.studies.provenance import provenance


def manifest(workdir, fingerprint, split="train", init_from="", dataset="prepared"):
    workdir.mkdir(parents=True)
    data = {"dataset": dataset, "dir": "", "train_split": split}
    config = {"task": "latent", "data": data, "train": {"init_from": str(init_from)}}
    (workdir / "manifest.json").write_text(json.dumps({"config": config, "dataset_fingerprint": fingerprint}))
    return workdir


@pytest.fixture(scope="module")
def dataset(tmp_path_factory):
    folder = tmp_path_factory.mktemp("data")
    blank = np.zeros((16, 16, 3), np.uint8)
    examples = [
        Example(blank, number % 2, f"p{number}", "left", "test" if number < 4 else "train", f"{number}.jpg")
        for number in range(12)
    ]
    write_packed(folder, examples, {"train": 8, "test": 4}, 16, ("G", "N"), True)
    return open_packed(folder)


def test_a_note_is_what_the_manifest_says(tmp_path):
    run, images = manifest(tmp_path / "run", "abc", split="all"), tmp_path / "images"
    images.mkdir()
    write_origin(images, run, "best")
    noted = read_origin(images)
    assert noted == origin_of(run, "best") and noted.train_split == "all" and noted.fingerprint == "abc"
    write_origin(tmp_path, tmp_path / "nothing", "best")
    assert read_origin(tmp_path) is None
    (images / FILE).write_text("{}")
    with pytest.raises(UserError, match=r"generator\.json is damaged"):
        read_origin(images)


def test_what_a_run_started_from_counts(tmp_path, dataset):
    clean = manifest(tmp_path / "clean", dataset.fingerprint)
    assert provenance(tmp_path, clean, dataset).leaked == 0
    leaky = manifest(tmp_path / "leaky", dataset.fingerprint, split="test")
    flow = manifest(tmp_path / "flow", dataset.fingerprint, init_from=leaky)
    found = provenance(tmp_path, flow, dataset)
    assert found.leaked == 4 and len(found.lines) == 2 and found.seen == {"G": 4, "N": 4}
    # What it started from is not there: nothing is known, and it is said.
    lost = manifest(tmp_path / "lost", dataset.fingerprint, init_from=tmp_path / "gone")
    found = provenance(tmp_path, lost, dataset)
    assert found.leaked is None and "gone, which is not there" in found.lines[-1]
    # A circle ends.
    (tmp_path / "leaky" / "manifest.json").unlink()
    (tmp_path / "leaky").rmdir()
    manifest(tmp_path / "leaky", dataset.fingerprint, init_from=flow)
    assert provenance(tmp_path, flow, dataset).leaked == 0


def test_rendered_eyes_are_nobody(tmp_path, dataset):
    run = manifest(tmp_path / "run", "other", dataset="phantom")
    found = provenance(tmp_path, run, dataset)
    assert found.leaked == 0 and "no patient's" in found.lines[0]
