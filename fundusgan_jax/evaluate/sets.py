"""Compares two sets of images by their features: distances, neighbours, how sure they are, and whether they mean anything."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from typing import NamedTuple

import numpy as np
from ml_collections import ConfigDict

from fundusgan_jax.data.image_sets import of_split
from fundusgan_jax.data.packed import PackedDataset, PackedSplit
from fundusgan_jax.devices.local import local_program, replicated
from fundusgan_jax.evaluate.feature_cache import cached_features
from fundusgan_jax.evaluate.stop import ShouldStop, never, stoppable
from fundusgan_jax.metrics.confidence import (
    HALVES,
    SHARES,
    Interval,
    Statistic,
    at_infinite_samples,
    mean_interval,
    set_interval,
    set_intervals,
)
from fundusgan_jax.metrics.neighbours import neighbour_figures
from fundusgan_jax.metrics.sets import frechet_distance, kernel_distance, kernel_distance_subsets
from fundusgan_jax.models.features import SIDES, FeatureNet, features
from fundusgan_jax.ops.resize import resize_on_host
from fundusgan_jax.progress import Progress
from fundusgan_jax.report.protocol import RealSet
from fundusgan_jax.weights.features import load_features

# Neighbours that count: of precision and recall (Kynkäänniemi et al. 2019), of density and coverage (Naeem et al. 2020).
PRECISION_K, DENSITY_K = 3, 5
# Fewer photographs than this, and a distance says more about the draw than about the model.
FEW = 50


# Patients of the generated and of the real images; None where every image stands for itself.
Groups = tuple[Sequence[str] | None, Sequence[str] | None]


class SetScores(NamedTuple):
    """Figures of a generated set against a real one.

    values: 'fid', 'fid_infinity', 'kid', 'kid_subsets' with 'kid_subsets_std' (for features other than
    Inception's 'frechet...' and 'kernel...'), 'precision', 'recall', 'density', 'coverage'.
    intervals: of 95 %, by the values' names. warnings: what the numbers of images do not allow to say.
    """

    values: dict[str, float]
    intervals: dict[str, Interval]
    warnings: list[str]


def open_features(config: ConfigDict) -> FeatureNet | None:
    """The feature network of config.eval, or None. Without a file of its own it takes the loss's, where that is of the
    same network."""
    settings, loss = config.eval, config.get("loss", {})
    same = settings.features == loss.get("perceptual_net")
    weights = settings.features_weights or (loss.get("perceptual_weights", "") if same else "")
    return load_features(settings.features, weights, settings.resize)


def batch_features(source: FeatureNet, images: np.ndarray) -> np.ndarray:
    """[N, D] float32 features of one batch, uint8 [N, H, W, 3]; compiled once per shape and process."""
    return np.asarray(local_program(features)(source, images))


def image_features(
    source: FeatureNet,
    images: Iterable[np.ndarray],
    count: int,
    batch_size: int,
    label: str = "",
    should_stop: ShouldStop = never,
) -> np.ndarray:
    """[N, D] float32 features of a stream of uint8 images [H, W, 3], of any sizes; the last batch counts like the others.

    Args:
        source: where from.
        images: the stream; no more than a batch of it is held.
        count: how many, for the progress.
        batch_size: images at a time.
        label: of the progress; '' shows none.
        should_stop: asked before each batch.

    Raises:
        Stopped: should_stop said so.
        ValueError: not `count` images came.
    """
    source = replicated(source)
    progress = Progress(count, "img", label, shown=bool(label))
    progress.begin()
    computed = np.empty((count, source.dimensions), np.float32)
    done = 0
    for batch in stoppable(_batches(_of_one_size(source, images), batch_size), should_stop):
        # A short batch is filled up: one program for all of a size.
        full = np.concatenate([batch, np.repeat(batch[-1:], batch_size - len(batch), 0)])
        computed[done : done + len(batch)] = batch_features(source, full)[: len(batch)]
        done += len(batch)
        progress.update(len(batch))
    progress.close()
    if done != count:
        raise ValueError(f"{count} images were announced, {done} came")
    return computed


def _of_one_size(source: FeatureNet, images: Iterable[np.ndarray]) -> Iterator[np.ndarray]:
    """The images; from the first of another size on, resized here as the network would have it: each size would
    be a program of its own."""
    first: tuple[int, ...] = ()
    mixed = False
    for image in images:
        first = first or image.shape
        mixed = mixed or image.shape != first
        yield resize_on_host(image, SIDES[source.name], source.resize) if mixed else image


def _batches(images: Iterable[np.ndarray], size: int) -> Iterator[np.ndarray]:
    """Stacks of at most `size` consecutive images of one shape."""
    batch: list[np.ndarray] = []
    for image in images:
        if batch and (len(batch) == size or batch[0].shape != image.shape):
            yield np.stack(batch)
            batch = []
        batch.append(np.asarray(image))
    if batch:
        yield np.stack(batch)


def real_set(dataset: PackedDataset, name: str, split: PackedSplit) -> RealSet:
    """The photographs of a split as a protocol names them."""
    images = of_split(dataset, name, split)
    return RealSet(images.fingerprint, name, len(images), dataset.resolution, images.preprocessing)


def split_features(
    source: FeatureNet,
    dataset: PackedDataset,
    name: str,
    split: PackedSplit,
    batch_size: int,
    should_stop: ShouldStop = never,
) -> np.ndarray:
    """[N, D] features of a split's photographs, from the cache where they were computed before."""
    return cached_features(
        real_set(dataset, name, split),
        source,
        lambda: image_features(
            source, split.images, len(split.images), batch_size, f"features of split '{name}'", should_stop
        ),
    )


def set_distances(source: FeatureNet, generated: np.ndarray, real: np.ndarray) -> dict[str, float]:
    """The two distances alone, by the names that the features allow: what training looks at."""
    frechet, kernel = source.distance_names
    return {frechet: frechet_distance(generated, real), kernel: kernel_distance(generated, real)}


def score_sets(
    source: FeatureNet,
    generated: np.ndarray,
    real: np.ndarray,
    groups: Groups,
    seed: int,
    paired: bool = False,
) -> SetScores:
    """All figures of two sets of features.

    Args:
        source: where the features come from.
        generated: [N, D]. real: [M, D].
        groups: patients of either side.
        seed: of every draw.
        paired: the generated images are reconstructions of the real ones, in their order.
    """
    frechet, kernel = source.distance_names
    progress = Progress(2 * (HALVES + 1) + len(SHARES), "distances", "how sure the distances are")
    progress.begin()

    def counted(statistic: Statistic) -> Statistic:
        def compute(a: np.ndarray, b: np.ndarray) -> float:
            progress.update()
            return statistic(a, b)

        return compute

    intervals = {
        name: set_interval(counted(statistic), generated, real, groups, seed, paired)
        for name, statistic in ((frechet, frechet_distance), (kernel, kernel_distance))
    }
    distances = set_distances(source, generated, real)
    infinite = at_infinite_samples(counted(frechet_distance), generated, real, seed, paired)
    mean, spread = kernel_distance_subsets(generated, real, seed)
    progress.close()
    values = {
        frechet: distances[frechet],
        f"{frechet}_infinity": infinite,
        kernel: distances[kernel],
        f"{kernel}_subsets": mean,
        f"{kernel}_subsets_std": spread,
    }
    neighbours = _neighbours(generated, real)
    if neighbours and min(len(generated), len(real)) // 2 > 2 * DENSITY_K:
        intervals |= _share_intervals(generated, real, groups, seed, paired)
    return SetScores(values | neighbours, intervals, _warnings(source, len(generated), len(real)))


def _share_intervals(
    generated: np.ndarray, real: np.ndarray, groups: Groups, seed: int, paired: bool
) -> dict[str, Interval]:
    """Intervals of `_neighbours`: shares, which end at 0 and, density apart, at 1."""
    return {
        name: Interval(max(ends.low, 0.0), ends.high if name == "density" else min(ends.high, 1.0))
        for name, ends in set_intervals(_neighbours, generated, real, groups, seed, paired).items()
    }


def set_values(source: FeatureNet, generated: np.ndarray, real: np.ndarray) -> dict[str, float]:
    """The figures without intervals and extrapolation: what the model's row is compared with."""
    return set_distances(source, generated, real) | _neighbours(generated, real)


def _neighbours(generated: np.ndarray, real: np.ndarray) -> dict[str, float]:
    """precision, recall, density, coverage; none where a set has no fifth neighbour."""
    if min(len(generated), len(real)) <= DENSITY_K:
        return {}
    of_three, of_five = (neighbour_figures(generated, real, k).means() for k in (PRECISION_K, DENSITY_K))
    return {
        "precision": of_three["precision"],
        "recall": of_three["recall"],
        "density": of_five["density"],
        "coverage": of_five["coverage"],
    }


def _warnings(source: FeatureNet, num_generated: int, num_real: int) -> list[str]:
    fewest, names = min(num_generated, num_real), source.distance_names
    titles = {"fid": "FID", "kid": "KID", "frechet": "the Fréchet distance", "kernel": "the kernel distance"}
    warnings = []
    if fewest < source.dimensions:
        warnings.append(
            f"{num_generated} and {num_real} images are too few for {titles[names[0]]} of {source.dimensions} dimensions: "
            f"its bias is larger than most differences between models; compare only values of the same numbers of "
            f"images, or {titles[names[1]]}, which has no such bias"
        )
    if fewest < FEW:
        warnings.append(
            f"{fewest} images say little about a distribution, whatever the figure: see the intervals"
        )
    return warnings


def floors(
    source: FeatureNet,
    train: np.ndarray,
    held_out: np.ndarray,
    patients: tuple[Sequence[str], Sequence[str]],
    seed: int,
) -> dict[str, dict[str, float]]:
    """What real photographs score against real photographs of other patients, with the numbers of images in the names.

    As many training as held-out photographs, and all photographs cut in two halves by patient.

    Args:
        source: where the features come from.
        train: [N, D] features. held_out: [M, D].
        patients: of either.
        seed: of the draws.
    """
    rng = np.random.default_rng([seed, 7])
    count = min(len(train), len(held_out))
    first, second = (rng.permutation(len(side))[:count] for side in (train, held_out))
    figures = {}
    progress = Progress(2, "pair of sets", "what photographs score against photographs")
    progress.begin()
    if count > 1:
        title = f"photographs of other patients ({count} and {count})"
        figures[title] = set_values(source, train[first], held_out[second])
    progress.update()
    everything, owners = np.concatenate([train, held_out]), np.asarray([*patients[0], *patients[1]])
    names = np.unique(owners)
    half = np.isin(owners, rng.permutation(names)[: len(names) // 2])
    if min(half.sum(), (~half).sum()) > 1:
        title = f"two halves of the dataset ({half.sum()} and {(~half).sum()})"
        figures[title] = set_values(source, everything[half], everything[~half])
    progress.update()
    progress.close()
    return figures


def known_means(per_image: dict[str, np.ndarray]) -> dict[str, float]:
    """Mean of each figure over the images that have a finite one; NaN where none has."""
    means = {}
    for name, values in per_image.items():
        known = np.asarray(values)[np.isfinite(values)]
        means[name] = float(known.mean()) if len(known) else float("nan")
    return means


def left_out(per_image: dict[str, np.ndarray]) -> list[str]:
    """A line for each figure that some images do not have (the PSNR of two equal images is infinite)."""
    lines = []
    for name, values in per_image.items():
        missing = int((~np.isfinite(values)).sum())
        if missing:
            lines.append(f"{name}: {missing} of {len(values)} images have no finite value and are left out")
    return lines


def intervals_of(
    per_image: dict[str, np.ndarray], groups: Sequence[str] | None, seed: int
) -> dict[str, Interval]:
    """Intervals of figures that have one value per image."""
    return {name: mean_interval(values, groups, seed) for name, values in per_image.items()}
