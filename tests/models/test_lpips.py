"""The perceptual distances' properties and their files; LPIPS's golden parity is in tests/weights/test_command.py."""

from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from fundusgan_jax.errors import UserError
from fundusgan_jax.models import lpips
from fundusgan_jax.models.lpips import perceptual_distance
from fundusgan_jax.models.squeezenet import SqueezeNet
from fundusgan_jax.weights import perceptual
from fundusgan_jax.weights.import_torchvision import squeezenet_table, state_dict_shapes
from fundusgan_jax.weights.perceptual import load_perceptual, open_perceptual, perceptual_net
from fundusgan_jax.weights.public_weights import WEIGHTS_FOLDER_VARIABLE
from fundusgan_jax.weights.seeded import seeded_state_dict
from tests.support.tiny import tiny_config

SMALL = SqueezeNet(6, (2,) * 8, (3,) * 8)
IMAGES = jnp.asarray(np.random.default_rng(0).uniform(-1, 1, (2, 32, 32, 3)), jnp.float32)
OTHERS = jnp.asarray(np.random.default_rng(1).uniform(-1, 1, (2, 32, 32, 3)), jnp.float32)


def _small_flat() -> dict[str, np.ndarray]:
    return seeded_state_dict(state_dict_shapes(SMALL, squeezenet_table()), 5)


def _small_heads(value: float = 1.0) -> dict[str, np.ndarray]:
    channels = lpips.map_channels(SMALL)
    return {f"squeeze/lin{i}.model.1.weight": np.full((1, c, 1, 1), value) for i, c in enumerate(channels)}


def test_properties() -> None:
    net = perceptual_net("squeezenet", _small_flat())
    distance = jax.jit(perceptual_distance)
    np.testing.assert_allclose(distance(net, IMAGES, IMAGES), 0, atol=1e-12)
    d = np.asarray(distance(net, IMAGES, OTHERS))
    assert ((d > 0) & (d <= 2)).all()
    np.testing.assert_allclose(d, distance(net, OTHERS, IMAGES), rtol=1e-5)


def test_gradient_flows_to_the_painted_image_alone_and_is_finite_where_equal() -> None:
    net = perceptual_net("squeezenet", _small_flat())
    gradient = jax.jit(jax.grad(lambda x, y: perceptual_distance(net, x, y).sum(), (0, 1)))
    to_x, to_y = gradient(IMAGES, OTHERS)
    assert float(jnp.abs(to_x).max()) > 0
    assert float(jnp.abs(to_y).max()) == 0
    flat, _ = gradient(jnp.zeros_like(IMAGES), jnp.zeros_like(IMAGES))
    assert bool(jnp.isfinite(flat).all())


@pytest.mark.slow
def test_without_heads_it_is_the_mean_over_maps_and_not_called_lpips() -> None:
    plain = perceptual_net("squeezenet", _small_flat())
    ones = perceptual_net("squeezenet", _small_flat(), _small_heads())
    assert (plain.metric, ones.metric) == ("perceptual", "lpips")
    assert "not LPIPS" in plain.description
    np.testing.assert_allclose(
        7 * perceptual_distance(plain, IMAGES, OTHERS), perceptual_distance(ones, IMAGES, OTHERS), rtol=1e-5
    )


