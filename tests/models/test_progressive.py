"""models/progressive.py: the stages against each other and against numpy, and the schedule of growth."""

import math

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from scipy.signal import convolve2d, correlate2d

from fundusgan_jax.models.generator import Mapping
from fundusgan_jax.models.progressive import (
    AdaINSynthesis,
    GrowingDiscriminator,
    Growth,
    adain,
    alpha_at,
    fade,
    stage_at,
)
from fundusgan_jax.train.transfer import fitted

CHANNELS = ((4, 8), (8, 8), (16, 6), (32, 4))
W_DIM, NUM_WS = 5, 8
PAPER_CHANNELS = tuple((2**power, min(2 ** (14 - power), 512)) for power in range(2, 11))


def synthesis(resolution):
    return AdaINSynthesis(resolution, CHANNELS, W_DIM, NUM_WS)


def styles(count=2):
    return jax.random.normal(jax.random.key(1), (count, NUM_WS, W_DIM))


def images(resolution, count=4):
    return jax.random.uniform(jax.random.key(2), (count, resolution, resolution, 3), minval=-1, maxval=1)


def scrambled(tree, seed=0):
    """Every leaf drawn anew, so that no term hides behind a zero or a one; arrays or their shapes."""
    rng = np.random.default_rng(seed)
    return jax.tree.map(lambda x: rng.standard_normal(x.shape).astype(np.float32), tree)


def initialised(network, *arguments):
    return scrambled(jax.eval_shape(network.init, jax.random.key(0), *arguments, 1.0))


def shapes(network, *arguments):
    tree = jax.eval_shape(network.init, jax.random.key(0), *arguments, 1.0)
    return {
        "/".join(key.key for key in path): leaf.shape
        for path, leaf in jax.tree_util.tree_flatten_with_path(tree)[0]
    }


def with_changed(variables, *names):
    """The leaves of the modules `names` drawn anew."""
    changed = {name: scrambled(variables["params"][name], 1) for name in names}
    return {**variables, "params": {**variables["params"], **changed}}


@pytest.fixture(scope="module")
def painter():
    network = synthesis(16)
    return jax.jit(network.apply, static_argnames="noise_mode"), initialised(network, styles())


@pytest.fixture(scope="module")
def judge():
    network = GrowingDiscriminator(16, CHANNELS, mapping_layers=0)
    return jax.jit(network.apply), initialised(network, images(16), jnp.eye(4, 3))


@pytest.mark.slow
def test_a_new_synthesis_block_starts_invisible(painter):
    _, variables = painter
    smaller = initialised(synthesis(8), styles())
    smaller, missing = fitted(variables, smaller)
    assert missing == ["params/b4_torgb/bias", "params/b4_torgb/conv/kernel"]
    before = synthesis(8).apply(smaller, styles(), 1.0)
    after = synthesis(16).apply(variables, styles(), 0.0)
    assert after.shape == (2, 16, 16, 3) and after.dtype == jnp.float32
    np.testing.assert_array_equal(after, np.repeat(np.repeat(before, 2, 1), 2, 2))


@pytest.mark.slow
def test_a_new_discriminator_block_starts_invisible(judge):
    _, variables = judge
    image, label = images(16), jnp.eye(4, 3)
    network = GrowingDiscriminator(8, CHANNELS, mapping_layers=0)
    smaller, missing = fitted(variables, initialised(network, image[:, ::2, ::2], label))
    assert missing == ["params/b4_fromrgb/bias", "params/b4_fromrgb/kernel"]
    pooled = image.reshape(4, 8, 2, 8, 2, 3).mean((2, 4))
    before = network.apply(smaller, pooled, label, 1.0)
    after = GrowingDiscriminator(16, CHANNELS, mapping_layers=0).apply(variables, image, label, 0.0)
    assert after.shape == (4, 1) and after.dtype == jnp.float32
    np.testing.assert_allclose(after, before, rtol=1e-6, atol=1e-6)


def test_a_faded_in_synthesis_block_stands_alone(painter):
    paint, variables = painter
    old, new = with_changed(variables, "b8_torgb"), with_changed(variables, "b16_conv1", "b16_torgb")
    full, none, half = (np.asarray(paint(variables, styles(), alpha)) for alpha in (1.0, 0.0, 0.5))
    np.testing.assert_array_equal(paint(old, styles(), 1.0), full)
    np.testing.assert_array_equal(paint(new, styles(), 0.0), none)
    np.testing.assert_allclose(half, (full + none) / 2, atol=1e-5)
    assert np.abs(full - none).max() > 0.1 and np.abs(full - paint(new, styles(), 1.0)).max() > 0.1


