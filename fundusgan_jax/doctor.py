"""Looks the machine over: python -m fundusgan_jax.doctor prints versions, devices, folders and a convolution's speed, and names what is wrong."""

from __future__ import annotations

import importlib.metadata
import importlib.util
import os
import shutil
import subprocess
import sys
import time
from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple

from fundusgan_jax.devices import processors
from fundusgan_jax.errors import run_door
from fundusgan_jax.flags import Parser

DESCRIPTION = """Prints versions, devices, drivers, TensorFlow's build, folders and the speed of one convolution. Every line
that begins with '!' is something to mend, with the mend. Exit code 0: nothing to mend; 1: something."""

# One 3x3 convolution of the generator's middle: 32x32, 512 channels, 4 images.
BATCH, SIDE, CHANNELS = 4, 32, 512
CONVOLUTION_GFLOP = 2 * 9 * BATCH * SIDE**2 * CHANNELS**2 / 1e9
# A core of a server does more; below it something else runs, or the wrong device computes.
SLOWEST_GFLOPS = 20.0
LEAST_DISK_GB = 5.0
LEAST_MEMORY_GB = 4.0
LEAST_SHARED_GB = 1.0
# CUDA of JAX's plug-in -> the oldest driver for Linux that runs it (NVIDIA's CUDA compatibility table).
LEAST_DRIVER = {"12": 525, "13": 580}
# Their major and minor versions go together.
TOGETHER = ("jax", "jaxlib")
NEEDED = ("jax", "jaxlib", "flax", "optax", "orbax-checkpoint", "numpy", "ml-collections")
WANTED = ("tensorflow-datasets", "clu", "pillow", "scikit-image", "scikit-learn", "matplotlib", "scipy")


class Finding(NamedTuple):
    """A line of the report. problem: whether it is to be mended."""

    text: str
    problem: bool = False


def _version(name: str) -> str:
    try:
        return importlib.metadata.version(name)
    except importlib.metadata.PackageNotFoundError:
        return ""


def packages() -> list[Finding]:
    """Versions of what is needed and of what parts of the product need."""
    findings = [Finding(f"python {sys.version.split()[0]} ({sys.executable})")]
    for name in (*NEEDED, *WANTED):
        version = _version(name)
        if version:
            findings.append(Finding(f"{name} {version}"))
        elif name in NEEDED:
            findings.append(Finding(f"{name} is not installed: pip install -r requirements.txt", True))
        else:
            findings.append(Finding(f"{name} is not installed: some commands will miss it"))
    minor = {name: ".".join(_version(name).split(".")[:2]) for name in TOGETHER}
    if len(set(minor.values())) > 1:
        findings.append(Finding(f"jax {_version('jax')} and jaxlib {_version('jaxlib')} do not belong together: "
                             "pip install -r requirements.txt", True))  # fmt: skip
    return findings


def tensorflow() -> list[Finding]:
    """Which TensorFlow, if any: the CUDA build's libraries would be loaded before JAX's."""
    if _version("tensorflow-cpu"):
        return [Finding(f"tensorflow-cpu {_version('tensorflow-cpu')}")]
    version = _version("tensorflow")
    if not version:
        return [
            Finding("no TensorFlow: prepared datasets are read from packed/ alone, which is enough to train")
        ]
    if sys.platform == "linux" and _version("nvidia-cudnn-cu12"):
        mend = "pip uninstall tensorflow; pip install tensorflow-cpu"
        return [
            Finding(f"tensorflow {version} may bring CUDA libraries of its own before JAX's: {mend}", True)
        ]
    return [Finding(f"tensorflow {version}")]


def graphics_cards() -> list[str]:
    """Lines 'name, driver' of NVIDIA's cards, by nvidia-smi; none where there is no such program."""
    program = shutil.which("nvidia-smi")
    if not program:
        return []
    words = [program, "--query-gpu=name,driver_version", "--format=csv,noheader"]
    try:
        done = subprocess.run(words, capture_output=True, text=True, timeout=20)
    except (OSError, subprocess.SubprocessError):
        return []
    return [line.strip() for line in done.stdout.splitlines() if line.strip()] if not done.returncode else []


