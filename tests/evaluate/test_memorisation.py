"""evaluate/memorisation.py: copies of training photographs are named as such, new eyes are not, and the controls say what that is worth."""

import numpy as np
import pytest
from PIL import Image

from fundusgan_jax.data.packed import PackedSplit
from fundusgan_jax.data.phantom.render import render
from fundusgan_jax.evaluate.lookup import altered
from fundusgan_jax.evaluate.memorisation import SHOWN, check_memorisation, computed_features
from fundusgan_jax.evaluate.memorisation_sources import judge_of
from fundusgan_jax.steps.adversary import logits
from fundusgan_jax.steps.batch import to_float
from fundusgan_jax.steps.prior_state import first_prior
from fundusgan_jax.weights.features import load_features
from tests.support.tiny import tiny_prior_config


def _split(seeds: range) -> PackedSplit:
    images = np.stack([render(seed, 64).image for seed in seeds])
    names = tuple(f"eye{seed}" for seed in seeds)
    return PackedSplit(images, np.zeros(len(seeds), np.int32), np.zeros(len(seeds), np.int32), names, names)


@pytest.fixture(scope="module")
def splits():
    return _split(range(80)), _split(range(80, 120))


@pytest.mark.slow
def test_copies_are_called_copies(splits, tmp_path):
    train, held_out = splits
    rng = np.random.default_rng(1)
    copies = np.stack(
        [altered(image, rng, bool(number % 2)) for number, image in enumerate(train.images[:12])]
    )

    def judge(images: np.ndarray, labels: np.ndarray) -> np.ndarray:
        return images.mean((1, 2, 3)) + (5 if len(images) == 80 else 0)

    path = tmp_path / "gallery.png"
    memory = check_memorisation(copies, "altered", train, held_out, None, judge, 0, path)
    assert memory.verdict.startswith("Training photographs are repeated")
    assert memory.flagged.either >= 10 and memory.controls.found >= 14
    assert memory.nearer.of_all == 1 and memory.membership_auc.value > 0.5
    closest = [match for match in memory.closest if match.kind == "generated"]
    assert len(closest) == SHOWN
    assert all(match.file == f"eye{match.number}" for match in closest)
    # Vessels are thinner than a pixel at 64 px; structures are compared all the same.
    assert all(np.isnan(match.vessel_overlap) for match in memory.closest)
    assert memory.medians["generated"].correlation > 0.85
    assert all(match.held_out_correlation < match.correlation for match in closest)
    with Image.open(path) as gallery:
        assert gallery.width > 4 * 128 and gallery.height > 10 * 128


def test_features_of_photographs_that_are_known_are_taken(splits):
    train, held_out = splits
    asked, network = [], load_features("pixels")

    def known(source, side, split):
        asked.append(side)
        return computed_features(source, side, split)

    fresh = _split(range(200, 208)).images
    arguments = (fresh, "rendered", train, held_out, network, None, 0, None)
    assert check_memorisation(*arguments, known).nearer == check_memorisation(*arguments).nearer
    assert asked == ["train", "held_out"]


def test_new_eyes_are_not(splits):
    train, held_out = splits
    fresh = _split(range(200, 224)).images
    memory = check_memorisation(fresh, "rendered", train, held_out, None, None, 0, None)
    assert memory.verdict.startswith("No sign of repeated")
    assert memory.membership_auc is None and memory.flagged.either <= 3
    # One of 40 by each of the two figures, at most.
    assert memory.flagged_held_out.pixels == memory.flagged_held_out.structure == 1
    assert 1 <= memory.flagged_held_out.either <= 2
    assert memory.nearer.interval.low < 0.5 < memory.nearer.interval.high


def test_a_check_that_finds_no_control_says_so(splits, monkeypatch):
    train, held_out = splits
    # Held-out photographs that are training photographs leave no room for anything closer.
    memory = check_memorisation(held_out.images[:4], "none", train, train, None, None, 0, None)
    assert memory.controls.found < 12 and memory.verdict.startswith("The check means little here")


def test_the_discriminator_judges_each_image_by_itself():
    config = tiny_prior_config()
    state = first_prior(config, config.data.resolution)
    judge = judge_of(config, state.adversary)
    side = config.data.resolution
    images = np.random.default_rng(0).integers(0, 256, (19, side, side, 3), dtype=np.uint8)
    labels = np.full(19, -1, np.int32)
    scores = judge(images, labels)
    assert scores.shape == (19,) and len(np.unique(scores)) == 19
    np.testing.assert_allclose(judge(images[5:8], labels[5:8]), scores[5:8], rtol=1e-5, atol=1e-6)
    assert judge_of(config, None) is None


@pytest.mark.slow
def test_an_unknown_class_is_not_the_first_one():
    config = tiny_prior_config(model__num_labels=3)
    state = first_prior(config, config.data.resolution)
    side = config.data.resolution
    image = np.random.default_rng(0).integers(0, 256, (1, side, side, 3), dtype=np.uint8)
    judge = judge_of(config, state.adversary)
    scores = {label: float(judge(image, np.full(1, label, np.int32))[0]) for label in (-1, 0, 1)}
    # What a training step asks the same discriminator.
    expected = logits(config, state.adversary.params, to_float(image), np.full(1, -1, np.int32))
    assert scores[-1] == pytest.approx(float(expected[0, 0]), rel=1e-4, abs=1e-6)
    assert len({round(score, 6) for score in scores.values()}) == 3
