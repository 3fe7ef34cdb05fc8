"""Making a study: what the files give away, leaks and copies refused, mistakes named."""

import csv
import hashlib
import io
import json
import shutil

import numpy as np
import pytest
from PIL import Image

from fundusgan_jax.errors import UserError
from fundusgan_jax.reader_study.__main__ import checked, main
from fundusgan_jax.reader_study.create import reader_table
from fundusgan_jax.reader_study.leak_audit import audit, copies, cross_validated_auc
from fundusgan_jax.reader_study.pictures import native_side, padded_png, png_bytes, uniform_picture
from fundusgan_jax.reader_study.side_information import blockiness, side_information
from fundusgan_jax.reader_study.sources import Source, balanced_order, common_classes, in_pairs, of_argument
from fundusgan_jax.reader_study.study import open_study
from tests.reader_study.conftest import NUM
from tests.support.phantoms import left_eyes


def truth_of(study):
    with open(study / "truth.csv", newline="") as handle:
        return {line["image"]: line for line in csv.DictReader(handle)}


def test_files_differ_by_their_pixels_alone(original):
    study, truth = open_study(original), truth_of(original)
    files = sorted((original / "images").iterdir())
    assert [file.stem for file in files] == sorted(study.order) and len(files) == 2 * NUM + 4
    assert len({file.stat().st_size for file in files}) == 1
    for file in files:
        content = file.read_bytes()
        with Image.open(io.BytesIO(content)) as image:
            image.load()
            assert (image.mode, image.size, image.info) == ("RGB", (study.settings["side"],) * 2, {})
        assert b"real" not in content and b"Exif" not in content
        assert study.settings["sha256"][file.stem] == hashlib.sha256(content).hexdigest()
    kinds = [truth[name]["truth"] for name in study.settings["images"]]
    assert kinds.count("real") == kinds.count("synthetic") == NUM and kinds != sorted(kinds)
    # What the server reads does not hold the truth.
    readable = "".join((original / name).read_text() for name in ("study.json", "text.json", "readers.csv"))
    assert not any(line["file"] in readable for line in truth.values())
    for private in ("truth.csv", "secret.key", "links.csv"):
        assert (original / private).stat().st_mode & 0o077 == 0


@pytest.mark.slow
def test_the_seed_fixes_choice_and_order(make_study):
    first, again, other = (make_study(2, f"--seed={seed}") for seed in (1, 1, 2))
    files = [
        [truth_of(folder)[name]["file"] for name in open_study(folder).order]
        for folder in (first, again, other)
    ]
    assert files[0] == files[1] != files[2]
    assert not set(open_study(first).order) & set(open_study(again).order)  # names come from a secret


def test_padding_keeps_the_picture():
    image = np.random.default_rng(0).integers(0, 256, (20, 20, 3), np.uint8)
    content = png_bytes(image)
    padded = padded_png(content, len(content) + 500)
    assert len(padded) == len(content) + 500
    with Image.open(io.BytesIO(padded)) as opened:
        np.testing.assert_array_equal(np.asarray(opened), image)


def jpeg(image, quality):
    content = io.BytesIO()
    Image.fromarray(image).save(content, "JPEG", quality=quality)
    return np.asarray(Image.open(content).convert("RGB"))


@pytest.fixture(scope="module")
def eyes(phantoms):
    return [np.asarray(Image.open(file)) for file in sorted((phantoms / "synthetic").iterdir())]


def test_an_encoders_grid_goes(eyes):
    """The grid alone tells JPEG sources from others before the pipeline, and nothing after it."""
    rng = np.random.default_rng(0)
    images = [image for image in eyes for _ in range(3)]
    images = [np.clip(i + rng.normal(0, 2, i.shape), 0, 255).astype(np.uint8) for i in images]
    real = np.arange(len(images)) % 2 == 0
    sources = [jpeg(image, 85) if one else image for image, one in zip(images, real)]
    groups = np.arange(len(images)) // 3
    before = np.stack([blockiness(image) for image in sources])
    after = np.stack([blockiness(uniform_picture(image, *native_side(image))) for image in sources])
    assert cross_validated_auc(before, real, groups, 0) > 0.9
    assert cross_validated_auc(after, real, groups, 0) < 0.65


