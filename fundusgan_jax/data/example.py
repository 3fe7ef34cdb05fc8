"""One prepared photograph with what is known of it."""

from __future__ import annotations

from typing import NamedTuple

import numpy as np


class Example(NamedTuple):
    """One prepared photograph. image: uint8 [S, S, 3]. label: class index, -1 unknown. patient: '' where
    there are none. eye: 'right', 'left' or 'unknown'. split: 'train', 'test', ... file: its source."""

    image: np.ndarray
    label: int
    patient: str
    eye: str
    split: str
    file: str
