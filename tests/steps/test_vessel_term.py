"""The vessel term: maps as the segmenter's, gradients to the image alone, nothing where it is off, through the generator."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from configs import vessels as configuration
from fundusgan_jax.anatomy.field_of_view import fov_mask
from fundusgan_jax.data.phantom.render import render
from fundusgan_jax.data.traced import standardised as in_bytes
from fundusgan_jax.errors import UserError
from fundusgan_jax.evaluate.segmentation import Segmenter
from fundusgan_jax.models import fundusgan
from fundusgan_jax.models.encoder import EncoderOutput
from fundusgan_jax.models.fundusgan import Reconstruction
from fundusgan_jax.steps.batch import to_float
from fundusgan_jax.steps.fundusgan_step import initial_state, loss_terms, model_config
from fundusgan_jax.steps.segmentation_step import first_segmentation, network_of
from fundusgan_jax.steps.topology_losses import LOSSES
from fundusgan_jax.steps.vessel_term import (
    FrozenSegmenter,
    inside_of,
    segmented_side,
    standardised,
    vessel_maps,
    vessel_term,
)
from fundusgan_jax.validation import validate
from fundusgan_jax.weights.vessel_weights import open_segmenter
from tests.support.tiny import tiny_config

SIDE = 64
IMAGES = np.stack([render(number, SIDE).image for number in (3, 4)])


@pytest.fixture(scope="module")
def tiny():
    """An untrained narrow network as a `Segmenter` and as a `FrozenSegmenter`."""
    config = configuration.get_config()
    config.vessels.width, config.vessels.fov_diameter = 2, 0
    variables = jax.device_get(first_segmentation(config).ema)
    frozen = FrozenSegmenter(variables._asdict(), network_of(config), "wnet", 0)
    return Segmenter(config, variables), frozen


def test_maps_are_those_of_the_segmenter(tiny):
    segmenter, frozen = tiny
    masks = fov_mask(IMAGES)
    inside = np.asarray(inside_of(to_float(IMAGES)))
    assert (inside != masks).mean() < 0.03
    wanted = np.stack([in_bytes(*pair) for pair in zip(IMAGES, masks)]).astype(np.float32) / 127.5 - 1
    found = np.asarray(standardised(jnp.asarray(to_float(IMAGES)), jnp.asarray(masks)))
    np.testing.assert_allclose(found, wanted, atol=0.51 / 127.5)  # ours are not rounded
    found = np.asarray(vessel_maps(frozen, to_float(IMAGES), jnp.asarray(masks), SIDE))
    wanted = np.stack([segmenter.probability(*pair, 1) for pair in zip(IMAGES, masks)])
    # An untrained network magnifies what rounding leaves; measured: 0.9992 and 0.007.
    assert np.ptp(wanted[masks]) > 0.05
    assert np.corrcoef(found[masks], wanted[masks])[0, 1] > 0.99 and np.abs(found - wanted).mean() < 0.02


def test_photographs_are_brought_to_the_scale_of_the_network():
    ours = open_segmenter(tiny_config(loss__vessel=0.1))
    sides = {side: segmented_side(ours, side) for side in (64, 128, 256, 512, 1024)}
    assert sides == {64: 128, 128: 256, 256: 512, 512: 512, 1024: 552}
    assert segmented_side(ours, 128, 130) == 128 and segmented_side(ours, 128, 250) == 248


@pytest.mark.slow
@pytest.mark.parametrize("name", LOSSES)
def test_gradients_reach_the_image_and_not_the_network(tiny, name):
    frozen = tiny[1]
    photograph = to_float(IMAGES)
    painted = photograph + 0.2 * np.random.default_rng(0).standard_normal(photograph.shape).astype(np.float32)

    @jax.jit
    def gradients(net, painted):
        def term(variables, painted):
            return vessel_term(name, net.replace(variables=variables), painted, photograph, 96)

        return jax.value_and_grad(term, (0, 1))(net.variables, painted)

    value, (of_network, of_image) = gradients(frozen, painted)
    assert np.isfinite(value) and value > 0 and np.isfinite(of_image).all() and np.abs(of_image).max() > 0
    assert not any(np.asarray(leaf).any() for leaf in jax.tree.leaves(of_network))
    flat = vessel_term(name, frozen, jnp.zeros_like(photograph), photograph)
    assert np.isfinite(flat)


def test_off_there_is_no_network_and_no_term(tiny):
    config = tiny_config()
    assert config.loss.vessel == 0 and open_segmenter(config) is None
    image = jnp.asarray(to_float(IMAGES))
    encoded = EncoderOutput(**{**dict.fromkeys(EncoderOutput._fields), "w_plus": jnp.zeros((2, 10, 8))})
    painted = Reconstruction(0.9 * image, encoded, {})
    off = loss_terms(config, painted, image, jnp.zeros(8), None)
    config = tiny_config(loss__vessel=0.5, loss__vessel_loss="l1")
    on = loss_terms(config, painted, image, jnp.zeros(8), None, tiny[1])
    assert set(on) - set(off) == {"vessel"}
    assert float(on["loss"]) == pytest.approx(float(off["loss"]) + 0.5 * float(on["vessel"]), rel=1e-6)


@pytest.mark.parametrize("photographs, compared", [(1, 1), (2, 2), (3, 2), (0, 2)])
def test_only_the_first_photographs_are_compared(tiny, photographs, compared):
    config = tiny_config(loss__vessel=0.5, loss__vessel_loss="l1", loss__vessel_photographs=photographs)
    image = jnp.asarray(to_float(IMAGES))
    encoded = EncoderOutput(**{**dict.fromkeys(EncoderOutput._fields), "w_plus": jnp.zeros((2, 10, 8))})
    terms = loss_terms(config, Reconstruction(0.9 * image, encoded, {}), image, jnp.zeros(8), None, tiny[1])
    alone = vessel_term("l1", tiny[1], 0.9 * image[:compared], image[:compared])
    assert float(terms["vessel"]) == pytest.approx(float(alone), rel=1e-6)
    assert float(terms["l2"]) == pytest.approx(float(jnp.mean(jnp.square(0.1 * image))), rel=1e-4)


@pytest.mark.slow
def test_it_teaches_the_generator(tiny):
    config = tiny_config(loss__vessel=1.0, model__noise_mode="none")
    state = initial_state(config, jax.random.key(0))
    image = jnp.asarray(to_float(IMAGES[:1]))
    model = model_config(config, None, training=True)

    def term(params, net):
        variables = state.variables._replace(params=params)
        painted = fundusgan.reconstruct(model, variables, image, noise_mode="none", train=True)
        return vessel_term("l1", net, painted.image, image)

    quick = {"xla_backend_optimization_level": 0}
    gradient = jax.jit(jax.grad(term), compiler_options=quick)(state.variables.params, tiny[1])
    for part in ("encoder", "generator"):
        leaves = [np.asarray(leaf) for leaf in jax.tree.leaves(gradient[part])]
        assert all(np.isfinite(leaf).all() for leaf in leaves)
        assert sum(bool(leaf.any()) for leaf in leaves) > 0.5 * len(leaves)


def test_mistakes_are_one_line(tmp_path):
    with pytest.raises(UserError, match="shows no vessels"):
        validate(tiny_config(loss__vessel_side=32), 1)
    with pytest.raises(UserError, match="not one of skeleton_recall, cldice, l1; did you mean cldice"):
        validate(tiny_config(loss__vessel_loss="cl_dice"), 1)
    with pytest.raises(UserError, match="is no file"):
        open_segmenter(tiny_config(loss__vessel=1.0, loss__vessel_weights=str(tmp_path / "none.npz")))
