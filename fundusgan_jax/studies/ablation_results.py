"""What the cells of an ablation scored: one row a run, main effects over seeds, what is best, table.csv."""

from __future__ import annotations

import csv
import statistics
from collections.abc import Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from fundusgan_jax.atomic import atomic_write
from fundusgan_jax.metrics.contrasts import Effect, effect
from fundusgan_jax.metrics.signatures import SIGNATURES
from fundusgan_jax.report.evaluation import FULL_FOLDER, Evaluation, last_evaluation
from fundusgan_jax.report.table import HIGHER_IS_BETTER, shown, title_of
from fundusgan_jax.studies.ablation_grid import Cell, Changes, Design, cell_folder, counterpart
from fundusgan_jax.studies.ablation_runs import Steps, is_done
from fundusgan_jax.workdir.manifest import read_manifest
from fundusgan_jax.workdir.metrics_log import read_metrics

TABLE = "table.csv"
COPIES, NOVELTY, SECONDS = "copies", "mix_novelty", "seconds_per_step"
OF_PAIRS = ("ssim_fov", "psnr_fov", "lpips", "perceptual", "fid", "frechet")
OF_STRUCTURES = ("vessel_recall", "vessel_breaks", "disc_displacement", "sharpness_fine")
TITLES = {
    COPIES: "copies among mixes (share)",
    NOVELTY: "mixes' distance to training photographs (1: as to held-out ones)",
    SECONDS: "seconds a step",
}
# Besides those of report.table: more is better. Of sharpness and breaks nearer to the photograph's is.
MORE_IS_BETTER = (*HIGHER_IS_BETTER, "vessel_recall", NOVELTY, "sharpness_fine")


class Run(NamedTuple):
    """A finished cell. figures: by name, those that it has. log: rows of metrics.jsonl."""

    cell: Cell
    steps: int
    figures: dict[str, float]
    log: list[dict[str, Any]]


class Study(NamedTuple):
    """runs: finished cells. open_cells: names of the others. metric: that ranks the runs. mean_photograph: that metric of the
    mean of the training photographs in place of reconstructions, NaN where unknown."""

    design: Design
    runs: list[Run]
    open_cells: list[str]
    metric: str
    mean_photograph: float = float("nan")

    @property
    def figures(self) -> list[str]:
        """Names of all figures that any run has, in the table's order."""
        known = {name for run in self.runs for name in run.figures}
        order = (*OF_PAIRS, *OF_STRUCTURES, COPIES, NOVELTY, SECONDS)
        return [name for name in order if name in known]

    def cells(self, figure: str) -> dict[Changes, list[float]]:
        """The figure of each cell's runs (seeds); runs without it do not count."""
        values: dict[Changes, list[float]] = {}
        for run in self.runs:
            if np.isfinite(run.figures.get(figure, np.nan)):
                values.setdefault(run.cell.changes, []).append(run.figures[figure])
        return values


class MainEffect(NamedTuple):
    """What one value of a setting changes in a figure, against the base's own value."""

    setting: str
    value: Any
    figure: str
    effect: Effect


def figures_of(evaluation: Evaluation, log: Sequence[dict[str, Any]], batch_size: int) -> dict[str, float]:
    """The study's columns of one run, those that it has: disc and vessels are measured from 128 px on."""
    figures = {name: evaluation.model[name] for name in OF_PAIRS if name in evaluation.model}
    if evaluation.signatures is not None:
        structures = evaluation.signatures.model
        figures |= {name: structures[name] for name in OF_STRUCTURES if name in structures}
    memory = evaluation.memorisation
    if memory is not None:
        figures[COPIES] = memory.flagged.either / memory.num_generated
        figures[NOVELTY] = memory.nearer.median_distance_train / max(
            memory.nearer.median_distance_held_out, 1e-12
        )
    rates = [row["img_per_sec"] for row in log if row.get("kind") == "train" and row.get("img_per_sec")]
    if rates:
        figures[SECONDS] = batch_size / statistics.median(rates)
    return {name: value for name, value in figures.items() if np.isfinite(value)}


