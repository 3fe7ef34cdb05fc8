"""What a planned study can show: the width of its interval and its power, from assumed differences of readers and images."""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
from scipy import optimize, stats

# Standard deviations on the logit scale that are assumed; the second is the hardest to know and matters most.
READER_SD, IMAGE_SD = 0.5, 1.0
NODES = 40


class Components(NamedTuple):
    """Variances of P(correct) by reader, by image, and of one answer by the rest."""

    reader: float
    image: float
    rest: float


def components(accuracy: float, reader_sd: float = READER_SD, image_sd: float = IMAGE_SD) -> Components:
    """Of logit P = m + reader + image with normal effects, m such that the mean of P is `accuracy`."""
    points, weights = np.polynomial.hermite_e.hermegauss(NODES)
    weights = weights / weights.sum()

    def table(level: float) -> np.ndarray:
        return np.asarray(
            1 / (1 + np.exp(-(level + reader_sd * points[:, None] + image_sd * points[None, :])))
        )

    def excess(level: float) -> float:
        return float(weights @ table(level) @ weights) - accuracy

    p = table(float(optimize.brentq(excess, -10, 10)))
    mean = float(weights @ p @ weights)
    by_reader, by_image = p @ weights, weights @ p
    reader = float(weights @ by_reader**2) - mean**2
    image = float(by_image**2 @ weights) - mean**2
    return Components(reader, image, mean * (1 - mean) - reader - image)


class Power(NamedTuple):
    """se of mean accuracy, df, and half the width of its 95 % interval."""

    se: float
    df: float
    half_width: float


def precision(num_readers: int, num_images: int, accuracy: float) -> Power:
    """Of the two-way interval; degrees of freedom by Satterthwaite from expected mean squares."""
    part = components(accuracy)
    reader, image = part.reader / num_readers, part.image / num_images
    rest = part.rest / (num_readers * num_images)
    variance = reader + image + rest
    spread = (reader + rest) ** 2 / (num_readers - 1) + (image + rest) ** 2 / (num_images - 1)
    spread += rest**2 / ((num_readers - 1) * (num_images - 1))
    df = variance**2 / spread
    return Power(variance**0.5, df, float(stats.t.ppf(0.975, df)) * variance**0.5)


def power_against_chance(num_readers: int, num_images: int, accuracy: float) -> float:
    """Of the two-sided test of accuracy 0.5 at 0.05, where the true one is `accuracy`."""
    expected = precision(num_readers, num_images, accuracy)
    limit = stats.t.ppf(0.975, expected.df)
    shift = (accuracy - 0.5) / expected.se
    return float(stats.nct.sf(limit, expected.df, shift) + stats.nct.cdf(-limit, expected.df, shift))


def power_of_equivalence(num_readers: int, num_images: int, margin: float) -> float:
    """Of two one-sided tests at 0.05, where the true accuracy is 0.5."""
    expected = precision(num_readers, num_images, 0.5)
    room = margin / expected.se - stats.t.ppf(0.95, expected.df)
    return max(0.0, float(2 * stats.t.cdf(room, expected.df) - 1))


def plan_text(num_readers: int, num_images: int, margin: float) -> str:
    """What create --plan prints."""
    expected = precision(num_readers, num_images, 0.5)
    lines = [
        f"{num_readers} readers, {num_images} images; assumed spread (logit): readers {READER_SD}, images {IMAGE_SD}",
        f"95 % interval of mean accuracy near 0.5: +- {expected.half_width:.3f} (readers and images random)",
    ]
    lines += [
        f"power to find accuracy {accuracy:.2f} different from 0.50: {power_against_chance(num_readers, num_images, accuracy):.2f}"
        for accuracy in (0.55, 0.60, 0.65)
    ]
    lines.append(
        f"power to show equivalence within 0.50 +- {margin:g} where the truth is 0.50: "
        f"{power_of_equivalence(num_readers, num_images, margin):.2f}"
    )
    return "\n".join(lines)
