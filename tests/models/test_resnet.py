"""ResNet: golden parity is in tests/weights/test_command.py; here its shapes and its three normalisations."""

from functools import partial

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax.sharding import Mesh, PartitionSpec

from fundusgan_jax.models.resnet import Block, ResNet, imagenet_normalize

IMAGES = jnp.asarray(np.random.default_rng(0).normal(size=(16, 32, 32, 3)), jnp.float32)
MAPS = jnp.asarray(np.random.default_rng(1).normal(size=(16, 8, 8, 6)) + 0.5, jnp.float32)
MESH = Mesh(np.array(jax.devices()[:8]), ("data",))


def _block(norm: str, axis_name: str | None = None) -> Block:
    """One bottleneck with a projection: every kind of layer that a ResNet has, quickly compiled."""
    return Block(4, 2, True, norm, axis_name, jnp.float32)


@pytest.mark.parametrize("depth, channels", [(18, (4, 4, 8, 16, 32)), (101, (4, 16, 32, 64, 128))])
def test_shapes(depth: int, channels: tuple[int, ...]) -> None:
    module = ResNet(depth, width=4, num_classes=7)
    features, _ = jax.eval_shape(module.init_with_output, jax.random.key(0), jnp.zeros((2, 64, 64, 3)))
    sides = (32, 16, 8, 4, 2)
    assert [x.shape for x in features[:5]] == [(2, side, side, c) for side, c in zip(sides, channels)]
    assert features.logits.shape == (2, 7)


@pytest.mark.parametrize("fields", [{"depth": 20}, {"norm": "layer"}])
def test_refuses_an_unknown_depth_or_norm(fields: dict) -> None:
    with pytest.raises(ValueError, match="must be one of"):
        ResNet(**fields).init(jax.random.key(0), IMAGES)


def test_normalisation_constants() -> None:
    black, white = imagenet_normalize(jnp.asarray([[-1.0] * 3, [1.0] * 3]))
    np.testing.assert_allclose(black, [-0.485 / 0.229, -0.456 / 0.224, -0.406 / 0.225], rtol=1e-5)
    np.testing.assert_allclose(white, [0.515 / 0.229, 0.544 / 0.224, 0.594 / 0.225], rtol=1e-5)


def test_synchronised_batch_norm_over_eight_devices_equals_one_device() -> None:
    variables = _block("batch").init(jax.random.key(1), MAPS, False)

    def loss(variables, maps, module):
        y, updates = module.apply(variables, maps, True, mutable=["batch_stats"])
        return jnp.mean(y * jnp.cos(jnp.arange(y.shape[-1]))), (y, updates["batch_stats"])

    gradient = jax.value_and_grad(loss, has_aux=True)
    one = jax.jit(partial(gradient, module=_block("batch")))(variables, MAPS)

    def shared(variables, maps):
        (value, (y, stats)), grads = gradient(variables, maps, _block("batch", "data"))
        mean = partial(jax.lax.pmean, axis_name="data")
        return (mean(value), (y, stats)), mean(grads)

    whole, split = PartitionSpec(), PartitionSpec("data")
    specs = ((whole, (split, whole)), whole)
    mapped = jax.shard_map(shared, mesh=MESH, in_specs=(whole, split), out_specs=specs, check_vma=False)
    eight = jax.jit(mapped)(variables, MAPS)
    for ours, expected in zip(jax.tree.leaves(eight), jax.tree.leaves(one), strict=True):
        np.testing.assert_allclose(ours, expected, rtol=1e-4, atol=1e-5)
    (_, (y, stats)), _ = eight
    assert not np.allclose(stats["bn1"]["norm"]["mean"], 0, atol=1e-3)
    apart = _block("batch").apply(variables, MAPS[:2], True, mutable=["batch_stats"])[0]
    assert not np.allclose(y[:2], apart, atol=1e-2)


def test_frozen_norm_uses_and_keeps_the_stored_statistics() -> None:
    variables = _block("frozen").init(jax.random.key(1), MAPS, False)
    variables = jax.tree.map(lambda x: x + 0.1 * jnp.cos(jnp.arange(x.size)).reshape(x.shape), variables)

    @jax.jit
    def gradient(params):
        def loss(params):
            y, updates = _block("frozen").apply(
                variables | {"params": params}, MAPS, True, mutable=["batch_stats"]
            )
            return jnp.sum(y), (y, updates["batch_stats"])

        return jax.grad(loss, has_aux=True)(params)

    grads, (y, stats) = gradient(variables["params"])
    expected = jax.jit(partial(_block("batch").apply, train=False))(variables, MAPS)
    np.testing.assert_allclose(y, expected, rtol=1e-4, atol=1e-5)
    assert jax.tree.all(jax.tree.map(lambda a, b: bool((a == b).all()), stats, variables["batch_stats"]))
    assert float(jnp.abs(grads["bn1"]["norm"]["scale"]).max()) == 0
    assert float(jnp.abs(grads["conv1"]["kernel"]).max()) > 0


def test_group_norm_does_not_mix_samples() -> None:
    variables = _block("group").init(jax.random.key(1), MAPS, False)
    run = jax.jit(partial(_block("group").apply, train=True))
    np.testing.assert_allclose(run(variables, MAPS)[:2], run(variables, MAPS[:2]), rtol=1e-4, atol=1e-5)
    assert "batch_stats" not in variables
