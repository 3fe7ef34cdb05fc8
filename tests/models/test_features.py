"""models/features.py: features of whole images."""

import jax
import numpy as np
import pytest

from fundusgan_jax.errors import UserError
from fundusgan_jax.models.features import DIMENSIONS, SIDES, features
from fundusgan_jax.models.resnet import ResNet, imagenet_normalize
from fundusgan_jax.ops.resize import resize
from fundusgan_jax.weights.features import load_features
from fundusgan_jax.weights.import_torchvision import resnet_table, state_dict_shapes
from fundusgan_jax.weights.public_weights import WEIGHTS_FOLDER_VARIABLE
from fundusgan_jax.weights.seeded import seeded_state_dict

RNG = np.random.default_rng(0)
FEATURES = jax.jit(features)


def test_pixels_are_the_reduced_image():
    cells = RNG.integers(0, 256, (2, 8, 8, 3), dtype=np.uint8)
    blocks = cells.repeat(4, 1).repeat(4, 2)
    source = load_features("pixels")
    found = np.asarray(FEATURES(source, blocks))
    assert found.shape == (2, 192) == (2, source.dimensions)
    assert np.corrcoef(found.ravel(), cells.ravel())[0, 1] > 0.9
    # A flat image stays what it is, in [-1, 1]; floats of the same range are taken too.
    flat = np.full((1, 32, 32, 3), 191.25, np.float32)
    np.testing.assert_allclose(FEATURES(source, flat), 0.5, atol=1e-5)
    assert load_features("none") is None


def test_the_resize_mode_decides():
    images = RNG.integers(0, 256, (1, 64, 64, 3), dtype=np.uint8)
    clean, legacy = (FEATURES(load_features("pixels", "", mode), images) for mode in ("clean", "legacy"))
    assert np.abs(np.asarray(clean) - np.asarray(legacy)).max() > 0.1
    with pytest.raises(UserError, match="clean or legacy, not 'nearest'"):
        load_features("pixels", "", "nearest")


def test_squeezenet_features_are_its_last_map_averaged(shared):
    source = load_features("squeezenet", str(shared / "weights" / "squeezenet1_1_imagenet.npz"))
    images = RNG.integers(0, 256, (2, 64, 64, 3), dtype=np.uint8)
    found = FEATURES(source, images)
    assert found.shape == (2, 512)
    maps = jax.jit(lambda x: source.net.apply(resize(x, 224, "clean") / 127.5 - 1))(images)
    np.testing.assert_allclose(found, np.mean(maps[-1], (1, 2)), rtol=1e-4, atol=1e-4)
    assert "not" not in source.describe() and "224" in source.describe() and "bicubic" in source.describe()
    assert source.distance_names == ("frechet", "kernel") and len(source.fingerprint()) == 16


@pytest.mark.slow
def test_resnet_features_are_what_its_classifier_sees(tmp_path):
    module = ResNet(depth=50, num_classes=10)
    flat = seeded_state_dict(state_dict_shapes(module, resnet_table(50, True)), 1)
    np.savez(tmp_path / "r.npz", **flat)
    source = load_features("resnet50", str(tmp_path / "r.npz"))
    images = RNG.integers(0, 256, (1, 224, 224, 3), dtype=np.uint8)
    found = np.asarray(FEATURES(source, images))
    assert found.shape == (1, 2048)
    body = ResNet(depth=50)
    maps = jax.jit(lambda x: body.apply(source.net, imagenet_normalize(x / 127.5 - 1)).c5)(
        images.astype(np.float32)
    )
    np.testing.assert_allclose(found, np.mean(maps, (1, 2)), rtol=1e-3, atol=1e-3)


def test_missing_weights_say_how_to_get_them(tmp_path, monkeypatch):
    monkeypatch.setenv(WEIGHTS_FOLDER_VARIABLE, str(tmp_path))
    for name in ("inception", "vgg16", "resnet50"):
        with pytest.raises(UserError, match=f"weights fetch {name}"):
            load_features(name)
    assert set(SIDES) == set(DIMENSIONS)
