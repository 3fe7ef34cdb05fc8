"""Whether drawn images have what a fundus has, as often and as variedly as photographs: distributions side by side."""

from __future__ import annotations

import itertools
from collections.abc import Iterable

import numpy as np
from scipy import stats

from fundusgan_jax.anatomy.plausibility import MEASURES, YES_OR_NO, measured_anatomy
from fundusgan_jax.progress import Progress
from fundusgan_jax.report.evaluation import Anatomy, Distribution

# One set's values by the names of MEASURES, [N] each.
Measured = dict[str, np.ndarray]


def measured_images(images: Iterable[np.ndarray], count: int, title: str) -> Measured:
    """MEASURES of the first `count` images, uint8 [S, S, 3]; title: of the progress."""
    progress, values = Progress(count, "img", title), []
    with progress.running():
        for image in itertools.islice(images, count):
            values.append(measured_anatomy(image))
            progress.update()
    return {name: np.asarray([one[name] for one in values]) for name in MEASURES}


def compared_anatomy(generated: Measured, photographs: Measured, others: Measured | None) -> Anatomy:
    """The distributions of drawn images beside those of photographs.

    Args:
        generated: of drawn images. photographs: that they are compared with, held-out ones where there are any.
        others: as many photographs of other patients, which say what a distance means; None where there are none.
    """
    rows = {}
    for name in MEASURES:
        drawn, real = _known(generated[name]), _known(photographs[name])
        rows[name] = Distribution(
            _middle(name, drawn),
            _middle(name, real),
            len(drawn) / len(generated[name]),
            len(real) / len(photographs[name]),
            _distance(drawn, real),
            None if others is None else _distance(_known(others[name]), real),
        )
    count, of = len(next(iter(generated.values()))), len(next(iter(photographs.values())))
    return Anatomy(count, of, len(next(iter(others.values()))) if others else 0, rows)


def _known(values: np.ndarray) -> np.ndarray:
    return np.asarray(values[np.isfinite(values)])


def _middle(name: str, values: np.ndarray) -> float:
    """The share where a measure is one, else the median."""
    if not len(values):
        return float("nan")
    return float(values.mean() if name in YES_OR_NO else np.median(values))


def _distance(values: np.ndarray, others: np.ndarray) -> float:
    """The largest difference of two distribution functions (Kolmogorov and Smirnov), 0 to 1; NaN where one has no value."""
    if not len(values) or not len(others):
        return float("nan")
    return float(stats.ks_2samp(values, others, method="asymp").statistic)
