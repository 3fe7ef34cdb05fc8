"""train/loop.py: a signal at an awkward moment still saves; a step that is not finite stops the run or is passed over."""

import signal
from pathlib import Path
from types import SimpleNamespace

import pytest

from fundusgan_jax import progress
from fundusgan_jax.errors import UserError
from fundusgan_jax.evaluate.stop import Stopped
from fundusgan_jax.steps.step import Metrics, Phase, StepConstants, StepOutput
from fundusgan_jax.train import loop, phase_programs
from fundusgan_jax.train.stopping import due_step
from tests.support.tiny import tiny_config


def bare_trainer(bad_steps=(), start=0, due=None, **changes):
    """A Trainer whose devices, data and model are stand-ins; step k of `bad_steps` reports a NaN in 'l2'."""
    saved: list[int] = []
    drawn: list[int] = []
    seen: list[int] = []
    config = tiny_config(
        train__grid_every=1000, train__checkpoint_every=1000, train__eval_every=1000, **changes
    )

    def compile(step):
        def run(state, inputs, constants):
            seen.append(inputs.batch)
            bad = inputs.batch in bad_steps
            terms = {"loss": float("nan") if bad else float(inputs.batch)}
            return StepOutput(state, Metrics(terms, {"G: any": bad, "G: l2": bad, "G: lpips": False}))

        return run

    # pmap: programs that are not compiled ahead.
    same = {name: lambda x: x for name in ("replicate", "split", "single")}
    parallel = SimpleNamespace(mode="pmap", compile=compile, **same)
    task = SimpleNamespace(
        constants=StepConstants(),
        phases=lambda number: (Phase("G", lambda *given: given),),
        grows_before=lambda number: False,
        ranks=lambda number: True,
        draw=lambda number, state: drawn.append(number),
        evaluate=lambda number, state, should_stop: {},
    )
    logged: list[dict] = []
    checkpoints = SimpleNamespace(
        save=lambda step, state, metrics, progress: saved.append(step),
        add_metrics=lambda step, metrics: saved.append((step, metrics)),
        close=lambda: None,
        wait=lambda: None,
        best_step=lambda: None,
        latest_step=lambda: saved[-1] if saved else None,
    )
    trainer = loop.Trainer(
        SimpleNamespace(config=config, parallel=parallel, workdir=Path("RUN")),
        task,
        loop.Beginning(start, None, {}, due),
        checkpoints,
        SimpleNamespace(write=logged.append, close=lambda: None, logged=logged),
        (number for number in range(start + 1, config.train.num_steps + 1)),
    )
    if start < config.train.num_steps:
        trainer.prepare()
    return trainer, saved, drawn, seen


def test_a_signal_while_a_grid_is_drawn_saves_before_it_stops() -> None:
    trainer, saved, drawn, _ = bare_trainer()
    trainer.config.train.grid_every = 2

    def draw(number, state) -> None:
        drawn.append(number)
        if number == 4:
            signal.raise_signal(signal.SIGTERM)

    trainer.task.draw = draw
    assert not trainer.train()
    assert drawn == [2, 4] and saved == [5]


def scored(trainer, tmp_path, heard_at=None):
    """Evaluates every third step, and hears SIGTERM in the evaluation of `heard_at`; the steps whose evaluation ended."""
    trainer.run.workdir, trainer.config.train.eval_every = tmp_path, 3
    ended: list[int] = []

    def evaluate(number, state, should_stop):
        if number == heard_at:
            signal.raise_signal(signal.SIGTERM)
        if should_stop():
            raise Stopped
        ended.append(number)
        return {"ssim": 1.0}

    trainer.task.evaluate = evaluate
    return ended


def test_a_signal_ends_an_evaluation_which_the_resumed_run_makes(tmp_path, capfd):
    trainer, saved, drawn, _ = bare_trainer()
    ended = scored(trainer, tmp_path, heard_at=6)
    before = signal.getsignal(signal.SIGTERM), signal.getsignal(signal.SIGINT)
    assert not trainer.train()
    assert (ended, drawn, saved) == ([3], [3], [3, 6])
    assert "SIGTERM: saving after this step" in capfd.readouterr().err
    # Both signals are what they were.
    assert (signal.getsignal(signal.SIGTERM), signal.getsignal(signal.SIGINT)) == before
    assert due_step(tmp_path) == 6

    again, saved, drawn, seen = bare_trainer(start=6, due=6, train__num_steps=7)
    ended = scored(again, tmp_path)
    assert again.train()
    assert (ended, drawn, saved) == ([6, 7], [6, 7], [(6, {"ssim": 1.0}), 7])
    assert due_step(tmp_path) is None


