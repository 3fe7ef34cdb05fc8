"""The phantom as a dataset: rendered once, packed like prepared photographs."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

from fundusgan_jax.data.example import Example
from fundusgan_jax.data.packed import FOLDER, INDEX, PackedDataset, open_packed, write_packed
from fundusgan_jax.data.phantom.render import LABEL_NAMES, phantom_counts, phantom_examples
from fundusgan_jax.progress import Progress


def open_phantoms(directory: str | Path, num_patients: int, resolution: int, seed: int) -> PackedDataset:
    """Opens DIR/NUM-RESOLUTION-SEED/packed, rendering it first where it is absent.

    Args:
        directory: DIR.
        num_patients: each has a right and a left eye.
        resolution: side of the pictures in pixels.
        seed: the same seed gives the same patients.
    """
    directory = Path(directory) / f"{num_patients}-{resolution}-{seed}"
    if (directory / FOLDER / INDEX).exists():
        return open_packed(directory)
    counts = phantom_counts(num_patients)
    progress = Progress(sum(counts.values()), "img", "rendering phantom eyes")

    def rendered() -> Iterator[Example]:
        for example in phantom_examples(num_patients, resolution, seed):
            progress.update()
            yield example

    dataset = write_packed(directory, rendered(), counts, resolution, LABEL_NAMES, has_patients=True)
    progress.close()
    return dataset
