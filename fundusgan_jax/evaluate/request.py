"""What python -m fundusgan_jax.evaluate is asked for."""

from __future__ import annotations

import dataclasses
from pathlib import Path
from typing import Literal

from fundusgan_jax.errors import UserError

SET_METRICS = ("fid", "kid", "precision", "recall", "density", "coverage")
PAIRED_METRICS = ("ssim", "psnr", "ms_ssim", "lpips", "signatures")
LEAST = {"resolution": 16, "num": 2, "batch_size": 1, "seed": 0, "anatomy": 0}


@dataclasses.dataclass(frozen=True)
class Request:
    """The command's flags, by their names.

    real, fake, output: folders. metrics: of SET_METRICS and PAIRED_METRICS. split, fake_split: of prepared datasets.
    held_out: split of a prepared `real` that is scored as drawn images are; '': 'test' beside 'train', else none.
    features, resize, features_weights: the sets' network; perceptual, perceptual_weights: LPIPS's; '' looks in the cache
    folder. preprocess: 'fundus' at `resolution`, 'none', or None for what the two sides need (`sides.open_sides`). num: drawn
    samples of a workdir. anatomy: images of each side that are measured. step: of a workdir. batch_size: images at a time.
    overwrite: a result in `output`. photographs: whether the report shows them.

    Raises:
        UserError: an unknown metric, none, or a number that is too small.
    """

    real: Path
    fake: Path
    output: Path
    metrics: tuple[str, ...] = SET_METRICS
    split: str = "test"
    held_out: str = ""
    fake_split: str = "test"
    features: str = "inception"
    features_weights: str = ""
    resize: str = "clean"
    perceptual: str = "vgg16"
    perceptual_weights: str = ""
    preprocess: Literal["fundus", "none"] | None = None
    resolution: int = 512
    num: int = 5000
    anatomy: int = 0
    step: str = "latest"
    batch_size: int = 16
    seed: int = 0
    overwrite: bool = False
    photographs: bool = False

    def __post_init__(self) -> None:
        unknown = [name for name in self.metrics if name not in SET_METRICS + PAIRED_METRICS]
        if unknown or not self.metrics:
            known = ", ".join(SET_METRICS + PAIRED_METRICS)
            raise UserError(f"--metrics: unknown {', '.join(unknown) or 'nothing'}; there are {known}")
        for name, least in LEAST.items():
            if getattr(self, name) < least:
                raise UserError(f"--{name}={getattr(self, name)} must be at least {least}")

    @property
    def paired(self) -> tuple[str, ...]:
        """The metrics that compare images of the same name."""
        return tuple(name for name in self.metrics if name in PAIRED_METRICS)

    @property
    def as_sets(self) -> tuple[str, ...]:
        """The metrics that compare sets."""
        return tuple(name for name in self.metrics if name in SET_METRICS)
