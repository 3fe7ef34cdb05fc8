"""train/interval_means.py: means of what was finite, the same bits after a checkpoint as without one."""

import json

import jax.numpy as jnp
import numpy as np

from fundusgan_jax.train.interval_means import added, means, restored_sums, saved_sums


def test_a_mean_is_of_the_steps_that_have_the_term_and_were_finite():
    calls = [{"loss": 1.0}, {"loss": 2.0, "r1": 5.0}, {"loss": np.nan}, {"loss": np.inf, "r1": 6.0}]
    sums = {}
    for terms in calls:
        sums = added(sums, {name: jnp.float32(value) for name, value in terms.items()})
    # A call of three steps, of which one does not have R1.
    several = {"loss": jnp.array([3.0, 4.0, np.nan]), "r1": jnp.array([np.nan, 7.0, np.nan])}
    assert means(added(sums, several)) == {"loss": 2.5, "r1": 6.0}
    assert np.isnan(means(added({}, {"loss": jnp.float32(np.nan)}))["loss"])


def test_sums_go_through_a_checkpoint_without_a_change_of_a_bit():
    values = np.random.default_rng(0).standard_normal(50).astype(np.float32) * 1e-3 + np.float32(1 / 3)
    straight, resumed = {}, {}
    for number, value in enumerate(values):
        straight, resumed = (added(sums, {"loss": jnp.asarray(value)}) for sums in (straight, resumed))
        if number == 17:
            resumed = restored_sums(json.loads(json.dumps(saved_sums(resumed))))
    assert means(straight) == means(resumed)
    np.testing.assert_allclose(means(straight)["loss"], values.astype(np.float64).mean(), rtol=1e-6)
