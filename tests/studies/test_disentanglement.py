"""Disentanglement: directions, transfers and edits whose answer is known; the whole command on rendered eyes."""

import json

import numpy as np
import pytest

from fundusgan_jax.errors import UserError
from fundusgan_jax.models.encoder import EncoderOutput
from fundusgan_jax.models.plan import GeneratorConfig, generator_plan
from fundusgan_jax.studies import disentanglement
from fundusgan_jax.studies.interventions import (
    Part,
    _edit,
    intervention_matrix,
    other_patients,
    taken,
    transfers,
)
from fundusgan_jax.studies.style_directions import (
    layer_groups,
    orthogonal_part,
    principal_directions,
    scaled,
    sefa_directions,
    style_weights,
    supervised_directions,
)
from tests.support.tiny import tiny_config
from tests.support.workdirs import untrained_workdir

RNG = np.random.default_rng(0)
PATIENTS = [f"p{number // 2}" for number in range(40)]


def test_partners_are_other_patients_and_each_is_used_once():
    partner = other_patients(PATIENTS, 0)
    assert sorted(partner) == list(range(40))
    assert all(PATIENTS[one] != PATIENTS[other] for one, other in enumerate(partner))


def test_transfer_is_the_share_that_comes_along_whatever_measuring_adds():
    own, other = RNG.standard_normal((2, 400, 3))
    shares = np.array([0.0, 0.3, 1.0])
    mixed = own + shares * (other - own) + 0.5 * RNG.standard_normal((400, 3))
    found = transfers(own, other, mixed, None, 0)
    np.testing.assert_allclose([one.value for one in found], shares, atol=0.08)
    assert all(one.interval.low < share < one.interval.high for one, share in zip(found, shares))
    # Least squares through 0.
    reference = np.linalg.lstsq((other - own)[:, 1:2], (mixed - own)[:, 1], rcond=None)[0][0]
    np.testing.assert_allclose(found[1].value, reference, atol=1e-9)
    own[::2, 0] = np.nan
    assert np.isfinite(transfers(own, other, mixed, None, 0)[0].value)


class Knobs:
    """A codec whose images show one style value and one map value as grey levels of their halves."""

    num_ws, maps = 2, ("base",)

    def decode(self, w_plus, encoded, numbers, seed):
        images = np.zeros((len(w_plus), 8, 8, 3), np.uint8)
        images[:, :4] = w_plus[:, 1, 0, None, None, None]
        images[:, 4:] = np.asarray(encoded.base)[:, :1, :1]
        return images


def halves(images):
    return np.stack([images[:, 0, 0, 0], images[:, 7, 0, 0]], 1).astype(np.float64)


def test_the_matrix_finds_which_part_carries_what():
    w_plus, base = np.zeros((40, 2, 3), np.float32), np.zeros((40, 2, 2, 3), np.float32)
    w_plus[:, 1, 0], base[:] = RNG.integers(0, 255, 40), RNG.integers(0, 255, 40)[:, None, None, None]
    encoded = EncoderOutput(w_plus, base, None, None, None, None, None)
    matrix = intervention_matrix(Knobs(), encoded, PATIENTS, 0, halves)
    values = {name: [round(one.value, 6) for one in line] for name, line in matrix.items()}
    assert values["styles, all"] == [1, 0] and values["base map"] == [0, 1]
    assert values["everything (control)"] == [1, 1]
    part = taken(encoded, np.roll(np.arange(40), 1), Part(slice(0, 1), ()), ("base",))
    np.testing.assert_array_equal(part.w_plus, w_plus)  # the first style is alike in all


def test_an_edit_is_called_working_only_beyond_chance():
    names = [f"p{k}" for k in range(12)]
    noise = 0.02 * RNG.standard_normal((12, 5))
    moved = noise + np.array([0.5, 0, 0.1, 0, 0])
    edit = _edit(moved, names, 0, 0.9, 0)
    assert edit.works and edit.main == 0 and 0.1 < edit.leakage < 0.3
    assert _edit(moved, names, -1, 0.9, 0).main == 0
    assert not _edit(noise, names, 0, 0.9, 0).works  # too small
    untouched = _edit(np.zeros((12, 5)), names, 1, 1.0, 0)
    assert not untouched.works and np.isnan(untouched.leakage)
    assert _edit(np.full((12, 5), np.nan), names, -1, 1.0, 0).main == -1


def test_chance_rarely_makes_a_direction_work():
    names = [f"p{k}" for k in range(10)]
    works = [_edit(RNG.standard_normal((10, 14)), names, -1, 1.0, 0).works for _ in range(100)]
    assert np.mean(works) < 0.12


def test_principal_directions_are_unit_deviations_of_their_group():
    w_plus = RNG.standard_normal((60, 10, 4)) * np.arange(1, 11)[:, None]
    first = {one.name: one for one in principal_directions(w_plus, 1)}
    assert list(first) == ["pca_coarse_1", "pca_middle_1", "pca_fine_1"]
    vector = first["pca_middle_1"].vector
    assert not vector[:3].any() and not vector[7:].any() and vector[3:7].any()
    deviation = np.linalg.svd((w_plus[:, 3:7] - w_plus[:, 3:7].mean(0)).reshape(60, -1))[1][0] / np.sqrt(59)
    np.testing.assert_allclose(np.linalg.norm(vector), deviation, rtol=1e-5)
    assert layer_groups(10) == {"coarse": slice(0, 3), "middle": slice(3, 7), "fine": slice(7, 10)}


