"""Small copies of the datasets' folder layouts, rendered by the phantom."""

from __future__ import annotations

import functools
from collections.abc import Callable, Sequence
from pathlib import Path

import numpy as np
from PIL import Image

from fundusgan_jax.data.phantom.render import render

SIZE = 160  # px of a source photograph; sharp enough for the focus test after reduction to 64


@functools.cache
def photograph(seed: int, eye: str | None = None) -> Image.Image:
    """A phantom on a black frame that is wider than high, as cameras deliver it."""
    frame = np.zeros((SIZE, SIZE + 40, 3), np.uint8)
    frame[:, 20 : SIZE + 20] = render(seed, SIZE, eye=eye).image
    return Image.fromarray(frame)


def save(path: Path, seed: int, eye: str | None = None) -> Path:
    """Writes photograph `seed`; the suffix decides the format."""
    path.parent.mkdir(parents=True, exist_ok=True)
    photograph(seed, eye).save(path, quality=95)  # of JPEG; the other formats have none
    return path


def ddr(root: Path) -> Path:
    """DDR: names as the real ones, grades 0 to 4 and one ungradable."""
    lists = {"train": (0, 1, 2, 5), "valid": (3, 0), "test": (4, 1)}
    seed = 100
    for split, grades in lists.items():
        lines = []
        for grade in grades:
            name = f"007-{seed:04d}-000.jpg"
            save(root / "DR_grading" / split / name, seed)
            lines.append(f"{name} {grade}")
            seed += 1
        (root / "DR_grading" / f"{split}.txt").write_text("\n".join(lines) + "\n")
    save(root / "DR_grading" / "valid" / "007-0999-000.jpg", 199)  # in no list
    return root


def idrid(root: Path) -> Path:
    """IDRiD part B: file names repeat between the sides, the CSV has blanks in a name and empty columns."""
    images, truths = root / "1. Original Images", root / "2. Groundtruths"
    truths.mkdir(parents=True)
    sides = (
        ("a. Training Set", "a. IDRiD_Disease Grading_Training Labels.csv", ((3, 2), (0, 0), (2, 1), (4, 2))),
        ("b. Testing Set", "b. IDRiD_Disease Grading_Testing Labels.csv", ((1, 0), (0, 0))),
    )
    seed = 200
    for folder, table, grades in sides:
        lines = ["Image name,Retinopathy grade,Risk of macular edema ,,,,,,,,,"]
        for number, (grade, edema) in enumerate(grades, 1):
            name = f"IDRiD_{number:03d}"
            save(images / folder / f"{name}.jpg", seed)
            lines.append(f"{name},{grade},{edema},,,,,,,,,")
            seed += 1
        (truths / table).write_text("\r\n".join([*lines, ",,,,,,,,,,,"]) + "\r\n")
    return root


def drive(root: Path) -> Path:
    """DRIVE: TIFF photographs with the tracing and the mask beside them."""
    for folder, word, numbers in (("training", "training", (21, 22, 23, 24)), ("test", "test", (1, 2, 3))):
        for number in numbers:
            stem = f"{number:02d}"
            save(root / folder / "images" / f"{stem}_{word}.tif", 300 + number)
            for beside, suffix in (("1st_manual", "manual1"), ("mask", f"{word}_mask")):
                path = root / folder / beside / f"{stem}_{suffix}.gif"
                path.parent.mkdir(parents=True, exist_ok=True)
                Image.fromarray(np.full((SIZE, SIZE), 255, np.uint8)).save(path)
    return root


ODIR_HEADER = (
    "ID,Patient Age,Patient Sex,Left-Fundus,Right-Fundus,Left-Diagnostic Keywords,Right-Diagnostic Keywords,"
    "N,D,G,C,A,H,M,O"
)


def odir(root: Path, patients: Sequence[int] = (0, 1, 2, 4, 5)) -> Path:
    """ODIR-5K: one row per patient with both eyes; patient 1 has two labels."""
    labels = {0: "0,0,0,1,0,0,0,0", 1: "0,1,0,0,0,0,0,1", 2: "1,0,0,0,0,0,0,0"}
    lines = [ODIR_HEADER]
    for patient in patients:
        left, right = f"{patient}_left.jpg", f"{patient}_right.jpg"
        save(root / "Training Images" / left, 400 + 2 * patient, "left")
        save(root / "Training Images" / right, 401 + 2 * patient, "right")
        row = labels.get(patient, "0,0,1,0,0,0,0,0")
        lines.append(f"{patient},69,Female,{left},{right},cataract,normal fundus，drusen,{row}")
    (root / "ODIR-5K_Training_Annotations.csv").write_text("\n".join(lines) + "\n", encoding="utf-8")
    return root


def folder(root: Path) -> Path:
    """A plain folder listed by labels.csv: four patients, seven photographs, one without a label."""
    lines = ["file,label,patient,eye"]
    for number, (label, patient, eye) in enumerate(
        [
            ("healthy", "p1", "right"),
            ("healthy", "p1", "left"),
            ("ill", "p2", "OD"),
            ("ill", "p2", "OS"),
            ("healthy", "p3", "right"),
            ("", "p4", "left"),
            ("ill", "p4", "right"),
        ]
    ):
        save(root / "photos" / f"{number}.png", 500 + number, eye if eye in ("right", "left") else None)
        lines.append(f"photos/{number}.png,{label},{patient},{eye}")
    (root / "labels.csv").write_text("\n".join(lines) + "\n")
    return root


LAYOUTS: dict[str, Callable[[Path], Path]] = {
    "folder": folder,
    "ddr": ddr,
    "idrid": idrid,
    "drive": drive,
    "odir": odir,
}
