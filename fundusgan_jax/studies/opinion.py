"""The command that asks whether a classifier's opinion survives reconstruction: python -m fundusgan_jax.studies.opinion."""

from __future__ import annotations

import json
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

from fundusgan_jax.devices import processors
from fundusgan_jax.errors import UserError, end_by_signals, run_door
from fundusgan_jax.flags import Parser
from fundusgan_jax.progress import waiting

if TYPE_CHECKING:
    import numpy as np
    from ml_collections import ConfigDict

DESCRIPTION = """Whether what a classifier saw in photographs is still in a FundusGAN's reconstructions of them.

  python -m fundusgan_jax.studies.opinion --classifier=CLASSIFIER --workdir=RUN

The held-out photographs of the classifier, which was trained on photographs alone, are classified as they are, reconstructed by
RUN, and reduced to fewer pixels. Of each: agreement with the opinion on the photograph, Cohen's kappa, and the area under the ROC
curve beside the photographs', with 95 % intervals from drawing patients."""

MODEL = "reconstructed"
REDUCED = (64, 16)


class Opinion(NamedTuple):
    """Of one way of painting: figure -> value, low, high. agreement: share of the same class. kappa: the same beyond chance
    (Cohen 1960). auc: of the painted images. auc_change: that less the photographs'. logit_change: mean absolute."""

    agreement: tuple[float, float, float]
    kappa: tuple[float, float, float]
    auc: tuple[float, float, float]
    auc_change: tuple[float, float, float]
    logit_change: tuple[float, float, float]


def parser() -> Parser:
    """The flags."""
    flags = Parser(prog="python -m fundusgan_jax.studies.opinion", description=DESCRIPTION)
    flags.add_argument(
        "--classifier", type=Path, required=True, metavar="DIR", help="workdir of configs/classifier.py"
    )
    flags.add_argument("--workdir", type=Path, required=True, metavar="DIR", help="workdir of a FundusGAN")
    flags.add_argument(
        "--step", default="best", help="of the FundusGAN: 'best', 'latest' or a step number (best)"
    )
    flags.add_argument("--output", type=Path, metavar="FILE", help="a .json file for the figures")
    flags.add_argument("--seed", type=int, default=0, help="of the intervals (0)")
    return flags


def kappas(first: np.ndarray, second: np.ndarray, classes: int, weights: np.ndarray) -> np.ndarray:
    """[B] Cohen's kappa of two raters' classes [N], each image counted weights [B, N] times; NaN where all agree by chance."""
    import numpy as np

    table = np.zeros((len(weights), classes, classes))
    for a in range(classes):
        for b in range(classes):
            table[:, a, b] = weights[:, (first == a) & (second == b)].sum(1)
    table /= np.maximum(table.sum((1, 2), keepdims=True), 1e-9)
    observed, expected = np.einsum("baa->b", table), (table.sum(1) * table.sum(2)).sum(1)
    return np.divide(observed - expected, 1 - expected, out=np.full(len(table), np.nan), where=expected < 1)


def opinion_of(
    label: np.ndarray, original: np.ndarray, painted: np.ndarray, patients: Sequence[str] | None, seed: int
) -> Opinion:
    """The figures of one way of painting.

    Args:
        label: [N] class numbers. original, painted: logits [N, K] of the photographs and of what was painted of them.
        patients: [N], drawn whole; None: photographs. seed: of the draws.
    """
    import numpy as np

    from fundusgan_jax.evaluate.classifier import probabilities_of
    from fundusgan_jax.metrics.discrimination import macro_auc
    from fundusgan_jax.metrics.resampling import interval_of, patient_weights

    drawn = patient_weights(patients, len(label), seed)
    weights = np.concatenate([np.ones((1, len(label)), np.float32), drawn])
    total = np.maximum(weights.sum(1), 1e-9)
    before, after = original.argmax(1), painted.argmax(1)
    area, of_photographs = (macro_auc(label, probabilities_of(x), weights) for x in (painted, original))
    moved = np.abs(
        (painted - painted.mean(1, keepdims=True)) - (original - original.mean(1, keepdims=True))
    ).mean(1)
    figures = (
        (weights * (before == after)).sum(1) / total,
        kappas(before, after, original.shape[1], weights),
        area,
        area - of_photographs,
        (weights * moved).sum(1) / total,
    )

    def of_draws(values: np.ndarray) -> tuple[float, float, float]:
        interval = interval_of(values[1:])
        return float(values[0]), interval.low, interval.high

    return Opinion(*map(of_draws, figures))


