"""evaluate/sets.py: no image is dropped, sizes may be mixed, and what cannot be said is said."""

import subprocess
import sys

import numpy as np
import pytest

from fundusgan_jax.evaluate.sets import image_features, score_sets
from fundusgan_jax.metrics.neighbours import neighbour_figures
from fundusgan_jax.metrics.sets import frechet_distance
from fundusgan_jax.weights.features import load_features

RNG = np.random.default_rng(0)
IMAGES = [RNG.integers(0, 256, (side, side, 3), dtype=np.uint8) for side in (16, 16, 16, 24, 24, 16, 16)]


def test_every_image_counts_whatever_the_batch_and_the_sizes():
    source = load_features("pixels")
    one = np.concatenate([image_features(source, [image], 1, 1) for image in IMAGES])
    for size in (2, 4, 16):
        np.testing.assert_allclose(image_features(source, iter(IMAGES), 7, size), one, atol=1e-5)
    with pytest.raises(ValueError, match="8 images were announced, 7 came"):
        image_features(source, IMAGES, 8, 4)


def test_figures_intervals_and_warnings():
    source = load_features("pixels")
    a = RNG.standard_normal((60, 192)).astype(np.float32)
    b = RNG.standard_normal((70, 192)).astype(np.float32) + 0.3
    patients = [str(number // 2) for number in range(70)]
    scores = score_sets(source, a, b, (None, patients), seed=3)
    assert scores.values["frechet"] == pytest.approx(frechet_distance(a, b))
    assert scores.values["precision"] == neighbour_figures(a, b, 3).means()["precision"]
    assert scores.values["coverage"] == neighbour_figures(a, b, 5).means()["coverage"]
    assert set(scores.values) == {
        "frechet", "frechet_infinity", "kernel", "kernel_subsets", "kernel_subsets_std", "precision", "recall",
        "density", "coverage",
    }  # fmt: skip
    for name in ("frechet", "kernel", "precision", "recall", "density", "coverage"):
        assert scores.intervals[name].low <= scores.values[name] <= scores.intervals[name].high, name
    assert scores.values["frechet_infinity"] < scores.values["frechet"]
    (warning,) = scores.warnings
    assert "60 and 70 images are too few" in warning and "192 dimensions" in warning
    again = score_sets(source, a, b, (None, patients), seed=3)
    assert again == scores


def test_few_images_say_so():
    source = load_features("pixels")
    few = RNG.standard_normal((4, 192)).astype(np.float32)
    scores = score_sets(source, few, few[:3], (None, None), seed=0)
    assert "precision" not in scores.values and len(scores.warnings) == 2
    assert np.isnan(scores.intervals["frechet"]).all()


MEMORY = """
import resource, numpy as np
from fundusgan_jax.weights.features import load_features
from fundusgan_jax.evaluate.sets import image_features, score_sets

class Wide:  # features of Inception's size
    dimensions, distance_names = 2048, ("fid", "kid")

rng = np.random.default_rng(0)
stream = (rng.integers(0, 256, (299, 299, 3), dtype=np.uint8) for _ in range(10_000))
found = image_features(load_features("pixels"), stream, 10_000, 32)
assert found.shape == (10_000, 192)
a, b = (rng.standard_normal((10_000, 2048), dtype=np.float32) for _ in range(2))
score_sets(Wide(), a, b, (None, None), 0)
print(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 2**20)
"""


@pytest.mark.slow
def test_ten_thousand_images_of_299_px_fit_into_4_gib():
    done = subprocess.run([sys.executable, "-c", MEMORY], capture_output=True, text=True, check=True)
    assert float(done.stdout) < 4.0
