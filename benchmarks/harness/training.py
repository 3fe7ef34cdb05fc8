"""A training as benchmarks need it: the real task and its phases on random photographs, nothing on disk."""

from __future__ import annotations

import functools
import math
import statistics
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import jax
import numpy as np
from ml_collections import ConfigDict

from benchmarks.generator import FULL_WIDTH
from benchmarks.harness.random_networks import random_perceptual
from benchmarks.harness.timing import Measurement, Program, Timer, Work, compiled, quartiles, time_program
from fundusgan_jax.config import apply_overrides, load_config
from fundusgan_jax.data.packed import PackedDataset, PackedSplit
from fundusgan_jax.devices.parallel import DataParallel
from fundusgan_jax.errors import UserError
from fundusgan_jax.models.lpips import PerceptualNet
from fundusgan_jax.steps import flops
from fundusgan_jax.steps.adversary import lazy_interval
from fundusgan_jax.steps.fundusgan_step import AXIS
from fundusgan_jax.steps.prior_state import path_length_interval
from fundusgan_jax.steps.step import Phase
from fundusgan_jax.train import loop, opening
from fundusgan_jax.train.call_programs import ProgramConstants, ProgramInput, program_of
from fundusgan_jax.train.task import Run, Task
from fundusgan_jax.validation import validate
from fundusgan_jax.weights.perceptual import find_weights, open_perceptual

# Longer than any benchmark: what is due every so many steps is never due. A multiple of every usual steps_per_call.
NEVER = 735_134_400
# A phase's name, without the prior's ' at 512 px', among those of step_flops.
COUNTED_AS = {
    "G": flops.GENERATOR,
    "G + path length": flops.PATH_LENGTH,
    "D": flops.DISCRIMINATOR,
    "D + R1": flops.R1,
}


class Choice(NamedTuple):
    """What is trained.

    config: a file of configs/. overrides: '--config.NAME=VALUE' words. resolution: of the photographs; 0 leaves the
    configuration's. batch: of all devices together. dtype: of convolutions. adversary: weight of FundusGAN's adversarial
    term, 0 for none; a prior has its own. channels: of the widest layers, of 512. devices: how many take part.
    """

    config: str
    overrides: Sequence[str] = ()
    resolution: int = 0
    batch: int = 8
    dtype: str = "float32"
    adversary: float = 0.0
    channels: int = FULL_WIDTH
    devices: int = 1


def training_config(choice: Choice) -> ConfigDict:
    """The settings of a choice, checked; no evaluation, no pictures, no checkpoints."""
    config = load_config(choice.config, [])
    if choice.resolution:
        ratio = config.model.resolution // config.data.resolution
        config.data.resolution = choice.resolution
        config.model.resolution = choice.resolution * ratio
    if choice.channels != FULL_WIDTH:
        config.model.channel_max = choice.channels
        config.model.channel_base = config.model.channel_base * choice.channels // FULL_WIDTH
        config.encoder.fpn_channels = config.encoder.head_channels = choice.channels
    if config.task != "prior":
        config.loss.adv = choice.adversary
    config.train.batch_size = choice.batch
    config.model.dtype = choice.dtype
    config.growth.start = config.model.resolution
    config.eval.features = "none"
    config.train.best_metric = "auto"
    for name in ("num_steps", "grid_every", "eval_every", "checkpoint_every"):
        config.train[name] = NEVER
    config.train.log_every = period(config)
    apply_overrides(config, list(choice.overrides))
    config.train.log_every = math.lcm(config.train.log_every, config.train.steps_per_call)
    validate(config, choice.devices)
    return config


def period(config: ConfigDict) -> int:
    """Steps after which the schedule of regularisers begins again."""
    judged = config.task == "prior" or config.loss.adv > 0
    lengths = path_length_interval(config) if config.task == "prior" else 0
    return math.lcm(max(lazy_interval(config), 1) if judged else 1, max(lengths, 1))


def random_photographs(count: int, resolution: int) -> PackedSplit:
    """A split of noise, in memory."""
    rng = np.random.default_rng(0)
    images = rng.integers(0, 256, (count, resolution, resolution, 3), dtype=np.uint8)
    zeros, names = np.zeros(count, np.int32), tuple(map(str, range(count)))
    return PackedSplit(images, zeros, zeros, names, names)


def random_dataset(config: ConfigDict) -> PackedDataset:
    """A batch of noise as training and evaluation split."""
    split = random_photographs(config.train.batch_size, config.data.resolution)
    splits = {config.data.train_split: split, config.data.eval_split: split}
    return PackedDataset(config.data.resolution, ("0",), splits, "random", True, Path("random"))


def training_run(config: ConfigDict, devices: int, dataset: PackedDataset | None = None) -> Run:
    """What a training stands on: `devices` devices, photographs (random ones where none are given), the perceptual network.

    Raises:
        UserError: there are not so many devices.
    """
    if devices > jax.device_count():
        raise UserError(f"--devices={devices}, but there are {jax.device_count()}")
    parallel = DataParallel(config.train.parallel, AXIS, jax.devices()[:devices])
    return Run(config, Path("."), dataset or random_dataset(config), _perceptual(config), parallel)


