"""ops/gpu/epilogue.py: the kernel's source, interpreted, against XLA's form, to second order; a generator with it."""

import dataclasses
import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from fundusgan_jax.models.generator import Synthesis
from fundusgan_jax.models.plan import GeneratorConfig
from fundusgan_jax.ops.gpu import epilogue_kernels
from fundusgan_jax.ops.gpu.epilogue import Convolved, modulated, modulated_by_xla

# Of the convolution, and whether the filter follows: sides that no block divides.
# Slow to compile; CI has them.
pytestmark = pytest.mark.slow

SHAPES = [((2, 9, 9, 4), True), ((1, 17, 7, 8), True), ((2, 8, 6, 4), False), ((1, 5, 5, 2), False)]


@pytest.fixture(autouse=True)
def small_blocks(monkeypatch):
    """Several strips and blocks, the last ones cut."""
    monkeypatch.setattr(epilogue_kernels, "STRIP", 3)
    monkeypatch.setattr(epilogue_kernels, "BLOCK", 16)


def inputs_of(shape, filtered, dtype="float32", size=1.0):
    n, height, width, channels = shape
    rng = np.random.default_rng(0)
    convolved = size * rng.standard_normal(shape)
    scale = rng.uniform(0.2, 2, (n, channels))
    noise = rng.standard_normal((n, height - filtered, width - filtered, 1))
    bias = rng.standard_normal(channels)
    styles = rng.standard_normal((n, channels))
    rest = [jnp.asarray(x, jnp.float32) for x in (scale, noise, bias, styles)]
    return jnp.asarray(convolved, dtype), *rest


def forms(filtered):
    """The kernel and XLA's form: functions of the five arrays."""
    return (
        lambda *inputs: modulated(Convolved(*inputs[:4]), inputs[4], interpret=True),
        functools.partial(modulated_by_xla, filtered=filtered),
    )


def value_and_gradients(function, inputs):
    def objective(*inputs):
        y = function(*inputs)
        return jnp.sum(jnp.sin(y.astype(jnp.float32))), y

    (_, y), gradients = jax.jit(jax.value_and_grad(objective, tuple(range(5)), has_aux=True))(*inputs)
    return y, gradients


@pytest.mark.parametrize("shape, filtered", SHAPES)
def test_the_kernel_is_xlas_form(shape, filtered):
    inputs = inputs_of(shape, filtered)
    (ours, mine), (wanted, theirs) = (value_and_gradients(form, inputs) for form in forms(filtered))
    assert ours.shape == (shape[0], shape[1] - filtered, shape[2] - filtered, shape[3])
    np.testing.assert_allclose(ours, wanted, atol=1e-5)
    for a, b in zip(mine, theirs):
        assert a.shape == b.shape and a.dtype == b.dtype
        np.testing.assert_allclose(a, b, atol=1e-5 * float(jnp.abs(b).max()))


@pytest.mark.parametrize("filtered", [True, False])
def test_half_precision_is_clamped_and_its_gradient_cut(filtered):
    inputs = inputs_of((1, 9, 9, 4), filtered, "bfloat16", size=300.0)
    (ours, mine), (wanted, theirs) = (value_and_gradients(form, inputs) for form in forms(filtered))
    assert ours.dtype == mine[0].dtype == jnp.bfloat16
    np.testing.assert_allclose(np.float32(ours), np.float32(wanted), rtol=2**-8)
    cut = np.float32(mine[0]) == 0
    assert 0 < cut.mean() < 1 or filtered
    for a, b in zip(mine, theirs):
        a, b = np.float32(a), np.float32(b)
        assert np.linalg.norm(a - b) < 0.02 * np.linalg.norm(b)


@pytest.mark.parametrize("filtered", [True, False])
def test_second_derivatives(filtered):
    """As path length regularisation takes them: of a gradient's square, to everything."""
    inputs = inputs_of((1, 9, 7, 4), filtered)

    def penalty(form):
        def loss(*inputs):
            gradients = jax.grad(lambda *inputs: jnp.sum(jnp.sin(form(*inputs))), (0, 4))(*inputs)
            return sum(jnp.sum(jnp.square(gradient)) for gradient in gradients)

        return jax.jit(jax.grad(loss, tuple(range(5))))(*inputs)

    for a, b in zip(*(penalty(form) for form in forms(filtered))):
        np.testing.assert_allclose(a, b, atol=1e-5 * float(jnp.abs(b).max()))


def test_channels_of_no_power_of_two_take_xlas_form():
    inputs = inputs_of((1, 5, 5, 3), True)
    kernel, plain = forms(True)
    np.testing.assert_array_equal(jax.jit(kernel)(*inputs), jax.jit(plain)(*inputs))


@pytest.mark.parametrize("base_size", [4, 8])
def test_a_fused_generator_paints_and_learns_the_same(base_size):
    """With layers of all kinds; the kernel itself is not in it here: on a processor XLA's form takes its place."""
    plain = GeneratorConfig(resolution=16, base_size=base_size, channel_base=128, channel_max=8, w_dim=8)
    rng = np.random.default_rng(1)
    w_plus = jnp.asarray(rng.standard_normal((2, plain.num_ws, 8)), jnp.float32)
    network = Synthesis(plain)
    variables = network.init(jax.random.key(0), w_plus)
    variables = jax.tree.map(lambda x: x + 0.1 * rng.standard_normal(x.shape).astype("f"), variables)

    def outcome(config):
        def objective(variables, w_plus):
            image = Synthesis(config).apply(variables, w_plus)
            return jnp.sum(jnp.sin(image)), image

        return jax.jit(jax.value_and_grad(objective, (0, 1), has_aux=True))(variables, w_plus)

    (_, wanted), theirs = outcome(plain)
    (_, ours), mine = outcome(dataclasses.replace(plain, fused=True))
    np.testing.assert_allclose(ours, wanted, atol=1e-5 * float(jnp.abs(wanted).max()))
    for a, b in zip(jax.tree.leaves(mine), jax.tree.leaves(theirs), strict=True):
        np.testing.assert_allclose(a, b, atol=1e-5 * max(float(jnp.abs(b).max()), 1.0))


@pytest.mark.skipif(
    jax.__version_info__ >= (0, 11),
    reason="jax 0.11 lowers kernels only where a card is, or is described by a mesh",
)
def test_a_generator_with_it_has_the_kernel_in_a_program_for_cuda():
    config = GeneratorConfig(
        resolution=8, channel_base=64, channel_max=8, w_dim=8, fused=True, dtype="bfloat16"
    )
    w_plus = jax.ShapeDtypeStruct((1, config.num_ws, 8), jnp.float32)
    network = Synthesis(config)
    variables = jax.eval_shape(network.init, jax.random.key(0), w_plus)

    def gradient(variables, w_plus):
        return jax.grad(lambda *inputs: jnp.sum(network.apply(*inputs)))(variables, w_plus)

    lowered = jax.jit(gradient).trace(variables, w_plus).lower(lowering_platforms=("cuda",))
    # Three layers, forward and backward.
    assert lowered.as_text().count("__gpu$xla.gpu.triton") == 6
