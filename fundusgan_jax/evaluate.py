"""Scores reconstructions of held-out photographs, beside trivial reconstructions of the same photographs."""

from __future__ import annotations

import json
import math
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from ml_collections import ConfigDict

from fundusgan_jax.atomic import atomic_write
from fundusgan_jax.batch import to_float, to_uint8
from fundusgan_jax.data.packed import PackedDataset, PackedSplit
from fundusgan_jax.errors import UserError
from fundusgan_jax.grid import can_draw, comparison_grid, save_png
from fundusgan_jax.metrics import baselines
from fundusgan_jax.metrics.field_of_view import fov_mask
from fundusgan_jax.metrics.image import psnr, ssim
from fundusgan_jax.metrics.sets import frechet_distance, kernel_distance
from fundusgan_jax.models.features import FeatureNet, describe_features, features, load_features
from fundusgan_jax.models.fundusgan import Variables
from fundusgan_jax.models.lpips import PerceptualNet, perceptual_distance
from fundusgan_jax.progress import Progress
from fundusgan_jax.report import write_report
from fundusgan_jax.step import reconstruct_step
from fundusgan_jax.workdir import open_dataset, open_perceptual, restore_variables

Painter = Callable[[np.ndarray, np.ndarray], np.ndarray]
# The trivial reconstructions, and the side that the photograph is reduced to (0: the training set's mean).
BASELINES = {"mean": 0, "16x16": 16, "64x64": 64}


class Evaluation(NamedTuple):
    """Figures over a split.

    model: {'ssim', 'psnr', 'ssim_fov', 'psnr_fov' and 'lpips' or 'perceptual': mean over images};
    'fov' is inside the field of view, the others over the whole image; PSNR in dB. 'frechet', 'kernel':
    distances between the set of reconstructions and that of the photographs, where eval.features is set.
    baselines: the same figures of the trivial reconstructions ('mean', '16x16', '64x64').
    per_image: the model's figures, one value per image. num_images: how many.
    """

    model: dict[str, float]
    baselines: dict[str, dict[str, float]]
    per_image: dict[str, list[float]]
    num_images: int


def held_out(dataset: PackedDataset, config: ConfigDict) -> PackedSplit:
    """The evaluation split, at most eval.num photographs evenly spread over it."""
    split = split_named(dataset, config.data.eval_split)
    count = len(split.images)
    if config.eval.num and config.eval.num < count:
        rows = np.linspace(0, count - 1, config.eval.num).round().astype(int)
        return PackedSplit(
            split.images[rows],
            split.label[rows],
            split.eye[rows],
            tuple(split.patient[row] for row in rows),
            tuple(split.file[row] for row in rows),
        )
    return split


def split_named(dataset: PackedDataset, name: str) -> PackedSplit:
    """The split of that name; UserError with the names there are."""
    if name not in dataset.splits or not len(dataset.splits[name].images):
        raise UserError(
            f"the dataset in {dataset.directory} has no photographs in split '{name}' "
            f"(it has {', '.join(sorted(dataset.splits))}); set data.train_split or data.eval_split to one of these"
        )
    return dataset.splits[name]


def padded_batches(count: int, size: int) -> Iterator[tuple[np.ndarray, int]]:
    """Row numbers in batches of one size (the last repeats its last row) and how many of them count."""
    for start in range(0, count, size):
        rows = np.minimum(np.arange(start, start + size), count - 1)
        yield rows, min(size, count - start)


def model_painter(config: ConfigDict, variables: Variables) -> Painter:
    """A function (uint8 images [N, S, S, 3], their numbers [N]) -> uint8 reconstructions, compiled once."""
    compiled = _compiled_reconstruction(config)

    def paint(images: np.ndarray, numbers: np.ndarray) -> np.ndarray:
        return to_uint8(compiled(variables, to_float(images), numbers.astype(np.int32)))

    return paint


_RECONSTRUCTIONS: dict[str, Any] = {}


