"""Inputs of ../shared/cases as they lie there, through prepare, evaluate and weights: what happens and whether it is right.

`pytest -m slow tests/field -s` prints the table, with the inputs of the other files here.
"""

from __future__ import annotations

import json
import os
from pathlib import Path

import numpy as np
import pytest

from fundusgan_jax.data.prepare.preprocess import find_field_of_view
from fundusgan_jax.data.read_image import read_extent, read_image
from fundusgan_jax.data.value_ranges import scale_of
from tests.support.field import Bench, likeness, verdict

pytestmark = pytest.mark.slow


@pytest.fixture
def bench(shared: Path, tmp_path: Path) -> Bench:
    cases = shared / "cases"
    if not cases.is_dir():
        pytest.skip("no ../shared/cases beside the checkout")
    return Bench(cases, tmp_path)


def test_list_matches_nothing(bench: Bench) -> None:
    folder = bench.folder("01_list_matches_nothing")
    run = bench.prepare(folder)
    matched = run.code == 0 and run.labels == {f"{i}.png": "ab"[i % 2] for i in range(4)}
    verdict("01 names without suffix", f"code {run.code}, 4 labelled: {matched}", matched)
    (folder / "labels.csv").write_text("file,label\nx1,a\nx2,b\n")
    run = bench.prepare(folder)
    verdict("01 no name matches", run.error, run.code == 2 and "x1" in run.error and "0.png" in run.error)


def test_own_products_are_not_scored(bench: Bench) -> None:
    folder = bench.folder("02_score_inside_scored_folder")
    words = ("--preprocess=none",)
    first = bench.evaluate(folder / "real", folder / "fake", *words, output=folder / "fake" / "score")
    second = bench.evaluate(
        folder / "real", folder / "fake", *words, "--overwrite", output=folder / "fake" / "score"
    )
    scored = json.loads((second.output / "eval.json").read_text())["num_samples"]
    right = first.code == second.code == 0 and scored == 12 and first.figures == second.figures
    verdict("02 scored twice", f"codes {first.code} {second.code}, {scored} images the second time", right)


def test_all_the_same(bench: Bench) -> None:
    folder = bench.folder("03_all_the_same")
    run = bench.evaluate(folder / "real", folder / "fake", "--preprocess=none")
    verdict("03 identical images", f"code {run.code}: {run.error or run.figures}", run.code == 0)


def test_dicom(bench: Bench) -> None:
    # All show one eye: as for TIFF.
    folder = bench.folder("04_dicom")
    run, failed = bench.prepare(folder), []
    wanted = {"cut.dcm": "truncated", "no_photometric.dcm": "Photometric", "no_pixels.dcm": "without pixels"}
    paths = [path for path in sorted(folder.iterdir()) if path.name not in wanted]
    scale = scale_of(extent for path in paths if (extent := read_extent(path)))
    plain = read_image(folder / "plain_rgb.dcm")
    for path in paths:
        image = read_image(path, scale)
        alike = min(likeness(image[..., channel], plain[..., channel]) for channel in range(3))
        if alike < (0.95 if np.array_equal(image[..., 0], image[..., 2]) else 0.99) or image.max() < 100:
            failed.append(f"{path.name}: other pixels")
        if path.name not in run.splits and not run.rejected[path.name].startswith("duplicate of"):
            failed.append(f"{path.name}: {run.rejected[path.name]}")
    failed += [
        f"{name}: {run.rejected[name]}" for name, word in wanted.items() if word not in run.rejected[name]
    ]
    if "force" in run.said:
        failed.append("force=True is said")
    if "3 frames: the first is read" not in run.said:
        failed.append("frames after the first are not said")
    verdict(
        "04 DICOM", "; ".join(failed) or "all as pydicom means them, frames said, reasons named", not failed
    )


def test_list_with_ellipsis(bench: Bench) -> None:
    run = bench.prepare(bench.folder("05_list_with_ellipsis"))
    verdict(
        "05 byte 0x85 in a note",
        f"{run.labels}",
        [run.labels[name] for name in sorted(run.labels)] == ["a", "b", "a", "b"],
    )


def test_hidden_folders(bench: Bench) -> None:
    run = bench.prepare(bench.folder("06_hidden_folders"))
    right = set(run.labels.values()) == {"healthy", "ill"} and len(run.rejected) == 2
    verdict("06 hidden folders", f"{run.labels}; {run.rejected}", right)


def test_train_and_test_above_classes(bench: Bench) -> None:
    run = bench.prepare(bench.folder("07_train_test_above_classes"))
    right = all(file.startswith(split) for file, split in run.splits.items())
    right &= set(run.labels.values()) == {"healthy", "ill"} and "read as the split" in run.said
    verdict("07 train/ and test/ above classes", f"{run.labels}", right)


def test_thirty_pixels(bench: Bench) -> None:
    run = bench.prepare(bench.folder("08_thirty_pixels"), side=512)
    verdict("08 thirty pixels", run.error, run.code == 2 and "too small" in run.error)


def test_patients(bench: Bench) -> None:
    run = bench.prepare(bench.folder("09_patient_NA"))
    verdict("09 patient NA", f"patients {sorted(run.patients)}", len(run.patients) == 6)
    run = bench.prepare(bench.folder("10_patient_7_and_007"))
    joined = bench.prepare(bench.folder("10_patient_7_and_007"), "--join_alike")
    right = "--join_alike" in run.said and len(joined.patients) == 3
    verdict("10 patients 0 and 000", f"said; joined to {sorted(joined.patients)}", right)


