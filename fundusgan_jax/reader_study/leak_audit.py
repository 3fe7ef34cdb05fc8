"""The leak audit: whether side information alone tells real from synthetic, and whether a synthetic picture is a copy."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, NamedTuple

import numpy as np

from fundusgan_jax.data.prepare.thumbnails import correlation, thumbnail

LARGEST_AUC = 0.6
FOLDS, REPEATS = 5, 5
# Measured on 100 and 100 photographs of different patients (ODIR-5K): the highest of two different eyes is 0.40; copies that
# were turned by up to 2 degrees, moved, brightened and given noise reach 0.55 to 0.88.
LIKENESS = 0.5


class Leak(NamedTuple):
    """name: of the side information. auc: of a classifier that has nothing else, by cross-validation."""

    name: str
    auc: float


def audit(
    information: Sequence[dict[str, np.ndarray]], real: np.ndarray, groups: Sequence[str], seed: int
) -> list[Leak]:
    """The AUC of every kind of side information, the largest first.

    Args:
        information: of each picture, `side_information`.
        real: [N] bool.
        groups: [N]; pictures of one group (patient) are in one fold.
        seed: of the folds.
    """
    number = {name: place for place, name in enumerate(sorted(set(groups)))}
    group = np.asarray([number[name] for name in groups])
    leaks = [
        Leak(name, cross_validated_auc(np.stack([one[name] for one in information]), real, group, seed))
        for name in information[0]
    ]
    return sorted(leaks, key=lambda leak: -leak.auc)


def cross_validated_auc(values: np.ndarray, real: np.ndarray, groups: np.ndarray, seed: int) -> float:
    """AUC of a logistic regression by grouped, stratified cross-validation; the mean of REPEATS divisions.

    Args:
        values: [N, F]. real: [N] bool. groups: [N] numbers.
    """
    from sklearn.linear_model import LogisticRegression
    from sklearn.metrics import roc_auc_score
    from sklearn.model_selection import StratifiedGroupKFold
    from sklearn.pipeline import make_pipeline
    from sklearn.preprocessing import StandardScaler

    spread = values.std(0)
    values = values[:, spread > 1e-9 * np.maximum(np.abs(values).max(0), 1)]
    if not values.shape[1]:
        return 0.5
    # Strong shrinkage: there are more figures than pictures in the smaller studies.
    model = make_pipeline(StandardScaler(), LogisticRegression(C=0.03, max_iter=2000))
    aucs = []
    for repeat in range(REPEATS):
        folds = StratifiedGroupKFold(FOLDS, shuffle=True, random_state=seed + repeat)
        scores = np.zeros(len(real))
        for train, test in folds.split(values, real, groups):
            fitted = model.fit(values[train], real[train])
            scores[test] = fitted.decision_function(values[test])
        aucs.append(roc_auc_score(real, scores))
    return float(np.mean(aucs))


def copies(pictures: dict[str, np.ndarray], real: dict[str, bool]) -> list[tuple[str, str, float]]:
    """(synthetic, real, correlation) of pictures that show the same photograph, mirrored ones too.

    Args:
        pictures: name -> uint8 [S, S, 3]. real: name -> whether it is a photograph.
    """
    small = {name: thumbnail(image) for name, image in pictures.items() if real[name]}
    pairs = []
    for name, image in pictures.items():
        if real[name]:
            continue
        views = [thumbnail(image), thumbnail(np.ascontiguousarray(image[:, ::-1]))]
        for other, photograph in small.items():
            likeness = max(correlation(view, photograph) for view in views)
            if likeness >= LIKENESS:
                pairs.append((name, other, likeness))
    return sorted(pairs, key=lambda pair: -pair[2])


def audit_record(leaks: list[Leak], num_images: int, accepted: bool) -> dict[str, Any]:
    """What audit.json holds."""
    return {
        "num_images": num_images,
        "limit": LARGEST_AUC,
        "auc": {leak.name: leak.auc for leak in leaks},
        "leaks": [leak.name for leak in leaks if leak.auc > LARGEST_AUC],
        "accepted": accepted,
    }
