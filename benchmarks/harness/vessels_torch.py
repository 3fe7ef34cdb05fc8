"""The PyTorch part of benchmarks/vessels.py: the W-Net of models/segmentation.py, in an interpreter that need not have JAX."""

from __future__ import annotations

import json
import sys
import time
from collections.abc import Callable
from typing import Any

WIDTH = 8


def network() -> Any:
    """Two U-Nets, the second of which sees the image and the first's logit: [N, 3, H, W] -> [N, 2, H, W]."""
    import torch
    from torch import nn

    class Block(nn.Module):
        def __init__(self, before: int, features: int) -> None:
            super().__init__()
            self.path = nn.Sequential(
                nn.Conv2d(before, features, 3, padding=1), nn.ReLU(), nn.BatchNorm2d(features),
                nn.Conv2d(features, features, 3, padding=1), nn.ReLU(), nn.BatchNorm2d(features),
            )  # fmt: skip
            self.shortcut = nn.Sequential(
                nn.Conv2d(before, features, 1, bias=False), nn.BatchNorm2d(features)
            )

        def forward(self, x: Any) -> Any:
            return self.path(x) + self.shortcut(x)

    class UNet(nn.Module):
        def __init__(self, before: int) -> None:
            super().__init__()
            widths = (WIDTH, 2 * WIDTH, 4 * WIDTH)
            self.down = nn.ModuleList(map(Block, (before, *widths), widths))
            self.bridge = nn.ModuleList(
                nn.Sequential(nn.Conv2d(w, w, 3, padding=1), nn.ReLU(), nn.BatchNorm2d(w)) for w in widths[:2]
            )
            self.doubled = nn.ModuleList(nn.ConvTranspose2d(2 * w, w, 2, 2) for w in widths[:2])
            self.up = nn.ModuleList(Block(2 * w, w) for w in widths[:2])
            self.logit = nn.Conv2d(WIDTH, 1, 1)

        def forward(self, x: Any) -> Any:
            kept = []
            for level, block in enumerate(self.down):
                x = block(nn.functional.max_pool2d(x, 2) if level else x)
                kept.append(x)
            for level in (1, 0):
                parts = [self.doubled[level](x), self.bridge[level](kept[level])]
                x = self.up[level](torch.cat(parts, 1))
            return self.logit(x)

    class WNet(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.first, self.second = UNet(3), UNet(4)

        def forward(self, x: Any) -> Any:
            first = self.first(x)
            return torch.cat([first, self.second(torch.cat([x, first], 1))], 1)

    return WNet()


def call_of(kind: str, side: int, batch: int) -> Callable[[], Any]:
    """'segment', or 'train' with cross-entropy, soft Dice and Adam; random weights and images."""
    import torch

    torch.manual_seed(0)
    model, images = network(), torch.rand(batch, 3, side, side) * 2 - 1
    if kind == "segment":
        model.eval()

        def segment() -> Any:
            with torch.no_grad():
                return torch.sigmoid(model(images)[:, -1])

        return segment
    truth = (torch.rand(batch, 1, side, side) < 0.5).float().expand(-1, 2, -1, -1)
    optimiser = torch.optim.Adam(model.parameters(), 0.005)

    def train() -> None:
        optimiser.zero_grad()
        logits = model(images)
        p = torch.sigmoid(logits)
        both, either = (p * truth).sum((2, 3)), (p + truth).sum((2, 3))
        bce = torch.nn.functional.binary_cross_entropy_with_logits(logits, truth)
        (bce + (1 - (2 * both + 1) / (either + 1)).mean()).backward()
        optimiser.step()

    return train


def main() -> None:
    """Prints the seconds of each timed call as JSON."""
    kind, (side, batch, calls) = sys.argv[1], (int(word) for word in sys.argv[2:5])
    call = call_of(kind, side, batch)
    call()
    seconds = []
    for _ in range(calls):
        start = time.perf_counter()
        call()
        seconds.append(time.perf_counter() - start)
    print(json.dumps(seconds))


if __name__ == "__main__":
    main()