def test_a_faded_in_discriminator_block_stands_alone(judge):
    logits, variables = judge
    image, label = images(16), jnp.eye(4, 3)
    old, new = with_changed(variables, "b8_fromrgb"), with_changed(variables, "b16_conv0", "b16_fromrgb")
    full, none = (np.asarray(logits(variables, image, label, alpha)) for alpha in (1.0, 0.0))
    np.testing.assert_array_equal(logits(old, image, label, 1.0), full)
    np.testing.assert_array_equal(logits(new, image, label, 0.0), none)
    assert np.abs(full - logits(new, image, label, 1.0)).max() > 1e-4
    assert np.abs(full - logits(variables, image, label[::-1], 1.0)).max() > 1e-4
    assert np.abs(full - none).max() > 1e-4


def test_fading_keeps_the_dtype():
    old, new = jnp.zeros(3, jnp.bfloat16), jnp.full(3, jnp.inf, jnp.bfloat16)
    assert fade(old, old + 1, jnp.float32(0.25)).dtype == jnp.bfloat16
    assert bool(jnp.isinf(fade(old, new, 1.0)).all())


@pytest.mark.parametrize("resolution", [8, 16])
def test_a_stage_has_the_parameters_of_the_one_before(resolution):
    for lost, smaller, larger in (
        (
            "torgb",
            shapes(synthesis(resolution), styles()),
            shapes(synthesis(2 * resolution), styles()),
        ),
        (
            "fromrgb",
            shapes(GrowingDiscriminator(resolution, CHANNELS), images(resolution), jnp.eye(4, 3)),
            shapes(GrowingDiscriminator(2 * resolution, CHANNELS), images(2 * resolution), jnp.eye(4, 3)),
        ),
    ):
        gone = {path for path in smaller if path.startswith(f"params/b{resolution // 2}_{lost}/")}
        assert len(gone) == 2 and gone == set(smaller) - set(larger)
        assert all(larger[path] == shape for path, shape in smaller.items() if path not in gone)
        assert all(f"/b{2 * resolution}_" in path or "/layer" in path for path in set(larger) - set(smaller))


def test_adain_against_numpy():
    rng = np.random.default_rng(0)
    x = (5 + 3 * rng.standard_normal((2, 6, 5, 4))).astype(np.float32)
    style = rng.standard_normal((2, 8)).astype(np.float32)
    y = np.asarray(adain(x, style))
    normal = (x - x.mean((1, 2), keepdims=True)) / np.sqrt(x.var((1, 2), keepdims=True) + 1e-8)
    expected = normal * (1 + style[:, None, None, :4]) + style[:, None, None, 4:]
    np.testing.assert_allclose(y, expected, atol=1e-5)
    np.testing.assert_allclose(y.mean((1, 2)), style[:, 4:], atol=1e-5)
    np.testing.assert_allclose(y.std((1, 2)), np.abs(1 + style[:, :4]), atol=1e-5)
    assert adain(jnp.asarray(x, jnp.bfloat16), style).dtype == jnp.bfloat16


def styled_in_numpy(x, layer, w, noise):
    """What follows the convolution, for one sample: x [H, W, C], w [w_dim], noise [H, W]."""
    x = x + noise[:, :, None] * layer["noise_strength"] + layer["bias"]
    x = np.where(x > 0, x, 0.2 * x) * np.sqrt(2)
    x = (x - x.mean((0, 1))) / np.sqrt(x.var((0, 1)) + 1e-8)
    style = w @ layer["affine"]["kernel"] / np.sqrt(len(w)) + layer["affine"]["bias"]
    return x * (1 + style[: x.shape[-1]]) + style[x.shape[-1] :]


def convolved_in_numpy(x, kernel, mode):
    kernel = kernel / np.sqrt(np.prod(kernel.shape[:3]))
    return np.stack(
        [
            sum(correlate2d(x[:, :, i], kernel[:, :, i, o], mode) for i in range(kernel.shape[2]))
            for o in range(kernel.shape[3])
        ],
        -1,
    )


