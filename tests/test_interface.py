"""The public interface: what the commands compute, from Python; every mistake is one sentence."""

import json
import re
from pathlib import Path

import jax
import numpy as np
import pytest
from PIL import Image

import fundusgan_jax
from fundusgan_jax.data.phantom.dataset import open_phantoms
from fundusgan_jax.evaluate.__main__ import main as evaluate
from fundusgan_jax.generate.paint import model_painter
from fundusgan_jax.generate.sample import Sampler
from fundusgan_jax.steps.prior_state import first_prior
from fundusgan_jax.weights.public_weights import WEIGHTS_FOLDER_VARIABLE
from fundusgan_jax.workdir.contents import ema_variables, restore_state
from tests.support.one_device import one_device
from tests.support.states import drawn_state
from tests.support.tiny import tiny_config, tiny_prior_config
from tests.support.workdirs import untrained_workdir

ROOT = Path(__file__).resolve().parents[1]
PHANTOMS = {"data__dataset": "phantom", "data__phantom_num": 10}


@pytest.fixture(scope="module", autouse=True)
def alone():
    """Programs for many devices: devices/test_local.py and evaluate/test_reconstructions.py."""
    with one_device():
        yield


@pytest.fixture(scope="module")
def workdirs(tmp_path_factory, alone):
    """FundusGANs without and with a prior's styles, and a conditional prior; their seeds differ from generation's."""
    root = tmp_path_factory.mktemp("interface")
    config = tiny_config(
        **PHANTOMS, model__z_dim=8, model__mapping_layers=2, train__init_from="prior", seed=3
    )
    styled = drawn_state(config)
    untrained_workdir(root / "styled", config, styled)
    # As a run has it whose source had no mapping network.
    nothing = jax.tree.map(np.zeros_like, styled.variables.mapping)
    variables = styled.variables._replace(mapping=nothing)
    untrained_workdir(root / "fundusgan", config, styled._replace(variables=variables))
    untrained_workdir(root / "prior", tiny_prior_config(model__num_labels=3))
    dataset = open_phantoms(root / "fundusgan" / "phantom", 10, 64, 3)
    (root / "styled" / "phantom").symlink_to(root / "fundusgan" / "phantom")
    (root / "prepared").symlink_to(dataset.directory)
    return root


@pytest.fixture(scope="module")
def model(workdirs):
    return fundusgan_jax.load(workdirs / "fundusgan")


@pytest.fixture(scope="module")
def photographs(workdirs):
    return np.asarray(fundusgan_jax.open_dataset(workdirs / "fundusgan", split="train")[0])


@pytest.fixture(scope="module")
def prior(workdirs):
    return fundusgan_jax.load(workdirs / "prior", step="latest")


def apart(a, b):
    return np.abs(a.astype(int) - b.astype(int)).max()


def test_reconstructions_are_those_that_evaluation_scores(workdirs, model, photographs):
    images = model.reconstruct(photographs[:9])  # eval.batch_size is 4
    assert images.shape == (9, 64, 64, 3) and images.dtype == np.uint8
    config, _, state = restore_state(workdirs / "fundusgan", "latest")
    scored = model_painter(config, ema_variables(state, True))(photographs[:9], np.arange(9))
    # Two programs in place of one may round one grey level differently.
    assert apart(images, scored) <= 1
    assert apart(images, np.broadcast_to(images[:1], images.shape)) > 3


@pytest.mark.slow
def test_weights_are_those_that_evaluation_scores(tmp_path, photographs):
    """With eval.use_ema=False the trained ones, of FundusGAN and of the prior."""
    config = tiny_config(eval__use_ema=False)
    state = drawn_state(config)
    workdir = untrained_workdir(
        tmp_path / "fundusgan", config, state._replace(ema=jax.tree.map(np.zeros_like, state.ema))
    )
    scored = model_painter(config, state.variables)(photographs[:2], np.arange(2))
    assert apart(scored, np.broadcast_to(scored[:1, :1, :1], scored.shape)) > 3
    assert apart(fundusgan_jax.load(workdir).reconstruct(photographs[:2]), scored) <= 1
    config = tiny_prior_config(eval__use_ema=False, model__num_labels=0)
    state = first_prior(config)
    workdir = untrained_workdir(
        tmp_path / "prior", config, state._replace(ema=jax.tree.map(np.zeros_like, state.ema))
    )
    drawn = np.concatenate(
        list(Sampler(config, state, 16).images(np.arange(2), np.zeros(2), seed=0, truncation_psi=1.0))
    )
    assert apart(fundusgan_jax.load(workdir).sample(2, truncation_psi=1.0), drawn) <= 1


