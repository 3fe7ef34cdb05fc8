"""Heat maps of the networks that a study keeps: held-out photographs of the class that is looked for beside synthetic images of it."""

from __future__ import annotations

import html
import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from fundusgan_jax.atomic import atomic_write
from fundusgan_jax.data.packed import even_rows
from fundusgan_jax.report.elements import cell as table_cell
from fundusgan_jax.report.elements import note, picture, table
from fundusgan_jax.report.grid import save_png
from fundusgan_jax.studies.arms import TITLES
from fundusgan_jax.studies.design_record import read_record
from fundusgan_jax.studies.heat_map_measures import ImagesWithMaps, measured
from fundusgan_jax.studies.heat_map_page import READ, mean_maps, shown_figure
from fundusgan_jax.studies.study_results import plain
from fundusgan_jax.studies.study_runs import POSITIVE, Cell, Setting, network_path, run_path

RECORD, MEANS = "gradcam.json", "gradcam.png"
# Images of each set.
MOST = 100


def heat_map_records(
    workdir: Path, setting: Setting, cells: Sequence[Cell], names: Sequence[str]
) -> list[dict[str, Any]]:
    """Of each network that is kept its cell and what its maps mark, computed once (gradcam.json and gradcam.png beside it)."""
    records = []
    for cell in cells:
        folder = network_path(workdir, cell)
        if not cell.keeps_network or not folder.is_dir() or not run_path(workdir, cell).exists():
            continue
        if not (folder / RECORD).exists():
            _write(folder, setting, cell, names)
        records.append({**cell._asdict(), **read_record(folder / RECORD)})
    return records


def _write(folder: Path, setting: Setting, cell: Cell, names: Sequence[str]) -> None:
    # Here, because the probe's studies need no network.
    from fundusgan_jax.evaluate.class_maps import ClassMapper
    from fundusgan_jax.evaluate.classifier import probabilities_of
    from fundusgan_jax.evaluate.scored import variables_of
    from fundusgan_jax.steps.classifier_step import ClassifierState
    from fundusgan_jax.workdir.contents import restore_state

    config, _, state = restore_state(folder, "best")
    assert isinstance(state, ClassifierState)  # trained_network has written it
    mapper = ClassMapper(config, variables_of(config, state))
    photographs, synthetic = setting.photographs, setting.synthetic
    held = np.flatnonzero(photographs.test & (photographs.label == POSITIVE))
    generated = np.flatnonzero(synthetic.label == POSITIVE)
    sets = []
    for title, rows, images, files, patients in (
        ("photographs", held, photographs.images, photographs.file, photographs.patient),
        ("synthetic images", generated, synthetic.images, synthetic.file, None),
    ):
        rows = rows[even_rows(len(rows), MOST)]
        if not len(rows):
            continue
        target = np.full(len(rows), POSITIVE)
        maps = mapper.maps(images[rows], target)
        own = probabilities_of(maps.logits)[:, POSITIVE]
        groups = None if patients is None else tuple(patients[rows].tolist())
        measures = measured(images[rows], maps.heat, None)
        named = tuple(files[row] for row in rows)
        sets.append(ImagesWithMaps(title, named, groups, images[rows], target, own, maps, measures))
    save_png(folder / MEANS, mean_maps(sets, names))
    with atomic_write(folder / RECORD) as temporary:
        temporary.write_text(json.dumps(plain({"sets": [one.summary() for one in sets]})) + "\n")


def heat_maps_section(workdir: Path, records: Sequence[Mapping[str, Any]], name: str) -> str:
    """A section of report.html without any photograph; '' where no network was kept. name: of the class that is looked for."""
    if not records:
        return ""
    head = ["condition", "trained on", "maps of", "images", "without evidence", "in the field", "even map", "in the disc",
            "even map"]  # fmt: skip
    lines, pictures = [], []
    for record in records:
        cell = Cell(record["condition"], record["arm"], record["seed"])
        for one in record["sets"]:
            figures = (one["measures"].get(figure) for figure in ("in_field", "field", "in_disc", "disc"))
            facts = [
                one["set"],
                str(one["images"]),
                str(one["without_evidence"]),
                *map(shown_figure, figures),
            ]
            texts = (table_cell(fact) for fact in facts)
            lines.append([table_cell(cell.condition), table_cell(TITLES[cell.arm], "text"), *texts])
        file = network_path(workdir, cell) / MEANS
        title = f"{cell.condition}, {TITLES[cell.arm]}"
        pictures.append(f"<h3>{html.escape(title)}</h3>{picture(file.read_bytes(), 'png', 'mean maps')}")
    return "".join(
        [
            f"<h2>Where networks find {html.escape(name)}</h2>",
            table(head, lines),
            note(
                f"Grad-CAM for {name} of seed 0's networks, of held-out photographs with {name} and of synthetic images of it; "
                "shares with 95 % intervals and numbers of images."
            ),
            *pictures,
            note("Means of maps, each divided by its highest value. " + READ),
        ]
    )
