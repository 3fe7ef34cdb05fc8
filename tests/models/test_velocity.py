"""The velocity network: its size, what it starts as, what depends on what; attention and group normalisation against PyTorch's."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from fundusgan_jax.models.flops import velocity_flops
from fundusgan_jax.models.velocity import (
    Attention,
    Velocity,
    VelocityConfig,
    dropped,
    time_features,
)

TINY = VelocityConfig(side=8, latent_channels=3, patch=2, channels=4, blocks=1, num_labels=2)
ONE = jnp.zeros(1, jnp.int32)


def shapes_of(config):
    latent = jax.ShapeDtypeStruct((1, config.side, config.side, config.latent_channels), jnp.float32)
    return jax.eval_shape(Velocity(config).init, jax.random.key(0), latent, jnp.zeros(1), ONE, ONE)


def test_sizes():
    assert VelocityConfig(side=16).levels == ((16, 96), (8, 192))
    assert VelocityConfig(side=32).levels == ((32, 96), (16, 192), (8, 192))
    assert VelocityConfig(side=8).levels == ((8, 96), (4, 192))
    assert VelocityConfig(side=32, patch=2).levels == VelocityConfig(side=16).levels
    count = sum(leaf.size for leaf in jax.tree.leaves(shapes_of(VelocityConfig(num_labels=8))))
    assert 6.3e6 < count < 6.5e6
    # Convolutions alone, of 16x16x96 and 8x8x192 places.
    assert 0.8e9 < velocity_flops(VelocityConfig()) < 2.5e9


@pytest.fixture(scope="module")
def network():
    """A compiled network whose every parameter says something."""
    shapes = shapes_of(TINY)
    rng = np.random.default_rng(0)
    params = jax.tree.map(lambda leaf: rng.normal(0, 0.3, leaf.shape).astype(np.float32), shapes)
    return jax.jit(lambda *given: Velocity(TINY).apply(params, *given))


def test_an_output_depends_on_its_own_latent_time_class_and_eye_alone(network):
    rng = np.random.default_rng(1)
    x = rng.normal(size=(3, 8, 8, 3)).astype(np.float32)
    time, label, eye = np.array([0.2, 0.5, 0.9], np.float32), np.array([0, 1, -1]), np.array([0, 1, 2])
    out = np.asarray(network(x, time, label, eye))
    assert out.shape == (3, 8, 8, 3) and out.dtype == np.float32
    order = np.array([2, 0, 1])
    again = np.asarray(network(x[order], time[order], label[order], eye[order]))
    np.testing.assert_allclose(again, out[order], rtol=1e-4, atol=1e-5)
    for changed in (
        (x, time + 0.05, label, eye), (x, time, np.array([1, -1, 0]), eye), (x, time, label, eye[::-1].copy()),
    ):  # fmt: skip
        assert np.abs(np.asarray(network(*changed)) - out)[[0, 2]].min(0).max() > 1e-4
    # Every class below 0 is the same: unknown.
    np.testing.assert_array_equal(network(x, time, np.array([0, 1, -7]), eye), out)


@pytest.mark.slow
def test_a_new_network_moves_nothing():
    params = jax.jit(Velocity(TINY).init)(jax.random.key(0), jnp.zeros((1, 8, 8, 3)), jnp.zeros(1), ONE, ONE)
    out = Velocity(TINY).apply(params, jnp.ones((1, 8, 8, 3)), jnp.full(1, 0.5), ONE, ONE)
    assert not np.any(out)


def test_dropout_by_whole_maps_and_samples():
    keys = jax.random.split(jax.random.key(0), 4)
    x = jnp.ones((4, 2, 2, 500))
    out = np.asarray(dropped(x, keys, 0.2))
    assert set(np.unique(out)) == {0.0, np.float32(1.25)}
    assert (out == out[:, :1, :1]).all() and abs((out == 0).mean() - 0.2) < 0.04
    np.testing.assert_array_equal(dropped(x[2:3], keys[2:3], 0.2), out[2:3])


def test_attention_against_torch():
    torch = pytest.importorskip("torch")
    rng = np.random.default_rng(3)
    x = rng.normal(size=(2, 4, 4, 96)).astype(np.float32)
    module = Attention("float32")
    shapes = jax.eval_shape(module.init, jax.random.key(0), x)
    params = jax.tree.map(lambda leaf: rng.normal(0, 0.2, leaf.shape).astype(np.float32), shapes)["params"]
    flat = torch.tensor(x).movedim(3, 1)
    norm, qkv, out = params["norm"]["norm"], params["qkv"], params["out"]
    y = torch.nn.functional.group_norm(
        flat, 32, *(torch.tensor(norm[name]) for name in ("scale", "bias")), 1e-5
    )
    y = y.flatten(2).transpose(1, 2)
    q, k, v = (y @ torch.tensor(qkv["kernel"][0, 0]) + torch.tensor(qkv["bias"])).split(96, -1)
    heads = [z.reshape(2, 16, 2, 48).transpose(1, 2) for z in (q, k, v)]
    seen = torch.nn.functional.scaled_dot_product_attention(*heads).transpose(1, 2).reshape(2, 16, 96)
    wanted = (
        x
        + (seen @ torch.tensor(out["kernel"][0, 0]) + torch.tensor(out["bias"])).reshape(2, 4, 4, 96).numpy()
    )
    np.testing.assert_allclose(module.apply({"params": params}, x), wanted, rtol=1e-4, atol=1e-4)


def test_times_have_different_features():
    features = np.asarray(time_features(jnp.linspace(0, 1, 101)))
    apart = np.linalg.norm(features[:, None] - features[None], axis=-1)
    assert np.abs(features).max() <= 1 and apart[~np.eye(101, dtype=bool)].min() > 0.5
