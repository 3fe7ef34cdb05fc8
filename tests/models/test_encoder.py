"""The encoder: shapes of the published sizes, heads against plain convolutions, the pyramid against its definition."""

import dataclasses

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import linen as nn
from jax import lax

from fundusgan_jax.models.encoder import (
    Encoder,
    EncoderConfig,
    EncoderOutput,
    FeaturePyramid,
    Map2Style,
    head_levels,
    skip_features,
)
from fundusgan_jax.models.resnet import ResNetFeatures


def convolved(x, kernel, stride, padding):
    """XLA's own convolution, NHWC."""
    pads = [(padding, padding)] * 2
    return lax.conv_general_dilated(
        x, kernel, (stride, stride), pads, dimension_numbers=("NHWC", "HWIO", "NHWC")
    )


@pytest.mark.parametrize(
    ("num_ws", "levels"), [(18, (3, 4, 11)), (16, (3, 4, 9)), (10, (3, 4, 3)), (5, (3, 2, 0))]
)
def test_heads_are_spread_over_the_levels(num_ws: int, levels: tuple[int, int, int]) -> None:
    assert head_levels(num_ws) == levels


@pytest.mark.parametrize("depth", [18, 34, 50, 101, 152])
def test_shapes_of_the_published_size(depth: int) -> None:
    encoder = Encoder(EncoderConfig(depth=depth))
    image, w_avg = (
        jax.ShapeDtypeStruct((2, 512, 512, 3), jnp.float32),
        jax.ShapeDtypeStruct((512,), jnp.float32),
    )
    output, _ = jax.eval_shape(encoder.init_with_output, jax.random.key(0), image, w_avg)
    widths = {"c1": 64, "c2": 64 if depth < 50 else 256}
    maps = output._asdict()
    assert maps.pop("latent") is None
    assert {name: value.shape for name, value in maps.items()} == {
        "w_plus": (2, 18, 512), "base": (2, 32, 32, 512), "f_low": (2, 16, 16, 512), "f_mid": (2, 32, 32, 512),
        "f_high": (2, 64, 64, 512), "c2": (2, 128, 128, widths["c2"]), "c1": (2, 256, 256, widths["c1"]),
    }  # fmt: skip


class Alone(nn.Module):
    """The encoder's last convolution with He's weights, under its name."""

    @nn.compact
    def __call__(self, f_mid):
        return nn.Conv(8, (1, 1), kernel_init=nn.initializers.he_normal(), name="base")(f_mid)


def test_the_base_maps_first_weights_are_hes_times_a_gain_and_no_other_weight_changes() -> None:
    image, w_avg = jax.random.uniform(jax.random.key(1), (1, 64, 64, 3), minval=-1), jnp.zeros(4)
    sizes = EncoderConfig(
        depth=18, norm="group", fpn_channels=16, head_channels=4, num_ws=5, w_dim=4, base_channels=8
    )

    def first(gain: float):
        encoder = Encoder(dataclasses.replace(sizes, base_gain=gain))
        output, variables = jax.jit(encoder.init_with_output)(jax.random.key(0), image, w_avg)
        return output, variables["params"]

    (he, he_weights), (small, small_weights) = first(1.0), first(0.25)
    np.testing.assert_allclose(small.base, 0.25 * he.base, rtol=1e-4, atol=1e-5)
    np.testing.assert_array_equal(small.w_plus, he.w_plus)
    plain = Alone().init(jax.random.key(0), jnp.zeros((1, 4, 4, 16)))["params"]
    np.testing.assert_allclose(he_weights["base"]["kernel"], plain["base"]["kernel"], rtol=1e-5, atol=1e-7)
    small_weights["base"], he_weights["base"] = None, None
    jax.tree.map(np.testing.assert_array_equal, small_weights, he_weights)


