"""A linear layer's values and gradients against another form of it; shared by the tests of ops/."""

import jax
import jax.numpy as jnp
import numpy as np


def assert_alike(ours, theirs, x, kernel, *, atol, gradient):
    """Values within `atol`, both gradients within `gradient` of their largest value, for a random cotangent.

    `theirs` in float64: in float32 XLA's own rounding, which differs between processors, would count as an error of `ours`.
    """
    shape = jax.eval_shape(theirs, x, kernel).shape
    cotangent = jnp.asarray(np.random.default_rng(9).standard_normal(shape), jnp.float32)
    mine, my_gradients = value_and_gradients(ours, (x, kernel), cotangent)
    with jax.enable_x64():
        exact = [jnp.asarray(np.asarray(array), jnp.float64) for array in (x, kernel, cotangent)]
        wanted, gradients = jax.device_get(value_and_gradients(theirs, tuple(exact[:2]), exact[2]))
    np.testing.assert_allclose(mine, wanted, atol=atol)
    for mine, wanted in zip(my_gradients, gradients):
        np.testing.assert_allclose(mine, wanted, atol=gradient * float(np.abs(wanted).max()))


def value_and_gradients(function, arguments, cotangent):
    """The value, and the gradients to all arguments; one program, which compiles faster than its operations one by one."""

    def both(arguments, cotangent):
        value, backward = jax.vjp(function, *arguments)
        return value, backward(cotangent)

    return jax.jit(both)(arguments, cotangent)


def penalties(function):
    """Losses of the gradient to the map (as R1 is) and of that to the kernel, to be differentiated."""
    return (
        lambda x, k: jnp.sum(jax.grad(lambda y: jnp.sum(jnp.sin(function(y, k))))(x) ** 2),
        lambda x, k: jnp.sum(jax.grad(lambda k: jnp.sum(jnp.sin(function(x, k))))(k) ** 2),
    )


def second_derivatives(function, x, kernel):
    """Of both penalties, to the map and to the kernel: four arrays."""
    gradients = [jax.grad(penalty, (0, 1)) for penalty in penalties(function)]
    return jax.jit(lambda x, kernel: [g for gradient in gradients for g in gradient(x, kernel)])(x, kernel)
