"""models/features.py: features of whole images."""

import jax.numpy as jnp
import numpy as np

from fundusgan_jax.models.features import describe_features, features, load_features


def test_pixels_are_the_reduced_image():
    rng = np.random.default_rng(0)
    images = rng.uniform(-1, 1, (2, 1, 8, 1, 8, 3)).astype(np.float32)
    blocks = np.broadcast_to(images.transpose(0, 2, 1, 4, 3, 5), (2, 8, 4, 8, 4, 3)).reshape(2, 32, 32, 3)
    found = np.asarray(features(load_features("pixels"), jnp.asarray(blocks)))
    assert found.shape == (2, 192)
    # Antialiased: a cell's value is a weighted mean around it, so a constant image is exact.
    flat = features(load_features("pixels"), jnp.full((1, 32, 32, 3), 0.25))
    np.testing.assert_allclose(flat, 0.25, atol=1e-6)
    middle = found.reshape(2, 8, 8, 3)
    assert np.corrcoef(middle.ravel(), images[:, 0, :, 0, :, :].ravel())[0, 1] > 0.9
    assert load_features("none") is None and describe_features("none") is None


def test_squeezenet_features_are_its_last_map_averaged(shared):
    source = load_features("squeezenet", str(shared / "weights" / "squeezenet1_1_imagenet.npz"))
    images = jnp.asarray(np.random.default_rng(0).uniform(-1, 1, (2, 224, 224, 3)), jnp.float32)
    found = features(source, images)
    assert found.shape == (2, 512)
    np.testing.assert_allclose(found, np.mean(source.net.apply(images)[-1], (1, 2)), rtol=1e-5, atol=1e-5)
    # An image of another size is resized first.
    assert features(source, images[:, ::4, ::4]).shape == (2, 512)
    assert "not" not in describe_features("squeezenet") and "224" in describe_features("squeezenet")
