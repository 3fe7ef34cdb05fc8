"""An ablation: its grid, its lines, how it goes on, what it concludes from known figures; a real one is slow."""

import csv
import itertools
import json
import subprocess
import sys
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest

from fundusgan_jax.config import load_config
from fundusgan_jax.errors import STOPPED, UserError
from fundusgan_jax.folder_lock import owned_name
from fundusgan_jax.studies import ablation
from fundusgan_jax.studies.ablation_grid import Cell, Design, cell_folder, counterpart, grid, parsed_vary
from fundusgan_jax.studies.ablation_page import best_line, pareto, write_report
from fundusgan_jax.studies.ablation_results import (
    Run,
    Study,
    best_cell,
    collect,
    figures_of,
    hardly_trained,
    main_effects,
    verdict,
    write_table,
)
from fundusgan_jax.studies.ablation_runs import STUDY, check_study, run_cells, run_process, training_words

ROOT = Path(__file__).resolve().parents[2]
VARY = {"model.delta": (1, 0, 2), "loss.l2": (1.0, 10.0)}
DEMO = ("--config.model.delta=1",)


def design(**changes):
    return Design("configs/demo.py", DEMO, VARY, False, 2, 40, 0.0)._replace(**changes)


def test_one_setting_at_a_time_has_the_base_once_and_whole_seeds_first():
    cells = grid(design())
    assert [cell.name for cell in cells[:4]] == [
        "base-seed0", "model.delta=0-seed0", "model.delta=2-seed0", "loss.l2=10.0-seed0"]  # fmt: skip
    assert [cell.seed for cell in cells] == [0] * 4 + [1] * 4
    everything = grid(design(product=True, seeds=1))
    assert len(everything) == len({cell.name for cell in everything}) == 6
    both = (("loss.l2", 10.0), ("model.delta", 2))
    assert both in [cell.changes for cell in everything]
    assert counterpart(both, "loss.l2") == (("model.delta", 2),)


@pytest.mark.parametrize(("steps", "every"), [(250, 63), (400, 100), (3, 1)])
def test_a_run_is_evaluated_at_most_four_times_and_at_its_end_once(steps, every):
    words = training_words(design(), Cell((), 0), Path("cell"), steps)
    assert f"--config.train.num_steps={steps}" in words
    assert f"--config.train.eval_every={every}" in words
    assert -(-steps // every) <= 4


def test_values_have_their_settings_type_and_the_base_its_own_first():
    base = load_config("configs/demo.py", list(DEMO))
    assert parsed_vary(base, ["model.delta=0,1,0", "loss.l2=10"]) == {
        "model.delta": (1, 0),
        "loss.l2": (1.0, 10.0),
    }


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["--vary=model.detla=1"], "did you mean --config.model.delta"),
        (["--vary=model.delta=x"], "is not a whole number"),
        (["--vary=model.delta"], "has no values"),
        (["--vary=seed=1,2"], "seed is not varied"),
        (["--vary=model.delta=7"], "does not fit 64 px|does not fit"),
        (["--minutes=1", "--photographs=3"], "both given"),
        (["--seeds=0"], "must be at least 1"),
        (["--config=configs/demo.py"], "is no study's"),
        (["--base=configs/ablation.py"], "is of a study"),
        (["--base=configs/cpu.py"], "--data is missing"),
    ],
)
def test_a_mistake_is_one_line(tmp_path, words, message):
    default = ["--base=configs/demo.py", f"--workdir={tmp_path / 'study'}"]
    with pytest.raises(UserError, match=message):
        ablation.main([*default, *words])


