"""generate/sample.py: an image belongs to its seed and number, whatever the batch and the devices."""

import numpy as np
import pytest

from fundusgan_jax.generate import sample
from fundusgan_jax.steps.prior_state import first_prior
from tests.support.tiny import tiny_prior_config


@pytest.fixture(scope="module")
def prior():
    config = tiny_prior_config(model__num_labels=2)
    return config, first_prior(config)


def images(config, state, numbers, label=0, psi=0.7, seed=3):
    sampler = sample.Sampler(config, state, 16)
    numbers = np.asarray(numbers)
    made = sampler.images(numbers, np.full(len(numbers), label), seed=seed, truncation_psi=psi)
    return np.concatenate(list(made))


def apart(a, b):
    return np.abs(a.astype(int) - b.astype(int)).max()


def test_batch_size_and_devices_do_not_change_an_image(prior):
    config, state = prior
    whole = images(config, state, range(11))
    assert whole.shape == (11, 16, 16, 3) and whole.dtype == np.uint8
    alone = images(tiny_prior_config(model__num_labels=2, eval__batch_size=1), state, [5])
    # Sums of another order may round one grey level differently; draws would differ by far more.
    assert apart(alone[0], whole[5]) <= 1
    # Eight devices with two images each, of which the last two are filling.
    other = images(tiny_prior_config(model__num_labels=2, eval__batch_size=14), state, range(11))
    assert apart(other, whole) <= 1


def test_seed_number_label_and_psi_all_matter(prior):
    config, state = prior
    base = images(config, state, [0, 1])
    assert apart(base[0], base[1]) > 3
    for changed in ({"seed": 4}, {"label": 1}, {"psi": 0.2}):
        assert apart(images(config, state, [0], **changed)[0], base[0]) > 1, changed
    np.testing.assert_array_equal(images(config, state, [0, 1]), base)


def test_truncation_to_nothing_is_the_mean_latent(prior):
    config, state = prior
    sampler = sample.Sampler(config, state, 16)
    w = sampler.w(np.arange(3), np.zeros(3), 0, 0.0)
    np.testing.assert_allclose(w, np.broadcast_to(state.w_avg, (3, 8)), atol=1e-6)
    full, half = (sampler.w(np.arange(3), np.zeros(3), 0, psi) for psi in (1.0, 0.5))
    np.testing.assert_allclose(half, state.w_avg + 0.5 * (full - state.w_avg), atol=1e-6)


def test_labels_are_drawn_in_the_proportions_of_the_photographs():
    config = tiny_prior_config(model__num_labels=3)
    labels = sample.drawn_labels(config, np.repeat([0, 2], [30, 10]), 4000, 0)
    assert set(labels) == {0, 2} and 0.7 < np.mean(labels == 0) < 0.8
    assert not sample.drawn_labels(tiny_prior_config(), np.ones(5), 7, 0).any()
