"""--mode=generate with files: one's own photographs, latents kept and painted again, marks, output folders."""

import csv
import fcntl
import json
import shutil

import numpy as np
import pytest
from PIL import Image

from fundusgan_jax import main
from fundusgan_jax.data.phantom.render import render
from fundusgan_jax.data.prepare.preprocess import prepare_image, read_image
from fundusgan_jax.errors import UserError
from fundusgan_jax.generate.fundusgan import Generator
from fundusgan_jax.generate.photographs import own_photographs
from fundusgan_jax.generate.recipes import recipe_reconstruct
from fundusgan_jax.report.grid import CAPTION_HEIGHT, GAP
from fundusgan_jax.workdir.contents import open_dataset, restore_variables
from fundusgan_jax.workdir.manifest import config_of_workdir
from tests.support.one_device import one_device
from tests.support.tiny import tiny_config, tiny_prior_config
from tests.support.workdirs import untrained_workdir


@pytest.fixture(scope="module", autouse=True)
def alone():
    """Programs for many devices: devices/test_local.py and evaluate/test_reconstructions.py."""
    with one_device():
        yield


@pytest.fixture(scope="module")
def workdir(tmp_path_factory, alone):
    config = tiny_config(data__dataset="phantom", data__phantom_num=8, seed=3)
    return untrained_workdir(tmp_path_factory.mktemp("generate") / "run", config)


@pytest.fixture(scope="module")
def prior(tmp_path_factory, alone):
    return untrained_workdir(tmp_path_factory.mktemp("generate") / "prior", tiny_prior_config())


@pytest.fixture(scope="module")
def photos(tmp_path_factory):
    """Three eyes of a camera with a wide frame, a grey card, a broken file and a note."""
    folder = tmp_path_factory.mktemp("photos")
    for seed, name in enumerate(("a.png", "deep/b.jpg", "c.png")):
        frame = np.zeros((440, 640, 3), np.uint8)
        frame[20:420, 120:520] = render(seed, 400).image
        (folder / name).parent.mkdir(exist_ok=True)
        Image.fromarray(frame).save(folder / name)
    Image.fromarray(np.full((300, 300, 3), 128, np.uint8)).save(folder / "card.png")
    (folder / "broken.jpg").write_bytes(b"\xff\xd8\xff")
    (folder / "note.txt").write_text("three eyes")
    return folder


def generate(workdir, output, *flags):
    assert main.main([f"--workdir={workdir}", "--mode=generate", f"--output={output}", *flags]) == 0
    with open(output / "index.csv") as handle:
        return list(csv.DictReader(handle))


def pixels(path):
    return np.asarray(Image.open(path))


def test_own_photographs_are_prepared_as_training_data(photos, capsys):
    split = own_photographs(photos, 64)
    assert split.file == ("a.png", "c.png", "deep/b.jpg")
    for image, name in zip(split.images, split.file):
        np.testing.assert_array_equal(image, prepare_image(read_image(photos / name), 64).image)
    out = [line for line in capsys.readouterr().out.splitlines() if line.startswith("left out: ")]
    assert [line.split(":")[1].strip() for line in out] == [
        "note.txt",
        "broken.jpg",
        "card.png",
    ] and "disc" in out[2]
    with pytest.raises(UserError, match=r"card\.png: it is rejected \(card\.png: .*disc"):
        own_photographs(photos / "card.png", 64)
    with pytest.raises(UserError, match="gone does not exist"):
        own_photographs(photos / "gone", 64)


def test_what_is_left_out_of_own_photographs_is_written(photos, tmp_path):
    own_photographs(photos, 64, output=tmp_path)
    with open(tmp_path / "left_out.csv", newline="", encoding="utf-8") as handle:
        rows = list(csv.DictReader(handle))
    assert [list(row) for row in rows] == [["file", "reason"]] * 3
    assert [row["file"] for row in rows] == ["broken.jpg", "card.png", "note.txt"]
    assert "disc" in rows[1]["reason"] and "text" in rows[2]["reason"]
    # Where nothing is left out there is no file, nor that of an earlier run.
    own_photographs(photos / "a.png", 64, output=tmp_path)
    assert not list(tmp_path.iterdir())


def test_contact_sheets_of_a_prepared_folder_are_no_own_photographs(photos, tmp_path):
    for name in ("quality_kept.jpg", "quality_rejected.jpg"):
        shutil.copy(photos / "a.png", tmp_path / name)
    for name in ("prepare.json", "splits.csv"):
        (tmp_path / name).write_text("{}")
    with pytest.raises(UserError, match="holds no image files .*2 drawn by data.prepare"):
        own_photographs(tmp_path, 64)


def test_own_photographs_have_one_scale_for_their_folder(tmp_path, capsys):
    """16-bit numbers of which a photograph alone would not show how much of their range is used."""
    frame = np.zeros((440, 440), np.uint16)
    frame[20:420, 20:420] = render(5, 400).image[..., 1]
    Image.fromarray(frame * 257).save(tmp_path / "bright.png")
    Image.fromarray(frame * 16).save(tmp_path / "dark.png")
    assert own_photographs(tmp_path / "dark.png", 64).file == ("dark.png",)
    capsys.readouterr()
    assert own_photographs(tmp_path, 64).file == ("bright.png",)
    assert "left out: dark.png: too dark" in capsys.readouterr().out


