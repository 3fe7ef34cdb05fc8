"""evaluate/sets.py: no image is dropped, sizes may be mixed, and what cannot be said is said."""

import subprocess
import sys

import numpy as np
import pytest

from fundusgan_jax.errors import UserError
from fundusgan_jax.evaluate.sets import image_features, open_features, score_sets
from fundusgan_jax.metrics.neighbours import neighbour_figures
from fundusgan_jax.metrics.sets import frechet_distance
from fundusgan_jax.weights.features import load_features
from tests.support.tiny import tiny_config

RNG = np.random.default_rng(0)
IMAGES = [RNG.integers(0, 256, (side, side, 3), dtype=np.uint8) for side in (16, 16, 16, 24, 24, 16, 16)]


def test_every_image_counts_whatever_the_batch_and_the_sizes():
    source = load_features("pixels")
    one = np.concatenate([image_features(source, [image], 1, 1) for image in IMAGES])
    for size in (2, 4, 16):
        np.testing.assert_allclose(image_features(source, iter(IMAGES), 7, size), one, atol=1e-5)
    with pytest.raises(ValueError, match="8 images were announced, 7 came"):
        image_features(source, IMAGES, 8, 4)


def test_features_of_the_losss_network_come_from_the_losss_file(tmp_path):
    own, others = str(tmp_path / "own.npz"), str(tmp_path / "others.npz")
    of_loss = {"eval__features": "squeezenet", "loss__perceptual_weights": own}
    with pytest.raises(UserError, match="own.npz"):
        open_features(tiny_config(**of_loss, loss__perceptual_net="squeezenet"))
    with pytest.raises(UserError, match="others.npz"):
        open_features(
            tiny_config(**of_loss, loss__perceptual_net="squeezenet", eval__features_weights=others)
        )
    # Of another network: its file does not count.
    with pytest.raises(UserError) as caught:
        open_features(
            tiny_config(**of_loss | {"eval__features": "alexnet"}, loss__perceptual_net="squeezenet")
        )
    assert "own.npz" not in str(caught.value)


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
import numpy as np
from fundusgan_jax.weights.features import load_features
from fundusgan_jax.errors import UserError
from fundusgan_jax.evaluate.sets import image_features, open_features, score_sets

class Wide:
    dimensions, distance_names = 256, ("fid", "kid")

rng, source = np.random.default_rng(0), load_features("pixels")
def peak():  # getrusage would have the peak of the process that started this one
    lines = open("/proc/self/status").read().splitlines()
    return next(int(line.split()[1]) for line in lines if line.startswith("VmHWM:")) / 2**20

for count in (300, 3_000):
    images = (rng.integers(0, 256, (299, 299, 3), dtype=np.uint8) for _ in range(count))
    assert image_features(source, images, count, 32).shape == (count, 192)
    print(peak())
a, b = (rng.standard_normal((10_000, 256), dtype=np.float32) for _ in range(2))
score_sets(Wide(), a, b, (None, None), 0)
print(peak())
"""


@pytest.mark.slow
def test_images_pass_through_memory_and_ten_thousand_features_fit_into_4_gib():
    done = subprocess.run([sys.executable, "-c", MEMORY], capture_output=True, text=True, check=True)
    few, many, scored = map(float, done.stdout.split())
    # 3,000 images are 0.75 GiB as bytes.
    assert many - few < 0.25 and scored < 4.0