def old_drivers(cards: Sequence[str]) -> list[Finding]:
    """The cards whose driver is older than the CUDA of JAX's build needs."""
    cuda = next((major for major in LEAST_DRIVER if _version(f"jax-cuda{major}-plugin")), "")
    findings = []
    for card in cards:
        driver = card.rsplit(",", 1)[-1].strip()
        major = driver.split(".")[0]
        if cuda and major.isdigit() and int(major) < LEAST_DRIVER[cuda]:
            mend = f"JAX's build for CUDA {cuda} needs {LEAST_DRIVER[cuda]} or later: update it"
            findings.append(Finding(f"driver {driver} is too old: {mend}", True))
    return findings


def devices() -> list[Finding]:
    """What JAX computes on, and whether a card lies idle."""
    import jax

    findings = []
    try:
        known = jax.devices()
    except RuntimeError as error:
        reason = str(error).splitlines()[0]
        return [
            Finding(f"JAX finds no device ({reason}): unset JAX_PLATFORMS, or install the build for it", True)
        ]
    first = known[0]
    findings.append(Finding(f"JAX computes on {len(known)} x {first.device_kind} ({first.platform})"))
    cards = graphics_cards()
    findings += [Finding(f"card: {card}") for card in cards] + old_drivers(cards)
    if cards and first.platform == "cpu":
        asked = os.environ.get("JAX_PLATFORMS", "").lower().split(",")[0] == "cpu"
        mend = "JAX_PLATFORMS=cpu asks for that" if asked else "pip install '.[cuda]'"
        findings.append(Finding(f"there is a card, but JAX computes on the processor: {mend}", not asked))
    return findings


def half_precision() -> list[Finding]:
    """On a card or TPU: what convolutions compute in by default, and what bfloat16 would give; without measuring."""
    import jax

    try:
        first = jax.devices()[0]
    except RuntimeError:  # `devices` has said it
        return []
    from fundusgan_jax.devices.peaks import known_peak
    from fundusgan_jax.settings import SETTINGS

    default = SETTINGS["model.dtype"].default
    if first.platform == "cpu" or default == "bfloat16":
        return []
    peak = known_peak(first.device_kind)
    gain = f", {peak.bfloat16} TFLOP/s at most instead of {peak.default_float32}" if peak else ""
    return [
        Finding(
            f"configurations train in {default} unless they say otherwise; on {first.device_kind} "
            f"--config.model.dtype=bfloat16 is faster{gain}, and takes less memory"
        )
    ]


def environment() -> list[Finding]:
    """XLA's flags, plug-ins that compete for the devices, and memory."""
    import jax

    from fundusgan_jax.devices.memory import device_memory, gib, host_memory

    findings = []
    if flags := os.environ.get("XLA_FLAGS", ""):
        findings.append(Finding(f"XLA_FLAGS: {flags}"))
    plugins = sorted(
        {point.dist.name for point in importlib.metadata.entry_points(group="jax_plugins") if point.dist}
    )
    if plugins:
        findings.append(Finding(f"plug-ins of JAX: {', '.join(plugins)}"))
    cuda = {name.split("cuda")[1][:2] for name in plugins if "cuda" in name}
    if len(cuda) > 1:
        findings.append(
            Finding(
                f"plug-ins for CUDA {' and '.join(sorted(cuda))} are installed: pip uninstall one of them",
                True,
            )
        )
    if host := host_memory():
        low = host < LEAST_MEMORY_GB * 1e9
        findings.append(
            Finding(f"memory: {gib(host)}" + (": data and checkpoints need more" if low else ""), low)
        )
    try:
        first = jax.devices()[0]
    except RuntimeError:  # `devices` has said it
        return findings
    if first.platform != "cpu" and (limit := device_memory(first)):
        findings.append(Finding(f"each device lets JAX have {gib(limit)}"))
    shared = Path("/dev/shm")
    if shared.is_dir() and (size := shutil.disk_usage(shared).total / 1e9) < LEAST_SHARED_GB:
        mend = (
            "give the container more (docker run --shm-size=8g): devices of one machine exchange through it"
        )
        findings.append(Finding(f"/dev/shm has {size:.2f} GB: {mend}", bool(graphics_cards())))
    return findings


