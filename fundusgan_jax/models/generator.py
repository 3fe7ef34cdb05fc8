"""The synthesis network (StyleGAN2, and FundusGAN's with a larger base map) and the mapping network."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Literal

import jax
import jax.numpy as jnp
from flax import linen as nn
from jax import Array
from jax.nn import initializers

from fundusgan_jax.models.layers import (
    EqualDense,
    ModulatedConv,
    ToRGB,
    activated,
    rematerialised,
    second_moment_normalize,
)
from fundusgan_jax.models.plan import BlockPlan, GeneratorConfig, generator_plan
from fundusgan_jax.ops.conv import conv2d
from fundusgan_jax.ops.places import spread, wide
from fundusgan_jax.ops.resample import blur, upsample

NoiseMode = Literal["random", "const", "none"]


class Mapping(nn.Module):
    """z (and a label) -> w: 8 fully connected layers of lr_mul 0.01 (architecture: StyleGAN2).

    z [N, z_dim], label [N, num_labels] one-hot float, either of them None -> w [N, w_dim]. With a label
    alone it is the discriminator's projection.
    """

    w_dim: int = 512
    num_layers: int = 8

    @nn.compact
    def __call__(self, z: Array | None, label: Array | None = None) -> Array:
        inputs = [] if z is None else [z]
        if label is not None:
            inputs.append(EqualDense(self.w_dim, name="embed")(label))
        x = jnp.concatenate([second_moment_normalize(part) for part in inputs], -1)
        for index in range(self.num_layers):
            x = EqualDense(self.w_dim, lr_mul=0.01, activate=True, name=f"fc{index}")(x)
        return x


def truncate(w: Array, w_avg: Array, truncation_psi: float | Array) -> Array:
    """w_avg + psi (w - w_avg); w [..., w_dim], w_avg [w_dim]."""
    return w_avg + truncation_psi * (w - w_avg)


def layer_noise(keys: Array, layer: int, size: int) -> Array:
    """[N, size, size, 1] standard normal noise, each sample's from its own key, so that no sample's
    noise depends on the batch or device it is in. keys: [N] jax random keys."""
    return jax.vmap(lambda key: jax.random.normal(jax.random.fold_in(key, layer), (size, size, 1)))(keys)


def noise_map(module: nn.Module, layer: int, size: int, mode: NoiseMode, keys: Array | None) -> Array | None:
    """A layer's noise, [N or 1, size, size, 1], or None; its stored map is `module`'s variable noise/layerK.

    keys: [N] jax random keys, for mode 'random'.
    """
    # The stored maps exist in every mode, so that the parameter tree does not depend on the mode.
    stored = module.variable(
        "noise", f"layer{layer}", lambda: jax.random.normal(module.make_rng("params"), (size, size))
    )
    if mode == "random":
        assert keys is not None  # checked by the caller
        return layer_noise(keys, layer, size)
    return stored.value[None, :, :, None] if mode == "const" else None


class Fusion(nn.Module):
    """delta skip: an encoder feature is merged into the generator's map and into its RGB skip.

    e' = lrelu(conv3x3(e)); x <- conv3x3(concat(x, e')), initialised to the identity on x plus 0.01 times
    PyTorch's default, and likewise the RGB skip (StyleGANEX; FundusGAN's delta).
    x [N, H, W, C], rgb [N, H, W, 3], feature [N, H, W, E] -> x, rgb of the same shapes.
    """

    @nn.compact
    def __call__(self, x: Array, rgb: Array, feature: Array) -> tuple[Array, Array]:
        channels = x.shape[-1]
        reduced = nn.leaky_relu(self._conv("reduce", feature.astype(x.dtype), channels), 0.01)
        merged = self._conv("merge", jnp.concatenate([x, reduced], -1), channels, identity=True)
        both = jnp.concatenate([rgb.astype(x.dtype), reduced], -1)
        return merged, wide(self._conv("merge_rgb", both, 3, identity=True))

    def _conv(self, name: str, x: Array, features: int, identity: bool = False) -> Array:
        # PyTorch's Conv2d: uniform within 1 / sqrt(fan_in), its bias too.
        bound = (0.01 if identity else 1.0) / math.sqrt(9 * x.shape[-1])

        def uniform(key: Array, shape: tuple[int, ...]) -> Array:
            return jax.random.uniform(key, shape, minval=-bound, maxval=bound)

        def kernel_around(key: Array, shape: tuple[int, ...]) -> Array:
            kernel = uniform(key, shape)
            return kernel.at[1, 1].add(jnp.eye(shape[2], shape[3])) if identity else kernel

        kernel = self.param(f"{name}_kernel", kernel_around, (3, 3, x.shape[-1], features))
        bias = self.param(f"{name}_bias", uniform, (features,))
        y = wide(conv2d(x, kernel.astype(x.dtype), padding=1))
        return (y + spread(bias, y)).astype(x.dtype)


class Synthesis(nn.Module):
    """w+ (and a base map, and skip features) -> image.

    Without a base map the learned 4x4 constant is repeated to base_size by nearest neighbour.
    """

    config: GeneratorConfig

    @nn.compact
    def __call__(
        self,
        w_plus: Array,
        base: Array | None = None,
        skips: Sequence[Array] = (),
        *,
        noise_mode: NoiseMode = "const",
        noise_keys: Array | None = None,
        noise: Sequence[Array] | None = None,
    ) -> Array:
        """Paints a batch.

        Args:
            w_plus: [N, num_ws, w_dim] float32 style vectors.
            base: [N, base_size, base_size, channels_at(4)] or None.
            skips: encoder features for the `delta` blocks after the first, each of its block's entering size.
            noise_mode: 'random' (from noise_keys), 'const' (stored maps) or 'none'.
            noise_keys: [N] jax random keys, for 'random'.
            noise: one map [N, H, W, 1] per layer; takes the place of noise_mode.

        Returns:
            [N, resolution, resolution, 3] float32, nominally in [-1, 1], not clipped.

        Raises:
            ValueError: the number of style vectors, skips or noise maps does not fit the plan.
        """
        config = self.config
        plan = generator_plan(config)
        if w_plus.shape[1:] != (config.num_ws, config.w_dim):
            raise ValueError(f"w_plus is {w_plus.shape}, expected [N, {config.num_ws}, {config.w_dim}]")
        if config.delta and len(skips) != config.delta:
            raise ValueError(f"{len(skips)} skip features given, delta is {config.delta}")
        if noise_mode == "random" and noise is None and noise_keys is None:
            raise ValueError("noise_mode 'random' needs noise_keys")
        const = self.param("const", initializers.normal(1.0), (4, 4, config.channels_at(4)))
        if base is None:
            repeated = const.repeat(config.base_size // 4, 0).repeat(config.base_size // 4, 1)
            base = jnp.broadcast_to(repeated, (w_plus.shape[0], *repeated.shape))
        x, rgb = base.astype(config.dtype), None
        fusion, conv, torgb = (
            rematerialised(module, config.remat) for module in (Fusion, ModulatedConv, ToRGB)
        )
        for index, block in enumerate(plan):
            if block.fused:
                x, rgb = fusion(name=f"fusion{index}")(x, rgb, skips[index - 1])
            for layer in block.layers:
                if noise is not None:
                    layer_map: Array | None = noise[layer.number - 1]
                else:
                    layer_map = noise_map(self, layer.number, layer.size, noise_mode, noise_keys)
                name = f"b{block.native}_conv{1 if layer is block.layers[-1] else 0}"
                module = conv(layer.out_channels, layer.kind, layer.dilation, config.fused, name=name)
                x = module(x, w_plus[:, layer.w_index], layer_map)
            if block is not plan[-1]:  # two read it; of the last one ToRGB alone
                x = activated(x)
            painted = torgb(name=f"b{block.native}_torgb")(x, w_plus[:, block.rgb_w_index])
            rgb = painted if rgb is None else _resample_rgb(rgb, block) + painted
        assert rgb is not None  # a plan has at least one block
        return rgb


def _resample_rgb(rgb: Array, block: BlockPlan) -> Array:
    return upsample(rgb) if block.rgb_kind == "up" else blur(rgb, dilation=block.layers[0].dilation)
