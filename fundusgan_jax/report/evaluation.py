"""What an evaluation found, as a type, and eval.json, which holds it."""

from __future__ import annotations

import dataclasses
import json
import math
import types
import typing
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np

from fundusgan_jax.atomic import atomic_write
from fundusgan_jax.errors import UserError
from fundusgan_jax.metrics.confidence import Interval
from fundusgan_jax.report.protocol import Protocol
from fundusgan_jax.workdir.manifest import devices, git_commit, versions

FILE = "eval.json"
FULL_FOLDER = "evaluation"  # beside it: its copy, which training does not replace, and its pictures
# A figure by its name; a row of a table.
Figures = dict[str, float]


@dataclasses.dataclass(frozen=True)
class Signatures:
    """Failure signatures (`metrics.signatures`): means over the photographs that have them, num_known of them."""

    model: Figures
    intervals: dict[str, Interval]
    baselines: dict[str, Figures]
    num_known: dict[str, int]


@dataclasses.dataclass(frozen=True)
class Nearer:
    """Whether generated images lie nearer to training than to held-out photographs; the first four as
    `metrics.memorisation.NearestRatio`, by `features`; distances: medians over the generated images."""

    nearer_to_train: float
    interval: Interval
    of_all: float
    expected: float
    features: str
    median_distance_train: float
    median_distance_held_out: float


@dataclasses.dataclass(frozen=True)
class Flagged:
    """How many images stand out by their pixels, by their structure, by either."""

    pixels: int
    structure: int
    either: int


@dataclasses.dataclass(frozen=True)
class Controls:
    """How many of the altered training photographs were found again."""

    found: int
    of: int


@dataclasses.dataclass(frozen=True)
class Membership:
    """AUC of the discriminator's score, training against held-out photographs."""

    value: float
    interval: Interval


@dataclasses.dataclass(frozen=True)
class Medians:
    """Medians over a set of images of their best matches' figures."""

    correlation: float
    vessel_overlap: float


@dataclasses.dataclass(frozen=True)
class Match:
    """An image and the training photograph (file) whose structure fits best.

    kind: 'generated' or 'held_out'. number: of the image. distance: to the nearest photograph by pixels. closer_by_chance:
    share of held-out photographs whose best match is at least as close. held_out_...: of a generated image's best match
    among held-out photographs, else None.
    """

    kind: str
    number: int
    file: str
    correlation: float
    vessel_overlap: float
    distance: float
    closer_by_chance: float
    held_out_correlation: float | None = None
    held_out_vessel_overlap: float | None = None


@dataclasses.dataclass(frozen=True)
class Memorisation:
    """Whether generated images, made by `method`, repeat training photographs. medians: 'generated',
    'generated_on_held_out', 'held_out'. verdict: a sentence. flagged_held_out: held-out photographs, each among the others:
    what chance brings; None in files of early versions."""

    method: str
    num_generated: int
    num_train: int
    num_held_out: int
    nearer: Nearer
    flagged: Flagged
    expected_by_chance: float
    controls: Controls
    membership_auc: Membership | None
    medians: dict[str, Medians]
    closest: list[Match]
    verdict: str
    flagged_held_out: Flagged | None = None


@dataclasses.dataclass(frozen=True)
class Distribution:
    """One measure of drawn images and of photographs: medians, or shares, over the images where it means something (known...:
    their share). distance: of the two distributions, by Kolmogorov and Smirnov, 0 to 1; distance_photographs: of photographs
    of other patients."""

    generated: float
    photographs: float
    known_generated: float
    known_photographs: float
    distance: float
    distance_photographs: float | None = None


@dataclasses.dataclass(frozen=True)
class Anatomy:
    """What drawn images have of a fundus (`anatomy.plausibility.MEASURES`), by name. num_...: images that were measured."""

    num_generated: int
    num_photographs: int
    num_others: int
    measures: dict[str, Distribution]


@dataclasses.dataclass(frozen=True)
class Evaluation:
    """The figures of one model or folder, and what they are compared with.

    split, num_images, resolution: of the photographs. model: its figures. baselines: those of trivial reconstructions;
    floors: of photographs against photographs. ratios: the model's figures over those of held-out photographs, at equal
    numbers. intervals: of 95 %, by the figures' names. per_image: a figure's [N] values.
    patient_number: [N] photographs of one number are of one patient; None where patients are unknown. pictures:
    {file in FULL_FOLDER: title}. title: of two folders. num_samples: generated images, where they are no reconstructions.
    step, kimg: of a training. features, perceptual_name, perceptual_metric: the networks. environment: where it was
    measured. protocol: None in files of early versions.
    """

    split: str
    num_images: int
    resolution: int
    model: Figures
    baselines: dict[str, Figures]
    protocol: Protocol | None = None
    environment: dict[str, Any] = dataclasses.field(default_factory=dict)
    step: int | None = None
    kimg: float | None = None
    title: str | None = None
    num_samples: int | None = None
    dataset_fingerprint: str | None = None
    features: str | None = None
    perceptual_metric: str | None = None
    perceptual_name: str | None = None
    ema: bool | None = None
    patient_number: np.ndarray | None = None
    floors: dict[str, Figures] = dataclasses.field(default_factory=dict)
    ratios: Figures = dataclasses.field(default_factory=dict)
    intervals: dict[str, Interval] = dataclasses.field(default_factory=dict)
    warnings: list[str] = dataclasses.field(default_factory=list)
    pictures: dict[str, str] = dataclasses.field(default_factory=dict)
    per_image: dict[str, np.ndarray] = dataclasses.field(default_factory=dict)
    signatures: Signatures | None = None
    memorisation: Memorisation | None = None
    anatomy: Anatomy | None = None


