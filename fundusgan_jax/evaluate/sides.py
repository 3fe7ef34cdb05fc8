"""The two sides of a comparison, prepared alike, with held-out photographs where these are known."""

from __future__ import annotations

import csv
from pathlib import Path
from typing import NamedTuple

from fundusgan_jax.atomic import atomic_write
from fundusgan_jax.data.image_sets import ImageSet, Preprocessing, is_prepared, of_folder, of_prepared
from fundusgan_jax.data.packed import ensure_packed
from fundusgan_jax.data.photograph_files import summary_line
from fundusgan_jax.errors import UserError
from fundusgan_jax.evaluate.generated_images import GeneratedImages, generated_images
from fundusgan_jax.evaluate.request import Request
from fundusgan_jax.report.protocol import RealSet

LEFT_OUT = "left_out.csv"


class Sides(NamedTuple):
    """The real images, as a protocol names them, the generated ones, and photographs that no model saw, where these are known."""

    real: ImageSet
    real_set: RealSet
    fake: GeneratedImages
    held_out: ImageSet | None


def open_sides(request: Request) -> Sides:
    """Both sides, prepared alike where both are folders; what is left out of them goes to LEFT_OUT.

    A prepared dataset and what a workdir paints are of one framing. Photographs beside them need the same; images are
    taken for the work of a model that was trained on such photographs, and as they are, which is said.
    """
    if is_prepared(request.real):
        real, resolution = of_prepared(request.real, request.split)
    else:
        real = of_folder(request.real, request.preprocess or "fundus", request.resolution)
        resolution = real.shape()[0]
    alone: Preprocessing = "fundus" if real.preprocessing == "fundus" else "none"
    fake = generated_images(request, real, request.preprocess or alone, resolution)
    _write_left_out(request.output, {"real": real, "generated": fake.files_of})
    least = 2 if request.as_sets else 1
    if min(len(real), fake.num_images) < least:
        raise UserError(
            f"{fake.name} and {real.name} have {fake.num_images} and {len(real)} images; a comparison of sets needs at least "
            "2 of each"
        )
    return Sides(real, named_set(real, resolution), fake, _held_out(request, fake))


def named_set(images: ImageSet, resolution: int) -> RealSet:
    """Photographs as a protocol and the cache of features name them."""
    return RealSet(images.fingerprint, images.split, len(images), resolution, images.preprocessing)


def _held_out(request: Request, fake: GeneratedImages) -> ImageSet | None:
    """Photographs to be scored as drawn images are: none beside reconstructions, or beside photographs of a dataset."""
    if not is_prepared(request.real):
        if request.held_out:
            raise UserError(f"--held_out={request.held_out}: {request.real} has no splits; leave it out")
        return None
    splits = ensure_packed(request.real).splits
    name = request.held_out or ("test" if request.split == "train" and "test" in splits else "")
    drawn = not fake.paired and not is_prepared(request.fake)
    return of_prepared(request.real, name, "--held_out")[0] if name and drawn else None


def _write_left_out(output: Path, sides: dict[str, ImageSet | None]) -> None:
    """left_out.csv: side, file, reason; none where nothing is left out."""
    rows = [
        (side, *row) for side, images in sides.items() if images for row in images.left_out + images.rejected
    ]
    (output / LEFT_OUT).unlink(missing_ok=True)
    if rows:
        with atomic_write(output / LEFT_OUT) as path, open(path, "w", newline="", encoding="utf-8") as handle:
            csv.writer(handle).writerows([("side", "file", "reason"), *rows])


def preparation_notes(sides: Sides) -> list[str]:
    """What was done to one side alone, and how many photographs are left out."""
    real, images, notes = sides.real, sides.fake.files_of, []
    if images is not None and (real.preprocessing == "none") != (images.preprocessing == "none"):
        notes.append(
            f"the real images are prepared ({real.preprocessing}), those of {images.name} are taken as they are: right for the "
            "images of a model that was trained on such photographs; --preprocess=fundus prepares them too"
        )
    for side, of_side in (("real", real), ("generated", images)):
        if of_side is not None and of_side.rejected:
            flatters = ", which flatters a model; --preprocess=none takes all" if of_side is images else ""
            notes.append(
                f"{len(of_side)} images of the {side} side are scored, {summary_line(of_side.rejected)} "
                f"({LEFT_OUT} names them){flatters}"
            )
    return notes


def sizes_note(sides: Sides) -> list[str]:
    """A line where the two sides' images are not of one size."""
    ours, theirs = sides.fake.shape, sides.real.shape()
    if ours == theirs:
        return []
    return [
        f"the generated images are {ours[1]}x{ours[0]}, the real ones {theirs[1]}x{theirs[0]}: the smaller side is less sharp, "
        "which every distance counts as a difference; bring both to one size first"
    ]