def compare(classifier: Path, workdir: Path, step: str, seed: int) -> dict[str, Any]:
    """The record: photographs, their AUC, and the `Opinion` of each way of painting.

    Raises:
        UserError: runs of other tasks, or of photographs of two sizes.
    """
    import numpy as np

    from fundusgan_jax.evaluate.classifier import Predictor
    from fundusgan_jax.evaluate.scored import held_out_split, variables_of
    from fundusgan_jax.generate.paint import model_painter
    from fundusgan_jax.metrics import baselines
    from fundusgan_jax.progress import Progress
    from fundusgan_jax.steps.batch import padded_batches
    from fundusgan_jax.steps.classifier_step import ClassifierState
    from fundusgan_jax.steps.fundusgan_step import TrainState
    from fundusgan_jax.workdir.contents import ema_variables, open_dataset, restore_state

    with waiting("reading the networks"):
        config, _, judge = restore_state(classifier, "best")
        theirs, number, state = restore_state(workdir, step)
    if not isinstance(judge, ClassifierState):
        raise UserError(f"--classifier={classifier} is no classifier; name a run of configs/classifier.py")
    if config.classifier.multi_label:
        raise UserError(f"--classifier={classifier} tells several labels at once; name one of single classes")
    if not isinstance(state, TrainState):
        raise UserError(f"--workdir={workdir} reconstructs no photographs; name a run of a FundusGAN")
    side = config.data.resolution
    if side != theirs.data.resolution:
        raise UserError(
            f"{classifier} classifies {side} px, {workdir} paints {theirs.data.resolution} px; they must agree"
        )
    notes = doubts(classifier, config, workdir, theirs)
    dataset = open_dataset(config, classifier)
    split = held_out_split(config, dataset)
    predictor = Predictor(config, variables_of(config, judge))
    painter = model_painter(theirs, ema_variables(state, theirs.eval.use_ema))
    photographs = np.asarray(split.images)
    painted, progress = np.empty_like(photographs), Progress(len(photographs), "img", "reconstructing")
    with progress.running():
        for rows, real in padded_batches(len(photographs), min(theirs.eval.batch_size, len(photographs))):
            painted[rows[:real]] = painter(photographs[rows], rows)[:real]
            progress.update(real)
    ways = {MODEL: painted} | {
        f"reduced to {k} px": baselines.reduced(photographs, k) for k in REDUCED if k < side
    }
    original = predictor.logits(photographs)
    patients = split.patient if dataset.has_patients else None
    as_they_are = opinion_of(split.label, original, original, patients, seed)
    return {
        "notes": notes,
        "photographs": len(photographs),
        "step": number,
        "auc": as_they_are.auc,
        "ways": {
            name: opinion_of(split.label, original, predictor.logits(images), patients, seed)._asdict()
            for name, images in ways.items()
        },
    }


def doubts(classifier: Path, config: ConfigDict, workdir: Path, theirs: ConfigDict) -> list[str]:
    """Why the opinion may say less than it seems to; config, theirs: settings of the classifier and of the FundusGAN.

    Raises:
        UserError: the FundusGAN trained on the photographs that are asked about.
    """
    from fundusgan_jax.workdir.manifest import read_manifest

    notes = []
    through = theirs.loss.classifier_workdir if theirs.loss.classifier > 0 else ""
    if through and Path(through).resolve() == classifier.resolve():
        notes.append(
            f"{workdir} was trained through this classifier: that it agrees with itself is no judgement; train another one"
        )
    datasets = [(read_manifest(folder) or {}).get("dataset_fingerprint") for folder in (classifier, workdir)]
    if datasets[0] != datasets[1]:
        notes.append(
            f"{workdir} was trained on another prepared dataset: it may have seen the patients that are asked about"
        )
    elif theirs.data.train_split == config.data.eval_split:
        raise UserError(
            f"{workdir} was trained on split '{config.data.eval_split}', which {classifier} holds out; name another run"
        )
    if config.data.eval_split != "test":
        notes.append(
            f"the classifier's checkpoint was chosen by split '{config.data.eval_split}': its AUC is flattering"
        )
    return notes


def main(argv: Sequence[str] | None = None) -> int:
    """Parses, compares, prints; returns the exit code."""
    flags = parser().parse_args(sys.argv[1:] if argv is None else argv)
    if flags.seed < 0:
        raise UserError(f"--seed={flags.seed} must be at least 0")
    # After --help and the flags' mistakes have been answered: what follows takes seconds to import.
    from fundusgan_jax.atomic import atomic_write
    from fundusgan_jax.studies.study_results import plain

    record = compare(flags.classifier, flags.workdir, flags.step, flags.seed)
    for text in record["notes"]:
        print(f"note: {text}")
    print(f"{record['photographs']} held-out photographs, AUC {_shown(record['auc'])}")
    for name, figures in record["ways"].items():
        print(f"  {name:<16} " + ", ".join(f"{figure} {_shown(value)}" for figure, value in figures.items()))
    if flags.output is not None:
        with atomic_write(flags.output) as temporary:
            temporary.write_text(json.dumps(plain(record), indent=1, allow_nan=False) + "\n")
        print(f"figures: {flags.output}", flush=True)
    return 0


def _shown(value: tuple[float, float, float]) -> str:
    return f"{value[0]:.3f} ({value[1]:.3f} to {value[2]:.3f})"


if __name__ == "__main__":
    end_by_signals()
    processors.begin()
    sys.exit(run_door(main))
