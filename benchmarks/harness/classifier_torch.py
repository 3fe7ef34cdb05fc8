"""A training step of torchvision's classifiers; runs alone, in an interpreter that has torch and torchvision and need not have JAX."""

from __future__ import annotations

import argparse
import json
import resource
import time

import torch
import torchvision
from torch.nn import functional

# Ours -> torchvision's, where they differ.
NAMES = {"squeezenet": "squeezenet1_1"}


def main() -> None:
    """Prints the seconds of each timed call and the peak memory as JSON."""
    flags = argparse.ArgumentParser(description=__doc__)
    flags.add_argument("--network", required=True)
    flags.add_argument("--resolution", type=int, default=128)
    flags.add_argument("--batch", type=int, default=32)
    flags.add_argument("--calls", type=int, default=20)
    chosen = flags.parse_args()
    torch.manual_seed(0)
    build = getattr(torchvision.models, NAMES.get(chosen.network, chosen.network))
    model = build(weights=None, num_classes=2).train()
    optimizer = torch.optim.AdamW(model.parameters(), lr=5e-4, weight_decay=0.05)
    images = torch.rand(chosen.batch, 3, chosen.resolution, chosen.resolution) * 2 - 1
    labels = torch.arange(chosen.batch) % 2
    seconds = []
    for _ in range(chosen.calls + 2):  # the first two warm up
        start = time.perf_counter()
        optimizer.zero_grad()
        functional.cross_entropy(model(images), labels).backward()
        optimizer.step()
        seconds.append(time.perf_counter() - start)
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024
    print(json.dumps({"seconds": seconds[2:], "peak_bytes": peak, "torch": torch.__version__}))


if __name__ == "__main__":
    main()