def _compiled_reconstruction(config: ConfigDict) -> Any:
    # One compilation per configuration and process, however often training evaluates.
    key = config.to_json_best_effort()
    if key not in _RECONSTRUCTIONS:
        frozen = ConfigDict(config)

        def run(variables: Variables, image: jax.Array, numbers: jax.Array) -> jax.Array:
            return reconstruct_step(variables, image, numbers, config=frozen).image

        _RECONSTRUCTIONS[key] = jax.jit(run)
    return _RECONSTRUCTIONS[key]


class Scorer:
    """Compares reconstructions with a split's photographs; compiled functions and masks are made once.

    Args:
        split: the photographs.
        perceptual: the perceptual network, or None.
        batch_size: images scored at a time.
        feature_net: of the distances between sets, or None for none.
    """

    def __init__(
        self,
        split: PackedSplit,
        perceptual: PerceptualNet | None,
        batch_size: int,
        feature_net: FeatureNet | None = None,
    ) -> None:
        self._feature_net = feature_net
        self._real: np.ndarray | None = None
        self.split, self.batch_size = split, min(batch_size, len(split.images))
        self.metric = perceptual.metric if perceptual else None
        self._perceptual = perceptual
        self._distance = jax.jit(perceptual_distance)

    def score(self, paint: Painter, label: str) -> tuple[dict[str, float], dict[str, list[float]]]:
        """Means and per-image figures of the reconstructions that `paint` makes."""
        count = len(self.split.images)
        values: dict[str, list[float]] = {}
        seen: list[np.ndarray] = []
        progress = Progress(count, "img", label)
        for rows, real in padded_batches(count, self.batch_size):
            images = np.asarray(self.split.images[rows])
            painted = paint(images, rows)
            for name, figures in self._figures(images, painted).items():
                values.setdefault(name, []).extend(np.asarray(figures, np.float64)[:real].tolist())
            if self._feature_net is not None:
                seen.append(np.asarray(_features(self._feature_net, to_float(painted)))[:real])
            progress.update(real)
        means = {name: float(np.mean(figures)) for name, figures in values.items()}
        if seen and count > 1:
            means |= set_distances(np.concatenate(seen), self._real_features())
        return means, values

    def _real_features(self) -> np.ndarray:
        if self._real is None:
            assert self._feature_net is not None  # asked for only where there is one
            images = self.split.images
            self._real = image_features(self._feature_net, images, self.batch_size)
        return self._real

    def _figures(self, images: np.ndarray, painted: np.ndarray) -> dict[str, Any]:
        mask = fov_mask(images)
        figures = {
            "ssim": ssim(images, painted),
            "psnr": psnr(images, painted),
            "ssim_fov": ssim(images, painted, mask=mask),
            "psnr_fov": psnr(images, painted, mask=mask),
        }
        if self._perceptual is not None:
            distance = self._distance(
                self._perceptual, jnp.asarray(to_float(painted)), jnp.asarray(to_float(images))
            )
            figures[self._perceptual.metric] = distance
        return figures

    def score_baselines(self, train: PackedSplit) -> dict[str, dict[str, float]]:
        """The figures of the three trivial reconstructions; the mean image is the training split's."""
        mean = baselines.mean_image(train.images)

        def painter(side: int) -> Painter:
            if not side:
                return lambda images, rows: np.broadcast_to(mean, images.shape).copy()
            return lambda images, rows: baselines.reduced(images, side)

        # At 64 px, 64x64 is the photograph itself.
        return {
            name: self.score(painter(side), f"trivial reconstruction '{name}'")[0]
            for name, side in BASELINES.items()
            if side < train.images.shape[1]
        }


def open_features(config: ConfigDict) -> FeatureNet | None:
    """The feature network of config.eval, or None."""
    return load_features(config.eval.features, config.eval.features_weights)


_features = jax.jit(features)  # compiled once per shape and process, however often a run is scored


def image_features(source: FeatureNet, images: Any, batch_size: int) -> np.ndarray:
    """[N, D] features of uint8 images [N, S, S, 3], a batch at a time."""
    parts = [
        np.asarray(_features(source, to_float(np.asarray(images[rows]))))[:real]
        for rows, real in padded_batches(len(images), batch_size)
    ]
    return np.concatenate(parts)


