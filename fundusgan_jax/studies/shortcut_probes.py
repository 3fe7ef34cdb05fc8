"""What colour, a thumbnail, file facts and the camera alone predict: inputs, grouped cross-validation, the verdict."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from PIL import ExifTags, Image

from fundusgan_jax.data.packed import PackedDataset, PackedSplit, open_packed
from fundusgan_jax.errors import UserError
from fundusgan_jax.metrics.confidence import Interval
from fundusgan_jax.metrics.discrimination import auc
from fundusgan_jax.metrics.resampling import interval_of, patient_weights
from fundusgan_jax.progress import Progress, waiting

FOLDS, REPEATS, THUMBNAIL = 5, 3, 8
# Inverse strength of the ridge: few inputs need little, several hundred need much.
FEW_INPUTS, RIDGE_FEW, RIDGE_MANY = 32, 1.0, 0.01
# Above this AUC a shortcut explains a label; and within this distance below the network.
EXPLAINED, MARGIN = 0.9, 0.03
BATCH = 32


class Photographs(NamedTuple):
    """All photographs that are used. inputs: name of a probe -> [N, F]. label: [N]. patient: [N]. file: [N]."""

    inputs: dict[str, np.ndarray]
    label: np.ndarray
    patient: np.ndarray
    file: tuple[str, ...]


class Probe(NamedTuple):
    """What one kind of input predicts. scores: [N] out-of-fold probability of the positive class."""

    auc: float
    interval: Interval
    scores: np.ndarray


class Task(NamedTuple):
    """One comparison. positive: [N] bool. patients: those of negatives and of positives. probes: by their inputs' names."""

    name: str
    positive: np.ndarray
    patients: tuple[int, int]
    file: tuple[str, ...]
    probes: dict[str, Probe]

    def warnings(self) -> list[str]:
        """What is wrong with the label, one line each; empty where nothing was found."""
        network = self.probes.get("network")
        texts = []
        for name in ("colour", "thumbnail", "file", "camera"):
            if name not in self.probes:
                continue
            area = self.probes[name].auc
            if area > EXPLAINED:
                texts.append(
                    f"{name} alone predicts the label (AUC {area:.3f} > {EXPLAINED}): treat it as a camera label"
                )
            elif network is not None and network.auc > 0.5 + MARGIN and area > network.auc - MARGIN:
                texts.append(
                    f"{name} alone is within {MARGIN} of the network ({area:.3f}, {network.auc:.3f}): the network need not see more"
                )
        return texts

    def record(self) -> dict[str, Any]:
        """As it is written to a file; every prediction stays."""
        return {
            "task": self.name,
            "files": list(self.file),
            "positive": [int(one) for one in self.positive],
            "patients": list(self.patients),
            "probes": {
                name: {"auc": one.auc, "interval": list(one.interval), "scores": one.scores.tolist()}
                for name, one in self.probes.items()
            },
            "warnings": self.warnings(),
        }


def colour(images: np.ndarray) -> np.ndarray:
    """uint8 [N, S, S, 3] -> float64 [N, 6]: mean and standard deviation of each channel, 0 to 1."""
    values = images.reshape(len(images), -1, 3) / 255.0
    return np.concatenate([values.mean(1), values.std(1)], 1)


def thumbnail(images: np.ndarray) -> np.ndarray:
    """uint8 [N, S, S, 3] -> float64 [N, 192]: means of 8x8 areas, 0 to 1; S at least 8."""
    ends = np.linspace(0, images.shape[1], THUMBNAIL + 1).astype(int)
    sizes = np.diff(ends)
    sums = np.add.reduceat(np.add.reduceat(images.astype(np.float64), ends[:-1], 1), ends[:-1], 2)
    areas = sums / (255.0 * sizes[:, None] * sizes)[..., None]
    return areas.reshape(len(images), -1)


def file_facts(files: Sequence[str], source: Path | None) -> np.ndarray:
    """[N, F]: one column a suffix; with `source` also log of bytes, width and height, and width / height.

    Raises:
        UserError: a file is not in `source`, or is no image.
    """
    suffixes = sorted({Path(file).suffix for file in files})
    columns = [[float(Path(file).suffix == suffix) for suffix in suffixes] for file in files]
    if source is None:
        return np.asarray(columns)
    progress = Progress(len(files), "file", "file sizes")
    with progress.running():
        for file, row in zip(files, columns):
            row += _measures(source / file)
            progress.update()
    return np.asarray(columns)