def test_sefa_finds_the_direction_that_styles_read_most():
    config = GeneratorConfig(resolution=64, base_size=4, channel_base=128, channel_max=8, w_dim=6)
    # Names and shapes as Synthesis has them; the slow test below takes a model's own.
    generator = {
        f"b{block.native}_conv{1 if layer is block.layers[-1] else 0}": {
            "affine": {"kernel": RNG.standard_normal((6, layer.in_channels))}
        }
        for block in generator_plan(config)
        for layer in block.layers
    }
    read = RNG.standard_normal(6)
    read /= np.linalg.norm(read)
    for module in generator.values():
        weights = module["affine"]["kernel"]
        module["affine"]["kernel"] = 0.05 * weights + np.outer(
            read, np.sign(RNG.standard_normal(weights.shape[1]))
        )
    w_plus = RNG.standard_normal((30, config.num_ws, 6))
    assert style_weights(generator, config, slice(0, 1)).shape == (8, 6)
    for one in sefa_directions(generator, config, w_plus, 1):
        rows = one.vector[np.abs(one.vector).max(1) > 0]
        np.testing.assert_allclose(np.abs(rows @ read) / np.linalg.norm(rows, axis=1), 1, atol=0.02)
        np.testing.assert_allclose(one.vector, scaled(one.vector, w_plus), rtol=1e-4, atol=1e-6)


def test_supervised_directions_move_their_own_factor_and_no_other():
    w_plus = RNG.standard_normal((300, 4, 5))
    true = RNG.standard_normal((3, 20))
    true[1] += true[0]  # factors that go together
    factors = np.concatenate([w_plus.reshape(300, -1) @ true.T, np.ones((300, 1))], 1)
    factors[::7, 2] = np.nan
    found = supervised_directions(w_plus, factors, ["a", "b", "c", "flat"])
    assert [one.target for one in found] == ["a", "b", "c"]
    moves = np.stack([one.vector.reshape(-1) for one in found]) @ true.T
    own = np.abs(np.diag(moves))
    assert (np.diag(moves) > 0).all()
    assert (np.abs(moves - np.diag(np.diag(moves))) < 0.2 * own[:, None]).all()
    np.testing.assert_allclose(
        orthogonal_part(np.array([1.0, 1, 0]), np.array([[0, 2.0, 0], [0, 4, 0]])), [1, 0, 0]
    )


@pytest.mark.parametrize(
    ("words", "message"),
    [([], "--workdir is missing"), (["--workdir=x", "--num=2"], "--num=2 must be at least 8"), (["--wrkdir=x"], "did you mean")],
)  # fmt: skip
def test_a_mistake_is_one_line(words, message):
    with pytest.raises(UserError, match=message):
        disentanglement.checked(words)


@pytest.mark.slow
def test_the_command_measures_a_model_and_an_edit_uses_its_directions(tmp_path):
    import fundusgan_jax
    from fundusgan_jax import main

    config = tiny_config(data__dataset="phantom", data__phantom_num=40, seed=3)
    workdir = untrained_workdir(tmp_path / "run", config)
    flags = ["--num_fit=24", "--num=8", "--num_edits=4", "--axes=1", "--step=latest"]
    assert disentanglement.main([f"--workdir={workdir}", *flags]) == 0
    result = json.loads((workdir / "disentanglement" / "result.json").read_text())
    assert result["interventions"]["everything (control)"]["green"][0] == pytest.approx(1, abs=1e-6)
    assert "pca_fine_1" in result["directions"] and len(result["dci"]) == 4
    assert "<img" not in (workdir / "disentanglement" / "report.html").read_text()
    model = fundusgan_jax.load(workdir, "latest")
    photographs, _ = fundusgan_jax.open_dataset(workdir, "train")
    assert set(model.directions()) == set(result["directions"])
    images = model.edit(photographs[:3], "pca_fine_1", 3.0)
    np.testing.assert_array_equal(
        model.edit(photographs[:3], "pca_fine_1", 0), model.reconstruct(photographs[:3])
    )
    words = [f"--workdir={workdir}", "--mode=generate", "--method=edit", "--direction=pca_fine_1", "--amount=3",
             "--num=3", "--seed=3", f"--output={tmp_path / 'out'}"]  # fmt: skip
    assert main.main(words) == 0
    from PIL import Image

    files = sorted((tmp_path / "out").glob("*.png"))
    painted = np.stack([np.asarray(Image.open(file)) for file in files])
    assert np.abs(painted.astype(int) - images).max() <= 1
    with pytest.raises(UserError, match="did you mean pca_fine_1"):
        model.edit(photographs[:3], "pca_fine_2", 1.0)