@pytest.mark.parametrize(
    ("name", "change"),
    [
        ("mean colour", lambda x: np.clip(x * [1.0, 0.7, 1.4], 0, 255).astype(np.uint8)),
        ("border", lambda x: np.where(x.max(-1, keepdims=True) < 3, 9, x).astype(np.uint8)),
        ("file size", lambda x: x),
    ],
)
def test_the_audit_names_the_leak(eyes, name, change):
    images = eyes * 2
    real = np.arange(len(images)) < len(eyes)
    information = [
        side_information(x if one else change(x), 5000 + (0 if one or name != "file size" else 10 + number))
        for number, (x, one) in enumerate(zip(images, real))
    ]
    leaks = {
        leak.name: leak.auc
        for leak in audit(information, real, [str(n % len(eyes)) for n in range(len(images))], 0)
    }
    assert leaks[name] > 0.8
    clean = [side_information(x, 5000) for x in images]
    assert (
        max(leak.auc for leak in audit(clean, real, [str(n % len(eyes)) for n in range(len(images))], 0))
        <= 0.6
    )


def test_copies_are_seen_mirrored_and_brightened(eyes):
    pictures = {str(number): image for number, image in enumerate(eyes[:8])}
    real = {name: int(name) < 4 for name in pictures}
    assert copies(pictures, real) == []
    pictures["copy"] = np.clip(eyes[2][:, ::-1] * 1.1, 0, 255).astype(np.uint8)
    found = copies(pictures, real | {"copy": False})
    assert [(pair[0], pair[1]) for pair in found] == [("copy", "2")]


