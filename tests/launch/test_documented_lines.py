"""Every documented launch line: its flags are known, and its configuration fits the devices that it asks for."""

import re
from pathlib import Path
from typing import NamedTuple

import pytest
import yaml

from fundusgan_jax.config import load_config
from fundusgan_jax.main import parser
from fundusgan_jax.validation import validate
from fundusgan_jax.weights.public_weights import PUBLIC_WEIGHTS

ROOT = Path(__file__).resolve().parents[2]
PLACES = (
    "README.md",
    "docs/scaling.md",
    "launch/local.sh",
    "launch/slurm.sbatch",
    "launch/tpu_vm.sh",
    "launch/Dockerfile",
)
# What a line for one machine must fit: the most GPUs that one usually has.
ONE_MACHINE = 8


class Line(NamedTuple):
    """place: the file. launcher: what starts the trainer. devices: of all processes. words: the trainer's."""

    place: str
    launcher: str
    devices: int
    words: list[str]


def slurm_devices(options: list[str]) -> int:
    """Of `sbatch`'s options, else of the script's."""
    text = "\n".join([*options, (ROOT / "launch" / "slurm.sbatch").read_text()])
    nodes, gpus = (
        int(re.findall(rf"^(?:#SBATCH )?--{name}=(\d+)$", text, re.MULTILINE)[0])
        for name in ("nodes", "gpus-per-node")
    )
    return nodes * gpus


def lines_of(place: str) -> list[Line]:
    """The commands that name a configuration. A slice's chips are those last spoken of."""
    text = re.sub(r" \\\n#? *", " ", (ROOT / place).read_text())
    lines, chips = [], 0
    for piece in re.split(r"[`\n]", text):
        chips = int(([str(chips)] + re.findall(r"(\d+) chips", piece))[-1])
        words = piece.split()
        starts = [i for i, word in enumerate(words) if re.match(r"launch/\w+\.\w+$|fundusgan-jax:", word)]
        if not starts or "configs/" not in piece:
            continue
        launcher, before, after = words[starts[0]], words[: starts[0]], words[starts[0] + 1 :]
        if launcher.startswith("fundusgan-jax:"):
            lines.append(Line(place, "docker", ONE_MACHINE, after))
            continue
        if launcher == "launch/tpu_vm.sh":
            after = after[1:]  # the name of the TPU
        devices = {
            "launch/local.sh": ONE_MACHINE,
            "launch/slurm.sbatch": slurm_devices(before),
            "launch/tpu_vm.sh": chips,
        }[launcher]
        lines.append(Line(place, launcher, devices, [f"--config={after[0]}", "--workdir=run", *after[2:]]))
    return lines


def line_of_manifest(kind: str, resource: str) -> Line:
    place = f"launch/gke/{kind}.yaml"
    (replicated,) = yaml.safe_load((ROOT / place).read_text())["spec"]["replicatedJobs"]
    job = replicated["template"]["spec"]
    (container,) = job["template"]["spec"]["containers"]
    devices = job["parallelism"] * container["resources"]["limits"][resource]
    return Line(place, "kubectl", devices, container["args"])


LINES = [line for place in PLACES for line in lines_of(place)]
LINES += [line_of_manifest("gpu", "nvidia.com/gpu"), line_of_manifest("tpu", "google.com/tpu")]


def test_all_of_them_are_looked_at():
    assert {(line.place, line.launcher, line.devices) for line in LINES} >= {
        ("docs/scaling.md", "launch/local.sh", 8),
        ("docs/scaling.md", "launch/slurm.sbatch", 32),
        ("docs/scaling.md", "launch/tpu_vm.sh", 32),
        ("launch/local.sh", "launch/local.sh", 8),
        ("launch/slurm.sbatch", "launch/slurm.sbatch", 32),
        ("launch/tpu_vm.sh", "launch/tpu_vm.sh", 32),
        ("launch/Dockerfile", "docker", 8),
        ("launch/gke/gpu.yaml", "kubectl", 16),
        ("launch/gke/tpu.yaml", "kubectl", 16),
    }
    assert slurm_devices([]) == 8  # of the script's own


@pytest.mark.parametrize("line", LINES, ids=lambda line: f"{line.launcher} in {line.place}")
def test_a_documented_line_starts(line):
    flags, settings = parser().parse_with_settings(line.words)
    validate(load_config(str(ROOT / flags.config), settings), line.devices)
    # The default folder is a home's: empty in a container, another one on each host of a slice.
    assert flags.weights_dir or line.launcher in ("launch/local.sh", "launch/slurm.sbatch")


@pytest.mark.parametrize("place", ["docs/scaling.md", "launch/Dockerfile", "launch/tpu_vm.sh"])
def test_the_weights_that_are_fetched_are_those_of_the_default_loss(place):
    text = " ".join((ROOT / place).read_text().replace("\n#", "\n").split())
    (names,) = re.findall(r"-m fundusgan_jax\.weights fetch ([\w ]+) --weights_dir=", text)
    assert names.split() == ["vgg16", "lpips_vgg"] and set(names.split()) <= set(PUBLIC_WEIGHTS)
    assert load_config(str(ROOT / "configs" / "folder.py"), []).loss.perceptual_net == "vgg16"
