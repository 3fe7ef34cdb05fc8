"""The arms of a study of synthetic images: which photographs and images a classifier trains on, and how much each counts."""

from __future__ import annotations

from collections.abc import Callable
from typing import NamedTuple

import numpy as np

REAL = "real"


class Pool(NamedTuple):
    """What a run may take. label: int [R], classes of its training photographs. synthetic: int [M], classes of the synthetic
    images. num_classes: K. num_synthetic: how many images 'synthetic', 'placebo' and 'repeats' add."""

    label: np.ndarray
    synthetic: np.ndarray
    num_classes: int
    num_synthetic: int


class Selection(NamedTuple):
    """What an arm takes. real: int [A] places in the pool's photographs, again where one is repeated. synthetic: int [B] places
    in its synthetic images. synthetic_label: int [B], what they are called. weight: float [A + B], of mean 1 a photograph of
    the pool. weighting: the rule, 'none', 'balanced' (`weight` evens the classes out) or 'logit_adjusted'. augmented: whether
    photographs are shown changed as well."""

    real: np.ndarray
    synthetic: np.ndarray
    synthetic_label: np.ndarray
    weight: np.ndarray
    weighting: str = "none"
    augmented: bool = False

    def labels(self, pool: Pool) -> np.ndarray:
        """int [A + B]: the classes that the classifier is told."""
        return np.concatenate([pool.label[self.real], self.synthetic_label])


# (what there is, draws) -> what is taken.
Arm = Callable[[Pool, np.random.Generator], Selection]


def select(arm: str, pool: Pool, seed: int) -> Selection:
    """What an arm takes; the same seed takes the same, and arms of one seed that add synthetic images add the same ones.

    The weights of every arm sum to R, the number of the pool's photographs: more images do not loosen a regularised
    classifier.
    """
    chosen = ARMS[arm](pool, np.random.default_rng([seed, 20]))
    return chosen._replace(weight=chosen.weight * (len(pool.label) / chosen.weight.sum()))


def lacking(arm: str, pool: Pool) -> np.ndarray:
    """int [K]: synthetic images of each class that an arm would take beyond those that there are."""
    plenty = len(pool.label) + pool.num_synthetic
    counts = [
        class_counts(select(arm, one, 0).synthetic_label, pool.num_classes)
        for one in (pool._replace(synthetic=np.repeat(np.arange(pool.num_classes), plenty)), pool)
    ]
    return np.asarray(counts[0] - counts[1])


def needs_synthetic(arm: str) -> bool:
    """Whether an arm can only be had with synthetic images."""
    return arm in SYNTHETIC_ARMS


def class_counts(label: np.ndarray, num_classes: int) -> np.ndarray:
    """int [K]."""
    return np.bincount(label, minlength=num_classes)


def _selection(pool: Pool, real: np.ndarray, synthetic: np.ndarray | None = None) -> Selection:
    synthetic = np.zeros(0, np.int64) if synthetic is None else synthetic
    weight = np.ones(len(real) + len(synthetic))
    return Selection(real, synthetic, pool.synthetic[synthetic], weight)


def _balanced(pool: Pool, chosen: Selection) -> Selection:
    """With every class of the same weight: N / (K n_c)."""
    label = chosen.labels(pool)
    counts = class_counts(label, pool.num_classes)
    weight = (len(label) / (pool.num_classes * np.maximum(counts, 1)))[label]
    return chosen._replace(weight=weight, weighting="balanced")


def _drawn(label: np.ndarray, counts: np.ndarray, rng: np.random.Generator, again: bool) -> np.ndarray:
    """counts[k] places of class k; again: with repeats, otherwise at most all there are."""
    parts = []
    for number, count in enumerate(counts):
        places = np.flatnonzero(label == number)
        most = int(count) if again and len(places) else min(int(count), len(places))
        parts.append(rng.choice(places, most, replace=again) if most else np.zeros(0, np.int64))
    return np.concatenate(parts)


def _shares(pool: Pool) -> np.ndarray:
    """int [K]: num_synthetic images in the proportions of the photographs, of each class at most all there are."""
    counts = class_counts(pool.label, pool.num_classes)
    wanted = np.round(pool.num_synthetic * counts / max(len(pool.label), 1)).astype(int)
    return np.minimum(wanted, class_counts(pool.synthetic, pool.num_classes))


