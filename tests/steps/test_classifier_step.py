"""A classifier's step: the loss by hand, what augmentation may do, weights of classes, one step that repeats to the bit."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax.sharding import Mesh, PartitionSpec
from scipy import special
from sklearn import metrics
from sklearn.utils.class_weight import compute_class_weight

from configs import classifier
from fundusgan_jax.steps.batch import Batch
from fundusgan_jax.steps.classifier_augmentation import ROTATION, SHIFT, ZOOM, moved
from fundusgan_jax.steps.classifier_step import (
    classifier_phase,
    classifier_terms,
    first_classifier,
    make_optimizer,
    multi_label_terms,
)
from fundusgan_jax.steps.fundusgan_step import AXIS
from fundusgan_jax.steps.step import StepConstants, StepInput

SHARES = np.array([0.7, 0.2, 0.1], np.float32)


def tiny(**changes):
    config = classifier.get_config()
    config.data.resolution, config.data.classes = 32, "a,b,c"
    config.classifier.network, config.classifier.width = "squeezenet", 0.125
    config.train.batch_size, config.optim.warmup_steps = 4, 0
    config.update_from_flattened_dict({name.replace("__", "."): value for name, value in changes.items()})
    return config


def logits_and_labels():
    rng = np.random.default_rng(0)
    label = rng.choice(3, 60, p=SHARES / SHARES.sum())
    return rng.normal(size=(60, 3)).astype(np.float32), label.astype(np.int32)


def test_losses_by_hand():
    logits, label = logits_and_labels()
    shares = np.bincount(label) / len(label)
    each = -special.log_softmax(logits.astype(np.float64), 1)[np.arange(60), label]
    terms = {name: classifier_terms(logits, label, jnp.asarray(shares, jnp.float32), name)
             for name in ("none", "balanced", "logit_adjusted")}  # fmt: skip
    assert terms["none"]["loss"] == pytest.approx(each.mean(), rel=1e-5)
    weights = compute_class_weight("balanced", classes=np.arange(3), y=label)
    assert terms["balanced"]["loss"] == pytest.approx((each * weights[label]).mean(), rel=1e-5)
    adjusted = -special.log_softmax(logits + np.log(shares), 1)[np.arange(60), label]
    assert terms["logit_adjusted"]["loss"] == pytest.approx(adjusted.mean(), rel=1e-5)
    for one in terms.values():  # of the network's own logits
        assert one["accuracy"] == pytest.approx((logits.argmax(1) == label).mean())


def test_losses_of_several_labels_by_hand():
    logits, _ = logits_and_labels()
    truth = np.random.default_rng(1).random((60, 3)) < SHARES
    bits = (truth << np.arange(3)).sum(1).astype(np.int32)
    shares = truth.mean(0)
    terms = {name: multi_label_terms(jnp.asarray(logits), jnp.asarray(bits), jnp.asarray(shares, jnp.float32), name)
             for name in ("none", "balanced", "logit_adjusted")}  # fmt: skip
    stated = np.stack(
        [metrics.log_loss(truth[:, [k]], special.expit(logits[:, [k]].astype(np.float64))) for k in range(3)]
    )
    assert terms["none"]["loss"] == pytest.approx(stated.mean(), rel=1e-5)
    each = -np.where(truth, special.log_expit(logits), special.log_expit(-logits))
    weights = [
        compute_class_weight("balanced", classes=np.array([False, True]), y=truth[:, k]) for k in range(3)
    ]
    weighted = np.stack([own[truth[:, k].astype(int)] * each[:, k] for k, own in enumerate(weights)])
    assert terms["balanced"]["loss"] == pytest.approx(weighted.mean(), rel=1e-5)
    moved_logits = logits + np.log(shares / (1 - shares))
    adjusted = -np.where(truth, special.log_expit(moved_logits), special.log_expit(-moved_logits))
    assert terms["logit_adjusted"]["loss"] == pytest.approx(adjusted.mean(), rel=1e-5)
    for one in terms.values():
        assert one["accuracy"] == pytest.approx(((logits > 0) == truth).mean())


def test_moved_photographs_are_affine_images_within_the_bounds():
    """Where each pixel comes from is read off an image that holds its own places."""
    side = 48
    y, x = np.mgrid[:side, :side] / side
    image = np.stack([x, y, x * y], -1).astype(
        np.float32
    )  # a linear function comes through bicubic weights as it is
    count = 24
    result = np.asarray(moved(jnp.tile(image, (count, 1, 1, 1)), jax.random.split(jax.random.key(0), count)))
    assert result.min() >= -1 and result.max() <= 1
    inner = slice(12, -12)
    turned = 0
    for source_y in result[..., 1]:
        rows, columns = np.mgrid[:side, :side][:, inner, inner] / side
        design = np.stack([columns.ravel(), rows.ravel(), np.ones(rows.size)], 1)
        down, *_ = np.linalg.lstsq(design, source_y[inner, inner].ravel(), rcond=None)
        # y = a column + b row + c: |(a, b)| is the zoom, a / b the turn, the sign of b says whether it stands on its head.
        assert abs(np.hypot(*down[:2]) - 1) < ZOOM + 0.01
        assert abs(np.arctan(down[0] / down[1])) < ROTATION + 0.01
        centre = (side - 1) / 2 / side
        assert abs(down @ [centre, centre, 1] - centre) < SHIFT + 0.01
        turned += down[1] < 0
    assert 4 < turned < 20


def test_moves_are_of_the_sample():
    image = jax.random.uniform(jax.random.key(3), (3, 16, 16, 3), minval=-1)
    keys = jax.random.split(jax.random.key(0), 3)
    whole, turned = moved(image, keys), moved(image[::-1], keys[::-1])[::-1]
    np.testing.assert_allclose(whole, turned, atol=1e-6)
    assert np.abs(np.asarray(whole - image)).max() > 0.1


def batch(size=4, side=32):
    rng = np.random.default_rng(0)
    image = rng.uniform(-1, 1, (size, side, side, 3)).astype(np.float32)
    numbers = np.arange(size, dtype=np.int32)
    return StepInput(Batch(image, numbers % 3, np.zeros(size, np.int32), numbers))


def stepped(config):
    given = batch()
    return jax.jit(
        lambda state: classifier_phase(state, given, StepConstants(), config=config, axis_name=None)
    )


def test_a_step_lowers_the_loss_and_repeats_to_the_bit():
    config = tiny(classifier__learning_rate=0.003, classifier__dropout=0.1)
    state, step = first_classifier(config, SHARES), stepped(config)
    first, again = step(state), step(state)
    for a, b in zip(jax.tree.leaves(first), jax.tree.leaves(again)):
        np.testing.assert_array_equal(a, b)
    losses = [float(first.metrics.terms["loss"])]
    for _ in range(15):
        first = step(first.state)
        losses.append(float(first.metrics.terms["loss"]))
    assert int(first.state.step) == 16 and losses[-1] < losses[0]
    np.testing.assert_array_equal(first.state.shares, SHARES)


def test_only_kernels_decay():
    config = tiny(classifier__learning_rate=1.0, classifier__weight_decay=0.5, optim__decay="constant")
    params = {"kernel": jnp.ones((2, 2)), "bias": jnp.ones(2)}
    optimizer = make_optimizer(config)
    updates, _ = optimizer.update(jax.tree.map(jnp.zeros_like, params), optimizer.init(params), params)
    np.testing.assert_allclose(updates["kernel"], -0.5)
    np.testing.assert_array_equal(updates["bias"], 0)


def test_eight_devices_do_what_one_does():
    """But for the order of sums; a normalisation by batch statistics is in test_resnet.py."""
    config = tiny(classifier__augment=False, optim__decay="constant", train__batch_size=8)
    state, given = first_classifier(config, SHARES), batch(8)
    mesh, whole, part = Mesh(np.array(jax.devices()[:8]), (AXIS,)), PartitionSpec(), PartitionSpec(AXIS)

    def updated(state, given, axis_name):
        return classifier_phase(state, given, StepConstants(), config=config, axis_name=axis_name)

    mapped = jax.shard_map(
        lambda state, given: updated(state, given, AXIS),
        mesh=mesh,
        in_specs=(whole, part),
        out_specs=whole,
        check_vma=False,
    )
    one, eight = jax.jit(updated, static_argnums=2)(state, given, None), jax.jit(mapped)(state, given)
    assert eight.metrics.terms["loss"] == pytest.approx(float(one.metrics.terms["loss"]), rel=1e-5)
    for a, b in zip(
        jax.tree.leaves(one.state.opt_state), jax.tree.leaves(eight.state.opt_state), strict=True
    ):
        np.testing.assert_allclose(a, b, rtol=1e-3, atol=1e-6)