def _measures(path: Path) -> list[float]:
    with _opened(path) as image:
        width, height = image.size
    return [*np.log([path.stat().st_size, width, height]), width / height]


def _opened(path: Path) -> Image.Image:
    try:
        return Image.open(path)
    except OSError as error:
        raise UserError(
            f"--source: {path} cannot be read as an image ({error}); name the folder that was prepared, or leave --source out"
        ) from error


def camera(files: Sequence[str], source: Path) -> np.ndarray | None:
    """[N, F]: one column a camera, by the maker and model that a file's Exif names, and one for those that name none.

    None where no file names a camera. Raises UserError as `file_facts` does.
    """
    progress, names = Progress(len(files), "file", "cameras"), []
    with progress.running():
        for file in files:
            names.append(_camera(source / file))
            progress.update()
    known = sorted(set(names))
    if known == [""]:
        return None
    return np.asarray([[float(name == one) for one in known] for name in names])


def _camera(path: Path) -> str:
    """'maker model', '' where it is not known."""
    with _opened(path) as image:
        try:
            exif = image.getexif()
            named = [str(exif.get(tag, "")) for tag in (ExifTags.Base.Make, ExifTags.Base.Model)]
        except Exception:
            # A damaged block raises what its bytes happen to say; the photograph is none the worse.
            return ""
    return " ".join(filter(None, (name.strip("\0 ") for name in named)))


def squeezenet_features(images: np.ndarray, weights: Path) -> np.ndarray:
    """uint8 [N, S, S, 3] -> float32 [N, 512]: means of SqueezeNet 1.1's last map at the photographs' own size."""
    import jax

    from fundusgan_jax.steps.step import scaled
    from fundusgan_jax.weights.perceptual import load_perceptual

    net = load_perceptual("squeezenet", str(weights))

    @jax.jit
    def features(batch: jax.Array) -> jax.Array:
        return net.apply(scaled(batch))[-1].mean((1, 2))

    progress = Progress(len(images), "img", "features")
    parts = []
    with progress.running():
        for begin in range(0, len(images), BATCH):
            batch = images[begin : begin + BATCH]
            # One shape, one compilation.
            whole = np.concatenate([batch, np.repeat(batch[-1:], BATCH - len(batch), 0)])
            parts.append(np.asarray(features(whole))[: len(batch)])
            progress.update(len(batch))
    return np.concatenate(parts)


def out_of_fold(values: np.ndarray, positive: np.ndarray, groups: np.ndarray, seed: int) -> np.ndarray:
    """float64 [N]: probability of 'positive' by a logistic regression that saw no photograph of the same patient.

    The mean of several divisions into folds.

    Args:
        values: [N, F]. positive: [N] bool, both classes of FOLDS patients at least. groups: [N] patients.
    """
    from sklearn.linear_model import LogisticRegression
    from sklearn.model_selection import StratifiedGroupKFold
    from sklearn.pipeline import make_pipeline
    from sklearn.preprocessing import StandardScaler

    ridge = RIDGE_FEW if values.shape[1] <= FEW_INPUTS else RIDGE_MANY
    model = make_pipeline(StandardScaler(), LogisticRegression(C=ridge, max_iter=2000))
    scores = np.zeros((REPEATS, len(positive)))
    for repeat in range(REPEATS):
        folds = StratifiedGroupKFold(FOLDS, shuffle=True, random_state=seed + repeat)
        for train, test in folds.split(values, positive, groups):
            if len(np.unique(positive[train])) < 2:
                raise UserError("a fold has one class only; the patients of a class are too few")
            fitted = model.fit(values[train], positive[train])
            scores[repeat, test] = fitted.predict_proba(values[test])[:, 1]
    return scores.mean(0)