def test_a_head_is_a_chain_of_strided_convolutions_and_a_dense_layer() -> None:
    heads, channels, w_dim = 3, 5, 4
    x = jax.random.normal(jax.random.key(0), (2, 8, 8, 6))
    network = Map2Style(heads, channels, w_dim, num_convs=3)
    params = network.init(jax.random.key(1), x)["params"]
    params = jax.tree.map(lambda p: p + 0.1 * jax.random.normal(jax.random.key(p.size), p.shape), params)
    ours = network.apply({"params": params}, x)
    assert ours.shape == (2, heads, w_dim)
    for head in range(heads):
        mine = slice(head * channels, (head + 1) * channels)
        y = convolved(x, params["conv0"]["kernel"][..., mine], 2, 1) + params["conv0"]["bias"][mine]
        for index in (1, 2):
            kernel = params[f"conv{index}_kernel"][head].reshape(3, 3, channels, channels)
            y = convolved(jnp.where(y > 0, y, 0.01 * y), kernel, 2, 1) + params[f"conv{index}_bias"][head]
        y = jnp.where(y > 0, y, 0.01 * y)
        assert y.shape == (2, 1, 1, channels)
        expected = y[:, 0, 0] @ params["out_kernel"][head] / channels**0.5 + params["out_bias"][head]
        np.testing.assert_allclose(ours[:, head], expected, rtol=1e-5, atol=1e-6)


def test_the_pyramid_adds_coarse_to_fine() -> None:
    keys = jax.random.split(jax.random.key(0), 3)
    c3, c4, c5 = (jax.random.normal(key, (1, side, side, 6)) for key, side in zip(keys, (16, 8, 4)))
    features = ResNetFeatures(c1=c3, c2=c3, c3=c3, c4=c4, c5=c5)
    network = FeaturePyramid(7)
    variables = network.init(jax.random.key(1), features)
    params = variables["params"]
    p3, p4, p5 = network.apply(variables, features)

    def conv(name, x, padding):
        return convolved(x, params[name]["kernel"], 1, padding) + params[name]["bias"]

    below = conv("lateral_c5", c5, 0)
    np.testing.assert_allclose(p5, conv("smooth_c5", below, 1), rtol=1e-4, atol=1e-5)
    for name, c, p in (("c4", c4, p4), ("c3", c3, p3)):
        below = conv(f"lateral_{name}", c, 0) + jax.image.resize(below, (*c.shape[:3], 7), "bilinear")
        np.testing.assert_allclose(p, conv(f"smooth_{name}", below, 1), rtol=1e-4, atol=1e-5)


@pytest.mark.slow
def test_w_avg_is_added_to_every_vector() -> None:
    encoder = Encoder(EncoderConfig(18, "group", 8, 4, 10, 8, 8))
    image = jax.random.uniform(jax.random.key(0), (1, 64, 64, 3), minval=-1)
    quick = {"xla_backend_optimization_level": 0}
    variables = jax.jit(encoder.init, compiler_options=quick)(jax.random.key(1), image, jnp.zeros(8))
    shift = jnp.arange(8.0)
    apply = jax.jit(encoder.apply)
    moved = apply(variables, image, shift).w_plus - apply(variables, image, jnp.zeros(8)).w_plus
    np.testing.assert_allclose(moved, np.broadcast_to(shift, (1, 10, 8)), rtol=1e-5, atol=1e-5)


def test_skips_are_chosen_by_size_and_a_missing_one_is_named() -> None:
    maps = {"f_mid": 32, "f_high": 64, "c2": 128, "c1": 256}
    empty = {name: jnp.zeros((1, side, side, 1)) for name, side in maps.items()}
    output = EncoderOutput(w_plus=jnp.zeros(1), base=jnp.zeros(1), f_low=jnp.zeros((1, 16, 16, 1)), **empty)
    chosen = skip_features(output, (32, 32, 64, 128, 256))
    assert [feature.shape[1] for feature in chosen] == [32, 32, 64, 128, 256]
    with pytest.raises(ValueError, match="no encoder feature of side 512"):
        skip_features(output, (32, 512))
