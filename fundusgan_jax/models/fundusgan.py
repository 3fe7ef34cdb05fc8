"""FundusGAN put together: photograph -> encoder -> generator -> photograph of the same size."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from jax import Array

from fundusgan_jax.models.autoencoder import AutoencoderConfig, LatentDecoder, LatentEncoder
from fundusgan_jax.models.encoder import Encoder, EncoderConfig, EncoderOutput, skip_features
from fundusgan_jax.models.generator import NoiseMode, Synthesis
from fundusgan_jax.models.plan import GeneratorConfig, generator_plan
from fundusgan_jax.ops.resample import average_pool


@dataclass(frozen=True)
class FundusGANConfig:
    """Sizes of the whole model. input_size: side S of the photographs; the generator paints at
    generator.resolution >= S and its image is average-pooled to S for losses and output. constant_base: the generator
    paints from its learned constant, not from the encoder's base map. autoencoder: takes the place of encoder and
    generator, where a latent is to be drawn."""

    input_size: int
    encoder: EncoderConfig
    generator: GeneratorConfig
    constant_base: bool = False
    autoencoder: AutoencoderConfig | None = None


class Variables(NamedTuple):
    """The model's arrays.

    params: {'encoder': ..., 'generator': ...}, trained. batch_stats: running statistics of the backbone's
    batch normalisation. noise: the generator's stored noise maps. w_avg: [w_dim] mean latent. mapping: the
    prior's mapping network, which is not trained here, or None where there was no prior.
    """

    params: dict[str, Any]
    batch_stats: Any
    noise: Any
    w_avg: Array
    mapping: Any = None


class Reconstruction(NamedTuple):
    """image: [N, S, S, 3] float32, nominally in [-1, 1]. encoded: EncoderOutput. batch_stats: updated."""

    image: Array
    encoded: EncoderOutput
    batch_stats: Any


def entering_sizes(config: GeneratorConfig) -> tuple[int, ...]:
    """Sides of the maps that enter the fused blocks."""
    return tuple(block.in_size for block in generator_plan(config) if block.fused)


def initialise(config: FundusGANConfig, key: Array) -> Variables:
    """Fresh variables; w_avg is zero until a prior brings its own. Shapes follow `config`."""
    encoder_key, generator_key = jax.random.split(key)
    size = config.input_size
    image = jnp.zeros((1, size, size, 3))
    w_avg = jnp.zeros((config.generator.w_dim,))
    if config.autoencoder is not None:
        latent_encoder = LatentEncoder(config.autoencoder).init(encoder_key, image)
        decoder = LatentDecoder(config.autoencoder).init(generator_key, jnp.zeros((1, *latent_shape(config))))
        return Variables({"encoder": latent_encoder["params"], "generator": decoder["params"]}, {}, {}, w_avg)
    # Batch statistics are averaged over a device axis only inside the mapped step.
    encoder = Encoder(_without_axis(config.encoder))
    encoded_variables = encoder.init(encoder_key, image, w_avg)
    encoded: Any = encoder.apply(encoded_variables, image, w_avg)
    skips = skip_features(encoded, entering_sizes(config.generator))
    painted = Synthesis(config.generator).init(
        generator_key, encoded.w_plus, encoded.base, skips, noise_mode="none"
    )
    params = {"encoder": encoded_variables["params"], "generator": painted["params"]}
    return Variables(params, encoded_variables.get("batch_stats", {}), painted["noise"], w_avg)


def _without_axis(config: EncoderConfig) -> EncoderConfig:
    return EncoderConfig(**{**config.__dict__, "axis_name": None})


def latent_shape(config: FundusGANConfig) -> tuple[int, int, int]:
    """[B, B, C] of one photograph's latent; of a model that has one."""
    assert config.autoencoder is not None
    side = config.input_size // config.autoencoder.stride
    return side, side, config.autoencoder.channels


def encode(
    config: FundusGANConfig,
    variables: Variables,
    image: Array,
    train: bool = False,
    latent_noise: Array | None = None,
) -> tuple[EncoderOutput, Any]:
    """[N, S, S, 3] in [-1, 1] -> EncoderOutput and the updated batch statistics.

    latent_noise: [N, B, B, C] added to the latents of an autoencoder before anything is painted from them, or None.
    """
    if config.autoencoder is not None:
        params = {"params": variables.params["encoder"]}
        latent: Any = LatentEncoder(config.autoencoder).apply(params, image)
        noisy = latent if latent_noise is None else latent + latent_noise
        return _of_latent(config, variables, noisy)._replace(latent=latent), variables.batch_stats
    collections = {"params": variables.params["encoder"], "batch_stats": variables.batch_stats}
    encoder = Encoder(config.encoder if train else _without_axis(config.encoder))
    if not train:
        return encoder.apply(collections, image, variables.w_avg), variables.batch_stats  # type: ignore[return-value]
    encoded, updated = encoder.apply(collections, image, variables.w_avg, train=True, mutable=["batch_stats"])
    return encoded, updated.get("batch_stats", variables.batch_stats)


def _of_latent(config: FundusGANConfig, variables: Variables, latent: Array) -> EncoderOutput:
    """What the decoder of an autoencoder paints from: the latent; its styles are the mean latent, which nobody reads."""
    nothing: dict[str, Any] = dict.fromkeys(EncoderOutput._fields)
    styles = jnp.broadcast_to(
        variables.w_avg, (latent.shape[0], config.generator.num_ws, config.generator.w_dim)
    )
    return EncoderOutput(**{**nothing, "w_plus": styles, "base": latent})


def decode(
    config: FundusGANConfig,
    variables: Variables,
    w_plus: Array,
    encoded: EncoderOutput,
    *,
    noise_mode: NoiseMode,
    noise_keys: Array | None = None,
) -> Array:
    """w+ [N, num_ws, w_dim] with the maps of `encoded` -> image [N, S, S, 3]."""
    if config.autoencoder is not None:
        params = {"params": variables.params["generator"]}
        return LatentDecoder(config.autoencoder).apply(params, encoded.base)  # type: ignore[return-value]
    collections = {"params": variables.params["generator"], "noise": variables.noise}
    skips = skip_features(encoded, entering_sizes(config.generator))
    base = None if config.constant_base else encoded.base
    image = Synthesis(config.generator).apply(
        collections, w_plus, base, skips, noise_mode=noise_mode, noise_keys=noise_keys
    )
    return average_pool(image, config.generator.resolution // config.input_size)  # type: ignore[arg-type]


def reconstruct(
    config: FundusGANConfig,
    variables: Variables,
    image: Array,
    *,
    noise_mode: NoiseMode,
    noise_keys: Array | None = None,
    train: bool = False,
    latent_noise: Array | None = None,
) -> Reconstruction:
    """Photograph [N, S, S, 3] in [-1, 1] -> its reconstruction.

    noise_keys: [N] jax random keys, needed for noise_mode 'random'. latent_noise: as of `encode`, in training.
    """
    encoded, batch_stats = encode(config, variables, image, train, latent_noise)
    painted = decode(config, variables, encoded.w_plus, encoded, noise_mode=noise_mode, noise_keys=noise_keys)
    return Reconstruction(painted, encoded, batch_stats)


def decode_latent(config: FundusGANConfig, variables: Variables, latent: Array) -> Array:
    """A latent [N, B, B, C] (`latent_shape`) -> image [N, S, S, 3]; what `reconstruct` paints from a photograph's."""
    encoded = _of_latent(config, variables, latent)
    return decode(config, variables, encoded.w_plus, encoded, noise_mode="none")