def test_create_refuses_leaks_and_copies(phantoms, tmp_path, capsys):
    dark = tmp_path / "dark"
    dark.mkdir()
    for file in (phantoms / "synthetic").iterdir():
        Image.open(file).point(lambda value: value // 2).save(dark / file.name)
    words = ["create", f"--real={phantoms / 'real'}", f"--num={NUM}", f"--output={tmp_path / 'study'}"]
    with pytest.raises(UserError, match="mean colour.*alone tell real from synthetic.*--accept_leak"):
        main([*words, f"--synthetic={dark}"])
    assert "LEAK" in capsys.readouterr().out and not (tmp_path / "study").exists()
    same = tmp_path / "same"
    shutil.copytree(phantoms / "real", same)
    with pytest.raises(UserError, match="are copies of photographs of this study"):
        main([*words, f"--synthetic={same}", f"--num={2 * NUM}", "--accept_leak"])


def test_accepted_leaks_are_noted(original):
    audit_of = json.loads((original / "study.json").read_text())["audit"]
    assert audit_of["accepted"] and set(audit_of["auc"]) == {
        "file size", "border", "mean colour", "8x8 thumbnail", "spectrum", "blockiness"
    }  # fmt: skip
    assert audit_of["auc"]["file size"] == 0.5


def test_order_takes_classes_by_turns_and_one_of_a_patient():
    def sources(labels, patients):
        return [
            Source(f"{n}", label, patient, lambda: None)
            for n, (label, patient) in enumerate(zip(labels, patients))
        ]

    real = sources("aaaaaabbb", "112345678")
    order = balanced_order(real, np.random.default_rng(0), None)
    assert [source.label for source in order[:6]] == list("ababab")
    assert len({source.patient for source in order}) == len(order) == 8
    assert common_classes(real, sources("bbc", "xyz")) == {"b"}
    assert common_classes(real, sources(["", ""], "xy")) is None


def test_mistakes(phantoms, tmp_path):
    words = [
        "create",
        f"--real={phantoms / 'real'}",
        f"--synthetic={phantoms / 'synthetic'}",
        f"--output={tmp_path / 's'}",
    ]
    with pytest.raises(UserError, match="20 real images can be used where 52 are needed"):
        main(words)
    with pytest.raises(UserError, match="--side=512 would enlarge"):
        main([*words, "--num=4", "--side=512"])
    (tmp_path / "s").mkdir(exist_ok=True)
    (tmp_path / "s" / "x").touch()
    with pytest.raises(UserError, match="is not empty"):
        main(words)
    for flags, message in (
        (["create", "--num=5"], "--real and --synthetic and --output missing"),
        (["create", "--plan", "--num=1"], "--num=1 must be at least 2"),
        (["create", "--plan", "--address=study"], "is no address"),
        (["create", "--plan", "--until=soon"], "is no date"),
        (["create", "--plan", "--margin=0.7"], "must lie between 0 and 0.5"),
        (["analyse"], "either STUDY or --answers"),
    ):
        with pytest.raises(UserError, match=message):
            checked(flags)
    (tmp_path / "r.csv").write_text("name,group\nA,x\nA,y\n")
    with pytest.raises(UserError, match="'A' stands there twice"):
        reader_table(tmp_path / "r.csv")


def saved(image, form, side):
    """What is read of an eye that was stored at a side as PNG (form None), or as JPEG of that quality."""
    picture = Image.fromarray(image).resize((side, side), Image.Resampling.LANCZOS)
    return np.asarray(picture) if form is None else jpeg(np.asarray(picture), form)


def leaks_of_forms(eyes, others, side):
    """{part of the audit: AUC above 0.6} of telling eyes from the same eyes in another form."""
    information = []
    for image in [*eyes, *others]:
        circle, native = native_side(image)
        assert native >= side
        information.append(side_information(uniform_picture(image, circle, side), 5000))
    number = np.arange(len(information))
    leaks = audit(information, number < len(eyes), [str(n % len(eyes)) for n in number], 0)
    return {leak.name: leak.auc for leak in leaks if leak.auc > 0.6}


@pytest.mark.parametrize(("form", "side"), [(90, 128), (None, 112)])
def test_the_form_of_a_file_tells_nothing(eyes, form, side):
    assert leaks_of_forms(eyes, [saved(image, form, side) for image in eyes], 96) == {}


@pytest.mark.slow
def test_a_strong_jpeg_tells_nothing():
    """Its 8x8 thumbnail has an AUC of 0.63 with 20 eyes, by chance; so 60."""
    eyes = list(left_eyes(60, 192, 5))
    assert leaks_of_forms(eyes, [saved(image, 75, 192) for image in eyes], 120) == {}


def test_classes_of_a_generated_folder(eyes, tmp_path):
    rows = ["file,sources,label"]
    for number, image in enumerate(eyes[:4]):
        Image.fromarray(image).save(tmp_path / f"{number}.png")
        rows.append(f"{number}.png,photo{number // 2}.jpg;other.jpg,{'ab'[number % 2]}")
    (tmp_path / "index.csv").write_text("\n".join([*rows, ""]))
    found = of_argument(tmp_path, "--synthetic", 4, 0, tmp_path)
    assert [source.label for source in found] == list("abab")
    assert [source.patient for source in found] == ["photo0.jpg"] * 2 + ["photo1.jpg"] * 2


def test_the_name_of_a_class_goes_before_its_number(eyes, tmp_path):
    """A number alone is no name: the photographs' classes are names."""
    rows = ["file,label,label_name", "0.png,1,glaucoma", "1.png,0,", "2.png,,"]
    for number, image in enumerate(eyes[:3]):
        Image.fromarray(image).save(tmp_path / f"{number}.png")
    (tmp_path / "index.csv").write_text("\n".join([*rows, ""]))
    found = of_argument(tmp_path, "--synthetic", 3, 0, tmp_path)
    assert [(source.label, source.named) for source in found] == [
        ("glaucoma", True),
        ("0", False),
        ("", True),
    ]


def test_places_in_pairs_have_one_class():
    real, synthetic = list("aabbbc"), list("abaab")
    first, second = in_pairs(real, synthetic)
    assert sorted(first) == list(range(6)) and sorted(second) == list(range(5))
    assert [real[n] for n in first[:4]] == [synthetic[n] for n in second[:4]] == list("abab")
