"""The settings that make a prior of imported networks' sizes."""

from __future__ import annotations

from ml_collections import ConfigDict

from fundusgan_jax.config import configs_folder, load_config
from fundusgan_jax.errors import UserError
from fundusgan_jax.models.plan import GeneratorConfig
from fundusgan_jax.validation import validate
from fundusgan_jax.weights.import_stylegan import ImportedDiscriminator, ImportedGenerator


def settings_of(generator: ImportedGenerator, discriminator: ImportedDiscriminator | None) -> ConfigDict:
    """configs/stylegan2.py's settings with the sizes of these networks, noise_mode 'random'.

    Raises:
        UserError: no setting makes a network of these sizes.
    """
    config = load_config(str(configs_folder() / "stylegan2.py"), [])
    base, most = channel_rule(generator.config)
    sizes = {
        "resolution": generator.config.resolution,
        "channel_base": base,
        "channel_max": most,
        "w_dim": generator.config.w_dim,
        "z_dim": generator.z_dim,
        "mapping_layers": sum(name.startswith("fc") for name in generator.mapping["params"]),
        "num_labels": generator.num_labels,
        "noise_mode": "random",
        "style": "stylegan2",
    }
    if discriminator is not None and "mapping" in discriminator.variables["params"]:
        sizes["discriminator_mapping_layers"] = discriminator.mapping_layers
    config.update_from_flattened_dict({f"model.{name}": value for name, value in sizes.items()})
    config.data.resolution = generator.config.resolution
    validate(config, 1)
    return config


def channel_rule(config: GeneratorConfig) -> tuple[int, int]:
    """(channel_base, channel_max) with min(channel_base // r, channel_max) channels at every resolution r.

    Raises:
        UserError: there is no such pair; names the channels.
    """
    channels = dict(config.channels)
    # Of all that reproduce the table the smallest: the base is at least channels * r everywhere.
    base, most = max(count * side for side, count in channels.items()), max(channels.values())
    if any(min(base // side, most) != count for side, count in channels.items()):
        table = ", ".join(f"{side} px: {count}" for side, count in channels.items())
        raise UserError(
            f"its channels ({table}) are not min(channel_base / r, channel_max) for any pair of numbers, so no "
            "settings make this network; from Python, fundusgan_jax.weights.import_stylegan.from_rosinality and "
            "from_stylegan2_ada read it"
        )
    return base, most
