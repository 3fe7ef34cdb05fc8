"""The command with a flow over latents, as a user runs it: train, resume, sample, transfer, load, mistakes."""

import csv
import json
import shutil
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

import fundusgan_jax
from fundusgan_jax import main
from fundusgan_jax.data.phantom.render import LABEL_NAMES
from fundusgan_jax.errors import UserError
from fundusgan_jax.generate.origin import origin_of, read_origin
from fundusgan_jax.report.grid import GAP
from tests.support.one_device import one_device
from tests.support.runs import arrays_of, rows_without_rate
from tests.support.tiny import tiny_config
from tests.support.workdirs import untrained_workdir

# Whole runs; CI has them.
pytestmark = pytest.mark.slow

ROOT = Path(__file__).resolve().parents[1]
TINY = (
    "data.dataset=phantom", "data.phantom_num=12", "flow.channels=8", "flow.blocks=1", "flow.sampling_steps=2",
    "model.num_labels=2", "train.batch_size=8", "train.num_steps=4", "train.log_every=1", "train.grid_every=4",
    "train.eval_every=2", "train.checkpoint_every=2", "train.keep_last=3", "optim.warmup_steps=1", "eval.batch_size=8",
)  # fmt: skip


def words(workdir, source, *settings):
    start = [f"--init_from={source}"] if source else []
    given = (f"--config.{setting}" for setting in (*TINY, *settings))
    return [f"--config={ROOT / 'configs' / 'latent.py'}", f"--workdir={workdir}", *start, *given]


@pytest.fixture(scope="module", autouse=True)
def alone():
    """test_latent_step.py and test_parallel.py are about many devices."""
    with one_device():
        yield


@pytest.fixture(scope="module")
def autoencoder(tmp_path_factory, alone):
    """An autoencoder with a latent of 16x16x4 that nobody has trained."""
    config = tiny_config(
        model__latent_channels=4, model__latent_width=8, model__noise_mode="none", data__dataset="phantom"
    )  # fmt: skip
    return untrained_workdir(tmp_path_factory.mktemp("autoencoder"), config)


@pytest.fixture(scope="module")
def trained(tmp_path_factory, autoencoder):
    """A flow's workdir with all its 4 steps; the FundusGAN that it started from is gone."""
    source = shutil.copytree(autoencoder, tmp_path_factory.mktemp("source") / "run")
    workdir = tmp_path_factory.mktemp("flow") / "run"
    assert main.main(words(workdir, source)) == 0
    shutil.rmtree(source)
    return workdir


def test_a_run_leaves_rows_a_grid_and_a_ranked_checkpoint(trained):
    rows = rows_without_rate(trained)
    assert [row["step"] for row in rows if row["kind"] == "train"] == [1, 2, 3, 4]
    scores = [row for row in rows if row["kind"] == "eval"]
    assert [row["step"] for row in scores] == [2, 4]
    # A network that moves almost nothing yet: noise and standardised latent weigh 1 each.
    assert all(1.5 < row["flow_loss_train"] < 2.5 and row["flow_loss"] > 1 for row in scores)
    assert json.loads((trained / "eval.json").read_text())["model"]["flow_loss"] == scores[-1]["flow_loss"]
    assert (trained / "samples" / "step-000004.png").is_file()
    assert "flow over latents of 4 channels" in (trained / "report.html").read_text()
    with np.load(trained / "latents.npz") as stored:
        assert stored["train"].shape[1:] == (2, 16, 16, 4) and stored["held_out"].shape[1:] == (2, 16, 16, 4)
        flat = stored["train"].astype(np.float64).reshape(-1, 4)
    arrays = arrays_of(trained, 4)
    np.testing.assert_allclose(arrays["source/mean"], flat.mean(0), rtol=1e-5, atol=1e-6)
    np.testing.assert_allclose(arrays["source/std"], flat.std(0), rtol=1e-5)


def test_an_interrupted_run_resumes_to_the_same_bits_without_its_source(trained, tmp_path):
    workdir = shutil.copytree(trained, tmp_path / "run")
    shutil.rmtree(workdir / "checkpoints" / "4")
    source = json.loads((workdir / "manifest.json").read_text())["config"]["train"]["init_from"]
    assert not Path(source).exists()
    assert main.main(words(workdir, source)) == 0
    first, second = arrays_of(trained, 4), arrays_of(workdir, 4)
    assert set(first) == set(second)
    assert not [name for name in first if not np.array_equal(first[name], second[name])]
    assert rows_without_rate(trained) == rows_without_rate(workdir)


