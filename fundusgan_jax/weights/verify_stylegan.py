"""Runs the generator on files that hold a reference's weights, inputs and outputs, and measures the difference."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax import Array

from fundusgan_jax.models.discriminator import Discriminator
from fundusgan_jax.models.generator import Mapping as MappingNetwork
from fundusgan_jax.models.generator import Synthesis, truncate
from fundusgan_jax.weights.import_stylegan import (
    ImportedGenerator,
    discriminator_from_stylegan2_ada,
    from_rosinality,
    from_stylegan2_ada,
)

Npz = Mapping[str, np.ndarray]
# Derivatives sum over every pixel: their rounding is ten times that of images and logits.
DERIVATIVE_TOLERANCE = 1e-3
_DERIVATIVES = ("grad/", "pl_lengths", "d_r1_per_image")


def tolerances_of(outputs: Iterable[str]) -> dict[str, float]:
    """The tolerance of the outputs that are derivatives: gradients, R1 and path lengths."""
    return {name: DERIVATIVE_TOLERANCE for name in outputs if name.startswith(_DERIVATIVES)}


def relative_difference(ours: Any, reference: Any) -> float:
    """max |ours - reference| / max |reference|; infinite where the shapes differ or a value is not finite."""
    ours, reference = np.asarray(ours, np.float64), np.asarray(reference, np.float64)
    if ours.shape != reference.shape or not np.isfinite(ours).all():
        return float("inf")
    return float(np.abs(ours - reference).max() / max(np.abs(reference).max(), 1e-30))


def weights_under(npz: Npz, prefix: str) -> dict[str, np.ndarray]:
    """The arrays whose names begin with `prefix`, without it."""
    return {name[len(prefix) :]: npz[name] for name in npz if name.startswith(prefix)}


def stylegan2_differences(npz: Npz) -> dict[str, float]:
    """Generator and discriminator of a stylegan2-ada-pytorch file: {output: largest relative difference}.

    Checked: ws, ws_psi<p>, image_noise_const, image_noise_none, pl_lengths, every grad/NAME of the
    generator, d_logits and d_r1_per_image, as far as the file has them. Keys 'weights/G/...',
    'weights/D/...', z, c, d_image, d_c.
    """
    flat = weights_under(npz, "weights/G/")
    imported = from_stylegan2_ada(flat)
    label = jnp.asarray(npz["c"]) if "c" in npz and imported.num_labels else None
    # Differences below are of float32 arithmetic; matrix units may otherwise use fewer bits.
    with jax.default_matmul_precision("highest"):
        w: Any = MappingNetwork(imported.config.w_dim, _depth(imported)).apply(
            imported.mapping, jnp.asarray(npz["z"]), label
        )
        repeated = jnp.repeat(w[:, None], imported.config.num_ws, 1)
        differences = {"ws": relative_difference(repeated, npz["ws"])}
        for name in npz:
            if name.startswith("ws_psi"):
                psi = float(name.removeprefix("ws_psi"))
                differences[name] = relative_difference(
                    truncate(repeated, jnp.asarray(imported.w_avg), psi), npz[name]
                )
        differences |= _image_differences(npz, imported)
        return differences | (_discriminator_differences(npz) if "d_image" in npz else {})


def _discriminator_differences(npz: Npz) -> dict[str, float]:
    channels, layers, variables = discriminator_from_stylegan2_ada(weights_under(npz, "weights/D/"))
    network = Discriminator(channels, mapping_layers=layers)
    image = jnp.asarray(npz["d_image"])
    label = jnp.asarray(npz["d_c"]) if "d_c" in npz else None

    def logit_sum(image: Array) -> tuple[Array, Array]:
        logits = jnp.asarray(network.apply(variables, image, label))
        return jnp.sum(logits), logits

    gradient, logits = jax.jit(jax.grad(logit_sum, has_aux=True))(image)
    differences = {}
    if "d_logits" in npz:
        differences["d_logits"] = relative_difference(logits, npz["d_logits"])
    if "d_r1_per_image" in npz:
        differences["d_r1_per_image"] = relative_difference(
            jnp.sum(jnp.square(gradient), (1, 2, 3)), npz["d_r1_per_image"]
        )
    return differences


def _depth(imported: ImportedGenerator) -> int:
    return sum(name.startswith("fc") for name in imported.mapping["params"])


def _image_differences(npz: Npz, imported: ImportedGenerator) -> dict[str, float]:
    network = Synthesis(imported.config)
    noise = imported.synthesis["noise"]

    def paint(params: Any, w_plus: Array, mode: str) -> Array:
        return network.apply({"params": params, "noise": noise}, w_plus, noise_mode=mode)  # type: ignore[return-value]

    params, w_plus = imported.synthesis["params"], jnp.asarray(npz["ws"])
    differences = {}
    for mode in ("const", "none"):
        if f"image_noise_{mode}" in npz:
            image = jax.jit(lambda p, w, mode=mode: paint(p, w, mode))(params, w_plus)
            differences[f"image_noise_{mode}"] = relative_difference(image, npz[f"image_noise_{mode}"])
    if "pl_noise" in npz:

        def objective(p: Any, w: Array) -> Array:
            return jnp.sum(paint(p, w, "const") * npz["pl_noise"])

        by_params, by_w = jax.jit(jax.grad(objective, (0, 1)))(params, w_plus)
        lengths = jnp.sqrt(jnp.mean(jnp.sum(jnp.square(by_w), 2), 1))
        if "pl_lengths" in npz:
            differences["pl_lengths"] = relative_difference(lengths, npz["pl_lengths"])
        differences |= _gradient_differences(npz, by_params)
    return differences


def _gradient_differences(npz: Npz, gradients: Any) -> dict[str, float]:
    """Reads the reference's gradients through the importer, whose layout changes they share."""
    theirs = dict(weights_under(npz, "grad/").items())
    theirs = {name.removeprefix("G/"): value for name, value in theirs.items()}
    theirs = {name: value for name, value in theirs.items() if name.startswith("synthesis.")}
    if not theirs:
        return {}
    flat = {name: np.zeros_like(value) for name, value in weights_under(npz, "weights/G/").items()}
    reference = from_stylegan2_ada(flat | theirs).synthesis["params"]
    marks = from_stylegan2_ada(flat | {k: np.ones_like(v) for k, v in theirs.items()}).synthesis["params"]
    differences = {}
    ours, wanted, marked = (dict(_leaves(tree)) for tree in (gradients, reference, marks))
    for name, value in wanted.items():
        if marked[name].all():
            differences[f"grad/{name}"] = relative_difference(ours[name], value)
    return differences


