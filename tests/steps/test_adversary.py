"""steps/adversary.py: the discriminator's update, lazy R1, adaptive augmentation, frozen blocks."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax.sharding import Mesh, PartitionSpec
from ml_collections import FrozenConfigDict

from fundusgan_jax.models import discriminator
from fundusgan_jax.models.discriminator import minibatch_deviation
from fundusgan_jax.ops import conv
from fundusgan_jax.steps import losses
from fundusgan_jax.steps.adversary import (
    generator_logits,
    initial_adversary,
    logits,
    r1_gamma,
    transforms,
    update_adversary,
)
from fundusgan_jax.steps.augmentation import FUNDUS
from tests.support.tiny import tiny_prior_config

RNG = np.random.default_rng(0)
REAL, FAKE = (jnp.asarray(RNG.uniform(-1, 1, (8, 16, 16, 3)), jnp.float32) for _ in range(2))
LABEL, SAMPLE = jnp.zeros(8, jnp.int32), jnp.arange(8)


def made(**changes):
    config = FrozenConfigDict(tiny_prior_config(**changes))
    return config, initial_adversary(config, 16, jax.random.key(0))


@functools.cache
def program(config, with_r1):
    return jax.jit(lambda s: update_adversary(config, s, REAL, FAKE, LABEL, SAMPLE, with_r1=with_r1))


def updated(config, state, with_r1=False):
    return program(config, with_r1)(state)


def same(a, b):
    return all(jax.tree.leaves(jax.tree.map(lambda x, y: bool((x == y).all()), a, b)))


def test_minibatch_groups_do_not_depend_on_the_number_of_devices():
    x = jnp.asarray(RNG.standard_normal((16, 4, 4, 3)), jnp.float32)
    whole = minibatch_deviation(x)
    for count in (2, 4, 8):
        mesh = Mesh(np.asarray(jax.devices()[:count]), ("data",))
        run = jax.shard_map(
            functools.partial(minibatch_deviation, axis_name="data"),
            mesh=mesh,
            in_specs=PartitionSpec("data"),
            out_specs=PartitionSpec("data"),
            check_vma=False,
        )
        np.testing.assert_allclose(jax.jit(run)(x), whole, rtol=1e-6, atol=1e-7)
    # Four samples that are alike do not deviate; the next four do.
    assert float(minibatch_deviation(jnp.ones((4, 4, 4, 1)))[0, 0, 0, 1]) == pytest.approx(1e-4, rel=1e-3)


def test_r1_is_its_formula_with_the_rule_for_gamma(monkeypatch):
    config, state = made()
    assert r1_gamma(config) == pytest.approx(0.0002 * 16**2 / 8)
    assert r1_gamma(made(loss__r1_gamma=3.0)[0]) == 3.0
    # An independent way to ||d D / d x||^2: forward mode along every pixel of one channel row.
    judge = functools.partial(logits, config, state.params, label=LABEL[:4])
    images = REAL[:4]
    found = jax.jit(lambda x: losses.r1_penalty(judge, x))(images)
    # The layers' own gradients are reverse ones; without them XLA derives all.
    for module, name in ((discriminator, "down_conv"), (discriminator, "downsample"), (conv, "product")):
        monkeypatch.setattr(module, name, getattr(module, name).fun)
    jacobian = jax.jit(jax.jacfwd(lambda x: jnp.sum(judge(x))))(images)
    np.testing.assert_allclose(found, np.square(jacobian).sum((1, 2, 3)), rtol=1e-4)


@pytest.mark.slow
def test_r1_flattens_the_discriminator_on_photographs():
    config, state = made(loss__r1_gamma=10.0, optim__discriminator_lr=1e-2)
    step = program(config, True)
    _, first = step(state)
    for _ in range(15):
        state, metrics = step(state)
    assert float(metrics.terms["r1"]) < 0.5 * float(first.terms["r1"])


def test_the_discriminator_learns_to_tell_two_sets_apart():
    config, state = made(optim__discriminator_lr=1e-2)
    step = program(config, False)
    for _ in range(25):
        state, (terms, nonfinite) = step(state)
    assert float(terms["d_real"]) > 0 > float(terms["d_fake"]) and not bool(nonfinite["any"])


@pytest.mark.slow
def test_p_moves_towards_the_target_and_is_kept_between():
    config, state = made(augment__mode="ada", augment__kimg=0.32, augment__every=2)
    state = state._replace(sign_sum=jnp.ones(()), sign_count=jnp.ones(()))
    # Real logits whose signs are known: a discriminator that says 5, then one that says -5, to everything.
    zeros = jax.tree.map(jnp.zeros_like, state.params)
    for bias, direction in ((5.0, 1), (-5.0, -1)):
        params = {**zeros, "b4_out": {**zeros["b4_out"], "bias": jnp.full(1, bias)}}
        before = state._replace(
            params=params, augment_p=jnp.asarray(0.5), sign_sum=jnp.zeros(()), sign_count=jnp.zeros(())
        )
        once, metrics = updated(config, before)
        assert float(metrics.terms["real_sign"]) == direction
        assert float(once.augment_p) == 0.5 and float(once.sign_count) == 1
        twice, _ = updated(config, once._replace(params=params))
        # Two steps of 8 images of the 320 in which p may go from 0 to 1.
        assert float(twice.augment_p) == pytest.approx(0.5 + direction * 16 / 320)
        assert float(twice.sign_count) == 0
    fixed, _ = updated(made(augment__mode="fixed")[0], before)
    assert float(fixed.augment_p) == 0.5


@pytest.mark.slow
def test_augmentation_reaches_photographs_and_fakes_alike_and_lets_the_gradient_through():
    config, state = made(augment__mode="fixed", augment__p=1.0)
    assert (
        transforms(made(augment__transforms="fundus")[0]) == FUNDUS
        and transforms(made(augment__mode="none")[0]) == ()
    )
    assert transforms(made(augment__mode="fixed", augment__transforms="xflip, noise")[0]) == (
        "xflip",
        "noise",
    )

    @functools.partial(jax.jit, static_argnums=1)
    def loss(images, config):
        return losses.generator_adversarial(generator_logits(config, state, images, LABEL, SAMPLE))

    plain = made(augment__mode="none")[0]
    gradient = jax.jit(jax.grad(loss), static_argnums=1)(FAKE, config)
    assert float(jnp.abs(gradient).sum()) > 0 and bool(jnp.isfinite(gradient).all())
    assert float(loss(FAKE, config)) != float(loss(FAKE, plain))
    # With p = 0 the augmented and the plain program agree.
    off = state._replace(augment_p=jnp.zeros(()))
    judged = [
        jax.jit(functools.partial(generator_logits, c))(off, FAKE, LABEL, SAMPLE) for c in (config, plain)
    ]
    np.testing.assert_allclose(judged[0], judged[1], rtol=1e-5, atol=1e-6)
    terms = [updated(c, state)[1].terms for c in (config, plain)]
    for name in ("d_real", "d_fake"):
        assert float(terms[0][name]) != float(terms[1][name])


def test_frozen_blocks_keep_their_bits_and_the_rest_learns():
    config, state = made(train__freeze_discriminator=2)
    after, _ = updated(config, state, with_r1=True)
    for name in state.params:
        frozen = name.startswith(("fromrgb", "b16_", "b8_"))
        # The bias of a layer may have no gradient; a whole module that learns has moved somewhere.
        assert same(state.params[name], after.params[name]) == frozen, name


@pytest.mark.slow
def test_r1_of_every_step_is_part_of_the_update_and_later_ones_have_their_own():
    together, _ = made(train__r1_every=1, loss__r1_gamma=10.0)
    lazily, state = made(train__r1_every=16, loss__r1_gamma=10.0)
    counts = []
    for config in (together, lazily):
        fresh = initial_adversary(config, 16, jax.random.key(0))
        after, metrics = updated(config, fresh, with_r1=True)
        assert "r1" in metrics.terms
        counts.append([int(x) for x in jax.tree.leaves(after.opt_state) if x.dtype == jnp.int32])
    assert set(counts[0]) == {1} and set(counts[1]) == {2}
