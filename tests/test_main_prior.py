"""The command with a prior, as a user runs it: train, resume, grow, sample, start others from it, mistakes."""

import csv
import json
import shutil
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from fundusgan_jax import main
from fundusgan_jax.data.example import Example
from fundusgan_jax.data.packed import write_packed
from fundusgan_jax.errors import UserError, run_door
from fundusgan_jax.report.grid import GAP, READABLE_WIDTH
from tests.support.one_device import one_device
from tests.support.runs import arrays_of as arrays
from tests.support.runs import rows_without_rate as rows

# Whole runs; CI has them.
pytestmark = pytest.mark.slow

ROOT = Path(__file__).resolve().parents[1]
SIDE = 16
# Of six images a row, each pixel repeated until people can judge them.
ROW = 6 * (SIDE + GAP) + GAP
GRID_WIDTH = ROW * -(-READABLE_WIDTH // ROW)
TINY = (
    f"data.resolution={SIDE}", f"model.resolution={SIDE}",
    "model.channel_base=64", "model.channel_max=8", "model.w_dim=8", "model.z_dim=8", "model.mapping_layers=2",
    "train.batch_size=8", "train.num_steps=6", "train.log_every=1", "train.grid_every=6", "train.eval_every=3",
    "train.checkpoint_every=3", "train.pl_every=2", "train.r1_every=2", "train.keep_last=3", "augment.every=1",
    "augment.kimg=0.1", "augment.p=0.5", "augment.transforms=brightness", "eval.batch_size=8", "eval.num_samples=16",
)  # fmt: skip


def words(data, workdir, *settings, config="stylegan2"):
    return [
        f"--config={ROOT / 'configs' / config}.py",
        f"--workdir={workdir}",
        *(f"--config.{setting}" for setting in (f"data.dir={data}", *TINY, *settings)),
    ]


@pytest.fixture(scope="module", autouse=True)
def single():
    """test_prior_step.py is about many devices."""
    with one_device():
        yield


@pytest.fixture(scope="module")
def data(tmp_path_factory):
    """Noise in the place of photographs, two a patient: phantoms begin at 32 px."""
    folder, rng = tmp_path_factory.mktemp("prepared"), np.random.default_rng(0)
    counts = {"train": 20, "test": 4}
    examples = [
        Example(rng.integers(0, 256, (SIDE, SIDE, 3), np.uint8), 0, f"{split}{n // 2}", "unknown", split, f"{split}{n}.png")
        for split, count in counts.items() for n in range(count)
    ]  # fmt: skip
    write_packed(folder, examples, counts, SIDE, ("eye",), has_patients=True)
    return folder


@pytest.fixture(scope="module")
def trained(tmp_path_factory, data, single):
    """A prior's workdir with all its 6 steps."""
    workdir = tmp_path_factory.mktemp("prior") / "run"
    assert main.main(words(data, workdir)) == 0
    return workdir


def assert_same_run(one, other, step):
    first, second = arrays(one, step), arrays(other, step)
    assert set(first) == set(second)
    different = [name for name in first if not np.array_equal(first[name], second[name])]
    assert not different
    assert rows(one) == rows(other)


def test_a_run_leaves_rows_of_every_term_grids_and_a_ranked_checkpoint(trained):
    train = [row for row in rows(trained) if row["kind"] == "train"]
    assert [row["step"] for row in train] == list(range(1, 7))
    assert ["pl_penalty" in row for row in train] == [False, True] * 3
    assert ["r1" in row for row in train] == [False, True] * 3
    assert len({row["augment_p"] for row in train}) > 3
    scores = [row for row in rows(trained) if row["kind"] == "eval"]
    assert [row["step"] for row in scores] == [3, 6] and all(row["frechet"] > 0 for row in scores)
    record = json.loads((trained / "eval.json").read_text())
    assert record["features"] and record["num_samples"] == 16
    assert [name.startswith("held-out photographs (") for name in record["floors"]] == [True]
    with Image.open(trained / "samples" / "step-000006.png") as grid:
        assert grid.size == (GRID_WIDTH, GRID_WIDTH)
    assert "Fréchet distance" in (trained / "report.html").read_text()


def best_step(workdir):
    """What --init_from takes."""
    return min((row["frechet"], row["step"]) for row in rows(workdir) if row["kind"] == "eval")[1]


def cut_back(workdir, step, target):
    """A copy of a finished run as a kill after the checkpoint of `step` would have left it."""
    shutil.copytree(workdir, target)
    for folder in (target / "checkpoints").iterdir():
        if int(folder.name) > step:
            shutil.rmtree(folder)
    return target


def test_an_interrupted_run_resumes_to_the_same_bits(trained, data, tmp_path):
    workdir = cut_back(trained, 3, tmp_path / "run")
    assert main.main(words(data, workdir)) == 0
    assert_same_run(trained, workdir, 6)


def train_rows(workdir):
    """Step -> terms of a row of training."""
    return {
        row["step"]: {name: x for name, x in row.items() if name not in ("kind", "step", "img_per_sec")}
        for row in rows(workdir)
        if row["kind"] == "train"
    }


def mean_of(steps, number):
    """A row's terms: means over the steps that have them."""
    values = {name: [row[name] for row in steps if name in row] for row in steps for name in row}
    return {**{name: np.mean(x) for name, x in values.items()}, "kimg": number * 8 / 1000}


def test_several_steps_a_call_give_a_runs_numbers_and_resume_to_the_same_bits(trained, data, tmp_path):
    together = ("train.steps_per_call=3", "train.log_every=3")
    whole = tmp_path / "whole"
    assert main.main(words(data, whole, *together)) == 0
    steps, calls = (train_rows(run) for run in (trained, whole))
    assert list(calls) == [3, 6]
    # Path length and R1 are due in steps 2, 4 and 6: not at the end of the first call, and twice in the second.
    assert calls[3] == pytest.approx(mean_of([steps[1], steps[2], steps[3]], 3), rel=1e-2, abs=1e-3)
    assert calls[6] == pytest.approx(mean_of([steps[4], steps[5], steps[6]], 6), rel=5e-2, abs=5e-3)
    ours, theirs = (
        {name: np.float64(x) for name, x in arrays(run, 3).items() if np.asarray(x).dtype == np.float32}
        for run in (whole, trained)
    )
    # Adam's steps have the size of the learning rate whatever the gradient's: single numbers may be one apart.
    apart = sum(float(np.square(ours[name] - theirs[name]).sum()) for name in theirs)
    assert apart < 1e-4 * sum(float(np.square(theirs[name]).sum()) for name in theirs)
    resumed = cut_back(whole, 3, tmp_path / "resumed")
    assert main.main(words(data, resumed, *together)) == 0
    assert_same_run(whole, resumed, 6)


GROWING = (
    "model.style=adain", "growth.start=8", "growth.stable_kimg=0.016", "growth.fade_kimg=0.032",
    "train.r1_every=1", "loss.r1_gamma=10.0", "loss.pl_weight=0.0", "train.checkpoint_every=2", "train.eval_every=6",
)  # fmt: skip


def test_a_growing_run_fades_in_and_resumes_to_the_same_bits(data, tmp_path, capsys):
    straight = tmp_path / "straight"
    assert main.main(words(data, straight, *GROWING)) == 0
    assert "growing to 16 px" in capsys.readouterr().out
    # Two steps at 8 px, then 16 px fade in over four steps.
    small, middle = (arrays(straight, step) for step in (2, 4))
    assert not any("b16_" in name for name in small) and any("b16_" in name for name in middle)
    with Image.open(straight / "samples" / "step-000006.png") as grid:
        assert grid.width == GRID_WIDTH
    # From before the growth, and so through it and its fade.
    resumed = cut_back(straight, 2, tmp_path / "resumed")
    assert main.main(words(data, resumed, *GROWING)) == 0
    assert_same_run(straight, resumed, 6)


# Two programs in place of four, of the smallest kind.
PLAIN = ("loss.pl_weight=0.0", "loss.r1_gamma=0.0", "augment.mode=none")


# The first stage of a growing prior, which compiles in a third of the time.
AT_8_PX = ("model.style=adain", "growth.start=8")


def generated(workdir, output, *flags):
    given = [f"--workdir={workdir}", "--mode=generate", f"--output={output}", *flags]
    assert main.main(given) == 0
    with open(output / "index.csv") as handle:
        index = list(csv.DictReader(handle))
    images = {row["file"]: np.asarray(Image.open(output / row["file"])) for row in index}
    return index, images


def test_samples_are_the_seeds_own(trained, tmp_path):
    index, images = generated(trained, tmp_path / "a", "--method=sample", "--num=5", "--seed=2")
    assert len(images) == 5 and index[0]["seed"] == "2"
    _, fewer = generated(trained, tmp_path / "b", "--num=3", "--seed=2", "--config.eval.batch_size=1")
    for name, image in fewer.items():
        assert np.abs(image.astype(int) - images[name].astype(int)).max() <= 1
    _, other = generated(trained, tmp_path / "c", "--num=1", "--seed=3")
    assert np.abs(list(other.values())[0].astype(int) - list(images.values())[0].astype(int)).max() > 1


def test_an_interpolation_is_a_closed_loop_and_an_animation(trained, tmp_path):
    index, images = generated(trained, tmp_path / "way", "--method=interpolate", "--num=2", "--seed=1")
    frames = [images[row["file"]].astype(int) for row in index]
    steps = [np.abs(a - b).max() for a, b in zip(frames, frames[1:] + frames[:1])]
    assert max(steps) <= max(8, np.abs(frames[0] - frames[len(frames) // 2]).max() // 4)
    with Image.open(tmp_path / "way" / "animation.webp") as animation:
        assert animation.n_frames == len(frames) == 60


def test_a_mixing_grid_has_its_sources_at_the_edges(trained, tmp_path):
    index, images = generated(trained, tmp_path / "mixed", "--method=mix_grid", "--num=2")
    assert len(index) == 4 + 4
    sheet = np.asarray(Image.open(tmp_path / "mixed" / "grid.png"))
    cell = SIDE + GAP
    assert sheet.shape[:2] == (3 * cell + GAP, 3 * cell + GAP)
    first = images["mix_grid-0-source-000.png"]
    np.testing.assert_array_equal(sheet[GAP + cell : cell * 2, GAP:cell], first)


def test_a_disease_starts_from_the_prior(trained, data, tmp_path, capsys):
    workdir = tmp_path / "fine"
    given = words(
        data, workdir, "train.num_steps=2", "train.freeze_discriminator=1", *PLAIN, config="transfer"
    )
    # Mistakes leave nothing that would refuse the corrected command.
    with pytest.raises(UserError, match="typo"):
        main.main([*given, f"--init_from={tmp_path / 'typo'}"])
    with pytest.raises(UserError, match="w_dim=8"):
        main.main([*given, f"--init_from={trained}", "--config.model.w_dim=4"])
    assert main.main([*given, f"--init_from={trained}"]) == 0
    assert "starting from" in capsys.readouterr().out
    before, after = arrays(trained, best_step(trained)), arrays(workdir, 2)
    frozen = [name for name in before if name.startswith("adversary/params/b16_")]
    assert frozen and all(np.array_equal(before[name], after[name]) for name in frozen)
    name = "adversary/params/b8_conv0/kernel"
    assert not np.array_equal(before[name], after[name])


FUNDUSGAN = (
    "data.dataset=phantom", "data.phantom_num=12", "data.resolution=64", "model.resolution=64", "model.delta=1", "encoder.backbone=resnet18", "encoder.norm=group",
    "encoder.fpn_channels=8", "encoder.head_channels=4", "loss.lpips=0.0", "loss.adv=0.1", "train.num_steps=4",
    "train.eval_every=4", "train.checkpoint_every=2", "eval.features=pixels", "train.freeze_generator_blocks=1",
    "augment.mode=ada", "train.best_metric=ssim", "train.r1_every=1",
)  # fmt: skip


def test_fundusgan_with_an_adversary_resumes_to_the_same_bits_and_samples_the_priors_styles(
    trained, tmp_path
):
    straight = tmp_path / "straight"
    given = [*words("", straight, *FUNDUSGAN, config="default"), f"--init_from={trained}"]
    assert main.main(given) == 0
    train = [row for row in rows(straight) if row["kind"] == "train"]
    assert all({"adv", "l2", "d_adv", "r1", "augment_p"} <= set(row) for row in train)
    assert {"frechet", "kernel"} <= set(rows(straight)[-1])
    resumed = cut_back(straight, 2, tmp_path / "resumed")
    assert main.main([word.replace(str(straight), str(resumed)) for word in given]) == 0
    assert_same_run(straight, resumed, 4)
    first = arrays(straight, 4)
    frozen = [
        name
        for name in first
        if name.startswith(("variables/params/generator/b4_", "variables/params/generator/const"))
    ]
    prior = arrays(trained, best_step(trained))
    for name in frozen:
        source = name.replace("variables/params/generator", "ema/synthesis")
        np.testing.assert_array_equal(first[name], prior[source], err_msg=name)
    index, images = generated(straight, tmp_path / "s", "--method=sample", "--num=3")
    assert len(images) == 3 and index[0]["sources"]


def test_a_loss_that_explodes_stops_with_step_and_term(data, tmp_path):
    with pytest.raises(
        UserError, match=r"step \d+ is not finite \([GD] .*(loss|gradient|d_adv).*no checkpoint"
    ):
        main.main(
            words(
                data,
                tmp_path / "run",
                "optim.generator_lr=1e30",
                "optim.discriminator_lr=1e30",
                *PLAIN,
                *AT_8_PX,
            )
        )


MISTAKES = {
    "photographs' method": (["--mode=generate", "--method=mix", "--output={tmp}/o"], "a prior has sample"),
    "label of an unconditional prior": (
        ["--mode=generate", "--label=1", "--output={tmp}/o"], "classes are none"),
    "one corner": (["--mode=generate", "--method=interpolate", "--num=1", "--output={tmp}/o"], "at least 2"),
    "eval": (["--mode=eval", "--config.eval.features=none"], "eval.features"),
    "a reference that is not there": (words("{data}", "{tmp}/new", "eval.reference_split=nope"), "'nope'"),
    "a set of one": (words("{data}", "{tmp}/new", "eval.num_samples=1"), "at least 2"),
    "no time to adapt": (words("{data}", "{tmp}/new", "augment.kimg=0.0"), "augment.kimg"),
    "growth without a step": (
        words("{data}", "{tmp}/new", "model.style=adain", "growth.start=8", "growth.stable_kimg=0.0"), "at least one step"),
    "another kind of generator": (
        [*words("{data}", "{tmp}/new", "model.style=adain", "growth.start=8"), "--init_from={trained}"], "model.style"),
    "init_from of nothing": ([*words("{data}", "{tmp}/new"), "--init_from={tmp}/nowhere"], "nowhere"),
    "init_from in eval": (["--mode=eval", "--init_from={tmp}"], "starts a training"),
    "unknown augmentation": (
        words("{data}", "{tmp}/new", "augment.transforms=xflip,roate"), "did you mean rotate"),
    "a prior of another size": (words("{data}", "{tmp}/new", "model.resolution=64"), "photographs' own size"),
    "a metric that a prior has not": (words("{data}", "{tmp}/new", "train.best_metric=ssim"), "which has frechet, kernel"),
    "groups of four": (words("{data}", "{tmp}/new", "train.batch_size=6"), "multiple"),
}  # fmt: skip


@pytest.mark.parametrize("name", MISTAKES)
def test_a_mistake_gets_one_line_and_exit_code_2(name, trained, data, tmp_path, capsys):
    given, expected = MISTAKES[name]
    given = [word.format(tmp=tmp_path, trained=trained, data=data) for word in given]
    if not any(word.startswith("--workdir") for word in given):
        given = [f"--workdir={trained}", *given]
    assert run_door(lambda: main.main(given)) == 2
    message = capsys.readouterr().err.strip().splitlines()[-1]
    assert message.startswith("error: ") and expected in message
