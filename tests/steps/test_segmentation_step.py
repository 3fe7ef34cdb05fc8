"""Segmentation: sizes of the networks, losses by hand, what augmentation keeps, one step that is a function of its input."""

import functools
import re

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from scipy import ndimage

from configs import vessels
from fundusgan_jax.errors import UserError
from fundusgan_jax.models.segmentation import segmentation_network
from fundusgan_jax.steps.batch import Batch
from fundusgan_jax.steps.segmentation_losses import masked_bce, soft_dice_loss
from fundusgan_jax.steps.segmentation_step import (
    BINOMIAL,
    NOISE,
    augmented,
    blurred,
    degraded,
    first_segmentation,
    segmentation_phase,
    segmentation_shapes,
)
from fundusgan_jax.steps.step import StepConstants, StepInput
from fundusgan_jax.validation import validate


@pytest.mark.parametrize("name, outputs", [("wnet", 2), ("fpn", 1)])
def test_logits_have_the_photographs_size(name, outputs):
    network, image = segmentation_network(name), jax.ShapeDtypeStruct((2, 64, 96, 3), jnp.float32)
    variables = jax.eval_shape(network.init, jax.random.key(0), image)
    assert jax.eval_shape(network.apply, variables, image).shape == (2, 64, 96, outputs)
    if name == "wnet":  # as its paper has it
        assert sum(leaf.size for leaf in jax.tree.leaves(variables["params"])) == 68482


def test_losses_by_hand():
    rng = np.random.default_rng(0)
    logits = rng.normal(size=(2, 5, 6)).astype(np.float32)
    truth, mask = (rng.random((2, 2, 5, 6)) < 0.5).astype(np.float32)
    p = 1 / (1 + np.exp(-logits.astype(np.float64)))
    bce = -(truth * np.log(p) + (1 - truth) * np.log(1 - p))
    of_images = (bce * mask).sum((1, 2)) / mask.sum((1, 2))
    assert masked_bce(logits, truth, mask) == pytest.approx(of_images.mean(), rel=1e-5)
    assert masked_bce(logits, truth, 0 * mask) == 0
    both, either = ((p * truth * mask).sum((1, 2)), ((p + truth) * mask).sum((1, 2)))
    wanted = np.mean(1 - (2 * both + 1) / (either + 1))
    assert soft_dice_loss(p.astype(np.float32), truth, mask) == pytest.approx(wanted, rel=1e-5)
    assert soft_dice_loss(truth, truth, mask) == 0 == soft_dice_loss(0 * truth, 0 * truth, mask)


def test_augmentation_keeps_the_tracing():
    crops = jax.random.uniform(jax.random.key(0), (4, 8, 8, 4), minval=-1)
    changed = augmented(crops, jax.random.split(jax.random.key(1), 4))
    for before, after in zip(np.asarray(crops[..., 3]), np.asarray(changed[..., 3])):
        turns = [side for x in (before, before.T) for side in (x, x[::-1], x[:, ::-1], x[::-1, ::-1])]
        assert any(np.array_equal(after, turned) for turned in turns)


def test_degradation_blurs_sharpens_and_adds_noise():
    """By scipy's filter; 0 leaves the crop, an edge gets softer or steeper, noise is below its bound."""
    rng = np.random.default_rng(0)
    image = rng.uniform(-1, 1, (9, 12, 3)).astype(np.float32)
    wanted = ndimage.convolve1d(
        ndimage.convolve1d(image, BINOMIAL, 0, mode="nearest"), BINOMIAL, 1, mode="nearest"
    )
    np.testing.assert_allclose(blurred(jnp.asarray(image)), wanted, atol=1e-6)
    keys = jax.random.split(jax.random.key(2), 64)
    np.testing.assert_array_equal(degraded(jnp.asarray(image), keys[0], 0.0), image)
    edge = jnp.broadcast_to((jnp.arange(200) >= 100).astype(jnp.float32)[None, :, None], (200, 200, 1))
    changed = np.asarray(jax.vmap(lambda key: degraded(edge, key, 1.0))(keys))
    steepness = (changed[:, :, 100] - changed[:, :, 99]).mean((1, 2))
    # The filter leaves 0.375 of the step; what it takes, added by half, makes it 1.3125.
    assert 0.35 < steepness.min() < 0.5 and 1.2 < steepness.max() < 1.35
    deviations = changed[:, :, :90].std((1, 2, 3))
    assert deviations.max() < 1.02 * NOISE and deviations.min() < 0.1 * NOISE