def _perceptual(config: ConfigDict) -> PerceptualNet | None:
    """The run's own where its weights are at hand, else one of the same size with random weights."""
    wanted = config.task != "prior" and config.loss.lpips > 0
    loss = config.loss
    if (
        not wanted
        or loss.perceptual_weights
        or find_weights(loss.perceptual_net, loss.perceptual_heads).exists()
    ):
        return open_perceptual(config)
    return random_perceptual(config.loss.perceptual_net)


class Part(NamedTuple):
    """A phase of the task. place: 0 for a step's first one. share: of the steps that have it. flop: per image."""

    phase: Phase[Any]
    place: int
    share: float
    flop: float


def parts_of(config: ConfigDict, task: Task[Any]) -> list[Part]:
    """The different phases of the steps of one period, in the order in which they first come."""
    steps = period(config)
    counted = flops.phase_flops(config)
    parts: dict[str, list[Any]] = {}
    for number in range(1, steps + 1):
        for place, phase in enumerate(task.phases(number)):
            parts.setdefault(phase.name, [phase, place, 0])[2] += 1
    return [
        Part(phase, place, count / steps, counted[_counted_as(name)])
        for name, (phase, place, count) in parts.items()
    ]


class Training:
    """The state of a training and the compiled phases of its steps, on one batch that stays on the devices.

    As in training the state is donated: every call takes the state that the call before it left.
    """

    def __init__(self, choice: Choice, dataset: PackedDataset | None = None) -> None:
        self.choice, self.config = choice, training_config(choice)
        self.config.train.steps_per_call = 1  # phases are timed one by one
        self.run = training_run(self.config, choice.devices, dataset)
        self.task = opening.open_task(self.run)
        self.parallel = self.run.parallel
        self._state = self.parallel.replicate(self.task.first())
        self._constants = ProgramConstants(loop.step_constants(self.run, self.task))
        self.batches = loop.call_batches(self.run, self.task, 0)
        self.batch = next(self.batches)
        self._carry: dict[int, Any] = {0: None}

    def parts(self) -> list[Part]:
        """The different phases of the steps of one period."""
        return parts_of(self.config, self.task)

    def compile(self, part: Part) -> Program:
        """The phase mapped over the devices, as the trainer compiles it."""
        mapped = self.parallel.compile(program_of(part.phase).run)
        return compiled(mapped, (self._state, self._inputs(part), self._constants), self.choice.dtype)

    def _inputs(self, part: Part) -> ProgramInput:
        return ProgramInput(self.batch, self._carry[part.place])

    def call(self, part: Part, program: Program) -> Any:
        """One update on `batch`; what it hands on is kept for the phase that follows."""
        output = program.compiled(self._state, self._inputs(part), self._constants)
        self._state, self._carry[part.place + 1] = output.state, output.carry
        return output

    def measure(self, timer: Timer, settings: dict[str, Any]) -> Iterator[Measurement]:
        """Every phase, and where there are several under phase 'step' the whole step on average over the schedule.

        The average is computed from the phases' medians and quartiles: a trainer does not wait between them.
        """
        shares, measurements, parts = [], [], self.parts()
        phases = len(parts) + (len(parts) > 1)
        for part in parts:
            program = self.compile(part)
            work = work_of(self.choice, self.config, part.flop)
            call = functools.partial(self.call, part, program)
            measurement = time_program(timer, {**settings, "phase": part.phase.name}, program, call, work)
            measurement = measurement._replace(phases=phases)
            shares.append(part.share)
            measurements.append(measurement)
            yield measurement
        if len(measurements) > 1:
            yield averaged(measurements, shares, {**settings, "phase": "step"})


def work_of(choice: Choice, config: ConfigDict, flop_per_image: float) -> Work:
    """What one call does with the batch."""
    size = config.train.batch_size
    return Work(size, choice.dtype, flop_per_image * size, choice.devices)


def averaged(
    measurements: Sequence[Measurement], shares: Sequence[float], settings: dict[str, Any]
) -> Measurement:
    """A step that has each phase in a share of the steps: three values, of lower quartiles, medians, upper quartiles; memory of
    the phase that takes most."""
    seconds = [0.0, 0.0, 0.0]
    flop = 0.0
    for one, share in zip(measurements, shares):
        low, high = quartiles(one.seconds)
        for index, value in enumerate((low, statistics.median(one.seconds), high)):
            seconds[index] += share * value
        flop += share * one.work.flop
    whole = joined([one.program for one in measurements if one.program], shares)
    last = measurements[-1]
    return last._replace(
        settings=settings, seconds=seconds, work=last.work._replace(flop=flop), program=whole, operations=(),
        calls=len(last.seconds), peak_bytes=max(one.peak_bytes for one in measurements),
        begun_bytes=max(one.begun_bytes for one in measurements),
        warm_seconds=sum(one.warm_seconds for one in measurements),
    )  # fmt: skip


def joined(programs: Sequence[Program], shares: Sequence[float]) -> Program:
    """The programs of a step as one: seconds of all of them, FLOP by the share of the steps that have each, memory of the
    one that needs most; from the cache where one is."""
    return Program(
        None,
        sum(program.seconds for program in programs),
        sum(share * program.flop for share, program in zip(shares, programs)),
        max((program.planned_bytes for program in programs), default=0),
        any(program.from_cache for program in programs),
    )


def _counted_as(name: str) -> str:
    short = name.split(" at ")[0]
    return COUNTED_AS.get(short, short)