def enlarged(images: np.ndarray, side: int) -> np.ndarray:
    """uint8 [N, S, S, 3] -> [N, side, side, 3], pixels repeated: a growing network's images beside photographs."""
    factor = side // images.shape[1]
    return images if factor == 1 else images.repeat(factor, 1).repeat(factor, 2)


def set_distances(generated: np.ndarray, real: np.ndarray) -> dict[str, float]:
    """{'frechet', 'kernel'} between two sets of features [N, D], [M, D]."""
    return {"frechet": frechet_distance(generated, real), "kernel": kernel_distance(generated, real)}


def evaluation_record(
    evaluation: Evaluation,
    config: ConfigDict,
    step: int,
    dataset: PackedDataset,
    perceptual: PerceptualNet | None,
) -> dict[str, Any]:
    """What eval.json holds: the figures and all that is needed to know what they mean."""
    return {
        "step": step,
        "kimg": step * config.train.batch_size / 1000,
        "split": config.data.eval_split,
        "num_images": evaluation.num_images,
        "resolution": config.data.resolution,
        "dataset_fingerprint": dataset.fingerprint,
        "perceptual_metric": perceptual.metric if perceptual else None,
        "perceptual_name": perceptual.description if perceptual else None,
        "features": describe_features(config.eval.features),
        "ema": bool(config.eval.use_ema),
        "model": evaluation.model,
        "baselines": evaluation.baselines,
        "per_image": evaluation.per_image,
    }


def write_evaluation(path: Path, record: dict[str, Any]) -> None:
    """Writes eval.json atomically."""
    with atomic_write(path) as temporary:
        temporary.write_text(json.dumps(_finite(record), indent=1, allow_nan=False) + "\n")


def _finite(value: Any) -> Any:
    """The value with null for what JSON has no number for (the PSNR of two equal images is infinite)."""
    if isinstance(value, dict):
        return {name: _finite(item) for name, item in value.items()}
    if isinstance(value, list):
        return [_finite(item) for item in value]
    return None if isinstance(value, float) and not math.isfinite(value) else value


def figures_table(evaluation: Evaluation) -> str:
    """The model's figures beside the trivial reconstructions', as lines of text."""
    names = list(evaluation.model)
    rows = {"model": evaluation.model, **evaluation.baselines}
    lines = ["".join([f"{'':>10}", *(f"{name:>12}" for name in names)])]
    lines += [
        "".join([f"{row:>10}", *(f"{figures[name]:12.4f}" for name in names)])
        for row, figures in rows.items()
    ]
    return "\n".join(lines)


def evaluate_workdir(config: ConfigDict, workdir: Path, step: str) -> None:
    """Scores a checkpoint of `workdir`: writes eval.json and samples/eval-STEP.png, prints the table."""
    number, variables = restore_variables(config, workdir, step)
    dataset = open_dataset(config, workdir)
    perceptual = open_perceptual(config)
    split = held_out(dataset, config)
    scorer = Scorer(split, perceptual, config.eval.batch_size, open_features(config))
    paint = model_painter(config, variables)
    figures, per_image = scorer.score(paint, f"evaluating step {number}")
    trivial = scorer.score_baselines(split_named(dataset, config.data.train_split))
    evaluation = Evaluation(figures, trivial, per_image, len(split.images))
    write_evaluation(
        workdir / "eval.json", evaluation_record(evaluation, config, number, dataset, perceptual)
    )
    rows = np.arange(min(8, len(split.images)))
    grid = workdir / "samples" / f"eval-{number:06d}.png"
    if can_draw():
        images = np.asarray(split.images[rows])
        save_png(grid, comparison_grid(images, paint(images, rows)))
    print(f"step {number}, {evaluation.num_images} photographs of split '{config.data.eval_split}':")
    print(figures_table(evaluation))
    print(f"figures: {workdir / 'eval.json'}")
    print(f"grid:    {grid if can_draw() else 'not drawn: Pillow is not installed'}")
    print(f"report:  {write_report(workdir)}", flush=True)
