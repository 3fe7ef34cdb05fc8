"""Pictures of an evaluation: reconstructions from best to worst, and a map of real and generated features."""

from __future__ import annotations

import dataclasses
import importlib.util
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from fundusgan_jax.atomic import atomic_write
from fundusgan_jax.progress import Progress
from fundusgan_jax.report.evaluation import FULL_FOLDER, Evaluation
from fundusgan_jax.report.grid import comparison_grid, save_png, with_caption

RANKED = 3
SMALLEST_MAP, MOST_POINTS = 12, 2000
# That t-SNE sees: distances along many more are mostly noise.
MOST_COMPONENTS = 50
SMALLEST_DIFFERENT = 3  # points that are not on one another, or on a line
MARKERS = ("o", "^", "s")


# Draws something and returns {file: title}, of nothing {}.
Drawing = Callable[[], dict[str, str]]


def with_pictures(evaluation: Evaluation, drawings: Mapping[str, Drawing]) -> Evaluation:
    """The evaluation with its pictures; one that cannot be drawn is a note under its name, for the figures are whole
    without it."""
    pictures, notes = dict(evaluation.pictures), []
    for name, draw in drawings.items():
        try:
            pictures |= draw()
        except Exception as error:  # whatever the libraries that draw raise
            reason = str(error).split("\n")[0] or type(error).__name__
            notes.append(f"{name} cannot be drawn and is left out ({reason})")
    return dataclasses.replace(evaluation, pictures=pictures, warnings=evaluation.warnings + notes)


def fresh_folder(workdir: Path) -> Path:
    """The folder of an evaluation's pictures, without those of the one before."""
    folder = workdir / FULL_FOLDER
    for old in folder.glob("*.png"):
        old.unlink(missing_ok=True)
    return folder


def ranked_numbers(order: np.ndarray) -> dict[str, np.ndarray]:
    """The best, the median and the worst images' numbers of an order [N] from best to worst."""
    count = min(RANKED, len(order))
    middle = max((len(order) - count) // 2, 0)
    return {"best": order[:count], "median": order[middle : middle + count], "worst": order[-count:]}


def draw_ranked(
    path: Path, pair_of: Callable[[int], tuple[np.ndarray, np.ndarray]], values: np.ndarray, order: np.ndarray
) -> None:
    """The best, the median and the worst reconstructions beside their photographs.

    Args:
        path: PNG to write.
        pair_of: number -> photograph and reconstruction, uint8 [H, W, 3], of one size.
        values: [N] figure that ranks them. order: numbers, best first.
    """
    grids = []
    for title, numbers in ranked_numbers(order).items():
        pairs = [pair_of(int(number)) for number in numbers]
        side = max(max(pair[0].shape[:2]) for pair in pairs)
        pairs = [(_padded(photograph, side), _padded(painted, side)) for photograph, painted in pairs]
        figures = ", ".join(f"{values[number]:.3f}" for number in numbers)
        grid = comparison_grid(np.stack([pair[0] for pair in pairs]), np.stack([pair[1] for pair in pairs]))
        grids.append(with_caption(grid, f"{title}: {figures}"))
    width = max(grid.shape[1] for grid in grids)
    save_png(path, np.concatenate([np.pad(g, ((0, 0), (0, width - g.shape[1]), (0, 0))) for g in grids]))


def _padded(image: np.ndarray, side: int) -> np.ndarray:
    """A picture of any size on a black square: images of a folder may differ."""
    return np.pad(image, ((0, side - image.shape[0]), (0, side - image.shape[1]), (0, 0)))


def can_embed(count: int) -> bool:
    """Whether t-SNE and its picture can be made."""
    installed = all(importlib.util.find_spec(name) for name in ("sklearn", "matplotlib"))
    return installed and count >= SMALLEST_MAP


def embedded(features: np.ndarray, seed: int) -> np.ndarray:
    """[N, 2]: t-SNE (van der Maaten and Hinton 2008) of the first 50 principal components of standardised features [N, D],
    N >= 12; the same seed gives the same map.

    Raises:
        ValueError: too few different features; scikit-learn, whose first map would be NaN, ends the process by a
            segmentation fault.
    """
    from sklearn.decomposition import PCA
    from sklearn.manifold import TSNE

    different = len(np.unique(features, axis=0))
    if different < SMALLEST_DIFFERENT or not np.isfinite(features).all():
        raise ValueError(f"{different} of {len(features)} images differ by their features")
    scaled = (features - features.mean(0)) / np.maximum(features.std(0), 1e-6)
    scaled = PCA(min(MOST_COMPONENTS, *scaled.shape), svd_solver="full").fit_transform(scaled)
    perplexity = min(30.0, (len(features) - 1) / 3)
    return np.asarray(TSNE(perplexity=perplexity, init="pca", random_state=seed).fit_transform(scaled))


def draw_tsne(path: Path, sets: dict[str, np.ndarray], labels: Sequence[Sequence[str]], seed: int) -> None:
    """One map of several sets: the mark says which set, the colour which class.

    Args:
        path: PNG to write.
        sets: name -> features [N, D]; of each at most MOST_POINTS are drawn.
        labels: class names of each set's images.
        seed: of the choice and of t-SNE.
    """
    import matplotlib

    matplotlib.use("Agg")
    from matplotlib import pyplot

    rng = np.random.default_rng(seed)
    chosen = [np.sort(rng.permutation(len(features))[:MOST_POINTS]) for features in sets.values()]
    drawn = np.concatenate([features[numbers] for features, numbers in zip(sets.values(), chosen)])
    progress = Progress(len(drawn), "point", "drawing the map of features")
    progress.begin()
    points = np.split(embedded(drawn, seed), np.cumsum([len(numbers) for numbers in chosen])[:-1])
    tab10 = matplotlib.colormaps["tab10"]
    classes = sorted({name for part in labels for name in part})
    colours = {name: tab10(number % 10) for number, name in enumerate(classes)}
    figure, axis = pyplot.subplots(figsize=(9, 7), layout="constrained")
    for name, places, numbers, part, marker in zip(sets, points, chosen, labels, MARKERS):
        _scatter(axis, name, places, np.asarray(part)[numbers], colours, marker)
    axis.set_xticks([])
    axis.set_yticks([])
    axis.legend(fontsize=9)
    with atomic_write(path) as temporary:
        figure.savefig(temporary, format="png", dpi=100)
    pyplot.close(figure)
    progress.update(len(drawn))
    progress.close()


def _scatter(
    axis: Any,
    name: str,
    places: np.ndarray,
    classes: np.ndarray,
    colours: Mapping[str, tuple[float, ...]],
    marker: str,
) -> None:
    """The points [N, 2] of one set, class by class."""
    for label, colour in colours.items():
        of_class = classes == label
        if of_class.any():
            axis.scatter(
                places[of_class, 0],
                places[of_class, 1],
                marker=marker,
                s=26,
                linewidths=1,
                facecolors=colour if marker == MARKERS[0] else "none",
                edgecolors=colour,
                alpha=0.8,
                label=f"{name}, {label} ({of_class.sum()})",
            )