def test_own_photographs_are_reconstructed_without_the_dataset_beside_their_inputs(workdir, photos, tmp_path):
    # Nor is there a folder of the training photographs to be had.
    moved = tmp_path / "moved"
    shutil.copytree(workdir, moved, ignore=shutil.ignore_patterns("phantom"))
    record = json.loads((moved / "manifest.json").read_text())
    record["config"]["data"] |= {"dataset": "prepared", "dir": str(tmp_path / "away")}
    (moved / "manifest.json").write_text(json.dumps(record))
    rows = generate(moved, tmp_path / "out", f"--input={photos}")
    assert [row["sources"] for row in rows] == ["a.png", "c.png", "deep/b.jpg"]
    assert all(row["method"] == "reconstruct" and row["synthetic"] == "yes" for row in rows)
    with open(tmp_path / "out" / "left_out.csv") as handle:
        assert [line.split(",")[0] for line in handle] == ["file", "broken.jpg", "card.png", "note.txt"]
    sheet, image = (pixels(tmp_path / "out" / f"reconstruct-0-000001{end}.png") for end in ("-compared", ""))
    photograph = prepare_image(read_image(photos / "c.png"), 64).image
    # Every pixel is repeated until the sheet can be read.
    times, second = sheet.shape[1] // (3 * (GAP + 64) + GAP), 2 * GAP + 64
    cells = sheet[CAPTION_HEIGHT::times, ::times][GAP : GAP + 64]
    np.testing.assert_array_equal(cells[:, GAP : GAP + 64], photograph)
    np.testing.assert_array_equal(cells[:, second : second + 64], image)
    with pytest.raises(UserError, match=r"data\.dir=.*away is no folder.*--config\.data\.dir=DIR"):
        generate(moved, tmp_path / "mixed", "--method=mix")
    assert not (tmp_path / "mixed").exists()


@pytest.mark.parametrize("method", [pytest.param("mix", marks=pytest.mark.slow), "reconstruct"])
def test_latents_are_painted_again_to_the_same_bytes(workdir, tmp_path, method):
    first, again = tmp_path / "first", tmp_path / "again"
    generate(
        workdir, first, f"--method={method}", "--num=5", "--seed=2", "--truncation=0.5", "--save_latents"
    )
    assert len(generate(workdir, again, f"--latents={first / 'latents.npz'}")) == 5
    for file in first.iterdir():
        if file.name != "latents.npz":
            assert file.read_bytes() == (again / file.name).read_bytes(), file.name
    with np.load(first / "latents.npz") as latents:
        assert latents["w_plus"].shape[::2] == (5, 8) and latents["maps/base/4"].shape[:2] == (4, 4)


def test_a_priors_latents_are_painted_again_to_the_same_bytes(prior, tmp_path):
    first, again = tmp_path / "first", tmp_path / "again"
    generate(prior, first, "--num=3", "--seed=4", "--truncation=0.7", "--save_latents")
    generate(prior, again, f"--latents={first / 'latents.npz'}")
    for name in (*(f"sample-4-{image:06d}.png" for image in range(3)), "index.csv"):
        assert (first / name).read_bytes() == (again / name).read_bytes(), name


def test_an_image_says_that_it_is_synthetic(workdir, tmp_path):
    rows = generate(workdir, tmp_path / "out", "--num=1")
    with Image.open(tmp_path / "out" / rows[0]["file"]) as image:
        assert "Synthetic" in image.text["Description"] and "fundusgan_jax" in image.text["Software"]


@pytest.mark.slow
def test_noise_belongs_to_the_seed_and_the_number(workdir):
    config = config_of_workdir(workdir, [])
    split = open_dataset(config, workdir).splits["train"]
    _, variables = restore_variables(config, workdir, "latest")

    def images(seed, size=4):
        with config.unlocked():
            config.eval.batch_size = size
        generator = Generator(config, variables, split)
        recipe = recipe_reconstruct(split, 9, generator.num_ws, seed)
        return np.concatenate([batch.images for batch in generator.batches(recipe, 1.0)]).astype(int)

    base = images(1)
    assert np.abs(images(2) - base).max() > 1 and np.abs(images(2**31 + 1) - base).max() > 1
    assert np.abs(images(1, size=9) - base).max() <= 1


MISTAKES = {
    "another method": (["--input={photos}", "--method=mix"], "takes no --input"),
    "nothing there": (["--input={tmp}/gone"], "gone does not exist"),
    "two sources": (["--input={photos}", "--latents=x.npz"], "--latents paints a file again"),
    "no latents": (["--latents={photos}/note.txt"], "name a file that --save_latents wrote"),
    "latents of another model": (["--latents={tmp}/other.npz"], "this model's is"),
    "a seed of 33 bits": (["--seed=4294967296"], "must lie in 0..4294967295"),
    "another network": (["--config.model.first_dilation=4"], "trained with model.first_dilation=0"),
}


@pytest.mark.parametrize("name", MISTAKES)
def test_a_mistake_is_one_sentence_and_leaves_no_folder(name, workdir, photos, tmp_path):
    np.savez(
        tmp_path / "other.npz", w_plus=np.zeros((1, 2, 3), np.float32), seed=0, index='[{"file": "a.png"}]'
    )
    flags, expected = MISTAKES[name]
    with pytest.raises(UserError, match=expected):
        generate(workdir, tmp_path / "out", *(flag.format(photos=photos, tmp=tmp_path) for flag in flags))
    assert not (tmp_path / "out").exists()


def test_images_are_not_overwritten(workdir, tmp_path):
    folder = tmp_path / "out"
    folder.mkdir()
    (folder / "sample.png").write_bytes(b"")
    with pytest.raises(UserError, match="holds images of an unfinished or another set"):
        generate(workdir, folder)
    (folder / "sample.png").unlink()
    with open(folder / ".lock", "w") as handle:
        fcntl.flock(handle, fcntl.LOCK_EX)
        with pytest.raises(UserError, match="another process is writing"):
            generate(workdir, folder)