def _leaves(tree: Any) -> list[tuple[str, np.ndarray]]:
    leaves = jax.tree_util.tree_leaves_with_path(tree)
    return [("/".join(str(key.key) for key in path), np.asarray(leaf)) for path, leaf in leaves]


def dilated_differences(npz: Npz) -> dict[str, float]:
    """StyleGANEX's decoder: {image, image_no_noise, image_from_constant: largest relative difference}."""
    base_size = int(npz["f_mid"].shape[1])
    imported = from_rosinality(weights_under(npz, "weights/"), base_size)
    network = Synthesis(imported.config)
    layers = sorted(int(name.removeprefix("noise/")) for name in npz if name.startswith("noise/"))
    noise = tuple(jnp.asarray(npz[f"noise/{layer}"]) for layer in layers)
    w_plus, base = jnp.asarray(npz["ws"]), jnp.asarray(npz["f_mid"])
    cases: dict[str, dict[str, Any]] = {
        "image": {"base": base, "noise": noise},
        "image_no_noise": {"base": base, "noise_mode": "none"},
        "image_from_constant": {"base": None, "noise": noise},
    }
    differences = {}
    with jax.default_matmul_precision("highest"):
        for name, arguments in cases.items():
            if name in npz:
                image = network.apply(imported.synthesis, w_plus, **arguments)
                differences[name] = relative_difference(image, npz[name])
    return differences
