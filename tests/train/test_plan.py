"""--mode=plan: compiles training's own phases, finds the largest batch that fits, needs neither data nor weights."""

import jax
import pytest

from fundusgan_jax.config import load_config
from fundusgan_jax.errors import UserError
from fundusgan_jax.main import main
from fundusgan_jax.train import plan, plan_report, step_time
from fundusgan_jax.train.call_programs import programs_of
from fundusgan_jax.train.calls import calls
from fundusgan_jax.train.phase_programs import Ready
from fundusgan_jax.train.plan import EXHAUSTED, Need, Planner, perceptual_shapes, read_off, search
from fundusgan_jax.train.step_time import step_seconds
from fundusgan_jax.validation import validate
from tests.support.tiny import tiny_config, tiny_prior_config


def test_the_line_through_compiled_sizes():
    points = [Need(8, 10, 100, True), Need(2, 10, 40, True), Need(32, 10, 580, True)]
    assert read_off(points, 4) == Need(4, 10, 60, False)
    assert read_off(points, 16).total == 260
    assert read_off(points, 64).total == 1220
    assert read_off(points, 1).total == 30
    # A size that could not even be compiled is no point of the line.
    assert read_off([*points, Need(64, 0, plan.EXHAUSTED, True)], 128).total == 2500
    assert read_off(points[:1], 16) == Need(16, 10, 190, False)


def test_exhaustion_while_compiling_is_a_size_that_does_not_fit(monkeypatch):
    def exhausted(*arguments):
        raise jax.errors.JaxRuntimeError("RESOURCE_EXHAUSTED: Out of memory while trying to allocate")

    monkeypatch.setattr(plan, "compile_all", exhausted)
    assert Planner(tiny_prior_config()).need(1) == Need(1, 0, plan.EXHAUSTED, True)


def test_the_adversary_begins_after_its_step():
    config = tiny_config(loss__adv=0.1, loss__adv_start=4, train__r1_every=2)
    task = Planner(config).task(config)
    named = {number: [phase.name for phase in task.phases(number)] for number in (1, 4, 5, 6)}
    alone = ["generator without adversary"]
    assert named == {
        1: alone,
        4: alone,
        5: ["generator", "discriminator"],
        6: ["generator", "discriminator with R1"],
    }
    config.train.steps_per_call = 3
    config.train.update(dict.fromkeys(("log_every", "grid_every", "eval_every", "checkpoint_every"), 3))
    with pytest.raises(UserError, match="loss.adv_start=4 is not a multiple of .* --config.loss.adv_start=3"):
        validate(config, 1)


class Curve:
    """A planner whose step needs 100 bytes, or 10 an image where that is more."""

    def __init__(self):
        self.asked = []

    def need(self, size):
        self.asked.append(size)
        return Need(size, 50, max(100, 10 * size), True)


@pytest.mark.parametrize(("first", "limit", "best"), [(1, 700, 64), (8, 700, 64), (64, 170, 16), (256, 100, 8),
                                                      (8, 99, 0), (2, 10**9, 256)])  # fmt: skip
def test_the_largest_batch_is_found_in_few_compilations(first, limit, best):
    curve = Curve()
    found = search(curve, [2**k for k in range(9)], first, limit)
    assert max((need.per_device for need in found if need.total <= limit), default=0) == best
    assert len(set(curve.asked)) == len(curve.asked) <= 7


@pytest.mark.parametrize(
    "batch, parts, sizes", [(12, 3, [3, 6, 12]), (32, 8, [8, 16, 32]), (5, 1, [1, 2, 4])]
)
def test_only_sizes_are_planned_that_training_takes(batch, parts, sizes):
    config = tiny_config(train__batch_size=batch, train__accumulate=parts)
    assert Planner(config, jax.devices()[:1]).sizes()[: len(sizes)] == sizes


def test_the_phases_are_trainings_own_and_growing_networks_have_their_final_size():
    names = [
        {phase.name for call in planner.calls(planner.task(config))[0] for phase in programs_of(call)}
        for config in (
            tiny_prior_config(train__num_steps=100),
            tiny_config(loss__adv=0.1, train__num_steps=20),
            tiny_prior_config(model__style="adain", growth__fade_kimg=0.016, growth__stable_kimg=0.016,
                              train__num_steps=100),
        )
        for planner in [Planner(config)]
    ]  # fmt: skip
    assert names[0] == {
        "G at 16 px", "G + path length at 16 px", "D at 16 px", "D + R1 at 16 px"}  # fmt: skip
    assert names[1] == {"generator", "discriminator", "discriminator with R1"}
    assert names[2] == {"G at 16 px", "D at 16 px", "D + R1 at 16 px"}


def test_the_perceptual_network_needs_no_weights_file():
    net = perceptual_shapes(tiny_config(loss__lpips=0.8))
    assert net.metric == "lpips" and len(net.heads) == 5
    assert all(isinstance(leaf, jax.ShapeDtypeStruct) for leaf in jax.tree.leaves(net))
    assert perceptual_shapes(tiny_config(loss__lpips=0.8, loss__perceptual_net="squeezenet")).heads is None


