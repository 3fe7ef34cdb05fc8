"""The lesion and evidence terms: spots against SciPy's morphology, planted blobs and vessels, blur, gradients, settings."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from scipy import ndimage

from fundusgan_jax.errors import UserError
from fundusgan_jax.models.classifiers import Classifier
from fundusgan_jax.models.encoder import EncoderOutput
from fundusgan_jax.models.fundusgan import Reconstruction
from fundusgan_jax.steps.evidence_term import FrozenClassifier, evidence_term
from fundusgan_jax.steps.fundusgan_step import loss_terms
from fundusgan_jax.steps.lesion_term import (
    DIRECTIONS,
    FEW_SPOTS,
    LESION_TERMS,
    lesion_terms,
    spot_heights,
    spots,
)
from fundusgan_jax.weights.classifier_weights import open_classifier
from tests.support.lines import along_and_across
from tests.support.tiny import tiny_config

SIDE = 160
ROWS, COLUMNS = np.indices((SIDE, SIDE))
INSIDE = np.hypot(ROWS - 80, COLUMNS - 80) < 75
BLOBS = [(60.0, 60.0, 1.0, 35), (90.0, 110.0, 1.1, -40), (140.0, 80.0, 0.9, 40)]


def photograph(blobs=BLOBS, vessels=True):
    """A shaded retina in [-1, 1] with vessels of several directions, a disc, and Gaussian spots."""
    green = 110 + 0.1 * COLUMNS - 0.05 * ROWS + 50 * (np.hypot(ROWS - 80, COLUMNS - 40) < 12)
    lines = ((0.0, 40), (0.35, 90), (1.0, -20), (-0.6, 170)) if vessels else ()
    near = [np.abs(ROWS - offset - slope * COLUMNS) / np.hypot(1, slope) < 2 for slope, offset in lines]
    green = green - 30 * np.any(near, 0)
    for row, col, sigma, contrast in blobs:
        green = green + contrast * np.exp(-((ROWS - row) ** 2 + (COLUMNS - col) ** 2) / (2 * sigma**2))
    image = np.stack([green + 40, green, green - 40], -1) * INSIDE[..., None]
    return jnp.asarray(np.clip(image, 0, 255) / 127.5 - 1, jnp.float32)[None]


def test_heights_against_scipy():
    x = np.random.default_rng(0).random((2, 19, 23)).astype(np.float32)
    closed, opened = [], []
    for down, right in DIRECTIONS:
        steps = round(4 / np.hypot(down, right))
        line = np.zeros((1, 9, 9), bool)
        for k in range(-steps, steps + 1):
            line[0, 4 + k * down, 4 + k * right] = True
        turned = {"footprint": line, "mode": "nearest"}
        closed.append(ndimage.minimum_filter(ndimage.maximum_filter(x, **turned), **turned))
        opened.append(ndimage.maximum_filter(ndimage.minimum_filter(x, **turned), **turned))
    dark, bright = spot_heights(jnp.asarray(x), 4)
    np.testing.assert_allclose(dark, np.min(closed, 0) - x, atol=1e-6)
    np.testing.assert_allclose(bright, x - np.max(opened, 0), atol=1e-6)


def test_spots_are_lesions_and_neither_vessels_nor_disc():
    inside = jnp.asarray(INSIDE[None])
    where = np.asarray(spots(photograph(), inside)[0])
    near = np.zeros_like(INSIDE)
    for row, col, sigma, _ in BLOBS:
        assert where[round(row), round(col)] > 0.5
        near |= np.hypot(ROWS - row, COLUMNS - col) <= 4 * sigma + 2
    assert where[~near].sum() < 0.1 * where.sum()
    assert float(spots(photograph([], vessels=False), inside).sum()) < 1
    assert not np.asarray(spots(jnp.full((1, 64, 64, 3), -1.0), jnp.zeros((1, 64, 64), bool))).any()


def test_vessels_of_any_direction_hardly_count():
    """With four directions in place of eight, 0.18 to 0.28 of them would."""
    bars, angles = [], np.linspace(0, np.pi, 8, endpoint=False)
    for angle in angles:
        along, across = along_and_across(SIDE, 80, angle)
        bars.append(np.clip(1.5 - np.abs(across - 0.01 * along**2), 0, 1))
    green = 110 - 50 * np.stack(bars)
    images = np.repeat((green * INSIDE)[..., None], 3, 3) / 127.5 - 1
    where = np.asarray(spots(jnp.asarray(images, jnp.float32), jnp.asarray(np.stack([INSIDE] * len(bars)))))
    assert where[(np.stack(bars) > 0) & INSIDE].mean() < 0.02


def test_blur_and_loss_cost_and_what_lies_elsewhere_does_not():
    image, inside = photograph(), jnp.asarray(INSIDE[None])
    same = lesion_terms(image, image, inside)
    assert all(float(value) == 0 for value in same.values())
    soft = [(row, col, 1.6 * sigma, contrast / 2.56) for row, col, sigma, contrast in BLOBS]
    faint = [(row, col, sigma, contrast / 2) for row, col, sigma, contrast in BLOBS]
    lost, blurred, fainter = (lesion_terms(photograph(x), image, inside) for x in ([], soft, faint))
    for name in same:
        assert 0 < float(fainter[name]) < float(lost[name])
        assert float(fainter[name]) == pytest.approx(float(lost[name]) / 2, rel=0.03)
        assert 0 < float(blurred[name]) < float(lost[name])
    elsewhere = image.at[:, 130:140, 90:100].add(0.3)
    moved = lesion_terms(elsewhere, image, inside)
    assert all(float(moved[name]) < 0.02 * float(lost[name]) for name in ("lesion", "lesion_detail"))
    # The finest band is compared everywhere: x less its binomial mean, by SciPy.
    weights = np.array([1, 4, 6, 4, 1]) / 16
    change = np.asarray(elsewhere - image, np.float64)
    lower = ndimage.convolve1d(
        ndimage.convolve1d(change, weights, 1, mode="nearest"), weights, 2, mode="nearest"
    )
    wanted = np.abs(change - lower).mean(-1)[0][INSIDE].sum() / (INSIDE.sum() + FEW_SPOTS * INSIDE.size)
    assert float(moved["finest_band"]) == pytest.approx(wanted, rel=1e-4)
    # A change of brightness that is as large on the spots costs the whole error, and the detail next to nothing.
    brighter = lesion_terms(image + 0.1, image, inside)
    assert float(brighter["lesion"]) > 0.5 * float(lost["lesion"])
    assert float(brighter["lesion_detail"]) < 1e-6 and float(brighter["finest_band"]) < 1e-6


def test_gradients_reach_the_painted_image_alone():
    image, inside = photograph(), jnp.asarray(INSIDE[None])

    def total(painted, image):
        return sum(lesion_terms(painted, image, inside).values())

    compiled = jax.jit(jax.grad(total, (0, 1)))
    painted = image + 0.05
    assert "select_and_scatter" not in compiled.lower(painted, image).as_text()
    of_painted, of_image = compiled(painted, image)
    assert np.abs(of_painted).max() > 0 and np.isfinite(of_painted).all() and not np.asarray(of_image).any()


@pytest.fixture(scope="module")
def tiny_classifier():
    module = Classifier("squeezenet", 2, width=0.1)
    variables = jax.jit(module.init)(jax.random.key(0), jnp.zeros((1, 64, 64, 3)))
    return FrozenClassifier(dict(variables), module)


@pytest.mark.slow
def test_the_evidence_term_is_the_cosine_of_pooled_features(tiny_classifier):
    rng = np.random.default_rng(0)
    image, painted = (jnp.asarray(rng.uniform(-1, 1, (2, 64, 64, 3)), jnp.float32) for _ in range(2))
    maps = [
        np.asarray(tiny_classifier.module.apply(tiny_classifier.variables, x).last_map)
        for x in (painted, image)
    ]
    a, b = (values.mean((1, 2), dtype=np.float64) for values in maps)
    wanted = np.mean(1 - (a * b).sum(1) / np.linalg.norm(a, axis=1) / np.linalg.norm(b, axis=1))
    of_all = jax.jit(jax.value_and_grad(lambda net, x: evidence_term(net, x, image), (0, 1), allow_int=True))
    value, (of_network, of_painted) = of_all(tiny_classifier, painted)
    assert float(value) == pytest.approx(wanted, abs=1e-5) and wanted > 1e-4
    assert not any(np.asarray(leaf).any() for leaf in jax.tree.leaves(of_network))
    assert np.abs(of_painted).max() > 0 and np.isfinite(of_painted).all()
    assert float(evidence_term(tiny_classifier, image, image)) == pytest.approx(0, abs=1e-5)


def test_terms_enter_the_loss_by_their_weights(tiny_classifier):
    image = jnp.concatenate([photograph()[:, 40:104, 40:104]] * 2)
    encoded = EncoderOutput(**{**dict.fromkeys(EncoderOutput._fields), "w_plus": jnp.zeros((2, 10, 8))})
    painted = Reconstruction(0.9 * image, encoded, {})
    off = loss_terms(tiny_config(), painted, image, jnp.zeros(8), None)
    weights = {
        "loss__lesion": 2.0,
        "loss__lesion_detail": 0.5,
        "loss__finest_band": 3.0,
        "loss__classifier": 0.25,
    }
    on = loss_terms(tiny_config(**weights), painted, image, jnp.zeros(8), None, None, tiny_classifier)
    assert set(on) - set(off) == {*LESION_TERMS, "classifier"}
    added = sum(weight * float(on[name.removeprefix("loss__")]) for name, weight in weights.items())
    assert float(on["loss"]) == pytest.approx(float(off["loss"]) + added, rel=1e-5)


def test_mistakes_are_one_line(tmp_path):
    assert open_classifier(tiny_config()) is None
    with pytest.raises(UserError, match="loss.classifier_workdir names no run"):
        open_classifier(tiny_config(loss__classifier=1.0))
    with pytest.raises(UserError):
        open_classifier(tiny_config(loss__classifier=1.0, loss__classifier_workdir=str(tmp_path / "none")))
