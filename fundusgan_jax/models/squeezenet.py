"""SqueezeNet 1.1's convolutions, tapped where LPIPS taps them (Iandola et al. 2016)."""

from __future__ import annotations

import jax.numpy as jnp
from flax import linen as nn
from jax import Array

from fundusgan_jax.models.conv_relu import ConvReLU
from fundusgan_jax.ops.pool import max_pool

FIRES = tuple(range(2, 10))


class SqueezeNet(nn.Module):
    """Normalised images [N, H, W, 3] -> seven maps: conv1, fire3, fire5, fire6, fire7, fire8, fire9.

    The stem is an unpadded 3x3 of stride 2; the max-pools (3x3, stride 2, before fire2, fire4 and fire6)
    keep a last window that hangs over the edge, which matters only at sides that are no power of two.

    stem: channels of conv1. squeeze, expand: channels of each fire's squeeze and of each of its two
    expansions, fire2 to fire9. remat: keep only the fires' inputs for the gradient and compute the rest again.
    """

    stem: int = 64
    squeeze: tuple[int, ...] = (16, 16, 32, 32, 48, 48, 64, 64)
    expand: tuple[int, ...] = (64, 64, 128, 128, 192, 192, 256, 256)
    remat: bool = False

    @nn.compact
    def __call__(self, x: Array) -> tuple[Array, ...]:
        x = ConvReLU(self.stem, 3, stride=2, name="conv1")(x)
        maps = [x]
        run = nn.remat(_fire, static_argnums=(2,)) if self.remat else _fire
        for fire in FIRES:
            x = run(self, x, fire)
            if fire not in (2, 4):
                maps.append(x)
        return tuple(maps)


def _fire(network: SqueezeNet, x: Array, fire: int) -> Array:
    if fire in (2, 4, 6):
        x = max_pool(x, window=3, stride=2, ceil=True)
    squeeze, expand = network.squeeze[fire - 2], network.expand[fire - 2]
    x = ConvReLU(squeeze, 1, name=f"fire{fire}_squeeze")(x)
    one = ConvReLU(expand, 1, name=f"fire{fire}_expand1")(x)
    three = ConvReLU(expand, 3, padding=1, name=f"fire{fire}_expand3")(x)
    return jnp.concatenate([one, three], -1)
