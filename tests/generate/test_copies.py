"""generate/copies.py, evaluate/copies.py: new images are looked up by the memory check's rule; a copy makes way for the next number."""

import csv
import shutil

import numpy as np
import pytest

from fundusgan_jax import main
from fundusgan_jax.data.packed import PackedSplit
from fundusgan_jax.data.phantom.render import render
from fundusgan_jax.errors import UserError
from fundusgan_jax.evaluate.copies import copy_check, open_copy_check
from fundusgan_jax.evaluate.lookup import altered, search
from fundusgan_jax.generate.command import generate_images
from fundusgan_jax.generate.copies import COLUMNS, Nearest, NewImages, Painted
from fundusgan_jax.generate.request import Request
from fundusgan_jax.workdir.manifest import config_of_workdir
from tests.support.tiny import tiny_config, tiny_prior_config
from tests.support.workdirs import untrained_workdir


def painted(numbers):
    """An image of a number is of one colour, the number."""
    return [Painted({"file": f"{n}.png"}, np.full((4, 4, 3), n, np.uint8)) for n in numbers]


def marks(copies):
    """A search that takes the images of these colours for copies, of the photograph of twice that number."""
    return lambda images: [
        Nearest(2 * int(image[0, 0, 0]), 0.5, 1.25, int(image[0, 0, 0]) in copies) for image in images
    ]


def kept(request, look_up, size=3):
    new = NewImages(request, look_up)
    batches = list(new.batches(painted, size))
    return new, [one.row for batch in batches for one in batch]


def test_a_copy_makes_way_for_the_next_number(tmp_path, capsys):
    request = Request(tmp_path, num=5, reject_copies=True)
    new, rows = kept(request, marks({0, 3, 5}))
    assert [row["file"] for row in rows] == ["1.png", "2.png", "4.png", "6.png", "7.png"]
    assert rows[0] == {
        "file": "1.png",
        **dict(zip(COLUMNS, (2, "0.5000", "1.2500", "no"), strict=True)),
    }
    new.finish(tmp_path)
    assert "3 of 8 drawn images rejected as copies" in capsys.readouterr().out
    with open(tmp_path / "rejected.csv", newline="") as file:
        rejected = list(csv.DictReader(file))
    assert [(row["file"], row["nearest_photograph"], row["copy"]) for row in rejected] == [
        ("0.png", "0", "yes"),
        ("3.png", "6", "yes"),
        ("5.png", "10", "yes"),
    ]
    # The same numbers whatever the batch; without rejecting all stay, and say what they are.
    assert kept(request, marks({0, 3, 5}), 2)[1] == rows
    _, all_of_them = kept(request._replace(reject_copies=False, nearest=True), marks({0, 3}))
    assert [row["copy"] for row in all_of_them] == ["yes", "no", "no", "yes", "no"]
    assert kept(request._replace(reject_copies=False), None)[1] == [{"file": f"{n}.png"} for n in range(5)]


def test_a_model_that_repeats_its_photographs_ends_in_one_line():
    with pytest.raises(UserError, match="68 of 68 images are copies of training photographs"):
        kept(Request(None, num=1, reject_copies=True), marks(set(range(256))), 16)


def _split(seeds):
    images = np.stack([render(seed, 64).image for seed in seeds])
    names = tuple(f"eye{seed}" for seed in seeds)
    return PackedSplit(images, np.zeros(len(seeds), np.int32), np.zeros(len(seeds), np.int32), names, names)


def test_the_rule_is_the_memory_checks():
    train, held_out = _split(range(20)), _split(range(20, 30))
    rng = np.random.default_rng(1)
    copies = [altered(image, rng, bool(number % 2)) for number, image in enumerate(train.images[:3])]
    images = np.stack([*copies, *_split(range(100, 103)).images])
    found = copy_check(train, held_out)(images)
    assert [nearest.number for nearest in found[:3]] == [0, 1, 2] and all(one.copy for one in found[:3])
    result = search(images, train, held_out, 0)
    assert [one.copy for one in found] == result.flags(result.of_generated).either.tolist()
    assert [one.number for one in found] == result.of_generated.nearest.tolist()
    np.testing.assert_array_equal([one.correlation for one in found], result.of_generated.correlation)