def generate(workdir, output, *flags):
    line = [f"--workdir={workdir}", "--mode=generate", "--method=sample", f"--output={output}", *flags]
    assert main.main(line) == 0
    with open(output / "index.csv", newline="") as file:
        rows = list(csv.DictReader(file))
    return rows, np.stack([np.asarray(Image.open(output / row["file"])) for row in rows])


def test_samples_are_functions_of_seed_number_and_class(trained, tmp_path):
    rows, five = generate(trained, tmp_path / "five", "--num=5", "--label=1", "--seed=3")
    assert [row["label"] for row in rows] == ["1"] * 5 and {row["guidance"] for row in rows} == {"1.0"}
    assert {row["label_name"] for row in rows} == {LABEL_NAMES[1]}
    assert {row["seed"] for row in rows} == {"3"} and {row["synthetic"] for row in rows} == {"yes"}
    origin = read_origin(tmp_path / "five")
    assert (
        origin == origin_of(trained, "latest") and origin.task == "latent" and origin.train_split == "train"
    )
    _, two = generate(
        trained, tmp_path / "two", "--num=2", "--label=1", "--seed=3", "--config.eval.batch_size=8"
    )
    np.testing.assert_array_equal(two, five[:2])
    # Another batch size is another program: a rounding of the floats at most.
    _, small = generate(
        trained, tmp_path / "small", "--num=3", "--label=1", "--seed=3", "--config.eval.batch_size=1"
    )
    assert np.abs(small.astype(int) - five[:3]).max() <= 1
    model = fundusgan_jax.load(trained, "latest")
    np.testing.assert_array_equal(model.sample(5, seed=3, label=1), five)
    assert model.resolution == 64 and model.num_labels == 2
    rows, mixed = generate(
        trained, tmp_path / "mixed", "--num=5", "--seed=4", "--guidance=2", "--sampling_steps=1"
    )
    assert {row["guidance"] for row in rows} == {"2.0"} and {row["label"] for row in rows} <= {"0", "1"}
    assert np.abs(mixed.astype(int) - five).max() > 0


def test_the_way_between_samples_begins_at_them(trained, tmp_path):
    line = [f"--workdir={trained}", "--mode=generate", "--num=2", "--label=1", "--seed=3"]
    assert main.main([*line, "--method=interpolate", f"--output={tmp_path / 'way'}"]) == 0
    with open(tmp_path / "way" / "index.csv", newline="") as file:
        index = list(csv.DictReader(file))
    assert len(index) == 16 and [index[row]["number"] for row in (0, 9)] == ["0;1;0.000", "1;0;0.125"]
    assert len({row["eye"] for row in index}) == 1
    way = [np.asarray(Image.open(tmp_path / "way" / row["file"])).astype(int) for row in index]
    _, two = generate(trained, tmp_path / "two", *line[2:])
    assert np.abs(way[0] - two[0]).max() <= 1
    steps = [np.abs(a - b).mean() for a, b in zip(way, [*way[1:], way[0]])]
    assert max(steps) < np.abs(way[0] - way[8]).mean()
    sheet = np.asarray(Image.open(tmp_path / "way" / "strip.png"))
    assert sheet.shape[:2] == (2 * (64 + GAP) + GAP, 8 * (64 + GAP) + GAP)
    np.testing.assert_array_equal(sheet[GAP : GAP + 64, GAP : GAP + 64], way[0])


def test_samples_are_judged_beside_held_out_photographs_and_their_reconstructions(trained, tmp_path, capsys):
    workdir = shutil.copytree(trained, tmp_path / "run")
    settings = ("eval.features=pixels", "eval.num_samples=8", "eval.memorisation=0")
    line = [f"--workdir={workdir}", "--mode=eval", *(f"--config.{setting}" for setting in settings)]
    assert main.main(line) == 0
    record = json.loads((workdir / "eval.json").read_text())
    titles = [title.split(" (")[0] for title in record["floors"]]
    for title in (
        "held-out photographs",
        "reconstructions of held-out photographs",
        "two halves of the dataset",
    ):
        assert title in titles
    floor = next(values for title, values in record["floors"].items() if title.startswith("held-out"))
    assert floor["frechet"] > 0 and record["num_samples"] == 8 and record["ratios"]["frechet"] > 1
    assert "model / held-out" in capsys.readouterr().out
    assert "model / held-out" in (workdir / "report.html").read_text()
    assert (workdir / "samples" / "eval-000004.png").is_file()


