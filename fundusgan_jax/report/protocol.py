"""What a figure means: everything that must be equal for two results to be compared."""

from __future__ import annotations

import dataclasses
import hashlib
import json
from typing import Any, NamedTuple

from fundusgan_jax.config import flatten
from fundusgan_jax.models.features import FeatureNet
from fundusgan_jax.models.lpips import PerceptualNet

# To be raised with every change of the code that changes a figure: results of two numbers are not comparable.
EVALUATION = 1
# What the network that segments vessels stands under.
SEGMENTER = "vessels"
PAIRED_ALL, NOT_PAIRED = "all", "none"


class RealSet(NamedTuple):
    """The photographs that something is compared with. fingerprint: of pixels and names. preprocessing: what was
    done to them on the way ('data.prepare', 'fundus', 'none')."""

    fingerprint: str
    split: str
    num_images: int
    resolution: int
    preprocessing: str


@dataclasses.dataclass(frozen=True)
class Protocol:
    """A protocol as eval.json holds it: what is read from a file of another version is kept as it stands.

    content: 'evaluation' (EVALUATION), 'task', 'real' (RealSet), 'num_generated', 'pairs', 'features' and 'perceptual'
    (network, weights, resize or metric; null), 'vessels' (segmenter, weights, threshold, photographs), 'dtype', 'seed', 'generated' (preprocessing of images from files).
    """

    content: dict[str, Any]

    @property
    def fingerprint(self) -> str:
        """SHA-256 of the content, first 16 digits."""
        return hashlib.sha256(json.dumps(self.content, sort_keys=True).encode()).hexdigest()[:16]

    @property
    def task(self) -> str:
        """'reconstruction', 'samples' or 'folders'."""
        return str(self.content.get("task", ""))

    @property
    def seed(self) -> int:
        """Of the draws of intervals, subsets and samples."""
        return int(self.content.get("seed", 0))

    def settings(self) -> dict[str, Any]:
        """The content by dotted names: {'real.split': 'test', ...}."""
        return flatten(self.content)

    def with_segmenter(self, about: dict[str, Any]) -> Protocol:
        """This protocol, with the network that segments vessels: its name, weights, threshold, number of photographs."""
        return Protocol({**self.content, SEGMENTER: about})

    def differences(self, other: Protocol) -> list[str]:
        """'name (this and that)' of each setting that differs; a segmenter that one of them has not used is no difference."""
        ours, theirs = self.settings(), other.settings()
        names = ours.keys() | theirs.keys()
        if not (SEGMENTER in self.content and SEGMENTER in other.content):
            names = {name for name in names if not name.startswith(f"{SEGMENTER}.")}
        return [
            f"{name} ({ours.get(name)} and {theirs.get(name)})"
            for name in sorted(names)
            if ours.get(name) != theirs.get(name)
        ]


def protocol(
    task: str,
    real: RealSet,
    num_generated: int,
    source: FeatureNet | None,
    perceptual: PerceptualNet | None,
    seed: int,
    pairs: str,
    generated: str = "",
) -> Protocol:
    """The protocol of an evaluation.

    Args:
        task: 'reconstruction', 'samples' or 'folders'.
        real: the photographs.
        num_generated: images compared with them.
        source, perceptual: the networks, or None.
        seed: of the draws of intervals, subsets and samples.
        pairs: which real image each generated one is compared with: PAIRED_ALL, NOT_PAIRED, or a digest of the
            partners' names in order.
        generated: preprocessing of the generated images, where they come from files.
    """
    features = source and {
        "network": source.name,
        "weights": source.fingerprint(),
        "resize": source.resize,
    }
    distance = perceptual and {
        "network": perceptual.name,
        "weights": perceptual.fingerprint()[:16],
        "metric": perceptual.metric,
    }
    return Protocol(
        {
            "evaluation": EVALUATION,
            "task": task,
            "real": real._asdict(),
            "num_generated": num_generated,
            "pairs": pairs,
            "features": features,
            "perceptual": distance,
            "dtype": "float32",
            "seed": seed,
            **({"generated": generated} if generated else {}),
        }
    )
