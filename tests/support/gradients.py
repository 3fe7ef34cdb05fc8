"""A linear layer's values and gradients against another form of it; shared by the tests of ops/."""

import jax
import jax.numpy as jnp
import numpy as np


def assert_alike(ours, theirs, x, kernel, *, atol, gradient):
    """Values within `atol`, both gradients within `gradient` of their largest value, for a random cotangent."""
    mine, vjp = jax.vjp(ours, x, kernel)
    wanted, reference = jax.vjp(theirs, x, kernel)
    np.testing.assert_allclose(mine, wanted, atol=atol)
    cotangent = jnp.asarray(np.random.default_rng(9).standard_normal(wanted.shape), jnp.float32)
    for mine, wanted in zip(vjp(cotangent), reference(cotangent)):
        np.testing.assert_allclose(mine, wanted, atol=gradient * float(jnp.abs(wanted).max()))


def penalties(function):
    """Losses of the gradient to the map (as R1 is) and of that to the kernel, to be differentiated."""
    return (
        lambda x, k: jnp.sum(jax.grad(lambda y: jnp.sum(jnp.sin(function(y, k))))(x) ** 2),
        lambda x, k: jnp.sum(jax.grad(lambda k: jnp.sum(jnp.sin(function(x, k))))(k) ** 2),
    )


def second_derivatives(function, x, kernel):
    """Of both penalties, to the map and to the kernel: four arrays."""
    return [g for penalty in penalties(function) for g in jax.grad(penalty, (0, 1))(x, kernel)]
