"""What is known of the vessels of a new image: how connected they are, and whether photographs' are."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, NamedTuple

import numpy as np

COLUMNS = ("vessel_pieces", "vessel_ends", "vessel_orphans", "vessel_density", "broken")


class Connection(NamedTuple):
    """How connected the vessels of an image are.

    pieces, end_points: of the vessel map. orphan_share: of its centre lines, off the largest tree; NaN without vessels.
    density: of its centre lines in the field of view. broken: whether one of these is beyond that of 95 % of photographs.
    """

    pieces: float
    end_points: float
    orphan_share: float
    density: float
    broken: bool

    def columns(self) -> dict[str, Any]:
        """Of index.csv, by COLUMNS."""
        values = (
            int(self.pieces),
            int(self.end_points),
            f"{self.orphan_share:.4f}",
            f"{self.density:.5f}",
            "yes" if self.broken else "no",
        )
        return dict(zip(COLUMNS, values, strict=True))


# uint8 [N, S, S, 3] -> how connected the vessels of each are.
VesselCheck = Callable[[np.ndarray], list[Connection]]
