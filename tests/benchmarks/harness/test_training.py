"""The training benchmarks run the real tasks' phases with the state donated, and average them over the schedule."""

import jax
import pytest

from benchmarks import input, scaling, train_step
from benchmarks.harness.timing import Measurement, Program, Work, read_lines
from benchmarks.harness.training import (
    Choice,
    Training,
    averaged,
    joined,
    parts_of,
    period,
    random_dataset,
    training_config,
    training_run,
)
from benchmarks.scaling import add_efficiency
from benchmarks.train_step import main
from fundusgan_jax.errors import UserError
from fundusgan_jax.steps.flops import STEP, phase_flops
from fundusgan_jax.train import opening

# Small, and with few transforms, because they are compiled with every phase.
PRIOR = [
    "--config=configs/stylegan2.py", "--resolution=16", "--channels=8", "--batch=4", "--calls=1", "--in_process",
    "--config.model.w_dim=8", "--config.model.z_dim=8", "--config.model.mapping_layers=2",
    "--config.augment.mode=none", "--config.train.r1_every=2", "--config.train.pl_every=2",
]  # fmt: skip
FUNDUSGAN = [
    "--config=configs/ddr.py", "--resolution=64", "--channels=8", "--batch=4", "--calls=1", "--in_process",
    "--config.model.w_dim=8", "--config.encoder.backbone=resnet18", "--config.model.resolution=64",
]  # fmt: skip

# The phase that takes longest to compile.
NO_PATH_LENGTH = "--config.loss.pl_weight=0"
NO_REGULARISERS = (NO_PATH_LENGTH, "--config.loss.r1_gamma=0")


def prior_choice(*more):
    overrides = [word for word in [*PRIOR, *more] if word.startswith("--config.")]
    return Choice("configs/stylegan2.py", overrides, 16, 4, channels=8)


@pytest.mark.slow
def test_a_priors_phases(tmp_path, capsys):
    file = tmp_path / "a.jsonl"
    assert main([*PRIOR, NO_PATH_LENGTH, f"--json={file}"]) == 0
    found = {record["settings"]["phase"]: record for record in read_lines(file)}
    assert list(found) == ["G at 16 px", "D at 16 px", "D + R1 at 16 px", "step"]
    seconds = {name: record["seconds_median"] for name, record in found.items()}
    # R1 in half of the steps.
    expected = seconds["G at 16 px"] + (seconds["D at 16 px"] + seconds["D + R1 at 16 px"]) / 2
    assert seconds["step"] == pytest.approx(expected)
    counted = phase_flops(training_config(prior_choice(NO_PATH_LENGTH)))[STEP] / 1e9
    assert found["step"]["gflop_per_image"] == pytest.approx(counted)
    assert found["step"]["calls"] == 1 and found["step"]["settings"]["config.train.r1_every"] == "2"
    assert "| step |" in capsys.readouterr().out


@pytest.mark.slow
def test_fundusgan_learns_on_two_devices():
    overrides = [word for word in FUNDUSGAN if word.startswith("--config.")]
    choice = Choice("configs/ddr.py", [*overrides, "--config.loss.lpips=0"], 64, 4, "float32", 0.0, 8, 2)
    training = Training(choice)
    (part,) = training.parts()
    program = training.compile(part)
    before = jax.tree.leaves(training._state)
    state, metrics, _ = training.call(part, program)
    assert all(leaf.is_deleted() for leaf in before if leaf.ndim), "the state is donated"
    assert {"l2", "reg"} <= set(metrics.terms)
    assert len(state.step.sharding.device_set) == 2 and int(state.step) == 1


@pytest.mark.slow
@pytest.mark.parametrize("cache", ["device", "none"])
def test_steps_fed_by_a_pipeline(cache, tmp_path, capsys):
    pytest.importorskip("tensorflow_datasets")
    file = tmp_path / "a.jsonl"
    words = [word for word in PRIOR if not word.startswith("--config.train")]
    more = [*NO_REGULARISERS, "--patients=6", "--resolution=32", f"--cache={cache}", f"--json={file}"]
    assert input.main([*words, *more, "--calls=3"]) == 0
    (record,) = read_lines(file)
    figures = record["figures"]
    assert record["settings"]["cache"] == cache and record["img_per_sec"] > 0
    assert record["compile_seconds"] > 0 and record["planned_bytes"] > 0
    assert 0 <= figures["waiting"] < 1 and figures["pipeline alone, img/s"] > 0
    assert "| waiting |" in capsys.readouterr().out


def test_a_pipeline_without_a_step(tmp_path, capsys, monkeypatch):
    dataset = random_dataset(training_config(prior_choice()))
    monkeypatch.setattr(input, "prepared_phantoms", lambda folder, patients, resolution: dataset)
    monkeypatch.setattr(Training, "compile", None)  # nothing is to be compiled
    file = tmp_path / "a.jsonl"
    words = [*PRIOR, "--what=pipeline", "--cache=host,device", "--calls=3", f"--json={file}"]
    assert input.main(words) == 0
    host, device = read_lines(file)
    assert [record["settings"]["cache"] for record in (host, device)] == ["host", "device"]
    figures = host["figures"]
    assert figures["GB/s"] == pytest.approx(host["img_per_sec"] * 16 * 16 * 3 / 1e9)
    assert figures["one copy, img/s"] > 0 and not device["figures"]
    assert "compile_seconds" not in host and "| one copy, img/s | GB/s |" in capsys.readouterr().out


