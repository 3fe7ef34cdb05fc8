"""Keeps the features of a real set, so that it is passed through a network once."""

from __future__ import annotations

import hashlib
import json
import os
import zipfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np

from fundusgan_jax.atomic import atomic_write
from fundusgan_jax.errors import UserError
from fundusgan_jax.models.features import FeatureNet
from fundusgan_jax.report.protocol import EVALUATION, RealSet

FOLDER_VARIABLE = "FUNDUSGAN_JAX_CACHE"


def cache_folder() -> Path:
    """$FUNDUSGAN_JAX_CACHE, else ~/.cache/fundusgan_jax/statistics."""
    chosen = os.environ.get(FOLDER_VARIABLE, "")
    return Path(chosen) if chosen else Path.home() / ".cache" / "fundusgan_jax" / "statistics"


def cached_features(real: RealSet, source: FeatureNet, compute: Callable[[], np.ndarray]) -> np.ndarray:
    """float32 [N, D] features of a real set: from the cache, or computed and kept there.

    The key holds all that decides the numbers: the set's fingerprint and preprocessing, the network and its weights,
    the resize mode and the version of the evaluation. A damaged file is computed again; a cache that cannot be
    written is done without.
    """
    facts: dict[str, Any] = {
        "real": real._asdict(),
        "network": source.name,
        "weights": source.fingerprint(),
        "resize": source.resize,
        "evaluation": EVALUATION,
    }
    key = hashlib.sha256(json.dumps(facts, sort_keys=True).encode()).hexdigest()[:32]
    path = cache_folder() / f"{key}.npz"
    features = _read(path, (real.num_images, source.dimensions))
    if features is not None:
        return features
    features = compute()
    try:
        with atomic_write(path) as temporary:
            np.savez(temporary, features=features, facts=json.dumps(facts))
    except UserError as error:
        print(f"note: features are not cached: {error}", flush=True)
    return features


def _read(path: Path, shape: tuple[int, int]) -> np.ndarray | None:
    try:
        with np.load(path, allow_pickle=False) as stored:
            features = stored["features"]
    except (OSError, ValueError, KeyError, EOFError, TypeError, AttributeError, zipfile.BadZipFile):
        return None
    return features if features.shape == shape and features.dtype == np.float32 else None