def doubled_in_numpy(x, kernel):
    """Repeated, convolved, blurred; the outermost pixels are cut off last."""
    wide = convolved_in_numpy(np.repeat(np.repeat(x, 2, 0), 2, 1), kernel, "full")
    binomial = np.outer([1, 2, 1], [1, 2, 1]) / 16
    return np.stack([convolve2d(wide[:, :, c], binomial, "valid") for c in range(wide.shape[-1])], -1)


def painted_in_numpy(variables, w_plus, alpha):
    params, noise = variables["params"], [variables["noise"][f"layer{n}"] for n in (1, 2, 3, 4)]

    def rgb(x, layer):
        return convolved_in_numpy(x, layer["conv"]["kernel"], "same") + layer["bias"]

    x = styled_in_numpy(params["const"], params["b4_const"], w_plus[0], noise[0])
    for index, (name, convolve) in enumerate(
        [
            ("b4_conv1", lambda x, kernel: convolved_in_numpy(x, kernel, "same")),
            ("b8_conv0", doubled_in_numpy),
            ("b8_conv1", lambda x, kernel: convolved_in_numpy(x, kernel, "same")),
        ],
        1,
    ):
        layer = params[name]
        x = styled_in_numpy(convolve(x, layer["conv"]["kernel"]), layer, w_plus[index], noise[index])
        if name == "b4_conv1":
            old = rgb(x, params["b4_torgb"])
    return (1 - alpha) * np.kron(old, np.ones((2, 2, 1))) + alpha * rgb(x, params["b8_torgb"])


def test_synthesis_against_numpy():
    network = synthesis(8)
    variables = initialised(network, styles())
    double = jax.tree.map(lambda x: x.astype(np.float64), variables)
    image = jax.jit(network.apply)(variables, styles(), 0.3)
    for painted, w_plus in zip(image, np.asarray(styles(), np.float64)):
        np.testing.assert_allclose(painted, painted_in_numpy(double, w_plus, 0.3), atol=1e-5)


def test_noise_of_a_sample_depends_on_its_key_alone(painter):
    paint, variables = painter
    keys = jax.vmap(jax.random.key)(jnp.arange(4))
    w_plus = jnp.broadcast_to(styles(1), (4, NUM_WS, W_DIM))

    def image(strength, order, mode="random"):
        params = jax.tree_util.tree_map_with_path(
            lambda path, x: 0 * x + strength if path[-1].key == "noise_strength" else x, variables["params"]
        )
        return np.asarray(
            paint({**variables, "params": params}, w_plus, 1.0, noise_mode=mode, noise_keys=keys[order])
        )

    order = np.array([2, 0, 3, 1])
    for mode in ("random", "const"):
        np.testing.assert_allclose(image(0.0, order, mode), image(0.0, order, "none"), atol=1e-4)
    straight = image(0.5, np.arange(4))
    np.testing.assert_allclose(image(0.5, order), straight[order], atol=1e-5)
    assert min(np.abs(straight[a] - straight[b]).max() for a in range(4) for b in range(a)) > 0.1
    assert np.abs(image(0.5, order, "const") - image(0.5, order, "none")).max() > 0.1


def test_gradients_are_finite_from_the_start():
    painter, judge = synthesis(8), GrowingDiscriminator(8, CHANNELS)
    variables = jax.jit(painter.init)(jax.random.key(0), styles(4), 1.0)
    params, noise = variables["params"], variables["noise"]
    assert bool((params["const"] == 1).all()) and not params["b8_conv0"]["noise_strength"].any()

    def loss(params, judge_variables, alpha):
        image = painter.apply({"params": params, "noise": noise}, styles(4), alpha)
        return jax.nn.softplus(-judge.apply(judge_variables, image, None, alpha)).mean()

    judge_variables = initialised(judge, images(8), None)
    gradients = jax.device_get(jax.jit(jax.grad(loss, (0, 1)))(params, judge_variables, 0.5))
    for path, leaf in jax.tree_util.tree_flatten_with_path(gradients)[0]:
        name = jax.tree_util.keystr(path)
        assert np.isfinite(leaf).all(), name
        assert "kernel" not in name or leaf.any(), name


