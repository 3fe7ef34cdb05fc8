"""The plan of a training, from its own compiled step: parameters, memory by batch size, the largest batch that fits."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from ml_collections import ConfigDict

from fundusgan_jax.config import class_names, has_heads
from fundusgan_jax.data.packed import PackedDataset, PackedSplit, ensure_packed, split_named
from fundusgan_jax.data.phantom.render import phantom_counts
from fundusgan_jax.devices.compilation_cache import keeping_hint
from fundusgan_jax.devices.memory import is_exhaustion
from fundusgan_jax.devices.parallel import DataParallel
from fundusgan_jax.errors import UserError
from fundusgan_jax.models.lpips import PerceptualNet, map_channels
from fundusgan_jax.models.squeezenet import SqueezeNet
from fundusgan_jax.models.vgg import VGG16
from fundusgan_jax.progress import Progress
from fundusgan_jax.steps.batch import RawBatch
from fundusgan_jax.steps.fundusgan_step import AXIS
from fundusgan_jax.steps.latent_step import latent_dataset_shapes
from fundusgan_jax.steps.step import StepConstants, image_channels, photograph_shapes, raw_batch_shapes
from fundusgan_jax.train.call_programs import distinct_calls
from fundusgan_jax.train.calls import HORIZON, Call, calls
from fundusgan_jax.train.phase_programs import Lowered, Ready, compile_all, lower_calls
from fundusgan_jax.train.task import Run, Task
from fundusgan_jax.validation import divides
from fundusgan_jax.workdir.contents import check_resolution

# Images a device: nobody needs more.
MOST = 256
# Latents that every device keeps, where nobody says how many photographs there are: they are small.
UNKNOWN_LATENTS = 5000
# Bytes of a step that is too large to be compiled.
EXHAUSTED = 2**62


class Need(NamedTuple):
    """Memory of the step at one batch size. per_device: images. held, total: bytes on each device, of the phase that
    needs most. compiled: by XLA's analysis of the compiled step, or read off the line through two such."""

    per_device: int
    held: int
    total: int
    compiled: bool


