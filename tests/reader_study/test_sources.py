"""Where a study's images come from: each kind of argument, with classes, patients and the photographs a model may know."""

import numpy as np
import pytest
from PIL import Image

from fundusgan_jax.data.phantom.render import LABEL_NAMES, phantom_examples
from fundusgan_jax.data.prepare.__main__ import main as prepare
from fundusgan_jax.errors import UserError
from fundusgan_jax.reader_study.sources import of_argument
from tests.support.one_device import one_device
from tests.support.tiny import tiny_prior_config
from tests.support.workdirs import untrained_workdir


def saved_eyes(folder, classes):
    """Two photographs in each class's folder."""
    for number, example in enumerate(phantom_examples(len(classes), 128, 3)):  # both eyes of a patient each
        place = folder / classes[number // 2]
        place.mkdir(parents=True, exist_ok=True)
        Image.fromarray(example.image).save(place / f"{number}.png")


def test_a_folders_subfolders_are_its_classes(tmp_path):
    saved_eyes(tmp_path / "photographs", ["glaucoma", "normal"])
    found = of_argument(tmp_path / "photographs", "--real", 4, 0, tmp_path)
    assert [(source.name, source.label) for source in found] == [
        ("glaucoma/0.png", "glaucoma"), ("glaucoma/1.png", "glaucoma"), ("normal/2.png", "normal"), ("normal/3.png", "normal")
    ]  # fmt: skip
    assert all(source.read().shape == (128, 128, 3) for source in found)


def test_a_folder_has_one_scale(tmp_path):
    (tmp_path / "deep").mkdir()
    for name, top in (("a", 65535), ("b", 300)):
        values = np.linspace(0, top, 64 * 64).reshape(64, 64).astype(np.uint16)
        Image.fromarray(values).save(tmp_path / "deep" / f"{name}.png")
    first, second = of_argument(tmp_path / "deep", "--real", 2, 0, tmp_path)
    assert first.read().max() == 255 and second.read().max() == 1


def test_images_beside_subfolders_have_no_class(tmp_path):
    saved_eyes(tmp_path / "photographs", ["glaucoma", "normal"])
    (tmp_path / "photographs" / "glaucoma" / "0.png").rename(tmp_path / "photographs" / "0.png")
    assert {source.label for source in of_argument(tmp_path / "photographs", "--real", 4, 0, tmp_path)} == {
        ""
    }


@pytest.mark.slow
def test_of_a_prepared_set_what_no_model_was_trained_on(tmp_path):
    """Whole patients are held out, and their photographs alone are taken."""
    lines = ["file,label,patient"]
    (tmp_path / "photographs").mkdir()
    for number, example in enumerate(phantom_examples(6, 128, 3)):
        Image.fromarray(example.image).save(tmp_path / "photographs" / f"{number}.png")
        lines.append(f"{number}.png,{'ab'[number % 2]},p{number // 2}")
    (tmp_path / "list.csv").write_text("\n".join([*lines, ""]))
    words = ["--dataset=folder", f"--source={tmp_path / 'photographs'}", f"--output={tmp_path / 'prepared'}",
             f"--labels={tmp_path / 'list.csv'}", "--resolution=64", "--test_fraction=0.34", "--workers=1"]  # fmt: skip
    assert prepare(words) == 0
    found = of_argument(tmp_path / "prepared", "--real", 4, 0, tmp_path)
    with open(tmp_path / "prepared" / "splits.csv") as handle:
        held_out = {line.split(",")[0] for line in handle if ",test" in line}
    assert {source.name for source in found} == held_out and len(found) == 4
    assert {source.label for source in found} == {"a", "b"} and len({source.patient for source in found}) == 2


@pytest.mark.slow
def test_a_priors_workdir_is_sampled_with_its_classes(tmp_path):
    config = tiny_prior_config(
        model__num_labels=2, data__dataset="phantom", data__phantom_num=4, data__resolution=32
    )
    with one_device():
        workdir = untrained_workdir(tmp_path / "run", config, label_names=LABEL_NAMES)
        found, again = (of_argument(workdir, "--synthetic", 6, 5, tmp_path) for _ in range(2))
    assert len(found) == 6 and all(source.patient == "" for source in found)
    assert {source.label for source in found} <= set(LABEL_NAMES)
    assert all(np.array_equal(one.read(), other.read()) for one, other in zip(found, again))


def test_a_damaged_index_is_one_line(tmp_path):
    saved_eyes(tmp_path / "generated", ["a", "b"])
    (tmp_path / "generated" / "index.csv").write_bytes(b"file,label\n\xff\xfe\n")
    with pytest.raises(UserError, match="index.csv cannot be read .* mend it or take it away"):
        of_argument(tmp_path / "generated", "--synthetic", 2, 0, tmp_path)