def test_a_step_lowers_the_loss_and_repeats_to_the_bit():
    config = vessels.get_config()
    config.vessels.width, config.train.batch_size, config.optim.warmup_steps = 2, 2, 0
    state = first_segmentation(config)
    image = np.random.default_rng(0).uniform(-1, 1, (2, 16, 16, 4)).astype(np.float32)
    numbers = np.arange(2, dtype=np.int32)
    step_input = StepInput(Batch(image, numbers, numbers, numbers))
    step = jax.jit(
        lambda state: segmentation_phase(state, step_input, StepConstants(), config=config, axis_name=None)
    )
    first, again = step(state), step(state)
    for a, b in zip(jax.tree.leaves(first), jax.tree.leaves(again)):
        np.testing.assert_array_equal(a, b)
    losses = [float(first.metrics.terms["loss"])]
    for _ in range(8):
        first = step(first.state)
        losses.append(float(first.metrics.terms["loss"]))
    assert int(first.state.step) == 9 and losses[-1] < losses[0]


def step_of(name, dtype):
    """A step on two crops of coarse colours, jitted, and its settings."""
    numbers = np.arange(2, dtype=np.int32)
    side = 32 if name == "fpn" else 16
    image = np.random.default_rng(0).uniform(-1, 1, (2, side // 4, side // 4, 4)).repeat(4, 1).repeat(4, 2)
    image[..., 3] = np.where(image[..., 3] > 0, 1.0, 0.0)
    config = vessels.get_config()
    config.vessels.network, config.vessels.width, config.model.dtype = name, 4, dtype
    step_input = StepInput(Batch(image.astype(np.float32), numbers, numbers, numbers))
    phase = functools.partial(segmentation_phase, constants=StepConstants(), config=config, axis_name=None)
    return jax.jit(lambda state: phase(state, step_input)), config


@pytest.mark.slow
@pytest.mark.parametrize("name", ["wnet", "fpn"])
def test_every_convolution_of_a_step_is_of_the_settings_dtype(name):
    for dtype, short in (("float32", "f32"), ("bfloat16", "bf16")):
        step, config = step_of(name, dtype)
        text = step.lower(segmentation_shapes(config)).as_text()
        found = re.findall(r"stablehlo\.convolution.*: \(tensor<\S*x(\w+)>", text)
        assert len(found) > 20 and set(found) == {short}


@functools.cache
def first_outputs():
    """Of W-Net's first step in float32, in bfloat16, and in float32 from parameters that were rounded to bfloat16 once."""
    exact, config = step_of("wnet", "float32")
    low, state = step_of("wnet", "bfloat16")[0], first_segmentation(config)
    params = jax.tree.map(lambda x: x.astype(jnp.bfloat16).astype(x.dtype), state.variables.params)
    rounded = state._replace(variables=state.variables._replace(params=params))
    return exact(state), low(state), exact(rounded)


@pytest.mark.slow
def test_a_bfloat16_step_has_the_loss_of_one_in_float32():
    exact, low, _ = first_outputs()
    terms = [float(output.metrics.terms["loss"]) for output in (exact, low)]
    assert terms[1] == pytest.approx(terms[0], rel=0.02)
    # What is kept stays float32.
    assert {leaf.dtype for leaf in jax.tree.leaves(low.state.variables)} == {jnp.dtype("float32")}


def first_gradients():
    """In Adam's state, flat; one for each of `first_outputs`."""
    return [
        np.concatenate([np.ravel(x) for x in jax.tree.leaves(output.state.opt_state[0].mu)])
        for output in first_outputs()
    ]


@pytest.mark.slow
def test_a_bfloat16_gradient_is_no_further_off_than_rounding_explains():
    """The untrained network's gradient itself is ill-conditioned: float32 has 36 % of it changed by one rounding of its
    parameters, and computing all in bfloat16, which rounds hundreds of times, changes 54 %."""
    exact, low, rounded = first_gradients()
    by_rounding = np.linalg.norm(rounded - exact)
    assert by_rounding > 0.1 * np.linalg.norm(exact)
    assert 0 < np.linalg.norm(low - exact) < 2 * by_rounding
    assert low @ exact > 0.8 * np.linalg.norm(low) * np.linalg.norm(exact)


@pytest.mark.xfail(
    reason="found on 2026-11-29: 54 % apart at 16 px, 45 % at 64 px; float32's own is as ill-conditioned (the test above)",
    strict=True,
)
def test_a_bfloat16_step_has_the_gradient_of_one_in_float32():
    exact, low, _ = first_gradients()
    assert 0 < np.linalg.norm(low - exact) < 0.1 * np.linalg.norm(exact)


@pytest.mark.parametrize("network, side, better", [("fpn", 112, 128), ("wnet", 102, 104), ("fpn", 16, 32)])
def test_a_crop_that_does_not_fit_the_network_is_answered_with_one_that_does(network, side, better):
    config = vessels.get_config()
    config.data.dir, config.vessels.network, config.data.resolution = "DRIVE", network, side
    with pytest.raises(UserError, match=f"set --config.data.resolution={better}"):
        validate(config, 1)
    config.data.resolution = better
    validate(config, 1)
