"""A prepared dataset of rendered eyes in a folder, as data.prepare leaves one: TFDS in ArrayRecord, packed file, prepare.json."""

from __future__ import annotations

import json
from collections import Counter
from pathlib import Path

from fundusgan_jax.data.packed import PackedDataset, ensure_packed
from fundusgan_jax.data.phantom import LABEL_NAMES, phantom_examples
from fundusgan_jax.grid import save_png
from fundusgan_jax.progress import Progress


def prepared_phantoms(folder: Path, patients: int, resolution: int) -> PackedDataset:
    """Renders two eyes of each patient and writes them to `folder`. It takes about a second for three eyes of 512 px."""
    from fundusgan_jax.data import builders

    progress = Progress(2 * patients, "img", "rendering photographs")
    records = []
    for number, example in enumerate(phantom_examples(patients, resolution, 0)):
        png = folder / "png" / f"{number}.png"
        save_png(png, example.image)
        records.append(
            builders.Record(png, example.file, example.label, example.patient, example.eye, example.split)
        )
        progress.update()
    progress.close()
    config = builders.FundusConfig(
        name=f"{resolution}px", resolution=resolution, label_names=tuple(LABEL_NAMES), records=records
    )
    built = builders.build("folder", folder / "tfds", config, "array_record")
    (folder / "prepare.json").write_text(
        json.dumps(
            {
                "tfds_dir": built.relative_to(folder).as_posix(),
                "file_format": "array_record",
                "splits": dict(sorted(Counter(record.split for record in records).items())),
                "resolution": resolution,
                "label_names": list(LABEL_NAMES),
                "has_patients": True,
            }
        )
    )
    return ensure_packed(folder)