def real(pool: Pool, rng: np.random.Generator) -> Selection:
    """The photographs as they are."""
    return _selection(pool, np.arange(len(pool.label)))


def augmented(pool: Pool, rng: np.random.Generator) -> Selection:
    """The photographs, shown changed as well."""
    return real(pool, rng)._replace(augmented=True)


def weighted(pool: Pool, rng: np.random.Generator) -> Selection:
    """Every class of the same weight."""
    return _balanced(pool, real(pool, rng))


def oversampled(pool: Pool, rng: np.random.Generator) -> Selection:
    """Photographs of smaller classes again, until every class has as many as the largest."""
    counts = class_counts(pool.label, pool.num_classes)
    more = _drawn(pool.label, counts.max() - counts, rng, again=True)
    return _selection(pool, np.concatenate([np.arange(len(pool.label)), more]))


def undersampled(pool: Pool, rng: np.random.Generator) -> Selection:
    """Of every class as many photographs as the smallest has."""
    counts = class_counts(pool.label, pool.num_classes)
    fewest = int(counts[counts > 0].min())
    return _selection(pool, _drawn(pool.label, np.full(pool.num_classes, fewest), rng, again=False))


def logit_adjusted(pool: Pool, rng: np.random.Generator) -> Selection:
    """The classes' frequencies taken out (Menon et al. 2021, tau 1): of a network by the loss, of the probe after training.

    For a logistic regression, whose intercept is free, the two are the same.
    """
    return real(pool, rng)._replace(weighting="logit_adjusted")


def synthetic(pool: Pool, rng: np.random.Generator) -> Selection:
    """num_synthetic images more, in the proportions of the photographs."""
    return _selection(
        pool, np.arange(len(pool.label)), _drawn(pool.synthetic, _shares(pool), rng, again=False)
    )


def synthetic_balance(pool: Pool, rng: np.random.Generator) -> Selection:
    """Synthetic images of smaller classes, until every class has as many as the largest."""
    counts = class_counts(pool.label, pool.num_classes)
    more = _drawn(pool.synthetic, counts.max() - counts, rng, again=False)
    return _selection(pool, np.arange(len(pool.label)), more)


def synthetic_weighted(pool: Pool, rng: np.random.Generator) -> Selection:
    """Synthetic images of smaller classes, of each at most as many as it has photographs; class weights for the rest."""
    counts = class_counts(pool.label, pool.num_classes)
    more = _drawn(pool.synthetic, np.minimum(counts.max() - counts, counts), rng, again=False)
    return _balanced(pool, _selection(pool, np.arange(len(pool.label)), more))


def repeats(pool: Pool, rng: np.random.Generator) -> Selection:
    """Photographs again, as many of each class as 'synthetic' adds: what a gain by copies would be."""
    more = _drawn(pool.label, _shares(pool), rng, again=True)
    return _selection(pool, np.concatenate([np.arange(len(pool.label)), more]))


def placebo(pool: Pool, rng: np.random.Generator) -> Selection:
    """The images of 'synthetic' with their classes permuted among them: must not help."""
    chosen = synthetic(pool, rng)
    return chosen._replace(synthetic_label=rng.permutation(chosen.synthetic_label))


ARMS: dict[str, Arm] = {
    REAL: real,
    "augmented": augmented,
    "weighted": weighted,
    "oversampled": oversampled,
    "undersampled": undersampled,
    "logit_adjusted": logit_adjusted,
    "repeats": repeats,
    "synthetic": synthetic,
    "synthetic_balance": synthetic_balance,
    "synthetic_weighted": synthetic_weighted,
    "placebo": placebo,
}
SYNTHETIC_ARMS = ("repeats", "synthetic", "synthetic_balance", "synthetic_weighted", "placebo")
TITLES = {
    REAL: "real only",
    "augmented": "real, augmented",
    "weighted": "real, class weights",
    "oversampled": "real, oversampled",
    "undersampled": "real, undersampled",
    "logit_adjusted": "real, logits adjusted",
    "repeats": "real + as many real again",
    "synthetic": "real + synthetic",
    "synthetic_balance": "real + synthetic to balance",
    "synthetic_weighted": "real + synthetic at most 1:1, class weights",
    "placebo": "real + synthetic, classes permuted",
}