def finish(folder, steps, perceptual=0.5):
    """What a training and --mode=eval leave, as far as the study reads it."""
    (folder / "evaluation").mkdir(parents=True)
    baselines = {"mean": {"perceptual": 0.7}}
    content = {"split": "test", "num_images": 3, "resolution": 64, "baselines": baselines, "step": steps,
               "model": {"ssim_fov": 0.9, "perceptual": perceptual}}  # fmt: skip
    (folder / "evaluation" / "eval.json").write_text(json.dumps(content))
    record = {"best_metric": "perceptual", "config": {"train": {"batch_size": 4}}}
    (folder / "manifest.json").write_text(json.dumps(record))
    rows = [{"kind": "train", "step": 1, "kimg": 0.1, "img_per_sec": 2.0},
            {"kind": "eval", "step": steps, "kimg": 0.2, "perceptual": perceptual}]  # fmt: skip
    (folder / "metrics.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))


class Commands:
    """Stands for `python WORDS`: an evaluation leaves its files; `codes` are the first exit codes."""

    def __init__(self, codes=()):
        self.lines, self.codes = [], list(codes)

    def __call__(self, words):
        self.lines.append(list(words))
        code = self.codes.pop(0) if self.codes else 0
        if not code and "--mode=eval" in words:
            folder = next(Path(word.split("=", 1)[1]) for word in words if word.startswith("--workdir="))
            trained = next(
                line for line in self.lines if f"--workdir={folder}" in line and "--mode=eval" not in line
            )
            steps = next(int(word.split("=")[1]) for word in trained if "num_steps" in word)
            finish(folder, steps)
        return code


def test_every_cell_is_trained_and_evaluated_once_and_goes_on_where_it_was(tmp_path):
    cells, first = grid(design()), Commands([0, 0, STOPPED])
    assert run_cells(tmp_path, design(), cells, lambda: None, first).stopped and len(first.lines) == 3
    again = Commands()
    outcome = run_cells(tmp_path, design(), cells, lambda: None, again)
    assert outcome.done == [cell.name for cell in cells] and not outcome.failed
    assert len(again.lines) == 2 * 7  # all but the base of the first seed
    line = again.lines[0]
    steps = -(-40 // load_config("configs/demo.py", []).train.batch_size)
    assert {"--config.model.delta=0", "--config.seed=0", f"--config.train.num_steps={steps}"} <= set(line)
    assert Path(next(word.split("=", 1)[1] for word in line if "--workdir" in word)) == cell_folder(
        tmp_path, cells[1]
    )
    assert not list((tmp_path / "cells").glob(".*lock"))


def test_a_cell_that_fails_or_is_held_elsewhere_is_named_and_the_others_go_on(tmp_path):
    cells = grid(design())
    held = cell_folder(tmp_path, cells[2])
    code = (
        "import sys, time\nfrom pathlib import Path\nfrom fundusgan_jax.folder_lock import owned_name\n"
        "with owned_name(Path(sys.argv[1])):\n    print('held', flush=True)\n    time.sleep(60)"
    )
    other = subprocess.Popen(
        [sys.executable, "-c", code, str(held)], stdout=subprocess.PIPE, text=True, cwd=ROOT
    )
    try:
        assert other.stdout.readline() == "held\n"
        outcome = run_cells(tmp_path, design(), cells, lambda: None, Commands([2]))
    finally:
        other.kill()
        other.wait()
    assert outcome.failed == {"base-seed0": 2} and outcome.elsewhere == [cells[2].name]
    assert len(outcome.done) == 6
    with owned_name(held):
        pass


def test_a_study_keeps_its_budget_and_may_grow(tmp_path):
    check_study(tmp_path, design())
    check_study(tmp_path, design(seeds=3, vary={"loss.l2": (1.0, 5.0)}))
    with pytest.raises(UserError, match="photographs=40, this one has 80"):
        check_study(tmp_path, design(photographs=80))
    (tmp_path / STUDY).write_text("{")
    with pytest.raises(UserError, match="is damaged"):
        check_study(tmp_path, design())


def test_minutes_become_steps_by_a_step_that_is_timed_once(tmp_path):
    (tmp_path / "step_times.json").write_text(json.dumps({"base": 0.5, "model.delta=2": 2.0}))
    from fundusgan_jax.studies.ablation_runs import Steps

    steps = Steps(tmp_path, design(photographs=0, minutes=2.0))
    assert steps.of(()) == 240 and steps.of((("model.delta", 2),)) == 60
    assert steps.of((("loss.l2", 10.0),)) == 240  # the same program as the base's


def known_study(noise, product=False):
    """Runs whose perceptual distance is 0.5 + 0.1 delta - 0.02 (l2 = 10) and noise of the seed."""
    rng, runs = np.random.default_rng(0), []
    for cell in grid(design(product=product, seeds=3)):
        changes = {"model.delta": 1, "loss.l2": 1.0} | dict(cell.changes)
        value = 0.5 + 0.1 * changes["model.delta"] - 0.02 * (changes["loss.l2"] == 10)
        figures = {"perceptual": value + noise * rng.standard_normal(), "copies": 0.1, "mix_novelty": 1.0}
        log = [{"kind": "eval", "kimg": at, "perceptual": value} for at in (1, 2)]
        runs.append(Run(cell, 10, figures, log))
    return Study(design(product=product, seeds=3), runs, [], "perceptual")


@pytest.mark.parametrize("product", [False, True])
def test_effects_of_known_figures_are_recovered_or_called_noise(product):
    study = known_study(1e-4, product)
    effects = {(one.setting, one.value): one.effect for one in main_effects(study, "perceptual")}
    assert effects["model.delta", 0].value == pytest.approx(-0.1, abs=1e-3)
    assert effects["loss.l2", 10.0].value == pytest.approx(-0.02, abs=1e-3)
    assert effects["loss.l2", 10.0].pairs == (3 if product else 1)
    assert all(one.told_apart for one in effects.values()) and verdict(study).startswith("Told apart")
    best = (("loss.l2", 10.0), ("model.delta", 0)) if product else (("model.delta", 0),)
    assert best_cell(study)[0] == best and "--config.model.delta=0" in best_line(study)
    assert "seed" not in best_line(study).split("\n")[1]
    noisy = known_study(3.0, product)
    assert verdict(noisy).startswith("No setting can be told apart")


def test_a_base_that_is_no_better_than_the_mean_photograph_is_named(tmp_path):
    study = known_study(1e-4)  # the base's distance is 0.6
    assert hardly_trained(study) == "" and hardly_trained(study._replace(mean_photograph=0.61)) == ""
    early = study._replace(mean_photograph=0.59)
    assert "hardly trained" in hardly_trained(early) and "0.6" in hardly_trained(early)
    assert "hardly trained" in write_report(tmp_path, early).read_text()
    assert hardly_trained(early._replace(metric="ssim_fov")) == ""  # no run has it


def test_one_seed_makes_no_claim():
    study = known_study(1e-4)
    alone = study._replace(runs=[run for run in study.runs if run.cell.seed == 0])
    assert verdict(alone).startswith("One seed a cell says nothing")


def test_table_and_report_hold_every_run(tmp_path):
    study = known_study(1e-3)
    with open(write_table(tmp_path, study)) as handle:
        rows = list(csv.DictReader(handle))
    assert len(rows) == 12 and rows[1]["model.delta"] == "0" and rows[0]["loss.l2"] == "1.0"
    page = write_report(tmp_path, study).read_text()
    assert page.count("data:image/png") == 2 and "model.delta = 2" in page and "Told apart" in page


def test_collect_reads_what_the_commands_left(tmp_path):
    cells = grid(design())
    run_cells(tmp_path, design(), cells[:2], lambda: None, Commands())
    study = collect(tmp_path, design(), cells)
    assert [run.cell for run in study.runs] == cells[:2] and len(study.open_cells) == 6
    assert study.runs[0].figures == {"ssim_fov": 0.9, "perceptual": 0.5, "seconds_per_step": 2.0}
    assert study.mean_photograph == 0.7
    assert Cell((), 0).name == "base-seed0"


def test_a_figure_that_is_not_known_is_no_column():
    memory = SimpleNamespace(
        flagged=SimpleNamespace(either=2),
        num_generated=8,
        nearer=SimpleNamespace(median_distance_train=0.9, median_distance_held_out=1.0),
    )
    found = SimpleNamespace(model={"vessel_recall": np.nan, "sharpness_fine": 0.2})
    evaluation = SimpleNamespace(model={"lpips": 0.3}, signatures=found, memorisation=memory)
    assert figures_of(evaluation, [], 8) == {
        "lpips": 0.3, "sharpness_fine": 0.2, "copies": 0.25, "mix_novelty": 0.9}  # fmt: skip


def test_pareto_keeps_what_none_beats_in_both():
    points = [(0, 0), (1, 1), (2, 0.5), (0.5, 0.5), (1, 1)]
    brute = [
        k for k, p in enumerate(points)
        if not any(q[0] >= p[0] and q[1] <= p[1] and q != p for q in points)
    ]  # fmt: skip
    assert pareto(points, (1, -1)) == brute == [0, 2]
    assert list(itertools.chain(pareto(points, (1, 1)))) == [1, 2, 4]


def test_a_process_gives_its_exit_code(tmp_path):
    assert run_process(["-c", "raise SystemExit(75)"]) == 75


@pytest.mark.slow
def test_a_small_study_ends_in_table_report_and_the_best_line(tmp_path, capfd):
    words = ["--base=configs/demo.py", f"--workdir={tmp_path}", "--vary=loss.l2=10", "--seeds=1", "--photographs=16",
             "--config.data.phantom_num=16", "--config.optim.decay=constant"]  # fmt: skip
    assert ablation.main(words) == 0
    with open(tmp_path / "table.csv") as handle:
        assert len(list(csv.DictReader(handle))) == 2
    shown = capfd.readouterr().out
    assert (
        "2 of 2 runs are finished" in shown
        and "python -m fundusgan_jax.main --config=configs/demo.py" in shown
    )
    assert ablation.main(words) == 0 and "steps\n" not in capfd.readouterr().out.split("cell ")[0]