def test_decode_of_encode_is_reconstruct_and_styles_noise_and_maps_matter(model, photographs):
    encoded = model.encode(photographs[:3])
    assert encoded.w_plus.shape == (3, model.num_ws, model.w_dim) and encoded.w_plus.dtype == np.float32
    assert encoded.base.shape[:3] == encoded.f_mid.shape[:3] == (3, 4, 4) and encoded.f_high.shape[1] == 8
    base = model.decode(encoded.w_plus, encoded)
    np.testing.assert_array_equal(base, model.reconstruct(photographs[:3]))
    first = model.encode(photographs[:1])
    np.testing.assert_array_equal(base[0], model.decode(encoded.w_plus, first)[0])
    assert apart(model.decode(encoded.w_plus, first)[1], base[1]) > 1
    assert apart(model.decode(encoded.w_plus + 2, encoded), base) > 1
    assert apart(model.decode(encoded.w_plus, encoded, seed=4), base) > 1
    np.testing.assert_array_equal(model.decode(encoded.w_plus, encoded, seed=3), base)


def test_a_priors_sample_belongs_to_its_seed_and_number(prior):
    images = prior.sample(9, seed=2, label=1)
    assert images.shape == (9, 16, 16, 3) and images.dtype == np.uint8
    assert apart(prior.sample(2, seed=2, label=1), images[:2]) <= 1
    assert apart(prior.sample(2, seed=2, label=1, truncation_psi=1.0), images[:2]) > 1
    for seed in (3, 2**31 + 2, 2**32 - 1):
        assert apart(prior.sample(1, seed=seed, label=1), images[:1]) > 1, seed


def test_a_fundusgan_samples_a_priors_styles(workdirs, model):
    styled = fundusgan_jax.load(workdirs / "styled", step=0)
    images = styled.sample(3, seed=2**31)
    assert images.shape == (3, 64, 64, 3) and apart(images, styled.sample(3, seed=1)) > 1
    np.testing.assert_array_equal(images, styled.sample(3, seed=2**31))
    with pytest.raises(fundusgan_jax.UserError, match="did not start from a prior"):
        model.sample(3)


def test_a_dataset_is_found_by_its_folder_and_by_the_run_that_used_it(workdirs, photographs):
    for folder, count in ((workdirs / "prepared", None), (workdirs / "fundusgan", len(photographs))):
        images, labels = fundusgan_jax.open_dataset(folder, split="train")
        assert images.shape[1:] == (64, 64, 3) and images.dtype == np.uint8
        assert labels.shape == (len(images),) and labels.dtype == np.int32
        assert count in (None, len(images))
    with pytest.raises(fundusgan_jax.UserError, match="no photographs in split 'validation'"):
        fundusgan_jax.open_dataset(workdirs / "prepared", split="validation")


def pairs(folder, images):
    folder.mkdir()
    for number, image in enumerate(images):
        Image.fromarray(image).save(folder / f"{number:02d}.png")


def by_command(tmp_path, real, fake, *flags):
    pairs(tmp_path / "real", real)
    pairs(tmp_path / "fake", fake)
    words = [f"--{name}={tmp_path / name}" for name in ("real", "fake", "output")]
    assert evaluate([*words, "--preprocess=none", *flags]) == 0
    return json.loads((tmp_path / "output" / "eval.json").read_text())["model"]


def test_compare_gives_the_commands_figures(tmp_path, monkeypatch):
    monkeypatch.setenv(WEIGHTS_FOLDER_VARIABLE, str(tmp_path))
    rng = np.random.default_rng(0)
    real = rng.integers(0, 256, (3, 192, 192, 3), np.uint8)  # 192: MS-SSIM needs 176
    fake = np.clip(real + rng.normal(0, 20, real.shape), 0, 255).astype(np.uint8)
    with pytest.warns(UserWarning, match="LPIPS is left out: .*weights fetch"):
        figures = fundusgan_jax.compare(real, fake)
    expected = by_command(tmp_path, real, fake, "--metrics=ssim,psnr,ms_ssim")
    assert (
        set(figures)
        == set(expected)
        == {f"{name}{ending}" for name in ("ssim", "psnr", "ms_ssim") for ending in ("", "_fov")}
    )
    assert figures == pytest.approx(expected, rel=1e-6)