def test_a_flow_starts_from_a_flow(trained, tmp_path, capsys):
    workdir = tmp_path / "run"
    assert (
        main.main(words(workdir, trained, "model.num_labels=3", "train.num_steps=2", "flow.channels=8")) == 0
    )
    said = capsys.readouterr().out
    assert "left as drawn: label/embedding" in said
    before, after = arrays_of(trained, 4), arrays_of(workdir, 2)
    for name in ("source/mean", "source/std", "source/variables/params/encoder/latent/kernel"):
        np.testing.assert_array_equal(before[name], after[name])
    close = np.abs(after["flow/params/enter/kernel"] - before["flow/ema/enter/kernel"]).max()
    assert 0 < close < 0.01


@pytest.mark.parametrize(
    "flags, message",
    [
        (("--label=7",), "--label=7: this model's classes are 0 to 1"),
        (("--method=mix",), "draws new images alone"),
        (("--truncation=0.5",), "no styles to truncate"),
        (("--guidance=-1",), "--guidance=-1.0 must be at least 0"),
        (("--sampling_steps=0",), "--sampling_steps=0 must be at least 1"),
        (("--save_latents",), "leave them out"),
        (("--method=interpolate", "--num=1"), "interpolate needs at least 2 samples"),
        (("--method=interpolate", "--nearest"), "are for new images"),
    ],
)  # fmt: skip
def test_mistakes_of_generate(trained, tmp_path, flags, message):
    with pytest.raises(UserError, match=message):
        main.main([f"--workdir={trained}", "--mode=generate", f"--output={tmp_path / 'out'}", *flags])


def test_mistakes_of_starting(autoencoder, trained, tmp_path):
    with pytest.raises(UserError, match="name its workdir with --init_from"):
        main.main(words(tmp_path / "run", ""))
    with pytest.raises(UserError, match="has model.w_dim=8, this run 16"):
        main.main(words(tmp_path / "run", autoencoder, "model.w_dim=16"))
    with pytest.raises(UserError, match="keeps its latents"):
        main.main(words(tmp_path / "run", autoencoder, "data.cache=host"))
    plain = untrained_workdir(tmp_path / "plain", tiny_config(data__dataset="phantom"))
    with pytest.raises(UserError, match="and this one has none; train one"):
        main.main(words(tmp_path / "run", plain))
    line = [
        f"--config={ROOT / 'configs' / 'default.py'}",
        f"--workdir={tmp_path / 'run'}",
        f"--init_from={trained}",
    ]
    with pytest.raises(UserError, match="is a run of task=latent; one of task=fundusgan starts from"):
        main.main([*line, *(f"--config.{setting}" for setting in TINY[:2])])
    assert not (tmp_path / "run").exists()


def test_plan(capsys):
    line = [f"--config={ROOT / 'configs' / 'latent.py'}", "--mode=plan", "--config.train.batch_size=8"]
    # With so few photographs no larger batch has to be compiled.
    small = (
        "data.dataset=phantom", "data.phantom_num=8", "flow.channels=8", "flow.blocks=1", "data.resolution=64", "model.channel_max=8", "model.base_size=8",
        "encoder.backbone=resnet18", "encoder.fpn_channels=8", "encoder.head_channels=4", "model.w_dim=8",
    )  # fmt: skip
    assert main.main([*line, *(f"--config.{setting}" for setting in small)]) == 0
    said = capsys.readouterr().out
    assert "photographs to train with: 14" in said and "FundusGAN, frozen" in said
    assert "(flow 0." in said and "train.batch_size=8 fits" in said


def test_an_autoencoder_reconstructs_and_has_no_styles(autoencoder, tmp_path):
    line = [f"--workdir={autoencoder}", "--mode=generate", f"--output={tmp_path / 'made'}", "--num=2"]
    for method in ("mix", "perturb", "sample"):
        with pytest.raises(UserError, match="a latent and no styles"):
            main.main([*line, f"--method={method}"])
    assert main.main([*line, "--method=reconstruct"]) == 0
    model = fundusgan_jax.load(autoencoder)
    photographs = np.random.default_rng(0).integers(0, 256, (2, 64, 64, 3), np.uint8)
    encoded = model.encode(photographs)
    assert encoded.latent.shape == (2, 16, 16, 4)
    np.testing.assert_array_equal(model.decode(encoded.w_plus, encoded), model.reconstruct(photographs))
    with pytest.raises(UserError, match="a latent and no styles"):
        model.edit(photographs, "any", 1.0)
