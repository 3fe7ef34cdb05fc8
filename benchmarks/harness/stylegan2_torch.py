"""StyleGAN2 in PyTorch, computed as stylegan2-ada-pytorch does without its CUDA extensions; runs alone, in an interpreter that has torch and need not have JAX.

The yardstick of benchmarks/peers.py, written from the papers (arXiv 1912.04958, 2006.06676), not a copy: one kernel per
sample in a grouped convolution for inference (x * s, shared convolution, * d in training), a transposed convolution
followed by a depthwise 4x4 FIR filter, noise, bias and leaky ReLU as passes of their own. `--check=FILE` compares it with
the original's numbers.
"""

from __future__ import annotations

import argparse
import json
import math
import time
from collections.abc import Callable
from typing import Any

import numpy as np
import torch
from torch.nn import functional

Weights = dict[str, torch.Tensor]
GAIN = math.sqrt(2)


def channels_at(resolution: int, base: int = 32768, most: int = 512) -> int:
    """Channels of the layers of a resolution."""
    return min(base // resolution, most)


def activated(x: torch.Tensor, bias: torch.Tensor, gain: float = GAIN) -> torch.Tensor:
    """Bias, leaky ReLU of slope 0.2, gain; [N, C, ...]."""
    x = x + bias.reshape(1, -1, *[1] * (x.ndim - 2))
    return functional.leaky_relu(x, 0.2) * gain


def dense(
    x: torch.Tensor, weights: Weights, name: str, lr_mul: float = 1.0, activate: bool = False
) -> torch.Tensor:
    """Fully connected layer of equalised learning rate."""
    weight = weights[f"{name}.weight"] * (lr_mul / math.sqrt(x.shape[1]))
    bias = weights[f"{name}.bias"] * lr_mul
    return activated(x @ weight.t(), bias) if activate else x @ weight.t() + bias


def fir(x: torch.Tensor, pads: tuple[int, int], gain: float = 1.0) -> torch.Tensor:
    """[1, 3, 3, 1] x [1, 3, 3, 1] / 64 as a depthwise convolution, `pads` before and after."""
    taps = torch.tensor([1.0, 3.0, 3.0, 1.0])
    kernel = (torch.outer(taps, taps) * (gain / 64)).expand(x.shape[1], 1, 4, 4)
    return functional.conv2d(functional.pad(x, (*pads, *pads)), kernel, groups=x.shape[1])


def upsampled(x: torch.Tensor) -> torch.Tensor:
    """Zero-insertion by 2 and the FIR filter."""
    n, c, h, w = x.shape
    spread = functional.pad(x.reshape(n, c, h, 1, w, 1), (0, 1, 0, 0, 0, 1)).reshape(n, c, 2 * h, 2 * w)
    return fir(spread, (2, 1), gain=4.0)


def modulated(
    x: torch.Tensor, weight: torch.Tensor, styles: torch.Tensor, up: bool, demodulate: bool, fused: bool
) -> torch.Tensor:
    """Modulated convolution; weight [O, I, k, k], styles [N, I]."""
    n = x.shape[0]
    each = weight[None] * styles.reshape(n, 1, -1, 1, 1)
    scale = (each.square().sum((2, 3, 4)) + 1e-8).rsqrt() if demodulate else None
    if not fused:
        x = convolved(x * styles[:, :, None, None], weight, up, 1)
        return x if scale is None else x * scale[:, :, None, None]
    if scale is not None:
        each = each * scale.reshape(n, -1, 1, 1, 1)
    x = convolved(x.reshape(1, -1, *x.shape[2:]), each.reshape(-1, *weight.shape[1:]), up, n)
    return x.reshape(n, -1, *x.shape[2:])


def convolved(x: torch.Tensor, weight: torch.Tensor, up: bool, groups: int) -> torch.Tensor:
    """3x3 or 1x1 convolution; with `up` its transpose of stride 2 and the FIR filter."""
    if not up:
        return functional.conv2d(x, weight, padding=weight.shape[-1] // 2, groups=groups)
    out, inside, k = weight.shape[0] // groups, weight.shape[1], weight.shape[2]
    turned = weight.reshape(groups, out, inside, k, k).transpose(1, 2).reshape(-1, out, k, k)
    return fir(functional.conv_transpose2d(x, turned, stride=2, groups=groups), (1, 1), gain=4.0)


def mapped(weights: Weights, z: torch.Tensor, layers: int) -> torch.Tensor:
    """z [N, 512] -> w, without labels."""
    x = z * (z.square().mean(1, keepdim=True) + 1e-8).rsqrt()
    for index in range(layers):
        x = dense(x, weights, f"mapping.fc{index}", 0.01, True)
    return x


def painted(
    weights: Weights, ws: torch.Tensor, resolution: int, fused: bool, noise: bool = True
) -> torch.Tensor:
    """ws [N, num_ws, w_dim] -> images [N, 3, R, R] with the stored noise."""
    x = weights["synthesis.b4.const"].expand(ws.shape[0], -1, -1, -1)
    image, index = None, 0
    for side in (2**k for k in range(2, int(math.log2(resolution)) + 1)):
        for name in ("conv1",) if side == 4 else ("conv0", "conv1"):
            layer = f"synthesis.b{side}.{name}"
            styles = dense(ws[:, index], weights, f"{layer}.affine")
            x = modulated(x, weights[f"{layer}.weight"], styles, name == "conv0", True, fused)
            if noise:
                x = x + weights[f"{layer}.noise_const"] * weights[f"{layer}.noise_strength"]
            x = activated(x, weights[f"{layer}.bias"])
            index += 1
        layer = f"synthesis.b{side}.torgb"
        styles = dense(ws[:, index], weights, f"{layer}.affine") / math.sqrt(x.shape[1])
        y = modulated(x, weights[f"{layer}.weight"], styles, False, False, fused)
        y = y + weights[f"{layer}.bias"].reshape(1, -1, 1, 1)
        image = y if image is None else upsampled(image) + y
    assert image is not None
    return image


def judged(weights: Weights, image: torch.Tensor) -> torch.Tensor:
    """Images [N, 3, R, R] -> logits [N, 1]; residual blocks, deviation in groups of 4."""

    def layer(x: torch.Tensor, name: str, down: bool = False, gain: float = GAIN) -> torch.Tensor:
        weight = weights[f"{name}.weight"]
        weight = weight / math.sqrt(math.prod(weight.shape[1:]))
        half = weight.shape[-1] // 2
        if down:
            x = functional.conv2d(fir(x, (half + 1, half + 1)), weight, stride=2)
        else:
            x = functional.conv2d(x, weight, padding=half)
        return activated(x, weights[f"{name}.bias"], gain) if f"{name}.bias" in weights else x * gain

    resolution = image.shape[-1]
    x = layer(image, f"b{resolution}.fromrgb")
    for side in (2**k for k in range(int(math.log2(resolution)), 2, -1)):
        skip = layer(x, f"b{side}.skip", True, math.sqrt(0.5))
        x = layer(layer(x, f"b{side}.conv0"), f"b{side}.conv1", True, 1.0) + skip
    n, c, h, w = x.shape
    groups = x.reshape(min(4, n), -1, c, h, w)
    deviation = (groups.var(0, correction=0) + 1e-8).sqrt().mean((1, 2, 3))
    x = torch.cat([x, deviation.repeat(min(4, n)).reshape(n, 1, 1, 1).expand(n, 1, h, w)], 1)
    x = layer(x, "b4.conv").reshape(n, -1)
    return dense(dense(x, weights, "b4.fc", activate=True), weights, "b4.out")


def generator_weights(resolution: int, layers: int = 8) -> Weights:
    """Random weights of the original's shapes and names; speed does not depend on their values."""
    weights: Weights = {"synthesis.b4.const": torch.randn(512, 4, 4)}
    for index in range(layers):
        weights |= {f"mapping.fc{index}.weight": torch.randn(512, 512) * 100,
                  f"mapping.fc{index}.bias": torch.zeros(512)}  # fmt: skip
    before = channels_at(4)
    for side in (2**k for k in range(2, int(math.log2(resolution)) + 1)):
        width = channels_at(side)
        shapes = {"conv0": (width, before, 3)} if side > 4 else {}
        shapes |= {"conv1": (width, width, 3), "torgb": (3, width, 1)}
        for name, (out, inside, size) in shapes.items():
            layer = f"synthesis.b{side}.{name}"
            weights[f"{layer}.weight"] = torch.randn(out, inside, size, size)
            weights[f"{layer}.bias"] = torch.zeros(out)
            weights[f"{layer}.affine.weight"] = torch.randn(inside, 512)
            weights[f"{layer}.affine.bias"] = torch.ones(inside)
            if name != "torgb":
                weights[f"{layer}.noise_const"] = torch.randn(side, side)
                weights[f"{layer}.noise_strength"] = torch.full((), 0.1)
        before = width
    return weights


def discriminator_weights(resolution: int) -> Weights:
    """The same for the discriminator."""
    weights: Weights = {}

    def add(name: str, out: int, inside: int, size: int, bias: bool = True) -> None:
        weights[f"{name}.weight"] = torch.randn(out, inside, size, size) if size else torch.randn(out, inside)
        if bias:
            weights[f"{name}.bias"] = torch.zeros(out)

    add(f"b{resolution}.fromrgb", channels_at(resolution), 3, 1)
    for side in (2**k for k in range(int(math.log2(resolution)), 2, -1)):
        wide, narrow = channels_at(side), channels_at(side // 2)
        add(f"b{side}.skip", narrow, wide, 1, bias=False)
        add(f"b{side}.conv0", wide, wide, 3)
        add(f"b{side}.conv1", narrow, wide, 3)
    add("b4.conv", 512, 513, 3)
    add("b4.fc", 512, 512 * 16, 0)
    add("b4.out", 1, 512, 0)
    return weights


def training_step(resolution: int, batch: int) -> Callable[[], None]:
    """One update of the generator, then one of the discriminator, with Adam; without R1 and path length."""
    trained = [generator_weights(resolution), discriminator_weights(resolution)]
    optimisers = []
    for weights in trained:
        leaves = [x.requires_grad_() for name, x in weights.items() if "noise_const" not in name]
        optimisers.append(torch.optim.Adam(leaves, lr=0.002, betas=(0.0, 0.99)))
    generator, discriminator = trained
    real = torch.rand(batch, 3, resolution, resolution) * 2 - 1
    count = 2 * int(math.log2(resolution)) - 2

    def fake() -> torch.Tensor:
        w = mapped(generator, torch.randn(batch, 512), 8)
        return painted(generator, w[:, None].repeat(1, count, 1), resolution, fused=False)

    def step() -> None:
        for x in discriminator.values():
            x.requires_grad_(False)
        optimisers[0].zero_grad()
        functional.softplus(-judged(discriminator, fake())).mean().backward()
        optimisers[0].step()
        for x in discriminator.values():
            x.requires_grad_(True)
        optimisers[1].zero_grad()
        with torch.no_grad():
            images = fake()
        functional.softplus(judged(discriminator, images)).mean().backward()
        functional.softplus(-judged(discriminator, real)).mean().backward()
        optimisers[1].step()

    return step


def forward(resolution: int, batch: int) -> Callable[[], torch.Tensor]:
    """A call that paints a batch from random styles."""
    weights = generator_weights(resolution)
    ws = torch.randn(batch, 2 * int(math.log2(resolution)) - 2, 512)

    def call() -> torch.Tensor:
        with torch.no_grad():
            return painted(weights, ws, resolution, fused=True)

    return call


def largest_difference(file: str) -> dict[str, float]:
    """Relative difference from the original's images and logits in ../shared/golden's kind of file."""
    with np.load(file) as data:
        arrays = {name: torch.from_numpy(np.asarray(data[name], np.float32)) for name in data.files}
    sides: dict[str, Weights] = {"G": {}, "D": {}}
    for name, value in arrays.items():
        kind, *rest = name.split("/")
        if kind == "weights":
            sides[rest[0]]["/".join(rest[1:])] = value
    expected, logits = arrays["image_noise_const"], arrays["d_logits"]
    ws, images = arrays["ws"], arrays["d_image"].permute(0, 3, 1, 2)
    differences = {}
    with torch.no_grad():
        for fused in (True, False):
            image = painted(sides["G"], ws, expected.shape[1], fused).permute(0, 2, 3, 1)
            differences[f"image, fused {fused}"] = _relative(image, expected)
        differences["logits"] = _relative(judged(sides["D"], images), logits)
    return differences


def _relative(x: torch.Tensor, y: torch.Tensor) -> float:
    return float((x - y).abs().max() / y.abs().max())


def peak_memory() -> int:
    """Bytes that this process held at most."""
    import resource

    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024


def main() -> None:
    """Prints the seconds of each timed call and the peak memory as JSON."""
    flags = argparse.ArgumentParser(description=__doc__)
    flags.add_argument("--check", default="", help="file with the original's numbers; prints the differences")
    flags.add_argument("--what", choices=("forward", "step"), default="forward")
    flags.add_argument("--resolution", type=int, default=512)
    flags.add_argument("--batch", type=int, default=1)
    flags.add_argument("--calls", type=int, default=20)
    chosen = flags.parse_args()
    if chosen.check:
        print(json.dumps(largest_difference(chosen.check)))
        return
    torch.manual_seed(0)
    make: Any = forward if chosen.what == "forward" else training_step
    call = make(chosen.resolution, chosen.batch)
    call()
    seconds = []
    for _ in range(chosen.calls):
        start = time.perf_counter()
        call()
        seconds.append(time.perf_counter() - start)
    record = {"seconds": seconds, "peak_bytes": peak_memory(), "torch": torch.__version__}
    print(json.dumps(record))


if __name__ == "__main__":
    main()