@pytest.mark.slow
def test_a_plan_of_the_command(monkeypatch, capsys):
    """A device of 64 KiB: not even one image fits."""
    monkeypatch.setattr(plan_report, "device_memory", lambda device: 2**16)
    words = [
        "data.resolution=16", "model.resolution=16", "model.channel_base=128", "model.channel_max=8", "model.w_dim=8",
        "model.z_dim=8", "model.mapping_layers=2", "loss.pl_weight=0.0", "loss.r1_gamma=0.0", "augment.mode=none", "train.batch_size=8",
    ]  # fmt: skip
    words = [f"--config.{word}" for word in words]
    with pytest.raises(UserError, match="--workdir is missing"):
        main(["--config=configs/stylegan2.py", *words])
    with pytest.raises(UserError, match="--config is missing"):
        main(["--mode=plan"])
    assert main(["--config=configs/stylegan2.py", "--mode=plan", *words]) == 0
    told = capsys.readouterr().out
    for part in ("devices: 8 x cpu, 0 MiB each", "M (mapping ", ", discriminator ", "GFLOP per image of a step",
                 "| 8 | 1 |", "train.remat=True", "train.accumulate=2", "no step is timed: none fits"):  # fmt: skip
        assert part in told, part
    rows = [line for line in told.splitlines() if line.startswith("| 8, ") or line.startswith("| 16, ")]
    assert len(rows) == 2 and all(row.endswith("| compiled, does not fit |") for row in rows)
    assert "train.batch_size=8 does not fit" in told and "a smaller model or more devices" in told


def test_photographs_on_the_devices_count():
    config = tiny_prior_config(
        data__dataset="phantom",
        data__phantom_num=8,
        data__cache="device",
        loss__pl_weight=0.0,
        loss__r1_gamma=0.0,
    )
    kept = plan.kept_photographs(config)
    assert 0 < kept < 16
    assert plan.kept_photographs(tiny_prior_config(data__dataset="phantom")) == 0
    with pytest.raises(UserError, match="give --config.data.dir=DIR"):
        plan.kept_photographs(tiny_prior_config(data__cache="device"))
    few, many = (Planner(config, jax.devices()[:1], count) for count in (kept, 1000 * kept))
    held = [next(planner.lowered(planner.task(planner.config))).there for planner in (few, many)]
    assert held[1] - held[0] == 999 * kept * (16 * 16 * 3 + 2 * 4)


@pytest.mark.parametrize(
    "without, with_remat, advised",
    [(900, 1000, False), (1000, 1000, False), (1000, 900, True), (EXHAUSTED, EXHAUSTED, True)],
)
def test_rematerialisation_is_advised_where_it_saves_or_nobody_knows(
    monkeypatch, capsys, without, with_remat, advised
):
    monkeypatch.setattr(plan_report, "device_memory", lambda device: 1)

    def need(planner, size, remat=False, accumulate=1):
        return Need(size, 1, with_remat if remat else without, True)

    monkeypatch.setattr(Planner, "need", need)
    plan_report.print_plan(load_config("configs/stylegan2.py", ["--config.train.batch_size=8"]))
    told = capsys.readouterr().out
    assert "does not fit" in told
    assert ("--config.train.remat=True" in told) == advised


def test_a_plan_times_a_step_where_no_limit_is_known(monkeypatch, capsys):
    monkeypatch.setattr(plan_report, "device_memory", lambda device: None)
    monkeypatch.setattr(plan_report, "step_seconds", lambda programs, ahead: 2.0)
    monkeypatch.setattr(Planner, "compiled", lambda planner, size: {})
    monkeypatch.setattr(Planner, "need", lambda planner, size, **more: Need(size, 1, 900, True))
    config = load_config("configs/stylegan2.py", ["--config.train.batch_size=8", "--config.data.resolution=16",
                                                  "--config.model.resolution=16", "--config.train.num_steps=3600"])  # fmt: skip
    plan_report.print_plan(config)
    told = capsys.readouterr().out
    assert "this device names no limit\n\nmeasured: a step of 8 images takes 2 s here (4 img/s): " in told
    assert "1.8e+03 steps an hour at batch_size=8, 2 hours for num_steps=3600" in told


@pytest.mark.slow
def test_a_real_step_is_timed_by_its_programs_shares():
    config = tiny_prior_config(train__num_steps=16, loss__pl_weight=0.0, train__r1_every=4)
    planner = Planner(config)
    programs = planner.compiled(1)
    assert set(programs) == {"G at 16 px", "D at 16 px", "D + R1 at 16 px"}
    ahead = list(calls(planner.task(config), 0, 16, 1))
    whole = step_seconds(programs, ahead)
    assert 0 < whole < 60


def test_the_schedule_weighs_the_programs(monkeypatch):
    seconds = {"G at 16 px": 1.0, "D at 16 px": 2.0, "D + R1 at 16 px": 4.0}
    monkeypatch.setattr(step_time, "_call_seconds", lambda run: seconds[run])
    config = tiny_prior_config(train__num_steps=16, loss__pl_weight=0.0, train__r1_every=4)
    ahead = calls(Planner(config).task(config), 0, 16, 1)
    assert step_seconds({name: Ready(name, None) for name in seconds}, ahead) == 1 + (3 * 2 + 4) / 4


def test_no_batch_is_larger_than_the_set():
    config = tiny_config(train__batch_size=8)
    assert Planner(config, jax.devices()[:1], photographs=24).sizes() == [1, 2, 4, 8, 16]
    assert Planner(config, jax.devices()[:1], photographs=3).sizes() == [1, 2, 4, 8]  # the settings' own
