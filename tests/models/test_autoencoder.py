"""The autoencoder: its sizes, that a place of the latent speaks of its own pixels, its layers against PyTorch's definitions."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from fundusgan_jax.models.autoencoder import AutoencoderConfig, LatentDecoder, LatentEncoder


@pytest.mark.parametrize(("stride", "widths"), [(2, (8,)), (4, (8, 16)), (8, (8, 16, 32))])
def test_sizes(stride: int, widths: tuple[int, ...]) -> None:
    config = AutoencoderConfig(channels=3, stride=stride, width=8, blocks=2, dtype="bfloat16", remat=True)
    assert config.widths == widths
    image = jax.ShapeDtypeStruct((2, 64, 32, 3), jnp.float32)
    latent, params = jax.eval_shape(LatentEncoder(config).init_with_output, jax.random.key(0), image)
    assert (latent.shape, latent.dtype) == ((2, 64 // stride, 32 // stride, 3), jnp.float32)
    painted, _ = jax.eval_shape(LatentDecoder(config).init_with_output, jax.random.key(0), latent)
    assert (painted.shape, painted.dtype) == ((2, 64, 32, 3), jnp.float32)
    assert {name for name in params["params"] if name.startswith("block")} == {
        f"block{level}_{index}" for level in range(len(widths)) for index in range(2)
    }


def test_a_place_of_the_latent_speaks_of_its_own_pixels() -> None:
    config = AutoencoderConfig(channels=4, width=8)
    latent = np.random.default_rng(0).normal(size=(1, 16, 16, 4)).astype(np.float32)
    params = LatentDecoder(config).init(jax.random.key(0), latent)

    def pixel(latent):
        return LatentDecoder(config).apply(params, latent)[0, 30, 30].sum()  # type: ignore[index]

    effect = np.abs(jax.jit(jax.grad(pixel))(latent)[0]).sum(-1)
    # Pixel 30 lies in place 7 of each axis. Normalisation alone reaches beyond the convolutions' 5 places.
    row, column = np.unravel_index(effect.argmax(), effect.shape)
    assert max(abs(row - 7), abs(column - 7)) <= 2
    far = np.concatenate([effect[13:].ravel(), effect[:, 13:].ravel()])
    assert far.max() < 0.1 * effect.max()
