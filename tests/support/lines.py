"""Where a pixel lies about a straight line: vessels of rendered test images are drawn with it."""

import numpy as np


def along_and_across(side: int, centre: float, angle: float) -> tuple[np.ndarray, np.ndarray]:
    """float64 [side, side] each: how far a pixel lies along a line through (centre, centre), and beside it; angle: from the rows, in radians."""
    down, right = np.indices((side, side)) - centre
    return down * np.sin(angle) + right * np.cos(angle), down * np.cos(angle) - right * np.sin(angle)