def test_inside_a_mask() -> None:
    net = perceptual_net("squeezenet", _small_flat())
    mask = np.zeros(IMAGES.shape[:3], bool)
    mask[:, :, : IMAGES.shape[2] // 4] = True
    there = np.where(mask[..., None], OTHERS, IMAGES)
    masked = jax.jit(perceptual_distance)
    inside, outside = masked(net, there, IMAGES, mask), masked(net, there, IMAGES, ~mask)
    assert (np.asarray(inside) > 1.5 * np.asarray(outside)).all()
    everywhere = masked(net, there, IMAGES, np.ones_like(mask))
    np.testing.assert_allclose(everywhere, masked(net, there, IMAGES), rtol=1e-5)


def test_heads_that_do_not_fit_are_named() -> None:
    with pytest.raises(UserError, match="lin0.model.1.weight to lin6"):
        perceptual_net("squeezenet", _small_flat(), {"squeeze/lin0.model.1.weight": np.zeros(6)})
    wrong = _small_heads() | {"squeeze/lin6.model.1.weight": np.zeros(99)}
    with pytest.raises(UserError, match="99"):
        perceptual_net("squeezenet", _small_flat(), wrong)


def test_the_imagenet_squeezenet_sees_bgr_minus_mean(shared: Path) -> None:
    file = shared / "weights" / "squeezenet1_1_imagenet.npz"
    net = load_perceptual("squeezenet", str(file))
    weights = np.load(file)
    rgb = (np.asarray(IMAGES[:1]) + 1) * 127.5
    bgr = rgb[..., ::-1] - np.array([103.939, 116.779, 123.68])
    patches = np.lib.stride_tricks.sliding_window_view(bgr[0], (3, 3), (0, 1))[::2, ::2]
    expected = np.einsum("xycab,abco->xyo", patches, weights["conv1/kernel"]) + weights["conv1/bias"]
    np.testing.assert_allclose(net.apply(IMAGES[:1])[0][0], np.maximum(expected, 0), rtol=1e-3, atol=1e-2)
    assert [x.shape[-1] for x in net.apply(IMAGES[:1])] == [64, 128, 256, 384, 384, 512, 512]
    with pytest.raises(UserError, match="keras-squeezenet"):
        load_perceptual("squeezenet", str(file), str(shared / "weights" / "lpips_heads.npz"))


def test_missing_files_say_how_to_get_them(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv(WEIGHTS_FOLDER_VARIABLE, str(tmp_path))
    with pytest.raises(
        UserError, match="vgg16-397923af.pth.*loss.perceptual_weights=FILE.*loss.lpips=0"
    ) as e:
        load_perceptual("vgg16")
    assert str(tmp_path / "vgg16_imagenet.npz") in str(e.value)
    np.savez(tmp_path / "vgg16_imagenet.npz", a=np.zeros(2))
    with pytest.raises(UserError, match="lpips_heads.npz"):
        load_perceptual("vgg16")
    np.savez(tmp_path / "lpips_heads.npz", a=np.zeros(2))
    with pytest.raises(UserError, match="vgg16_imagenet.npz: these are no VGG16 weights"):
        load_perceptual("vgg16")
    with pytest.raises(UserError, match="perceptual_net must be one of"):
        load_perceptual("resnet")


def test_cache_folder_is_used(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv(WEIGHTS_FOLDER_VARIABLE, str(tmp_path))
    np.savez(tmp_path / "squeezenet1_1_imagenet.npz", **_small_flat())
    net = load_perceptual("squeezenet")
    assert (net.name, net.metric, net.module) == ("squeezenet", "perceptual", SMALL)


def test_files_are_found_under_their_authors_names(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv(WEIGHTS_FOLDER_VARIABLE, str(tmp_path))
    assert perceptual.find_weights("vgg16").name == "vgg16_imagenet.npz"
    (tmp_path / "vgg16-397923af.pth").touch()
    assert perceptual.find_weights("vgg16").name == "vgg16-397923af.pth"
    (tmp_path / "vgg.pth").touch()
    assert perceptual._find_heads(tmp_path / "a.npz", "", "vgg") == tmp_path / "vgg.pth"
    (tmp_path / perceptual.HEADS_FILE).touch()
    assert perceptual._find_heads(tmp_path / "a.npz", "", "vgg").name == perceptual.HEADS_FILE
    one = np.ones((1, 3, 1, 1), np.float32)
    np.savez(tmp_path / "one.npz", **{"lin0.model.1.weight": one})
    np.savez(tmp_path / "all.npz", **{"vgg/lin0.model.1.weight": one, "alex/lin0.model.1.weight": one})
    assert list(perceptual._read_heads_file(tmp_path / "one.npz", "vgg")) == ["vgg/lin0.model.1.weight"]
    assert len(perceptual._read_heads_file(tmp_path / "all.npz", "vgg")) == 2


def test_squeezenet_with_heads_is_the_published_lpips(
    shared: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv(WEIGHTS_FOLDER_VARIABLE, str(tmp_path))
    loss = tiny_config(loss__lpips=1.0, loss__perceptual_net="squeezenet", loss__perceptual_heads=True)
    loss.loss.perceptual_weights = str(shared / "weights" / "squeezenet1_1_torchvision_fp16.npz")
    net = open_perceptual(loss)
    assert net is not None and (net.metric, net.name) == ("lpips", "squeezenet")
    # torchmetrics' documented example, two torch.rand(10, 3, 100, 100) * 2 - 1 of seed 123: torch takes the lowest 24 bits
    # of each number of the Mersenne twister.
    drawn = np.random.RandomState(123).randint(0, 2**32, 2 * 10 * 3 * 100 * 100, np.uint32) & 0xFFFFFF
    images = (drawn.astype(np.float32) / 2**24 * 2 - 1).reshape(2, 10, 3, 100, 100).transpose(0, 1, 3, 4, 2)
    assert float(jax.jit(perceptual_distance)(net, *images).mean()) == pytest.approx(0.1008, abs=5e-5)
    with pytest.raises(
        UserError, match="squeezenet1_1-b8a52dc0.pth"
    ):  # keras's weights are no match for the heads
        load_perceptual("squeezenet", with_heads=True)