@pytest.mark.slow
def test_compare_gives_the_commands_perceptual_distance(tmp_path, shared, monkeypatch):
    monkeypatch.setenv(WEIGHTS_FOLDER_VARIABLE, str(shared / "weights"))
    rng = np.random.default_rng(1)
    real, fake = rng.integers(0, 256, (2, 18, 64, 64, 3), np.uint8)  # two batches
    figures = fundusgan_jax.compare(real, fake, perceptual="squeezenet")
    expected = by_command(tmp_path, real, fake, "--metrics=lpips", "--perceptual=squeezenet")
    assert set(expected) <= set(figures) and len(expected) == 2
    assert {name: figures[name] for name in expected} == pytest.approx(expected, rel=1e-6)


MISTAKES = {
    "floats": (lambda m, p, x: m.reconstruct(x / 255.0), "photographs are float64; they must be uint8"),
    "one image": (lambda m, p, x: m.encode(x[0]), r"\[N, S, S, 3\]"),
    "none": (lambda m, p, x: m.encode(x[:0]), "at least one image"),
    "another size": (lambda m, p, x: m.encode(x[:, :32, :32]), "are 32 px wide, this model's are 64 px"),
    "styles of another shape": (
        lambda m, p, x: m.decode(np.zeros((1, 2, 3)), m.encode(x[:1])), r"must be float \[N, \d+, 8\]"),
    "styles that are not finite": (
        lambda m, p, x: m.decode(m.encode(x[:1]).w_plus * np.nan, m.encode(x[:1])), "not finite"),
    "maps of other photographs": (
        lambda m, p, x: m.decode(m.encode(x[:3]).w_plus, m.encode(x[:2])), "encoded has 2 rows and w_plus 3"),
    "no maps": (lambda m, p, x: m.decode(m.encode(x[:1]).w_plus, None), "encoded has no base"),
    "a negative seed": (lambda m, p, x: p.sample(1, seed=-1), r"seed=-1 must be .* 0\.\.4294967295"),
    "a large seed": (lambda m, p, x: p.sample(1, seed=2**32), "seed=4294967296"),
    "half an image": (lambda m, p, x: p.sample(1.5), "num=1.5"),
    "no class of that number": (lambda m, p, x: p.sample(1, label=3), "classes are 0 to 2"),
    "a class by name": (lambda m, p, x: p.sample(1, label="healthy"), "label='healthy'"),
    "no truncation": (lambda m, p, x: p.sample(1, label=0, truncation_psi=float("nan")), "truncation_psi=nan"),
    "a class of a FundusGAN": (lambda m, p, x: m.sample(1, label=0), "leave label out"),
    "pairs of two shapes": (lambda m, p, x: fundusgan_jax.compare(x[:2], x[:3]), "must have one shape"),
    "an unknown network": (lambda m, p, x: fundusgan_jax.compare(x, x, perceptual="vgg"), "must be one of"),
    "no run": (lambda m, p, x: fundusgan_jax.load("nowhere"), "not the workdir of a run"),
    "a step that is no step": (lambda m, p, x: fundusgan_jax.load("nowhere", step=1.5), "step=1.5"),
    "no dataset": (lambda m, p, x: fundusgan_jax.open_dataset("nowhere"), "nowhere does not exist"),
}  # fmt: skip


@pytest.mark.parametrize("name", MISTAKES)
def test_a_mistake_is_one_sentence(name, model, prior, photographs):
    call, expected = MISTAKES[name]
    with pytest.raises(fundusgan_jax.UserError, match=expected) as caught:
        call(model, prior, photographs)
    assert "\n" not in str(caught.value)


def test_an_unknown_name_is_an_attribute_error():
    assert {"load", "open_dataset", "compare", "UserError"} <= set(dir(fundusgan_jax))
    with pytest.raises(AttributeError, match="'laod'"):
        fundusgan_jax.laod  # noqa: B018


def python_blocks(page: Path) -> list[str]:
    return re.findall(r"^```python\n(.*?)^```", page.read_text(), re.MULTILINE | re.DOTALL)


@pytest.mark.filterwarnings("ignore:LPIPS is left out")
@pytest.mark.parametrize("page", ["README.md", "docs/python.md"])
def test_documented_lines_run(page, workdirs, tmp_path, monkeypatch, capsys):
    blocks = python_blocks(ROOT / page)
    (tmp_path / "runs").mkdir()
    for name in ("demo", "mine"):
        (tmp_path / "runs" / name).symlink_to(workdirs / "fundusgan")
    (tmp_path / "prepared").symlink_to(workdirs / "prepared")
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv(WEIGHTS_FOLDER_VARIABLE, str(tmp_path))
    names: dict[str, object] = {}
    for block in blocks:
        exec(compile(block, page, "exec"), names)
    assert names["images"].shape[1:] == (64, 64, 3) and "ssim" in capsys.readouterr().out