def test_float_images(bench: Bench) -> None:
    folder = bench.folder("11_float_overshoot")
    words = ("--preprocess=none", "--metrics=ssim,fid")
    run = bench.evaluate(folder / "real", folder / "fake", *words)
    verdict(
        "11 one pixel of 1.0004",
        run.error or f"SSIM {run.figures['ssim']:.4f}",
        run.code == 0 and run.figures["ssim"] > 0.99,
    )
    run = bench.evaluate(folder / "real", folder / "nan", *words)
    verdict("11 NaN", run.error, run.code == 2 and "not finite" in run.error and ".tif" in run.error)
    run = bench.prepare(folder, "--preprocess=none")
    right = sum("not finite" in reason for reason in run.rejected.values()) == 6
    verdict("11 prepare", f"code {run.code}, {run.rejected}", right)


def test_other_suffixes(bench: Bench) -> None:
    folder = bench.folder("12_other_suffixes")
    run = bench.evaluate(folder / "real", folder / "fake", "--preprocess=none")
    scored = json.loads((run.output / "eval.json").read_text())["num_samples"]
    verdict("12 PPM beside PNG", f"{scored} of 6 scored", scored == 6)


def test_squashed_to_square(bench: Bench) -> None:
    folder = bench.folder("13_squashed_to_square")
    run = bench.prepare(folder, "--preprocess=none")
    verdict(
        "13 squashed, --preprocess=none", f"code {run.code}, {len(run.splits)} kept", len(run.splits) == 4
    )
    run = bench.prepare(folder)
    said = next((line for line in run.said.splitlines() if "proportions" in line), "")
    verdict("13 squashed", f"{len(run.splits)} kept; {said}", len(run.splits) == 4 and bool(said))


def test_white_bar(bench: Bench) -> None:
    run = bench.prepare(bench.folder("15_white_bar"))
    # The three show one eye, so the search for duplicates drops or joins them: framing is compared by pixels.
    radii = [
        find_field_of_view(read_image(bench.folder("15_white_bar") / f"{name}.png")).radius
        for name in ("plain", "bar", "white_surround")
    ]
    right = max(radii) / min(radii) < 1.02 and run.code == 0
    verdict("15 white bar and surround", f"radii {', '.join(f'{radius:.1f}' for radius in radii)}", right)


def test_rotten_jpeg(bench: Bench) -> None:
    run = bench.prepare(bench.folder("16_rotten_jpeg"))
    right = "damaged" in run.rejected.get("rotten.jpg", "") and "whole.jpg" in run.splits
    verdict("16 rotten JPEG", run.rejected.get("rotten.jpg", "accepted"), right)


def test_folder_against_itself(bench: Bench) -> None:
    folder = bench.folder("17_folder_against_itself")
    run = bench.evaluate(folder, folder, "--resolution=128")
    distances = {name: value for name, value in run.figures.items() if name == "frechet"}
    verdict(
        "17 a folder against itself",
        f"{distances}",
        distances and all(abs(value) < 1e-3 for value in distances.values()),
    )


def test_tiff(bench: Bench) -> None:
    # The five files show one eye, of which prepare keeps one: what is read of each is compared with the plain page.
    folder = bench.folder("18_tiff")
    run = bench.prepare(folder, side=256)
    paths, failed = sorted(folder.glob("*.tif")), []
    scale = scale_of(extent for path in paths if (extent := read_extent(path)))
    page = read_image(folder / "preview_first_then_photo.tif")
    for path in paths:
        image = read_image(path, scale)
        if image.shape != page.shape or image.max() < 120 or likeness(image[..., 1], page[..., 1]) < 0.98:
            failed.append(f"{path.name}: other pixels")
        if path.name not in run.splits and not run.rejected[path.name].startswith("duplicate of"):
            failed.append(f"{path.name}: {run.rejected[path.name]}")
    if "HEIC" not in run.rejected.get("phone.heic", ""):
        failed.append(f"phone.heic: {run.rejected.get('phone.heic')}")
    verdict("18 TIFF", "; ".join(failed) or "largest page, bits and min-is-white respected", not failed)


def test_weights(bench: Bench) -> None:
    folder = bench.folder("19_weights")
    for name in ("good", "data_parallel"):
        run = bench.weights(folder / f"{name}.npz")
        verdict(f"19 {name}.npz", run.error or "imported", run.code == 0)
    wanted = {"nan.npz": "NaN", "inf_w_avg.npz": "w_avg", "whole_numbers.npz": "whole", "lfs_pointer.pkl": "LFS",
              "web_page.pkl": "web page", "tensorflow.pkl": "TensorFlow"}  # fmt: skip
    for name, word in wanted.items():
        run = bench.weights(folder / name)
        verdict(f"19 {name}", run.error, run.code == 2 and word.lower() in run.error.lower())


def test_a_name_that_is_no_utf8(bench: Bench) -> None:
    folder = bench.folder("05_list_with_ellipsis")
    (folder / "labels.csv").unlink()
    os.rename(folder / "0.png", os.path.join(os.fsencode(folder), b"fran\xe7ois.png"))
    run = bench.prepare(folder)
    named = [file for file in {**run.splits, **run.rejected} if file.startswith("fran")]
    verdict("name that is no UTF-8, prepare", f"code {run.code}, {named}", run.code == 0 and len(named) == 1)
    run = bench.evaluate(folder, folder, "--preprocess=none")
    verdict("name that is no UTF-8, evaluate", run.error or f"code {run.code}", run.code == 0)
