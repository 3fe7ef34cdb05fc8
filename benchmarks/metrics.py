"""Speed of the metric networks: python -m benchmarks.metrics, beside the PyTorch packages where an interpreter has them."""

from __future__ import annotations

import argparse
import json
import subprocess
import sys
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from benchmarks.harness import driver
from benchmarks.harness.random_networks import random_perceptual
from benchmarks.harness.timing import Measurement, Timer, Work, measure
from fundusgan_jax.errors import UserError
from fundusgan_jax.models.alexnet import AlexNet
from fundusgan_jax.models.features import FeatureNet, features
from fundusgan_jax.models.flops import convolutional_flops
from fundusgan_jax.models.inception import INCEPTION_SIDE, InceptionV3
from fundusgan_jax.models.lpips import perceptual_distance
from fundusgan_jax.models.squeezenet import SqueezeNet
from fundusgan_jax.models.vgg import VGG16
from fundusgan_jax.weights.import_inception import inception_from_pytorch_fid, inception_shapes
from fundusgan_jax.weights.seeded import seeded_state_dict

DESCRIPTION = """Times Inception's pool3 features (with the resize to 299 px) and LPIPS with its three networks, on random
images with random weights, in img/s (LPIPS: pairs/s). FLOP are those of the convolutions, of a pair those of both images.
--torch=PYTHON also times pytorch-fid's and lpips' own networks in that interpreter (it needs torch, torchvision, lpips and
pytorch_fid); the two take turns, setting by setting."""

NETWORKS = ("inception", "lpips_vgg", "lpips_alex", "lpips_squeeze")
OURS = {"lpips_vgg": "vgg16", "lpips_alex": "alexnet", "lpips_squeeze": "squeezenet"}
PROGRAMS = ("ours", "pytorch")
# The smallest images of which something is left at the last layer; Inception's are resized.
LEAST_SIDES = {"inception": 1, "lpips_vgg": 16, "lpips_alex": 31, "lpips_squeeze": 17}


def our_call(network: str, side: int, batch: int) -> tuple[Callable[..., Any], tuple[Any, ...]]:
    """One of NETWORKS as a function, and its arguments: random weights, a batch of random images."""
    rng = np.random.default_rng(0)
    if network == "inception":
        imported = inception_from_pytorch_fid(seeded_state_dict(inception_shapes(), 0))
        source = FeatureNet(
            jax.tree.map(jnp.asarray, imported.variables), imported.module, "inception", "clean"
        )
        return features, (source, jnp.asarray(rng.integers(0, 256, (batch, side, side, 3), dtype=np.uint8)))
    x, y = (jnp.asarray(rng.uniform(-1, 1, (batch, side, side, 3)), jnp.float32) for _ in range(2))
    return perceptual_distance, (random_perceptual(OURS[network]), x, y)


def network_flops(network: str, side: int) -> float:
    """FLOP of an image, or of a pair, of side `side` in one of NETWORKS."""
    if network == "inception":
        return convolutional_flops(InceptionV3(), INCEPTION_SIDE)
    modules = {"lpips_vgg": VGG16(), "lpips_alex": AlexNet(), "lpips_squeeze": SqueezeNet()}
    return 2 * convolutional_flops(modules[network], side)


def _torch_seconds(python: str, setting: driver.Setting, calls: int) -> list[float]:
    script, network = Path(__file__).with_name("harness") / "metrics_torch.py", setting["network"]
    given = [python, str(script), network, str(setting["side"]), str(setting["batch"]), str(calls)]
    done = subprocess.run(given, capture_output=True, text=True)
    if done.returncode:
        reason = done.stderr.strip().splitlines()[-1:] or ["no reason given"]
        raise UserError(f"--torch={python} cannot time {network}: {reason[0]}; install torch, torchvision, lpips, "
                        "pytorch_fid there")  # fmt: skip
    return list(json.loads(done.stdout.strip().splitlines()[-1]))


def _add_flags(flags: argparse.ArgumentParser) -> None:
    flags.add_argument(
        "--network", type=driver.words, default=list(NETWORKS), help=f"default: {','.join(NETWORKS)}"
    )
    flags.add_argument("--side", type=driver.numbers, default=[256], help="of the images (default 256)")
    flags.add_argument("--batch", type=driver.numbers, default=[8], help="images a call (default 8)")
    flags.add_argument(
        "--torch", default="", metavar="PYTHON", help="interpreter that has the PyTorch packages"
    )
    flags.add_argument("--program", type=driver.words, default=None, help=argparse.SUPPRESS)


def _settings(chosen: argparse.Namespace) -> list[driver.Setting]:
    driver.check_choices("network", chosen.network, NETWORKS)
    for network in chosen.network:
        if min(chosen.side) < LEAST_SIDES[network]:
            raise UserError(
                f"--side={min(chosen.side)} is too small for {network}: at least {LEAST_SIDES[network]}"
            )
    programs = chosen.program or (PROGRAMS if chosen.torch else PROGRAMS[:1])
    return [
        {"network": network, "side": side, "batch": batch, "program": program}
        for network in chosen.network
        for side in chosen.side
        for batch in chosen.batch
        for program in programs
    ]


def _measure(chosen: argparse.Namespace, setting: driver.Setting, timer: Timer) -> Iterator[Measurement]:
    work = Work(setting["batch"], flop=setting["batch"] * network_flops(setting["network"], setting["side"]))
    if setting["program"] == "pytorch":
        if jax.default_backend() != "cpu":
            raise UserError("--torch compares on a processor; start it with JAX_PLATFORMS=cpu")
        seconds = _torch_seconds(chosen.torch, setting, timer.calls)
        yield Measurement(timer.benchmark, setting, seconds, work)
        return
    function, arguments = our_call(setting["network"], setting["side"], setting["batch"])
    if setting["network"] == "inception":  # models/features.py
        work = work._replace(precision="highest")
    yield measure(timer, setting, function, arguments, work)


BENCHMARK = driver.Benchmark("metrics", DESCRIPTION, _add_flags, _settings, _measure)


def main(argv: Sequence[str] | None = None) -> int:
    """Parses the flags, times, prints; returns the exit code."""
    return driver.main(BENCHMARK, argv)


if __name__ == "__main__":
    sys.exit(main())
