"""A drawn set beside held-out photographs at equal numbers: what the same judge says of images that are as good as they can be."""

from __future__ import annotations

from typing import NamedTuple

import numpy as np

from fundusgan_jax.evaluate.sets import set_values
from fundusgan_jax.models.features import FeatureNet
from fundusgan_jax.progress import Progress
from fundusgan_jax.report.evaluation import Figures

# The kernel distance has no bias: of photographs it is about 0, over which nothing is a ratio.
RATIOS = ("fid", "frechet", "precision", "recall", "density", "coverage")


class BesideHeldOut(NamedTuple):
    """floors: figures by title, with the numbers of images in it. ratios: figures of the drawn images over those of held-out
    photographs."""

    floors: dict[str, Figures]
    ratios: Figures


def beside_held_out(
    source: FeatureNet,
    generated: np.ndarray,
    real: np.ndarray,
    held_out: np.ndarray,
    seed: int,
    reconstructions: np.ndarray | None = None,
) -> BesideHeldOut:
    """Drawn images and held-out photographs, as many of one as of the other, against the same photographs.

    Fréchet distance and recall depend on the number of images, so figures of two numbers are no comparison.

    Args:
        source: where the features come from.
        generated: [N, D] features. real: [M, D]. held_out: [K, D] of photographs that were not trained on.
        seed: of the draws from the larger set.
        reconstructions: [K, D] of an autoencoder's reconstructions of the held-out photographs, or None.

    Returns:
        Nothing where a side has a single image.
    """
    count = min(len(generated), len(held_out))
    if min(count, len(real)) < 2:
        return BesideHeldOut({}, {})
    rng = np.random.default_rng([seed, 17])
    of_generated, of_held_out = (np.sort(rng.permutation(len(x))[:count]) for x in (generated, held_out))
    sets = {"held-out photographs": held_out[of_held_out], "as many drawn images": generated[of_generated]}
    if reconstructions is not None:
        sets["reconstructions of held-out photographs"] = reconstructions[of_held_out]
    progress, figures = Progress(len(sets), "pair of sets", "what held-out photographs score"), {}
    with progress.running():
        for title, features in sets.items():
            figures[title] = set_values(source, features, real)
            progress.update()
    ours, theirs = figures["as many drawn images"], figures["held-out photographs"]
    ratios = {name: ours[name] / theirs[name] for name in RATIOS if theirs.get(name, 0.0) > 0}
    if count == len(generated):  # the model's own row
        del figures["as many drawn images"]
    return BesideHeldOut(
        {f"{title} ({count} and {len(real)})": values for title, values in figures.items()}, ratios
    )