@pytest.fixture(scope="module")
def prior(tmp_path_factory):
    """A prior that nobody has trained, over phantoms of 32 px."""
    config = tiny_prior_config(
        data__dataset="phantom", data__phantom_num=40, data__resolution=32, model__resolution=32
    )
    return untrained_workdir(tmp_path_factory.mktemp("copies") / "prior", config)


def rows_of(folder):
    with open(folder / "index.csv", newline="") as file:
        return list(csv.DictReader(file))


@pytest.mark.slow
def test_the_command_names_the_nearest_photograph_and_rejects_without_changing_others(prior, tmp_path):
    def run(name, *flags):
        line = [f"--workdir={prior}", "--mode=generate", f"--output={tmp_path / name}", "--num=6", "--seed=2"]
        assert main.main([*line, *flags]) == 0
        return rows_of(tmp_path / name)

    plain, beside = run("plain"), run("beside", "--nearest")
    assert set(beside[0]) - set(plain[0]) == set(COLUMNS) and {row["copy"] for row in beside} <= {"yes", "no"}
    assert all(0 <= int(row["nearest_photograph"]) < 70 for row in beside)
    config = config_of_workdir(prior, [])
    copies = {1, 2}

    def open_marks(config, workdir):
        """The second and the third image that are looked up are copies."""
        count = iter(range(100))
        return lambda images: [Nearest(0, 0.9, 0.1, next(count) in copies) for _ in images]

    request = Request(tmp_path / "rejected", num=4, seed=2, reject_copies=True, save_latents=True)
    generate_images(config, prior, "latest", request, open_marks)
    left = rows_of(tmp_path / "rejected")
    assert [row["sources"] for row in left] == ["0", "3", "4", "5"]
    for row in left:
        same = (tmp_path / "rejected" / row["file"]).read_bytes() == (
            tmp_path / "plain" / row["file"]
        ).read_bytes()
        assert same, row["file"]
    assert not (tmp_path / "rejected" / "sample-2-000001.png").exists()
    with np.load(tmp_path / "rejected" / "latents.npz") as latents:
        assert len(latents["w_plus"]) == 4


@pytest.mark.slow
def test_without_photographs_columns_are_empty_and_nothing_can_be_rejected(prior, tmp_path, capsys):
    moved = shutil.copytree(prior, tmp_path / "moved", ignore=shutil.ignore_patterns("phantom"))
    away = [f"--config.data.dir={tmp_path / 'away'}", "--config.data.dataset=prepared"]
    line = [f"--workdir={moved}", "--mode=generate", "--num=2", *away]
    assert main.main([*line, f"--output={tmp_path / 'out'}", "--nearest"]) == 0
    assert "stay empty without the training photographs: data.dir=" in capsys.readouterr().out
    assert all(row[name] == "" for row in rows_of(tmp_path / "out") for name in COLUMNS)
    with pytest.raises(UserError, match="--reject_copies needs the training photographs: data.dir="):
        main.main([*line, f"--output={tmp_path / 'none'}", "--reject_copies"])
    assert not (tmp_path / "none").exists()


def test_mistakes(prior, tmp_path):
    line = [f"--workdir={prior}", "--mode=generate", f"--output={tmp_path / 'out'}"]
    with pytest.raises(UserError, match="are for new images"):
        main.main([*line, "--method=mix_grid", "--nearest"])
    config = tiny_config(data__dataset="phantom", data__phantom_num=8)
    with pytest.raises(UserError, match="are for new images"):
        generate_images(config, tmp_path, "latest", Request(tmp_path / "out", reject_copies=True))
    with pytest.raises(UserError, match="images are 32 px and the training photographs 64"):
        copy_check(_split(range(4)), _split(range(4, 8)))(np.zeros((1, 32, 32, 3), np.uint8))
    few = tiny_prior_config(data__dataset="phantom", data__phantom_num=12, data__resolution=32)
    with pytest.raises(UserError, match="by 8 training and held-out photographs at least"):
        open_copy_check(few, tmp_path)