@pytest.mark.slow
def test_the_trainers_whole_loop(tmp_path):
    file = tmp_path / "a.jsonl"
    # A growing prior at its first 8 px compiles fastest.
    growing = ["--config.model.style=adain", "--config.growth.start=8"]
    assert main([*PRIOR, NO_PATH_LENGTH, *growing, "--what=loop", f"--json={file}"]) == 0
    (record,) = read_lines(file)
    assert record["settings"]["what"] == "loop" and record["calls"] == 2 * train_step.LEAST_ROWS


@pytest.mark.slow
def test_the_average_weighs_quartiles_too():
    made = [
        Measurement("b", {}, [1.0, 2.0, 3.0], Work(4, flop=8.0), None, 9, "process", begun_bytes=3),
        Measurement("b", {}, [10.0] * 3, Work(4, flop=16.0), None, 5, "process", begun_bytes=12),
    ]
    whole = averaged(made, [1.0, 0.25], {"phase": "step"})
    assert whole.seconds == [1.5 + 2.5, 2 + 2.5, 2.5 + 2.5] and whole.work.flop == 12 and whole.calls == 3
    record = whole.record()
    assert record["seconds_median"] == 4.5
    assert (record["peak_bytes"], record["whole_peak_bytes"]) == (9, 12)


def test_a_steps_programs_are_told_as_one():
    whole = joined([Program(None, 2.0, 8.0, 100), Program(None, 3.0, 16.0, 300)], [1.0, 0.25])
    assert whole == Program(None, 5.0, 12.0, 300)


def test_the_perceptual_network_needs_no_file(monkeypatch, tmp_path):
    monkeypatch.setenv("FUNDUSGAN_JAX_WEIGHTS", str(tmp_path))
    for name in ("vgg16", "squeezenet"):
        config = training_config(Choice("configs/ddr.py", [f"--config.loss.perceptual_net={name}"]))
        found = training_run(config, 1).perceptual
        assert found is not None and found.name == name
    without = training_config(Choice("configs/ddr.py", ["--config.loss.lpips=0"]))
    assert training_run(without, 1).perceptual is None


def test_schedules():
    config = training_config(prior_choice())
    names = [
        (part.phase.name, part.share) for part in parts_of(config, opening.open_task(training_run(config, 1)))
    ]
    assert names == [
        ("G at 16 px", 0.5),
        ("D at 16 px", 0.5),
        ("G + path length at 16 px", 0.5),
        ("D + R1 at 16 px", 0.5),
    ]
    published = training_config(Choice("configs/ddr.py", resolution=128, adversary=0.1))
    assert (
        published.model.resolution == 256 and published.loss.adv == 0.1
    )  # painted at twice the side, and pooled
    assert period(training_config(Choice("configs/stylegan2.py", ["--config.train.r1_every=6"]))) == 12
    assert period(training_config(Choice("configs/ddr.py"))) == 1
    with pytest.raises(UserError, match="there are"):
        Training(Choice("configs/ddr.py", resolution=64, channels=8, batch=64, devices=64))


def test_devices_of_scaling():
    assert scaling.powers_of_two({"platform": "gpu", "count": 6}) == [1, 2, 4]
    assert scaling.powers_of_two({"platform": "gpu", "count": 1}) == [1]
    assert scaling.powers_of_two({"platform": "cpu", "count": 1}) == [1, 2, 4, 8]


def test_efficiency():
    records = [
        {"settings": {"mode": mode, "devices": devices}, "img_per_sec": rate}
        for mode, devices, rate in (
            ("weak", 1, 10.0),
            ("weak", 4, 30.0),
            ("strong", 2, 10.0),
            ("strong", 4, 10.0),
        )
    ]
    records.append({"settings": {"mode": "weak", "devices": 8}, "error": "out of memory"})
    add_efficiency(records)
    assert [record.get("figures") for record in records] == [
        {"efficiency": 1.0}, {"efficiency": 0.75}, {"efficiency": 1.0}, {"efficiency": 0.5}, None
    ]  # fmt: skip


@pytest.mark.slow
def test_scaling_over_simulated_devices(tmp_path, capsys):
    words = [*PRIOR, *NO_REGULARISERS, "--devices=1,2", "--mode=weak"]
    assert scaling.main([*words, f"--json={tmp_path / 'a.jsonl'}"]) == 0
    out = capsys.readouterr().out
    assert "| efficiency |" in out and "simulated devices share the processor's cores" in out
    assert [record["settings"]["devices"] for record in read_lines(tmp_path / "a.jsonl")] == [1, 2]


@pytest.mark.parametrize(
    "word", ["--dtype=int8", "--resolution=60", "--config=configs/none.py", "--config.train.speed=1"]
)
def test_mistakes_are_one_line(word, capsys):
    assert main([*PRIOR, word]) == 2
    assert capsys.readouterr().err.splitlines()[-1].startswith("error: ")


@pytest.mark.parametrize(
    "word", ["--adversary=x", "--adversary=", "--adversary=-1", "--adversary=nan", "--resolution=x"]
)
def test_a_flag_that_cannot_be_read_says_what_it_takes(word, capsys):
    assert main([*PRIOR, word]) == 2
    flag, _, given = word.partition("=")
    line = capsys.readouterr().err.splitlines()[-1]
    assert f"{flag}: {given!r} is not " in line and ", as " in line
