"""A trained FundusGAN's two halves, photograph -> latents -> image, over all devices of this process."""

from __future__ import annotations

from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax import Array
from ml_collections import ConfigDict, FrozenConfigDict

from fundusgan_jax.devices.local import local_program, replicated
from fundusgan_jax.generate.on_device import Bytes, checked, computed_in, to_bytes
from fundusgan_jax.models import fundusgan
from fundusgan_jax.models.encoder import EncoderOutput
from fundusgan_jax.models.fundusgan import Variables, entering_sizes
from fundusgan_jax.ops.full_precision import full_precision
from fundusgan_jax.steps.fundusgan_step import model_config
from fundusgan_jax.steps.optimiser import sample_keys
from fundusgan_jax.steps.step import scaled

# The encoder's backbone maps, the largest by far: fetched only where the generator reads them.
BACKBONE_STRIDES = {"c1": 2, "c2": 4}
SKIP_STRIDES = {**BACKBONE_STRIDES, "f_high": 8, "f_mid": 16}


def decoder_maps(config: ConfigDict) -> tuple[str, ...]:
    """Names of the `EncoderOutput` maps that the generator reads beside w_plus."""
    if config.model.latent_channels:
        return ("base",)
    sides = set(entering_sizes(model_config(config, None).generator))
    skips = (name for name, stride in SKIP_STRIDES.items() if config.data.resolution // stride in sides)
    return (*(() if config.model.constant_base else ("base",)), *skips)


@full_precision
def _encoded(
    config: FrozenConfigDict, left_out: tuple[str, ...], variables: Variables, image: Array
) -> EncoderOutput:
    encoded, _ = fundusgan.encode(model_config(config, None, training=True), variables, scaled(image))
    absent: dict[str, Any] = dict.fromkeys(left_out)
    # float32 on the host, whatever the network computes in: numpy's files know no bfloat16.
    return jax.tree.map(lambda x: x.astype(jnp.float32), encoded._replace(**absent))  # type: ignore[no-any-return]


@full_precision
def _decoded(
    config: FrozenConfigDict,
    shared: tuple[Variables, Array],
    w_plus: Array,
    encoded: EncoderOutput,
    numbers: Array,
) -> Bytes:
    variables, seed = shared
    mode = config.model.noise_mode
    keys = sample_keys(seed, numbers) if mode == "random" else None
    empty = jnp.zeros((w_plus.shape[0], 0, 0, 0))
    maps = EncoderOutput(*(empty if value is None else value for value in encoded))
    model = model_config(config, None, training=True)
    return to_bytes(fundusgan.decode(model, variables, w_plus, maps, noise_mode=mode, noise_keys=keys))


def with_maps(maps: dict[str, Any]) -> EncoderOutput:
    """An EncoderOutput of these maps alone."""
    return EncoderOutput(**{**dict.fromkeys(EncoderOutput._fields), **maps})


class Codec:
    """Encoder and generator as two programs, so that what lies between them can be kept, changed and painted again.

    Args:
        config: the run's settings.
        variables: the trained arrays.
        dtype: of the convolutions, 'float32' or 'bfloat16'.
    """

    def __init__(self, config: ConfigDict, variables: Variables, dtype: str = "float32") -> None:
        model = model_config(config, None)
        self.side, self.num_ws, self.w_dim = model.input_size, model.generator.num_ws, model.generator.w_dim
        self.maps = decoder_maps(config)
        self.w_avg = np.asarray(variables.w_avg)
        self._variables = replicated(variables)
        self._config = frozen = FrozenConfigDict(computed_in(config, dtype))
        left_out = tuple(name for name in BACKBONE_STRIDES if name not in self.maps)
        self._encode = local_program(_encoded, frozen, left_out)
        self._decode = local_program(_decoded, frozen)

    def map_shapes(self) -> dict[str, tuple[int, ...]]:
        """Name -> [H, W, C] of each of `self.maps`."""
        image = jax.ShapeDtypeStruct((1, self.side, self.side, 3), jnp.uint8)
        encoded = jax.eval_shape(lambda x: _encoded(self._config, (), self._variables, x), image)
        return {name: getattr(encoded, name).shape[1:] for name in self.maps}

    def encode(self, images: np.ndarray) -> EncoderOutput:
        """One batch, uint8 [N, S, S, 3] -> float32 arrays; of c1 and c2 those that the generator does not read are None."""
        return self._encode(self._variables, images)  # type: ignore[no-any-return]

    def decode(
        self, w_plus: np.ndarray, encoded: EncoderOutput, numbers: np.ndarray, seed: int
    ) -> np.ndarray:
        """One batch of images.

        Args:
            w_plus: float32 [N, num_ws, w_dim].
            encoded: the maps, those of `self.maps` at least.
            numbers: [N] the images' numbers; noise is drawn from (seed, number).
            seed: 0 .. 2^32 - 1.

        Returns:
            uint8 [N, S, S, 3].
        """
        maps = with_maps({name: getattr(encoded, name) for name in self.maps})
        shared = (self._variables, np.uint32(seed))
        return checked(self._decode(shared, w_plus, maps, numbers.astype(np.int32)))


def batch_size_of(config: ConfigDict, count: int) -> int:
    """Images at a time: eval.batch_size, or for fewer images the next power of two (few sizes are few compilations)."""
    return min(config.eval.batch_size, 1 << max(count - 1, 0).bit_length())
