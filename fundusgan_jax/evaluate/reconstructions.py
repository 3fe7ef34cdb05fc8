"""Compares reconstructions with their photographs, one by one, beside trivial reconstructions of the same photographs."""

from __future__ import annotations

from typing import NamedTuple

import jax
import numpy as np

from fundusgan_jax.anatomy.field_of_view import fov_mask
from fundusgan_jax.data.packed import PackedSplit
from fundusgan_jax.devices.local import local_program, replicated
from fundusgan_jax.evaluate.sets import batch_features
from fundusgan_jax.evaluate.stop import ShouldStop, never, stoppable
from fundusgan_jax.generate.paint import Painter
from fundusgan_jax.metrics import baselines
from fundusgan_jax.metrics.image import psnr, ssim
from fundusgan_jax.metrics.ms_ssim import SMALLEST, ms_ssim
from fundusgan_jax.metrics.signatures import failure_signatures
from fundusgan_jax.models.features import FeatureNet
from fundusgan_jax.models.lpips import PerceptualNet, perceptual_distance
from fundusgan_jax.ops.full_precision import full_precision
from fundusgan_jax.progress import Progress
from fundusgan_jax.steps.batch import padded_batches, to_float

# The trivial reconstructions, and the side that the photograph is reduced to (0: the training set's mean).
BASELINES = {"mean": 0, "16x16": 16, "64x64": 64}


class Reconstructions(NamedTuple):
    """What is known of a painter's images of a split; the images themselves are let go, a split may be large.

    per_image: a figure's [N] values by name: 'ssim', 'psnr', 'ms_ssim' (from 176 px) and 'lpips' or
    'perceptual', each also with '_fov', inside the field of view; PSNR in dB. signatures: [N] each,
    `failure_signatures`; empty where they were not asked for. features: [N, D], or None.
    """

    per_image: dict[str, np.ndarray]
    signatures: dict[str, np.ndarray]
    features: np.ndarray | None


@full_precision
def _figures(
    perceptual: PerceptualNet | None, images: jax.Array, painted: jax.Array, mask: jax.Array
) -> dict[str, jax.Array]:
    figures = {}
    for ending, where in (("", None), ("_fov", mask)):
        figures[f"ssim{ending}"] = ssim(images, painted, mask=where)
        figures[f"psnr{ending}"] = psnr(images, painted, mask=where)
        if min(images.shape[1:3]) >= SMALLEST:
            figures[f"ms_ssim{ending}"] = ms_ssim(images, painted, mask=where)
        if perceptual is not None:
            distance = perceptual_distance(perceptual, to_float(painted), to_float(images), where)
            figures[f"{perceptual.metric}{ending}"] = distance
    return figures


def image_figures(
    images: np.ndarray, painted: np.ndarray, perceptual: PerceptualNet | None
) -> dict[str, np.ndarray]:
    """Every figure that compares two images, over the whole image and inside the photograph's field of view.

    Args:
        images, painted: uint8 [N, S, S, 3]; the field of view is that of `images`.
        perceptual: its network, `replicated`, or None.

    Returns:
        {name: float64 [N]}, names as in `Reconstructions`.
    """
    figures = local_program(_figures)(perceptual, images, painted, fov_mask(images))
    metrics = ("ssim", "psnr", "ms_ssim", perceptual.metric if perceptual else "lpips")
    # A compiled program sorts names; people read them in this order.
    names = [f"{metric}{ending}" for ending in ("", "_fov") for metric in metrics]
    return {name: figures[name].astype(np.float64) for name in names if name in figures}


class Scorer:
    """Compares reconstructions with a split's photographs, a batch at a time.

    Args:
        split: the photographs.
        perceptual: the perceptual network, or None.
        batch_size: images scored at a time.
        source: the feature network, or None.
    """

    def __init__(
        self,
        split: PackedSplit,
        perceptual: PerceptualNet | None,
        batch_size: int,
        source: FeatureNet | None = None,
    ) -> None:
        self.split, self.batch_size = split, min(batch_size, len(split.images))
        self._perceptual, self._source = perceptual, source

    def score(
        self, paint: Painter, label: str, with_signatures: bool = False, should_stop: ShouldStop = never
    ) -> Reconstructions:
        """Figures of the reconstructions that `paint` makes; `Stopped` where should_stop says so between two batches."""
        count = len(self.split.images)
        # Here, not above: a plan has shapes in place of weights, and scores nothing.
        perceptual, source = replicated(self._perceptual), replicated(self._source)
        figures: dict[str, list[np.ndarray]] = {}
        marks: dict[str, list[np.ndarray]] = {}
        features: list[np.ndarray] = []
        progress = Progress(count, "img", label)
        progress.begin()
        for numbers, real in stoppable(padded_batches(count, self.batch_size), should_stop):
            images = np.asarray(self.split.images[numbers])
            painted = paint(images, numbers)
            for name, values in image_figures(images, painted, perceptual).items():
                figures.setdefault(name, []).append(values[:real])
            if with_signatures:
                for name, values in failure_signatures(images[:real], painted[:real]).items():
                    marks.setdefault(name, []).append(values)
            if source is not None:
                features.append(batch_features(source, painted)[:real])
            progress.update(real)
        progress.close()
        return Reconstructions(
            {name: np.concatenate(values) for name, values in figures.items()},
            {name: np.concatenate(values) for name, values in marks.items()},
            np.concatenate(features) if features else None,
        )

    def score_baselines(
        self, train: PackedSplit, with_signatures: bool = False, should_stop: ShouldStop = never
    ) -> dict[str, Reconstructions]:
        """The three trivial reconstructions; the mean image is the training split's."""
        progress = Progress(len(train.images), "img", "mean of the training photographs")
        progress.begin()
        mean = baselines.mean_image(train.images, progress.update)
        progress.close()

        def painter(side: int) -> Painter:
            if not side:
                return lambda images, numbers: np.broadcast_to(mean, images.shape).copy()
            return lambda images, numbers: baselines.reduced(images, side)

        # At 64 px, 64x64 is the photograph itself.
        return {
            name: self.score(painter(side), f"trivial reconstruction '{name}'", with_signatures, should_stop)
            for name, side in BASELINES.items()
            if side < train.images.shape[1]
        }
