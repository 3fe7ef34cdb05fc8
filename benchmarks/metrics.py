"""Speed of the metric networks: python -m benchmarks.metrics, beside the PyTorch packages where an interpreter has them."""

from __future__ import annotations

import json
import statistics
import subprocess
import sys
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from benchmarks.timing import machine_line, seconds_of
from fundusgan_jax.errors import Parser, UserError, run_door
from fundusgan_jax.models import import_torchvision as torchvision
from fundusgan_jax.models.features import FeatureNet, features
from fundusgan_jax.models.import_inception import inception_from_pytorch_fid, inception_shapes
from fundusgan_jax.models.lpips import perceptual_distance, perceptual_net
from fundusgan_jax.models.seeded import seeded_state_dict
from fundusgan_jax.progress import Progress

DESCRIPTION = """Times Inception's pool3 features (with the resize to 299 px) and LPIPS with its three networks, on random
images with random weights, and prints img/s (LPIPS: pairs/s): the median of --calls calls after one that warms up.
--torch=PYTHON also times pytorch-fid's and lpips' own networks in that interpreter (it needs torch, torchvision, lpips
and pytorch_fid); the two take turns, setting by setting."""

NETWORKS = ("inception", "lpips_vgg", "lpips_alex", "lpips_squeeze")
OURS = {"lpips_vgg": "vgg16", "lpips_alex": "alexnet", "lpips_squeeze": "squeezenet"}


class Timing(NamedTuple):
    """One line of the table; seconds per call: median, fastest, slowest."""

    network: str
    program: str
    side: int
    batch: int
    per_sec: float
    seconds: tuple[float, float, float]


def _timing(network: str, program: str, side: int, batch: int, seconds: Sequence[float]) -> Timing:
    middle = statistics.median(seconds)
    return Timing(network, program, side, batch, batch / middle, (middle, min(seconds), max(seconds)))


def our_call(network: str, side: int, batch: int) -> Callable[[], Any]:
    """A compiled call of one of NETWORKS on a batch of random images."""
    rng = np.random.default_rng(0)
    if network == "inception":
        imported = inception_from_pytorch_fid(seeded_state_dict(inception_shapes(), 0))
        source = FeatureNet(
            jax.tree.map(jnp.asarray, imported.variables), imported.module, "inception", "clean"
        )
        images = jnp.asarray(rng.integers(0, 256, (batch, side, side, 3), dtype=np.uint8))
        compiled = jax.jit(features)
        return lambda: compiled(source, images)
    name = OURS[network]
    tables = {
        "vgg16": (torchvision.VGG16(), torchvision.vgg16_table),
        "alexnet": (torchvision.AlexNet(), torchvision.alexnet_table),
        "squeezenet": (torchvision.SqueezeNet(), torchvision.squeezenet_table),
    }
    module, table_of = tables[name]
    net = perceptual_net(name, seeded_state_dict(torchvision.state_dict_shapes(module, table_of()), 0))
    x, y = (jnp.asarray(rng.uniform(-1, 1, (batch, side, side, 3)), jnp.float32) for _ in range(2))
    distance = jax.jit(perceptual_distance)
    return lambda: distance(net, x, y)


def _torch_seconds(python: str, network: str, side: int, batch: int, calls: int) -> list[float]:
    script = Path(__file__).with_name("metrics_torch.py")
    words = [python, str(script), network, str(side), str(batch), str(calls)]
    done = subprocess.run(words, capture_output=True, text=True)
    if done.returncode:
        reason = done.stderr.strip().splitlines()[-1:] or ["no reason given"]
        raise UserError(f"--torch={python} cannot time {network}: {reason[0]}; install torch, torchvision, lpips, "
                        "pytorch_fid there")  # fmt: skip
    return list(json.loads(done.stdout.strip().splitlines()[-1]))


def _run(argv: Sequence[str]) -> int:
    flags = Parser(prog="python -m benchmarks.metrics", description=DESCRIPTION, allow_abbrev=False)
    flags.add_argument("--networks", default=",".join(NETWORKS), help=f"default: {','.join(NETWORKS)}")
    flags.add_argument("--side", type=int, default=256, help="of the images (default 256)")
    flags.add_argument("--batch", type=int, default=8, help="images a call (default 8)")
    flags.add_argument("--calls", type=int, default=20, help="timed calls of each (default 20)")
    flags.add_argument(
        "--torch", default="", metavar="PYTHON", help="interpreter that has the PyTorch packages"
    )
    chosen = flags.parse_args(argv)
    networks = chosen.networks.split(",")
    if odd := set(networks) - set(NETWORKS):
        raise UserError(f"--networks={odd.pop()} is not one of {', '.join(NETWORKS)}")
    rows, progress = [], Progress(len(networks), "networks", "timing")
    for network in networks:
        setting = (network, chosen.side, chosen.batch, chosen.calls)
        ours = seconds_of(our_call(network, chosen.side, chosen.batch), chosen.calls)
        rows.append(_timing(network, "ours", chosen.side, chosen.batch, ours))
        if chosen.torch:
            theirs = _torch_seconds(chosen.torch, *setting)
            rows.append(_timing(network, "PyTorch package", chosen.side, chosen.batch, theirs))
        progress.update(1, network)
    progress.close()
    print("| network | program | side | batch | img/s or pairs/s | s/call (min to max) |")
    print("|---|---|---|---|---|---|")
    for row in rows:
        middle, fastest, slowest = row.seconds
        print(f"| {row.network} | {row.program} | {row.side} | {row.batch} | {row.per_sec:.3g} | "
              f"{middle:.3f} ({fastest:.3f} to {slowest:.3f}) |")  # fmt: skip
    print(machine_line())
    return 0


def main(argv: Sequence[str] | None = None) -> int:
    """Parses the flags, times, prints; returns the exit code."""
    return run_door(lambda: _run(sys.argv[1:] if argv is None else argv))


if __name__ == "__main__":
    sys.exit(main())
