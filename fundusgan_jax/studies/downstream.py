"""What both studies of synthetic images share: the order of their work, and what they print."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from fundusgan_jax.data.packed import PackedDataset
from fundusgan_jax.errors import UserError
from fundusgan_jax.folder_lock import owned_folder
from fundusgan_jax.progress import waiting
from fundusgan_jax.studies.arms import class_counts, lacking, needs_synthetic
from fundusgan_jax.studies.design_record import check_record
from fundusgan_jax.studies.fair_dataset import write_fair_dataset
from fundusgan_jax.studies.frozen_probe import Classifier, frozen_probe
from fundusgan_jax.studies.likeness import likeness, shortcut_records
from fundusgan_jax.studies.provenance import Provenance, provenance, refuse_leak
from fundusgan_jax.studies.statistics import summarise
from fundusgan_jax.studies.study_flags import PROBE, Request, class_groups, class_names
from fundusgan_jax.studies.study_heat_maps import heat_map_records
from fundusgan_jax.studies.study_images import (
    Photographs,
    Synthetic,
    check_sides,
    open_photographs,
    read_synthetic,
)
from fundusgan_jax.studies.study_page import write_report
from fundusgan_jax.studies.study_plan import print_plan
from fundusgan_jax.studies.study_results import Results, answers, write_results, write_table
from fundusgan_jax.studies.study_runs import (
    Case,
    Cell,
    Condition,
    Setting,
    pool_of,
    prepared_inputs,
    read_runs,
    rows_of_run,
    run_cells,
)

DESIGN = "design.json"
# (photographs, names of the classes) -> the conditions, and what of them belongs to the design.
Conditions = Callable[[Photographs, tuple[str, ...]], tuple[dict[str, Condition], dict[str, Any]]]


class _Material(NamedTuple):
    """All that is read before the first run."""

    names: tuple[str, ...]
    dataset: PackedDataset
    photographs: Photographs
    synthetic: Synthetic
    origin: Provenance | None
    external: Photographs | None
    external_fingerprint: str


def run_study(request: Request, title: str, conditions: Conditions, probe: Classifier | None) -> int:
    """Runs what is open, then writes study.json, table.csv and report.html; or prints the plan.

    Args:
        title: of the report. conditions: of the study. probe: None: the frozen-features probe.
    """
    material = _read(request)
    arms = _possible(request.arms, material)
    classifiers = _classifiers(request, material, probe)
    rows, facts = conditions(material.photographs, material.names)
    cases = {
        name if len(classifiers) == 1 else f"{name}, {network}": Case(condition, network)
        for network in classifiers
        for name, condition in rows.items()
    }
    # Whole seeds first, so that a study that is stopped has all arms of some.
    cells = [
        Cell(name, arm, seed)
        for seed in range(request.seeds)
        for name, case in cases.items()
        for arm in arms
        if arm != "augmented" or not classifiers[case.network].augments
    ]
    setting = Setting(
        material.photographs,
        material.synthetic,
        classifiers,
        {},
        cases,
        len(material.names),
        request.num_synthetic,
        request.fixed,
    )
    if request.write_dataset is not None:
        return _write_dataset(request.write_dataset, material, setting)
    print(
        "".join(f"note: {line}\n" for line in _shortages(setting, arms, material.names)), end="", flush=True
    )
    external = material.external.images if material.external else np.zeros((0, 0))
    turned = "augmented" in arms
    if request.plan:
        print_plan(request.workdir, setting, cells, material.names, len(external), turned)
        return 0
    with owned_folder(request.workdir) as workdir:
        design = {"study": title, **_design(request, material, classifiers), **facts}
        # Arms without synthetic images may run before there are any.
        check_record(workdir / DESIGN, design, later=("synthetic", "num_synthetic"))
        inputs = {
            network: prepared_inputs(
                workdir, classifier, material.photographs, material.synthetic, external, turned
            )
            for network, classifier in classifiers.items()
        }
        setting = setting._replace(inputs=inputs)
        run_cells(workdir, setting, cells)
        results = _results(workdir, setting, cells, design, material)
        with waiting("tables and pictures"):
            write_results(workdir, results)
            write_table(workdir, results)
            write_report(workdir, title, results)
    print("\n".join([*results.warnings(), *answers(results)]))
    print(f"table:  {request.workdir / 'table.csv'}\nreport: {request.workdir / 'report.html'}", flush=True)
    return 0


def _read(request: Request) -> _Material:
    groups = class_groups(request.classes)
    names = class_names(groups)
    dataset, photographs = open_photographs(request.data, groups)
    check_sides(request.data, photographs, names)
    origin, size = None, dataset.resolution
    synthetic = Synthetic(np.zeros((0, size, size, 3), np.uint8), np.zeros(0, np.int64), (), None, 0, "")
    if request.synthetic is not None:
        origin = provenance(request.synthetic, request.generator, dataset)
        print("\n".join(f"note: {line}" for line in origin.lines), flush=True)
        refuse_leak(origin, request.synthetic, request.allow_leak)
        synthetic = read_synthetic(request.synthetic, groups, origin.numbered, size, request.without_copies)
    material = _Material(names, dataset, photographs, synthetic, origin, None, "")
    return _with_external(material, request, groups, size) if request.external else material


def _classifiers(request: Request, material: _Material, probe: Classifier | None) -> dict[str, Classifier]:
    classifiers: dict[str, Classifier] = {}
    if PROBE in request.networks:
        classifiers[PROBE] = probe or frozen_probe(request.weights)
    networks = [name for name in request.networks if name != PROBE]
    if networks:
        from fundusgan_jax.studies.trained_network import study_settings, trained_network

        size = material.photographs.images.shape[1]
        for network in networks:
            settings = study_settings(request, network, material.names, size)
            classifiers[network] = trained_network(settings)
    return classifiers


def _with_external(
    material: _Material, request: Request, groups: tuple[tuple[str, ...], ...], size: int
) -> _Material:
    assert request.external is not None
    others = class_groups(request.external_classes) if request.external_classes else groups
    if len(others) != len(groups):
        raise UserError(
            f"--external_classes={request.external_classes} must name {len(groups)} classes, as --classes does"
        )
    dataset, photographs = open_photographs(request.external, others, "--external_classes")
    if dataset.fingerprint == material.dataset.fingerprint:
        raise UserError(f"--external={request.external} is --data itself; name photographs of other patients")
    if dataset.resolution != size:
        raise UserError(
            f"--external={request.external} has {dataset.resolution} px, --data {size} px; prepare it with --resolution={size}"
        )
    for number, name in enumerate(class_names(others)):
        if not (photographs.label == number).any():
            raise UserError(f"--external={request.external} has no photograph of {name}")
    return material._replace(external=photographs, external_fingerprint=dataset.fingerprint)


def _possible(arms: tuple[str, ...], material: _Material) -> tuple[str, ...]:
    """Those that can be had; of images of one class no classes can be permuted."""
    label = material.synthetic.label
    if "placebo" in arms and len(np.unique(label)) < 2:
        name = material.names[int(label[0])]
        print(f"note: arm 'placebo' is left out: all synthetic images are of class {name}", flush=True)
        return tuple(arm for arm in arms if arm != "placebo")
    return arms


def _shortages(setting: Setting, arms: tuple[str, ...], names: tuple[str, ...]) -> list[str]:
    """Arms that have fewer synthetic images than they would take with seed 0, one line each class."""
    pools = [pool_of(setting, rows_of_run(setting, condition, 0)[0]) for condition in setting.conditions]
    texts = []
    for arm in (one for one in arms if needs_synthetic(one) and one != "placebo"):
        most = np.max([lacking(arm, pool) for pool in pools], 0)
        texts += [
            f"arm '{arm}' lacks {count} synthetic images of {name}; --mode=generate --num draws more"
            for name, count in zip(names, most)
            if count > 0
        ]
    return texts


def _design(request: Request, material: _Material, classifiers: Mapping[str, Classifier]) -> dict[str, Any]:
    return {
        "classes": list(material.names),
        "dataset": material.dataset.fingerprint,
        "classifier": "; ".join(one.name for one in classifiers.values()),
        "synthetic": material.synthetic.fingerprint,
        "num_synthetic": request.num_synthetic,
        "fixed": request.fixed,
        "external": material.external_fingerprint,
        "external_classes": request.external_classes if request.external else "",
    }


def _write_dataset(directory: Path, material: _Material, setting: Setting) -> int:
    if len(setting.conditions) > 1:
        raise UserError(
            f"--write_dataset is of one condition, here are {', '.join(setting.conditions)}; give one of --ratios, and one of "
            "--networks"
        )
    rows, _ = rows_of_run(setting, next(iter(setting.conditions)), 0)
    write_fair_dataset(directory, material.dataset, material.photographs, rows)
    counts = class_counts(material.photographs.label[rows], len(material.names))
    shown = ", ".join(f"{name} {count}" for name, count in zip(material.names, counts))
    print(f"{directory}: {shown} in split 'train', the study's test photographs in 'test'", flush=True)
    return 0


def _results(
    workdir: Path, setting: Setting, cells: list[Cell], design: dict[str, Any], material: _Material
) -> Results:
    photographs, external = material.photographs, material.external
    runs = read_runs(workdir, cells)
    test = photographs.test
    return Results(
        design,
        material.names,
        photographs,
        external,
        material.synthetic,
        material.origin,
        shortcut_records(workdir, photographs, setting.inputs.get(PROBE), material.names),
        likeness(workdir, setting, setting.inputs.get(PROBE), material.names),
        heat_map_records(workdir, setting, cells, material.names),
        runs,
        summarise(runs, "test", photographs.label[test], photographs.patient[test]),
        summarise(runs, "external", external.label, external.patient) if external else [],
    )
