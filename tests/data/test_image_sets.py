"""data/image_sets.py: folders and prepared datasets as one kind of stream."""

import numpy as np
import pytest
from PIL import Image

from fundusgan_jax.data.example import Example
from fundusgan_jax.data.image_sets import is_prepared, of_folder, of_prepared
from fundusgan_jax.data.packed import write_packed
from fundusgan_jax.errors import UserError

RNG = np.random.default_rng(0)


def _save(path, side=20, value=None):
    image = RNG.integers(0, 256, (side, side, 3), dtype=np.uint8)
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(image).save(path)
    return image


def test_a_folder_is_read_in_order_ahead_and_below(tmp_path):
    images = {f"{'ab'[number % 2]}/{number:03d}.png": None for number in range(40)}
    for name in images:
        images[name] = _save(tmp_path / name, side=16 + int(name[-5]))
    (tmp_path / "index.csv").write_text("file")
    found = of_folder(tmp_path, "none", 0)
    assert found.files == tuple(sorted(images)) and len(found) == 40 and found.groups is None
    for name, image in zip(found.files, found):
        np.testing.assert_array_equal(image, images[name])


def test_what_generate_notes_beside_its_images_is_not_left_out(tmp_path, capsys):
    _save(tmp_path / "a.png")
    for name in ("generator.json", "latents.npz", "rejected.csv", "list.txt"):
        (tmp_path / name).write_text("{}")
    (tmp_path / "index.csv").write_text("file,synthetic\na.png,yes\n")
    assert [name for name, _ in of_folder(tmp_path, "none", 0).left_out] == ["list.txt"]
    assert "1 other file left out" in capsys.readouterr().out


def test_somebody_elses_index_is_left_out(tmp_path):
    _save(tmp_path / "a.png")
    for name, text in (("index.csv", "file,label\na.png,ill\n"), ("generator.json", "{}")):
        (tmp_path / name).write_text(text)
    assert len(of_folder(tmp_path, "none", 0).left_out) == 2


def test_the_fingerprint_is_of_names_and_contents(tmp_path):
    _save(tmp_path / "a" / "x.png")
    first = of_folder(tmp_path / "a", "none", 0).fingerprint
    assert of_folder(tmp_path / "a", "none", 0).fingerprint == first
    (tmp_path / "a" / "x.png").rename(tmp_path / "a" / "y.png")
    second = of_folder(tmp_path / "a", "none", 0).fingerprint
    _save(tmp_path / "a" / "y.png")
    assert len({first, second, of_folder(tmp_path / "a", "none", 0).fingerprint}) == 3


def test_what_cannot_be_read_is_named(tmp_path):
    with pytest.raises(UserError, match="is no folder"):
        of_folder(tmp_path / "none", "none", 0)
    with pytest.raises(UserError, match="holds no image files"):
        of_folder(tmp_path, "none", 0)
    _save(tmp_path / "good.png")
    (tmp_path / "bad.png").write_bytes(b"\x89PNG\r\n")
    with pytest.raises(UserError, match="bad.png: .*take it out of the folder"):
        of_folder(tmp_path, "none", 0)


def test_photographs_pass_through_the_preparation(tmp_path, capsys):
    y, x = np.mgrid[:200, :240]
    disc = np.hypot(y - 100, x - 120) < 80
    texture = 120 + 60 * np.sin(x / 2) * np.sin(y / 3)
    photo = np.where(disc, texture, 0)[..., None].repeat(3, 2).astype(np.uint8)
    Image.fromarray(photo).save(tmp_path / "eye.png")
    _save(tmp_path / "noise.png", 64)
    found = of_folder(tmp_path, "fundus", 96)
    assert found.files == ("eye.png",) and found.shape() == (96, 96, 3)
    assert [name for name, _ in found.rejected] == ["noise.png"]
    assert "1 of 2 images" in capsys.readouterr().out
    (tmp_path / "eye.png").unlink()
    with pytest.raises(UserError, match="--preprocess=none"):
        of_folder(tmp_path, "fundus", 96)


def test_a_prepared_dataset_by_split_or_whole(tmp_path):
    examples = [
        Example(np.full((8, 8, 3), number, np.uint8), 0, f"p{number // 2}", "left", split, f"{number}.png")
        for number, split in enumerate(["train"] * 3 + ["test"] * 2)
    ]
    write_packed(tmp_path, examples, {"train": 3, "test": 2}, 8, ["none"], True)
    assert is_prepared(tmp_path) and not is_prepared(tmp_path / "packed")
    test, resolution = of_prepared(tmp_path, "test")
    assert resolution == 8 and [image[0, 0, 0] for image in test] == [3, 4] and test.groups == ("p1", "p2")
    whole, _ = of_prepared(tmp_path, "all")
    assert [image[0, 0, 0] for image in whole] == [3, 4, 0, 1, 2] and len(set(whole.files)) == 5
    assert whole.fingerprint != test.fingerprint
    with pytest.raises(UserError, match=r"--split=test\|train\|all"):
        of_prepared(tmp_path, "valid")