def collect(workdir: Path, design: Design, cells: Sequence[Cell]) -> Study:
    """Reads the finished cells of a study's workdir."""
    steps, runs, left, metric, mean = Steps(workdir, design), [], [], "", float("nan")
    for cell in cells:
        folder = cell_folder(workdir, cell)
        evaluation = last_evaluation(folder / FULL_FOLDER)
        if evaluation is None or not is_done(folder, total := steps.of(cell.changes)):
            left.append(cell.name)
            continue
        manifest, log = read_manifest(folder) or {}, read_metrics(folder)
        metric = metric or str(manifest.get("best_metric", ""))
        mean = evaluation.baselines.get("mean", {}).get(metric, mean)
        batch_size = manifest["config"]["train"]["batch_size"]
        runs.append(Run(cell, total, figures_of(evaluation, log, batch_size), log))
    return Study(design, runs, left, metric, mean)


def main_effects(study: Study, figure: str) -> list[MainEffect]:
    """Of every value of every setting: the mean difference to the cells that differ in this setting alone."""
    cells = study.cells(figure)
    effects = []
    for setting, values in study.design.vary.items():
        for value in values[1:]:
            pairs = [
                (changes, counterpart(changes, setting))
                for changes in cells
                if (setting, value) in changes and counterpart(changes, setting) in cells
            ]
            if pairs:
                effects.append(MainEffect(setting, value, figure, effect(cells, pairs)))
    return effects


def best_cell(study: Study) -> tuple[Changes, Effect | None] | None:
    """The settings with the best mean of the ranking metric, and their difference to the base, None for the base itself;
    None where no run has the metric."""
    cells = study.cells(study.metric)
    if not cells:
        return None
    choose = max if study.metric in MORE_IS_BETTER else min
    best = choose(cells, key=lambda changes: float(np.mean(cells[changes])))
    return best, effect(cells, [(best, ())]) if best and () in cells else None


def hardly_trained(study: Study) -> str:
    """A sentence where the base is no better than the mean of the training photographs; '' where it is, or not known."""
    runs = study.cells(study.metric).get((), [])
    sign = 1 if study.metric in MORE_IS_BETTER else -1
    if not runs or not sign * (float(np.mean(runs)) - study.mean_photograph) <= 0:
        return ""
    return (
        f"The base is no better than the mean photograph ({title_of(study.metric)} {shown(float(np.mean(runs)))} against "
        f"{shown(study.mean_photograph)}): it is hardly trained, and effects may differ later. Give a larger budget."
    )


def verdict(study: Study) -> str:
    """One sentence: how many effects the study tells apart from the spread of seeds."""
    effects = main_effects(study, study.metric)
    if not effects:
        return "No effect can be computed yet: finish the base and one changed cell."
    if all(np.isnan(one.effect.interval.low) for one in effects):
        return "One seed a cell says nothing about the spread of seeds: give --seeds=2 or more."
    apart = [f"{one.setting}={one.value}" for one in effects if one.effect.told_apart]
    title = title_of(study.metric)
    if not apart:
        return (
            f"No setting can be told apart from the base by {title}: all {len(effects)} differences lie within the spread of "
            "seeds. Give a larger budget or more seeds, or make no claim."
        )
    chance = f"about {0.05 * len(effects):.1f} of {len(effects)} would be by chance"
    return (
        f"Told apart from the base by {title}: {', '.join(apart)} ({len(apart)} of {len(effects)}; {chance})."
    )


def write_table(workdir: Path, study: Study) -> Path:
    """WORKDIR/table.csv: one row a finished run."""
    settings, path = list(study.design.vary), workdir / TABLE
    base = {name: values[0] for name, values in study.design.vary.items()}
    with atomic_write(path) as temporary, open(temporary, "w", newline="") as handle:
        writer = csv.writer(handle)
        writer.writerow(["cell", "seed", "steps", *settings, *study.figures])
        for run in study.runs:
            chosen = base | dict(run.cell.changes)
            figures = [run.figures.get(name, "") for name in study.figures]
            writer.writerow([run.cell.name, run.cell.seed, run.steps, *chosen.values(), *figures])
    return path


def figure_title(name: str) -> str:
    """For people."""
    return TITLES.get(name) or (SIGNATURES[name][0] if name in SIGNATURES else title_of(name))