def test_size_and_parameter_count_of_the_paper():
    painter = AdaINSynthesis(1024, PAPER_CHANNELS, 512, 18)
    judge = GrowingDiscriminator(1024, PAPER_CHANNELS)
    w_plus, image = jnp.zeros((2, 18, 512)), jax.ShapeDtypeStruct((2, 1024, 1024, 3), jnp.float32)

    def outputs(w_plus, image, key):
        painted, variables = painter.init_with_output(key, w_plus, 1.0)
        logits, d_variables = judge.init_with_output(key, image, None, 1.0)
        mapping = Mapping().init(key, w_plus[:, 0])
        return painted, logits, variables, d_variables["params"], mapping["params"]

    painted, logits, variables, d_params, mapping = jax.eval_shape(outputs, w_plus, image, jax.random.key(0))
    assert painted.shape == image.shape and logits.shape == (2, 1)
    assert {leaf.shape[0] for leaf in jax.tree.leaves(variables["noise"])} == set(dict(PAPER_CHANNELS))
    older = sum(3 * width + 3 for size, width in PAPER_CHANNELS if size < 512)
    trained = jax.tree.leaves([variables["params"], mapping])
    # The paper: 26.2 million trainable parameters, the ToRGB of every size and the mapping among them.
    assert sum(math.prod(leaf.shape) for leaf in trained) + older == 26_219_627
    assert all(not name.startswith("b256_fromrgb") for name in d_params)


def test_misfits_are_refused():
    with pytest.raises(ValueError, match="power of two"):
        shapes(synthesis(4), styles())
    with pytest.raises(ValueError, match="no entry for \\[64\\]"):
        shapes(AdaINSynthesis(64, CHANNELS, W_DIM, 10), jnp.zeros((1, 10, W_DIM)))
    with pytest.raises(ValueError, match="style vectors"):
        shapes(AdaINSynthesis(32, CHANNELS, W_DIM, 6), styles()[:, :6])
    with pytest.raises(ValueError, match="expected"):
        shapes(synthesis(8), styles()[:, 1:])
    with pytest.raises(ValueError, match="expected side 16"):
        shapes(GrowingDiscriminator(16, CHANNELS), images(8), None)
    with pytest.raises(ValueError, match="noise_keys"):
        synthesis(8).init(jax.random.key(0), styles(), 1.0, noise_mode="random")


@pytest.mark.parametrize(
    ("images_seen", "stage"),
    [
        (0, (8, 1.0)),
        (299, (8, 1.0)),
        (300, (16, 0.0)),
        (301, (16, 1 / 100)),
        (350, (16, 0.5)),
        (399, (16, 99 / 100)),
        (400, (16, 1.0)),
        (699, (16, 1.0)),
        (700, (32, 0.0)),
        (799, (32, 99 / 100)),
        (800, (32, 1.0)),
        (1100, (32, 1.0)),
        (10**9, (32, 1.0)),
    ],
)
def test_schedule_at_its_borders(images_seen, stage):
    assert stage_at(Growth(start=8, final=32, fade_kimg=0.1, stable_kimg=0.3), images_seen) == stage


@pytest.mark.parametrize(
    "growth", [Growth(8, 32, 0.1, 0.3), Growth(8, 32, 0.1, 0.0), Growth(8, 32, 0.0, 0.2)]
)
def test_alpha_follows_from_the_number_of_images_without_drift(growth):
    alpha = jax.jit(lambda images, side: jnp.float32(alpha_at(growth, side, images)), static_argnums=1)
    for images_seen in range(0, 1000, 7):
        resolution, expected = stage_at(growth, images_seen)
        # A rounding of float32, whatever the number of images.
        assert float(alpha(images_seen, resolution)) == pytest.approx(expected, rel=2e-7), images_seen
        # The checkpoint of a stage's last step, when the next stage would have begun.
        if images_seen > 800:
            assert float(alpha(images_seen, 16)) == 1


def test_schedules_without_a_fade_or_without_growth():
    assert [stage_at(Growth(8, 16, 0, 1), seen) for seen in (999, 1000)] == [(8, 1.0), (16, 1.0)]
    assert [stage_at(Growth(8, 32, 1, 0), seen) for seen in (0, 500, 1000, 2000)] == [
        (16, 0.0),
        (16, 0.5),
        (32, 0.0),
        (32, 1.0),
    ]
    assert stage_at(Growth(64, 64, 1, 0), 0) == (64, 1.0)
    for wrong in (Growth(4, 16, 1, 1), Growth(32, 16, 1, 1), Growth(8, 24, 1, 1), Growth(8, 16, -1, 1)):
        with pytest.raises(ValueError):
            stage_at(wrong, 0)
