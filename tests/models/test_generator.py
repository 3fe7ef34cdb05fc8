"""models/generator.py: parity with the golden files, and properties of its own."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from fundusgan_jax.models.generator import Fusion, Mapping, Synthesis, layer_noise, truncate
from fundusgan_jax.models.layers import modulated_convolution
from fundusgan_jax.models.plan import GeneratorConfig, generator_plan
from fundusgan_jax.ops.conv import conv2d
from fundusgan_jax.weights.verify_stylegan import dilated_differences, stylegan2_differences

SMALL = GeneratorConfig(resolution=32, base_size=8, channel_base=256, channel_max=16, w_dim=12)


def painted(config, **arguments):
    network = Synthesis(config)
    w_plus = jax.random.normal(jax.random.key(1), (2, config.num_ws, config.w_dim))
    variables = jax.jit(functools.partial(network.init, **arguments))(jax.random.key(0), w_plus)
    return network, variables, w_plus


def applied(network, variables, *arguments, **settings):
    """One program, which compiles faster than its operations one by one."""
    return jax.jit(lambda variables, *arguments: network.apply(variables, *arguments, **settings))(
        variables, *arguments
    )


@pytest.mark.parametrize(
    "name", [pytest.param("stylegan2_64", marks=pytest.mark.slow), "stylegan2_32_labels"]
)
def test_parity_with_stylegan2_ada_pytorch(shared, name):
    differences = stylegan2_differences(dict(np.load(shared / "golden" / f"{name}.npz")))
    assert {"ws", "ws_psi0.7", "image_noise_const", "image_noise_none", "pl_lengths"} <= set(differences)
    assert max(differences.values()) < 1e-5, differences


@pytest.mark.slow
def test_parity_with_styleganex_decoder(shared):
    differences = dilated_differences(dict(np.load(shared / "golden" / "dilated_128.npz")))
    assert set(differences) == {"image", "image_no_noise", "image_from_constant"}
    assert max(differences.values()) < 1e-5, differences


@pytest.mark.parametrize(("kind", "dilation"), [("plain", 1), ("plain", 3), ("blur", 2), ("up", 1)])
def test_shared_convolution_equals_one_kernel_per_sample(kind, dilation):
    rng = np.random.default_rng(0)
    x, styles = (
        rng.standard_normal((3, 6, 6, 4)).astype(np.float32),
        rng.standard_normal((3, 4)).astype(np.float32),
    )
    kernel = rng.standard_normal((3, 3, 4, 5)).astype(np.float32)
    together = modulated_convolution(x, kernel, styles, kind=kind, dilation=dilation)
    for sample in range(3):
        own = kernel * styles[sample][None, None, :, None]
        own = own / np.sqrt((own**2).sum((0, 1, 2)) + 1e-8)
        plain = modulated_convolution(
            x[sample : sample + 1],
            own,
            np.ones((1, 4), np.float32),
            kind=kind,
            dilation=dilation,
            demodulate=False,
        )
        np.testing.assert_allclose(together[sample], plain[0], rtol=1e-4, atol=1e-5)


def test_a_dilation_as_wide_as_the_map_leaves_the_middle_tap_alone():
    rng = np.random.default_rng(0)
    x, styles = (rng.standard_normal(shape).astype(np.float32) for shape in ((2, 8, 8, 4), (2, 4)))
    kernel = rng.standard_normal((3, 3, 4, 5)).astype(np.float32)
    eight, twelve, seven = (modulated_convolution(x, kernel, styles, dilation=size) for size in (8, 12, 7))
    np.testing.assert_array_equal(eight, twelve)
    assert float(jnp.abs(eight - seven).max()) > 0.1


def test_half_precision_stays_close_and_finite():
    rng = np.random.default_rng(0)
    x = rng.standard_normal((2, 8, 8, 16)).astype(np.float32)
    kernel, styles = (
        rng.standard_normal((3, 3, 16, 8)).astype(np.float32),
        1e4 * rng.standard_normal((2, 16)).astype(np.float32),
    )
    exact = modulated_convolution(x, kernel, styles)
    half = modulated_convolution(jnp.asarray(x, jnp.bfloat16), kernel, styles).astype(jnp.float32)
    assert float(jnp.abs(half - exact).max() / jnp.abs(exact).max()) < 0.03


def test_same_parameters_whatever_the_base_size():
    shapes = [
        jax.eval_shape(
            lambda base=base: painted(GeneratorConfig(**{**SMALL.__dict__, "base_size": base}))[1]["params"]
        )
        for base in (4, 8, 32)
    ]
    assert shapes[0] == shapes[1] == shapes[2]


@pytest.mark.slow
def test_stylegan2_weights_give_another_but_finite_picture_in_fundusgan():
    network, variables, w_plus = painted(SMALL, noise_mode="none")
    base = jax.random.normal(jax.random.key(2), (2, 8, 8, 16))
    constant = applied(network, variables, w_plus, noise_mode="none")
    image = applied(network, variables, w_plus, base, noise_mode="none")
    assert image.shape == constant.shape == (2, 32, 32, 3) and image.dtype == jnp.float32
    assert bool(jnp.isfinite(image).all()) and float(jnp.abs(image - constant).max()) > 1e-3


def test_random_noise_of_a_sample_does_not_depend_on_its_batch():
    keys = jax.vmap(jax.random.key)(jnp.arange(4))
    np.testing.assert_array_equal(layer_noise(keys, 3, 8)[2:], layer_noise(keys[2:], 3, 8))
    assert float(jnp.abs(layer_noise(keys, 3, 8) - layer_noise(keys, 4, 8)).max()) > 0.1


@pytest.mark.slow
def test_noise_modes():
    network, variables, w_plus = painted(SMALL)
    strong = jax.tree_util.tree_map_with_path(
        lambda path, x: jnp.ones_like(x) if path[-1].key == "noise_strength" else x, variables["params"]
    )
    variables = {**variables, "params": strong}
    images = {
        mode: applied(
            network, variables, w_plus, noise_mode=mode, noise_keys=jax.vmap(jax.random.key)(jnp.arange(2))
        )
        for mode in ("random", "const", "none")
    }
    assert all(
        float(jnp.abs(images[a] - images[b]).max()) > 1e-2
        for a, b in (("random", "const"), ("const", "none"))
    )
    with pytest.raises(ValueError, match="noise_keys"):
        network.apply(variables, w_plus, noise_mode="random")


@pytest.mark.slow
def test_delta_skips_start_near_the_identity():
    config = GeneratorConfig(**{**SMALL.__dict__, "delta": 3})
    sizes = [block.in_size for block in generator_plan(config) if block.fused]
    skips = [jax.random.normal(jax.random.key(i), (2, size, size, 5)) for i, size in enumerate(sizes)]
    assert sizes == [8, 8, 16]
    network, variables, w_plus = painted(config, skips=skips, noise_mode="none")
    with_skips = applied(network, variables, w_plus, None, skips, noise_mode="none")
    plain = {name: value for name, value in variables["params"].items() if not name.startswith("fusion")}
    without = applied(Synthesis(SMALL), {**variables, "params": plain}, w_plus, noise_mode="none")
    difference = float(jnp.abs(with_skips - without).max() / jnp.abs(without).max())
    assert 0 < difference < 0.1
    with pytest.raises(ValueError, match="delta is 3"):
        network.apply(variables, w_plus, None, skips[:1], noise_mode="none")


def test_a_fusion_is_its_two_convolutions_and_begins_as_pytorch_draws_them():
    rng = np.random.default_rng(0)
    x, rgb, feature = (jnp.asarray(rng.standard_normal((1, 5, 5, c)), jnp.float32) for c in (4, 3, 60))
    variables = Fusion().init(jax.random.key(0), x, rgb, feature)
    params = {name: np.asarray(leaf, np.float64) for name, leaf in variables["params"].items()}
    # torch.nn.Conv2d: weights and bias uniform within 1 / sqrt(fan_in); 0.01 of it around the identity.
    for name, entering, share in (("reduce", 60, 1.0), ("merge", 8, 0.01), ("merge_rgb", 7, 0.01)):
        kernel, bound = params[f"{name}_kernel"].copy(), share / np.sqrt(9 * entering)
        if share < 1:
            kernel[1, 1, : kernel.shape[3]] -= np.eye(kernel.shape[3])
        assert 0.9 * bound < np.abs(kernel).max() <= bound * (1 + 1e-4)
        assert np.std(kernel) == pytest.approx(bound / np.sqrt(3), rel=0.1)
        assert 0.3 * bound < np.abs(params[f"{name}_bias"]).max() <= bound

    def convolved(name, x):
        padded, kernel = np.pad(x, ((0, 0), (1, 1), (1, 1), (0, 0))), params[f"{name}_kernel"]
        taps = (padded[:, a : a + 5, b : b + 5] @ kernel[a, b] for a in range(3) for b in range(3))
        return sum(taps) + params[f"{name}_bias"]

    reduced = convolved("reduce", np.float64(feature))
    reduced = np.where(reduced >= 0, reduced, 0.01 * reduced)
    merged, merged_rgb = Fusion().apply(variables, x, rgb, feature)
    np.testing.assert_allclose(merged, convolved("merge", np.concatenate([x, reduced], -1)), atol=1e-5)
    np.testing.assert_allclose(
        merged_rgb, convolved("merge_rgb", np.concatenate([rgb, reduced], -1)), atol=1e-5
    )


def test_wrong_number_of_style_vectors_is_refused():
    network, variables, w_plus = painted(SMALL)
    with pytest.raises(ValueError, match="expected"):
        network.apply(variables, w_plus[:, :-1])


def test_truncation_pulls_to_the_mean():
    w, w_avg = jnp.ones((2, 3)), jnp.zeros(3)
    np.testing.assert_allclose(truncate(w, w_avg, 0.7), 0.7 * np.ones((2, 3)))
    np.testing.assert_allclose(truncate(w, w_avg, 0.0), np.zeros((2, 3)))


def test_mapping_ignores_the_scale_of_z():
    network = Mapping(w_dim=8, num_layers=2)
    z = jax.random.normal(jax.random.key(0), (3, 6))
    variables = network.init(jax.random.key(1), z)
    np.testing.assert_allclose(
        network.apply(variables, z), network.apply(variables, 10 * z), rtol=1e-4, atol=1e-6
    )


def test_modulation_is_no_grouped_convolution():
    text = (
        jax.jit(modulated_convolution)
        .lower(jnp.ones((4, 8, 8, 4)), jnp.ones((3, 3, 4, 4)), jnp.ones((4, 4)))
        .as_text()
    )
    assert "feature_group_count = 1" in text and "feature_group_count = 4" not in text
    assert conv2d(jnp.ones((1, 4, 4, 1)), jnp.ones((3, 3, 1, 1)), padding=1).shape == (1, 4, 4, 1)