def environment() -> dict[str, Any]:
    """Where something is measured: commit, devices, versions."""
    return {"git": git_commit(), "devices": devices(), "versions": versions()}


def write_evaluation(path: Path, evaluation: Evaluation) -> None:
    """Writes eval.json atomically; what an evaluation does not have is left out."""
    with atomic_write(path) as temporary:
        temporary.write_text(json.dumps(as_json(evaluation), indent=1, allow_nan=False) + "\n")


def write_full(workdir: Path, evaluation: Evaluation) -> None:
    """Writes a full evaluation as eval.json, which the next one during training replaces, and a copy that stays."""
    for path in (workdir / FULL_FOLDER / FILE, workdir / FILE):
        write_evaluation(path, evaluation)


def as_json(evaluation: Evaluation) -> dict[str, Any]:
    """The evaluation in JSON's types; null for what JSON has no number for (the PSNR of two equal images is infinite)."""
    used = evaluation.protocol
    stamp = {"protocol": used.content, "protocol_fingerprint": used.fingerprint} if used else {}
    content = {
        field.name: _plain(value)
        for field in dataclasses.fields(evaluation)
        if field.name != "protocol" and not _is_absent(value := getattr(evaluation, field.name), field)
    }
    return {**stamp, **content}


def _is_absent(value: Any, field: dataclasses.Field[Any]) -> bool:
    """Whether a field holds its default, an empty one among them."""
    if field.default_factory is not dataclasses.MISSING:
        return not len(value)
    return value is None and field.default is None


def _plain(value: Any) -> Any:
    if dataclasses.is_dataclass(value):
        named = {field.name: (getattr(value, field.name), field) for field in dataclasses.fields(value)}
        return {name: _plain(item) for name, (item, field) in named.items() if not _is_absent(item, field)}
    if isinstance(value, Mapping):
        return {name: _plain(item) for name, item in value.items()}
    if isinstance(value, list | tuple | np.ndarray):
        return [_plain(item) for item in value]
    if isinstance(value, np.generic):
        value = value.item()
    return None if isinstance(value, float) and not math.isfinite(value) else value


def evaluation_of(content: Mapping[str, Any]) -> Evaluation:
    """The evaluation that JSON's types hold; names that this version does not know are passed over.

    Raises:
        KeyError, TypeError, ValueError: it is none.
    """
    known = {name: value for name, value in content.items() if name != "protocol"}
    used = content.get("protocol")
    evaluation: Evaluation = _typed(Evaluation, known)
    return dataclasses.replace(evaluation, protocol=Protocol(dict(used)) if used else None)


def _typed(kind: Any, value: Any) -> Any:
    """A JSON value as `kind`, a field's type; null is NaN where a number is wanted."""
    origin, arguments = typing.get_origin(kind), typing.get_args(kind)
    if origin is types.UnionType:
        return None if value is None else _typed(arguments[0], value)
    if dataclasses.is_dataclass(kind):
        hints = typing.get_type_hints(kind)
        fields = {name: _typed(hints[name], item) for name, item in value.items() if name in hints}
        return kind(**fields)  # type: ignore[operator]  # a class, not an instance
    if kind is Interval:
        return Interval(*(_typed(float, end) for end in value))
    if origin is dict:
        return {name: _typed(arguments[1], item) for name, item in value.items()}
    if origin is list:
        return [_typed(arguments[0], item) for item in value]
    if kind is np.ndarray:
        return np.asarray([np.nan if item is None else item for item in value])
    return math.nan if kind is float and value is None else value


def read_evaluation(path: Path) -> Evaluation:
    """An eval.json (or the one of a folder) with its protocol; UserError where there is none, or none in it."""
    path = path / FILE if path.is_dir() else path
    evaluation = None
    try:
        evaluation = evaluation_of(json.loads(path.read_text()))
    except OSError as error:
        raise UserError(f"{path} cannot be read: {error.strerror}; name an eval.json") from error
    except (ValueError, KeyError, TypeError, AttributeError):
        pass
    if evaluation is None or evaluation.protocol is None:
        raise UserError(
            f"{path} is no eval.json with a protocol; make one with python -m fundusgan_jax.evaluate"
        )
    return evaluation


def last_evaluation(workdir: Path) -> Evaluation | None:
    """The eval.json of a workdir, whatever its version; None where there is none that can be read."""
    try:
        return evaluation_of(json.loads((workdir / FILE).read_text()))
    except (OSError, ValueError, KeyError, TypeError, AttributeError):
        return None