def folders() -> list[Finding]:
    """Where weights, statistics and compiled programs are kept, and whether there is room."""
    from fundusgan_jax.devices.compilation_cache import FOLDER_VARIABLE, compiled_folder
    from fundusgan_jax.evaluate.feature_cache import cache_folder
    from fundusgan_jax.weights.public_weights import PUBLIC_WEIGHTS, weights_folder

    weights = weights_folder()
    here = [
        name
        for name, public in PUBLIC_WEIGHTS.items()
        if any((weights / file).exists() for file in (public.file, public.also) if file)
    ]
    findings = [
        Finding(
            f"weights: {weights} ({', '.join(here) or 'none'}; python -m fundusgan_jax.weights fetch NAME)"
        )
    ]
    findings.append(Finding(f"statistics of real sets: {cache_folder()}"))
    compiled = compiled_folder()
    findings.append(
        Finding(f"compiled programs: {compiled or f'not kept ({FOLDER_VARIABLE}=FOLDER keeps them)'}")
    )
    free = shutil.disk_usage(Path.cwd()).free / 1e9
    low = free < LEAST_DISK_GB
    findings.append(
        Finding(f"{free:.0f} GB free in {Path.cwd()}" + (": checkpoints need more" if low else ""), low)
    )
    written = [(cache_folder(), "FUNDUSGAN_JAX_CACHE")]
    if compiled is not None:
        written.append((compiled, FOLDER_VARIABLE))
    for folder, variable in written:
        there = next((path for path in (folder, *folder.parents) if path.exists()), folder)
        if not os.access(there, os.W_OK):
            findings.append(Finding(f"{folder} cannot be written: set {variable} to another folder", True))
    return findings


def convolution() -> list[Finding]:
    """Speed of one convolution of the generator's middle, float32."""
    import jax
    import jax.numpy as jnp

    from fundusgan_jax.ops.conv import conv2d

    x = jax.random.normal(jax.random.key(0), (BATCH, SIDE, SIDE, CHANNELS))
    kernel = jax.random.normal(jax.random.key(1), (3, 3, CHANNELS, CHANNELS))
    compiled = jax.jit(lambda x, kernel: conv2d(x, kernel, padding=1))
    if not bool(jnp.isfinite(compiled(x, kernel)).all()):
        return [Finding("a convolution of finite numbers is not finite: update the driver", True)]
    seconds = []
    for _ in range(5):
        start = time.perf_counter()
        jax.block_until_ready(compiled(x, kernel))
        seconds.append(time.perf_counter() - start)
    rate = CONVOLUTION_GFLOP / min(seconds)
    text = f"a 3x3 convolution ({SIDE}x{SIDE}, {CHANNELS} channels, float32): {BATCH / min(seconds):.0f} img/s, {rate:.0f} GFLOP/s"
    if rate < SLOWEST_GFLOPS:
        return [Finding(f"{text}: very slow; does something else run, or was another device meant?", True)]
    return [Finding(text)]


def main(argv: Sequence[str] | None = None) -> int:
    """Prints the findings; returns 1 where something is to be mended."""
    flags = Parser(prog="python -m fundusgan_jax.doctor", description=DESCRIPTION)
    flags.parse_args(sys.argv[1:] if argv is None else argv)
    findings = packages()
    print_findings(findings)
    if any(finding.problem for finding in findings) and importlib.util.find_spec("jax") is None:
        return 1
    for look in (tensorflow, devices, half_precision, environment, folders, convolution):
        more = look()
        print_findings(more)
        findings += more
    problems = sum(finding.problem for finding in findings)
    print(f"{problems} to mend" if problems else "nothing to mend")
    return int(problems > 0)


def print_findings(findings: Sequence[Finding]) -> None:
    """A line each, '!' before what is to be mended."""
    for finding in findings:
        print(f"{'!' if finding.problem else ' '} {finding.text}", flush=True)


if __name__ == "__main__":
    processors.begin()  # as main does: what is measured here is what training has
    sys.exit(run_door(main))