class Planner:
    """Compiles the step of `config` for any batch size, without data or weights.

    Args:
        config: valid settings; of a growing prior the last stage is planned.
        devices: to plan for; the default is all there are.
        num_resident: photographs that every device keeps (data.cache=device).
        photographs: how many there are to train with; None where nobody knows.
    """

    def __init__(
        self,
        config: ConfigDict,
        devices: Sequence[jax.Device] | None = None,
        num_resident: int = 0,
        photographs: int | None = None,
    ) -> None:
        self.config = ConfigDict(config.to_dict())
        self.num_resident, self.photographs = num_resident, photographs
        self._compiled: dict[tuple[Any, ...], dict[str, Ready]] = {}
        # Planning scores nothing: no network of features is to be looked for.
        self.config.eval.features = "none"
        self.parallel = DataParallel("shard_map", AXIS, devices)
        self.devices = len(self.parallel.devices)

    def task(self, config: ConfigDict) -> Task[Any]:
        """The task that training would run, on stand-ins for photographs and perceptual network."""
        # Not above: train/loop.py imports the flows of evaluation, which --help does not wait for.
        from fundusgan_jax.train.opening import open_task

        dataset = _stand_in(config)
        return open_task(Run(config, Path(), dataset, perceptual_shapes(config), self.parallel))

    def first_planned(self, task: Task[Any]) -> int:
        """The step before the first that is planned: of the last HORIZON, where a growing network has its final size."""
        per_call, total = self.config.train.steps_per_call, self.config.train.num_steps
        start = max(total - HORIZON, 0) // per_call * per_call
        grown = [number - 1 for number in range(start + 1, total + 1) if task.grows_before(number)]
        return max([start, *grown])

    def calls(self, task: Task[Any]) -> tuple[list[Call[Any]], int]:
        """The different calls of the run's last steps, where a growing network has its final size; and how many programs
        they have."""
        per_call, total = self.config.train.steps_per_call, self.config.train.num_steps
        return distinct_calls(calls(task, self.first_planned(task), total, per_call))

    def compiled(self, per_device: int, **train: Any) -> dict[str, Ready]:
        """The programs at `per_device` images a device; `train`: settings of config.train changed for it."""
        key = (per_device, *train.items())
        if key not in self._compiled:
            self._compiled[key] = self._compile(per_device, **train)
        return self._compiled[key]

    def _compile(self, per_device: int, **train: Any) -> dict[str, Ready]:
        config = ConfigDict(self.config.to_dict())
        config.train.update({**train, "batch_size": per_device * self.devices})
        task = self.task(config)
        wanted, count = self.calls(task)
        changed = "".join(f", {name}={value}" for name, value in train.items())
        progress = Progress(count, "programs", f"compiling for {per_device} images a device{changed}")
        with progress.running(keeping_hint()):
            lowered = lower_calls(self.parallel, wanted, *self.shapes(task, config))
            return compile_all(lowered, progress.update)

    def lowered(self, task: Task[Any], platform: str = "") -> Iterator[Lowered]:
        """The programs of `self.config` before the backend compiles them; `platform` as of `lower_calls`."""
        return lower_calls(self.parallel, self.calls(task)[0], *self.shapes(task), platform)

    def shapes(
        self, task: Task[Any], config: ConfigDict | None = None
    ) -> tuple[Any, RawBatch, StepConstants]:
        """State, batch as it is sent, and constants, as shapes and dtypes; `config`: the task's, the planner's by default."""
        config = config or self.config
        size, side = config.train.batch_size, config.data.resolution
        if config.task == "latent":  # the task's own would have to be computed
            constants = StepConstants(dataset=latent_dataset_shapes(config, self.num_resident))
        else:
            dataset = photograph_shapes(self.num_resident, side) if self.num_resident else None
            # The segmenter of loss.vessel and the classifier of loss.classifier come with their weights.
            constants = jax.eval_shape(lambda x: x, task.constants)._replace(dataset=dataset)
        batch = raw_batch_shapes(size, side, not self.num_resident, image_channels(config.task))
        return task.shapes(config.train.num_steps), batch, constants

    def need(self, per_device: int, **train: Any) -> Need:
        """Memory at `per_device` images a device; EXHAUSTED where even compiling takes more than there is."""
        try:
            programs = self.compiled(per_device, **train)
        except jax.errors.JaxRuntimeError as error:
            if not is_exhaustion(error):
                raise
            return Need(per_device, 0, EXHAUSTED, True)
        memories = [ready.memory for ready in programs.values() if ready.memory is not None]
        worst = max(memories, key=lambda memory: memory.total)
        return Need(per_device, worst.held, worst.total, True)

    def sizes(self) -> list[int]:
        """Images a device that training would take, from the fewest on, each twice the one before, up to MOST or to
        the batch of the settings; none of more than there are photographs, but for that batch."""
        wanted = self.config.train.batch_size // self.devices
        most = max(MOST, wanted)
        if self.photographs is not None:
            most = max(wanted, min(most, self.photographs // self.devices))
        least = next(size for size in range(1, wanted + 1) if self.divides(size))
        doubled = (least * 2**k for k in range(most.bit_length()))
        return [size for size in doubled if size <= most and self.divides(size)]

    def divides(self, per_device: int, **train: Any) -> bool:
        """Whether training would take so many images a device."""
        parts = train.get("accumulate", self.config.train.accumulate)
        return divides(self.config, per_device * self.devices, self.devices, parts)


def _stand_in(config: ConfigDict) -> PackedDataset:
    """Splits of two empty photographs: a task opens its scorers with a dataset, and plans need none."""
    side = config.data.resolution
    zeros = np.zeros(2, np.int32)
    split = PackedSplit(np.zeros((2, side, side, 3), np.uint8), zeros, zeros, ("", ""), ("", ""))
    names = {config.data.train_split, config.data.eval_split, config.eval.reference_split}
    labels = class_names(config) or ("0", "1")
    return PackedDataset(side, labels, dict.fromkeys(names, split), "", False, Path())


def perceptual_shapes(config: ConfigDict) -> PerceptualNet | None:
    """The perceptual network of config.loss as shapes and dtypes, without its weights; None where there is none."""
    if config.loss.lpips == 0 or config.task != "fundusgan":
        return None
    name = config.loss.perceptual_net
    module = VGG16() if name == "vgg16" else SqueezeNet()
    image = jax.ShapeDtypeStruct((1, 64, 64, 3), jnp.float32)
    variables = jax.eval_shape(module.init, jax.random.key(0), image)
    with_heads = has_heads(config)
    heads: Any = tuple(jax.ShapeDtypeStruct((size,), jnp.float32) for size in map_channels(module))
    three: Any = jax.ShapeDtypeStruct((3,), jnp.float32)
    metric = "lpips" if with_heads else "perceptual"
    return PerceptualNet(variables, three, three, heads if with_heads else None, module, name, metric, name)


def parameter_counts(config: ConfigDict, state: Any) -> dict[str, int]:
    """Parameters by network: encoder, generator (a prior's: mapping, synthesis), discriminator; a flow, what is frozen."""
    if config.task == "latent":
        return {"flow": _count(state.flow.params), "FundusGAN, frozen": _count(state.source.variables.params)}
    params = state.params if config.task == "prior" else state.variables.params
    counted = {name: _count(tree) for name, tree in params.items()}
    if state.adversary is not None:
        counted["discriminator"] = _count(state.adversary.params)
    return counted


def _count(tree: Any) -> int:
    return sum(int(np.prod(leaf.shape)) for leaf in jax.tree.leaves(tree))


def read_off(compiled: list[Need], per_device: int) -> Need:
    """The need at another size, on the line through the two compiled sizes that are nearest: between two it is
    overestimated, because the true curve bends upwards where activations outgrow what is there anyway."""
    known = [need for need in compiled if need.total < EXHAUSTED]
    if not known:
        return Need(per_device, 0, EXHAUSTED, False)
    by_size = sorted(known, key=lambda need: need.per_device)
    if len(by_size) == 1:
        only = by_size[0]
        more = (only.total - only.held) * per_device // only.per_device
        return Need(per_device, only.held, only.held + more, False)
    above = next((i for i, need in enumerate(by_size) if need.per_device > per_device), len(by_size))
    one, two = by_size[max(0, min(above, len(by_size) - 1) - 1) :][:2]
    share = (per_device - one.per_device) / (two.per_device - one.per_device)
    held = one.held + share * (two.held - one.held)
    return Need(per_device, int(held), int(one.total + share * (two.total - one.total)), False)


def search(planner: Planner, sizes: list[int], first: int, limit: int) -> list[Need]:
    """Compiles some of `sizes` (images a device, each twice the one before) from `first` on until the largest that fits
    `limit` bytes is known."""
    compiled: list[Need] = []
    fits, fails, size = 0, 2 * sizes[-1], first
    while True:
        need = planner.need(size)
        compiled.append(need)
        if need.total <= limit:
            fits = size
        else:
            fails = size
        between = [size for size in sizes if fits < size < fails]
        if not between:
            return compiled
        # Not far beyond what is known: a program for a size that nobody could run may take long to compile.
        near = [size for size in between if size <= 8 * max(fits, sizes[0])] or between[:1]
        size = max((guess for guess in near if read_off(compiled, guess).total <= limit), default=near[0])


def training_photographs(config: ConfigDict) -> int | None:
    """Photographs of data.train_split; None where data.dir is not given.

    Raises:
        UserError: data.dir holds no such photographs.

    Where data.dir has only its TFDS dataset, what training reads is made of it first, as training would.
    """
    split = config.data.train_split
    if config.data.dataset == "phantom":
        counts = phantom_counts(config.data.phantom_num)
        if not counts.get(split):
            raise UserError(
                f"the phantom has no photographs in split '{split}' (it has {', '.join(sorted(counts))})"
            )
        return counts[split]
    if not config.data.dir:
        return None
    dataset = ensure_packed(config.data.dir)
    check_resolution(config, dataset)
    return len(split_named(dataset, split).images)


def kept_photographs(config: ConfigDict) -> int:
    """Photographs that every device keeps: with data.cache=device those of data.train_split, else 0.

    Raises:
        UserError: as of `training_photographs`; where data.dir is not given, nobody can count them.
    """
    if config.data.cache != "device":
        return 0
    count = training_photographs(config)
    if count is None and config.task == "latent":
        return UNKNOWN_LATENTS
    if count is None:
        raise UserError(
            "data.cache=device keeps the photographs on every device, and a plan has to count them: give "
            "--config.data.dir=DIR, or plan with --config.data.cache=host"
        )
    return count
