"""The PyTorch packages' part of benchmarks/metrics.py; runs alone, in an interpreter that has them and need not have JAX."""

from __future__ import annotations

import json
import sys
import time
from typing import Any


def call_of(network: str, side: int, batch: int) -> Any:
    """A call of pytorch-fid's Inception, or of lpips' network, with random weights: speed does not depend on them."""
    import torch

    torch.manual_seed(0)
    if network == "inception":
        from pytorch_fid import inception

        # Its own weights would be downloaded.
        inception.load_state_dict_from_url = lambda *given, **named: inception_state(inception)
        model = inception.InceptionV3([3]).eval()
        images = torch.rand(batch, 3, side, side)
        return lambda: model(images)
    import lpips

    name = network.removeprefix("lpips_")
    model = lpips.LPIPS(net=name, pretrained=False, pnet_rand=True, verbose=False).eval()
    x, y = (torch.rand(batch, 3, side, side) * 2 - 1 for _ in range(2))
    return lambda: model(x, y)


def inception_state(inception: Any) -> Any:
    """Random weights of the shapes that pytorch-fid loads."""
    import torchvision

    model = torchvision.models.inception_v3(
        num_classes=1008, aux_logits=False, weights=None, init_weights=False
    )
    for block, made in {
        "Mixed_5b": inception.FIDInceptionA(192, pool_features=32),
        "Mixed_5c": inception.FIDInceptionA(256, pool_features=64),
        "Mixed_5d": inception.FIDInceptionA(288, pool_features=64),
        "Mixed_6b": inception.FIDInceptionC(768, channels_7x7=128),
        "Mixed_6c": inception.FIDInceptionC(768, channels_7x7=160),
        "Mixed_6d": inception.FIDInceptionC(768, channels_7x7=160),
        "Mixed_6e": inception.FIDInceptionC(768, channels_7x7=192),
        "Mixed_7b": inception.FIDInceptionE_1(1280),
        "Mixed_7c": inception.FIDInceptionE_2(2048),
    }.items():
        setattr(model, block, made)
    return model.state_dict()


def main() -> None:
    """Prints the seconds of each timed call as JSON."""
    import torch

    network, (side, batch, calls) = sys.argv[1], (int(word) for word in sys.argv[2:5])
    with torch.no_grad():
        call = call_of(network, side, batch)
        call()
        seconds = []
        for _ in range(calls):
            start = time.perf_counter()
            call()
            seconds.append(time.perf_counter() - start)
    print(json.dumps(seconds))


if __name__ == "__main__":
    main()