def check_labels(name: str, photographs: Photographs, positive: np.ndarray, seed: int) -> Task:
    """One comparison with every kind of input.

    Raises:
        UserError: a class has fewer patients than there are folds.
    """
    sides = [len(set(photographs.patient[positive == side])) for side in (False, True)]
    if min(sides) < FOLDS:
        raise UserError(
            f"{name}: {min(sides)} patients of one class are too few, at least {FOLDS} are needed"
        )
    weights = patient_weights(list(photographs.patient), len(positive), seed)
    probes = {}
    for kind, values in photographs.inputs.items():
        with waiting(f"{name}: {kind}"):
            scores = out_of_fold(values, positive, photographs.patient, seed)
        area = float(auc(positive, scores))
        probes[kind] = Probe(area, interval_of(auc(positive, scores, weights)), scores)
    return Task(name, positive, (sides[0], sides[1]), photographs.file, probes)


def check(data: Path, classes: str, source: Path | None, weights: Path | None, seed: int) -> list[Task]:
    """The comparisons of a prepared dataset; see the command's flags.

    Raises:
        UserError: no prepared dataset, no patients, no such class, classes that are too small, no weights.
    """
    dataset = open_packed(data)
    if not dataset.has_patients:
        raise UserError(
            f"{data} names no patients, so that both sides of a fold could show one; prepare it with --patient_column"
        )
    numbers = _class_numbers(dataset, classes)
    photographs = _photographs(dataset, numbers if classes else [], source, weights)
    present = [one for one in numbers if (photographs.label == one).any()]
    names = dataset.label_names
    if classes:
        first, second = numbers
        name = f"{names[second]} against {names[first]}"
        return [check_labels(name, photographs, photographs.label == second, seed)]
    if len(present) == 2:
        name = f"{names[present[1]]} against {names[present[0]]}"
        return [check_labels(name, photographs, photographs.label == present[1], seed)]
    return [
        check_labels(f"{names[one]} against the others", photographs, photographs.label == one, seed)
        for one in present
    ]


def _class_numbers(dataset: PackedDataset, classes: str) -> list[int]:
    names = list(dataset.label_names)
    if len(names) < 2:
        raise UserError(f"{dataset.directory} has no two classes; prepare it with --label_column")
    for name in filter(None, classes.split(",")):
        if name not in names:
            raise UserError(
                f"--classes: {name} is no class of {dataset.directory}; it has {', '.join(names)}"
            )
    return [names.index(name) for name in classes.split(",")] if classes else list(range(len(names)))


def _photographs(
    dataset: PackedDataset, numbers: Sequence[int], source: Path | None, weights: Path | None
) -> Photographs:
    """numbers: the classes that are used, none: all that are known."""
    chosen: list[tuple[PackedSplit, np.ndarray]] = []
    for split in dataset.splits.values():
        label = np.asarray(split.label)
        used = np.isin(label, numbers) if numbers else label >= 0
        chosen.append((split, np.flatnonzero(used)))
    images = np.concatenate([split.images[places] for split, places in chosen])
    files = tuple(split.file[place] for split, places in chosen for place in places)
    inputs = {
        "colour": np.concatenate([colour(part) for part in np.array_split(images, len(images) // 256 + 1)]),
        "thumbnail": np.concatenate(
            [thumbnail(part) for part in np.array_split(images, len(images) // 256 + 1)]
        ),
        "file": file_facts(files, source),
    }
    if source is not None and (cameras := camera(files, source)) is not None:
        inputs["camera"] = cameras
    if weights is not None:
        inputs["network"] = squeezenet_features(images, weights)
    return Photographs(
        inputs,
        np.concatenate([np.asarray(split.label)[places] for split, places in chosen]),
        np.asarray([split.patient[place] for split, places in chosen for place in places]),
        files,
    )


def lines(task: Task) -> list[str]:
    """What the command prints of one comparison."""
    negatives, positives = int((~task.positive).sum()), int(task.positive.sum())
    head = f"{task.name}: {positives} photographs of {task.patients[1]} patients against {negatives} of {task.patients[0]}"
    figures = [
        f"  {name:<10} AUC {probe.auc:.3f} ({probe.interval.low:.3f} to {probe.interval.high:.3f})"
        for name, probe in task.probes.items()
    ]
    return [head, *figures, *(f"  warning: {text}" for text in task.warnings())]