def test_the_last_evaluation_may_be_left_too_and_nothing_else_is_then_to_be_done(tmp_path):
    trainer, saved, _, _ = bare_trainer(train__num_steps=3)
    scored(trainer, tmp_path, heard_at=3)
    assert not trainer.train() and saved == [3]
    again, saved, drawn, seen = bare_trainer(start=3, due=3, train__num_steps=3)
    ended = scored(again, tmp_path)
    assert again.train()
    assert (ended, drawn, saved, seen) == ([3], [3], [(3, {"ssim": 1.0})], [])


def test_a_signal_before_an_evaluation_does_not_begin_it(tmp_path):
    trainer, saved, _, _ = bare_trainer()
    ended = scored(trainer, tmp_path)
    trainer.config.train.grid_every = 2

    def draw(number, state) -> None:
        if number == 2:
            signal.raise_signal(signal.SIGTERM)

    trainer.task.draw = draw
    assert not trainer.train()
    assert (ended, saved, due_step(tmp_path)) == ([], [3], 3)


def test_time_spent_on_compiling_does_not_count_in_the_rate(monkeypatch, capsys):
    trainer, _, _, _ = bare_trainer(train__num_steps=2, train__log_every=1)
    now = [0.0]
    for module in (loop, progress, phase_programs):
        monkeypatch.setattr(module, "time", SimpleNamespace(monotonic=lambda: now[0]))
    compiled = trainer._programs._ready

    def slow(phase, *given):
        now[0] += 2.0 if phase.name in trainer._programs._programs else 100.0
        return compiled(phase, *given)

    monkeypatch.setattr(trainer._programs, "_ready", slow)
    trainer.train()
    # Written while the second step runs, for two seconds.
    assert trainer.log.logged[0]["img_per_sec"] == 4.0
    text = capsys.readouterr().err
    assert "compiling G: 0/1" in text and "16/16 (100 %), 8 img/s" in text and "| step 2 loss" in text


def test_a_step_that_is_not_finite_stops_and_names_step_term_and_the_last_good_checkpoint():
    trainer, saved, _, seen = bare_trainer(bad_steps=[7])
    trainer.config.train.checkpoint_every = 3
    with pytest.raises(UserError) as error:
        trainer.train()
    text = str(error.value)
    assert "step 7 " in text and "(G: l2)" in text and "checkpoint is step 6 of RUN" in text
    # Found when the step after it is under way, and never saved as if it were good.
    assert seen[-1] == 8 and saved == [3, 6]


def test_a_bad_step_at_a_checkpoint_is_found_before_it_is_saved():
    trainer, saved, _, _ = bare_trainer(bad_steps=[6])
    trainer.config.train.checkpoint_every = 3
    with pytest.raises(UserError, match="step 6 .*checkpoint is step 3"):
        trainer.train()
    assert saved == [3]


def test_skip_goes_on_and_says_so_but_not_for_ever(capsys):
    trainer, _, _, seen = bare_trainer([7, 9], train__on_nan="skip", train__num_steps=20)
    assert trainer.train()
    assert seen == list(range(1, 21))
    assert "step 7 is not finite (G: l2)" in capsys.readouterr().err

    trainer, _, _, seen = bare_trainer(range(5, 999), train__on_nan="skip", train__num_steps=998)
    with pytest.raises(UserError, match="50 steps in a row"):
        trainer.train()
    assert seen[-1] == 5 + loop.MOST_SKIPPED


def test_a_row_has_the_means_of_the_steps_since_the_last_one_without_those_that_were_left_out():
    trainer, *_ = bare_trainer([7], train__on_nan="skip", train__num_steps=10, train__log_every=4)
    assert trainer.train()
    rows = [(row["step"], row["loss"]) for row in trainer.log.logged if row["kind"] == "train"]
    assert rows == [(4, 2.5), (8, (5 + 6 + 8) / 3), (10, 9.5)]
