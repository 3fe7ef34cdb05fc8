"""Feeds batches: from disk through tf.data, from a memory map, or from photographs kept on the devices.

All three give the same bits in the same order (`order.batch_order`): which photograph, mirrored or not, is a
function of (seed, step) alone, so a resumed run continues without replaying what it has seen.
"""

from __future__ import annotations

import queue
import threading
from collections.abc import Callable, Iterator
from typing import Any, Literal, NamedTuple, TypeVar

import jax.numpy as jnp
import numpy as np
from jax import Array

from fundusgan_jax.data.order import Order, batch_order
from fundusgan_jax.data.packed import PackedDataset, PackedSplit
from fundusgan_jax.errors import UserError
from fundusgan_jax.steps.batch import Batch, to_float

Cache = Literal["none", "host", "device"]
PREFETCH = 2
# A mirrored right eye is a left one: index into EYES ('unknown', 'right', 'left').
SWAPPED_EYE = np.array([0, 2, 1], np.int32)
Item = TypeVar("Item")


class DeviceData(NamedTuple):
    """A split kept on the devices. images: uint8 [N, S, S, 3]; label, eye: int32 [N]."""

    images: Any
    label: Any
    eye: Any


class DeviceOrder(NamedTuple):
    """What the host sends per step where the photographs are on the devices: index int32 [B], flip bool
    [B], sample int32 [B]."""

    index: Any
    flip: Any
    sample: Any


class Stream(NamedTuple):
    """Which part of the endless stream of batches is wanted.

    seed, flip: see `order.batch_order`. batch_size: of all processes together. start_step, num_steps:
    first batch, and one past the last. process_index, process_count: which contiguous part of each batch
    is this process's.
    """

    seed: int
    batch_size: int
    flip: bool
    start_step: int
    num_steps: int
    process_index: int = 0
    process_count: int = 1


def orders(num_examples: int, stream: Stream) -> Iterator[Order]:
    """This process's part of batches start_step .. num_steps - 1."""
    if stream.batch_size % stream.process_count:
        raise UserError(
            f"train.batch_size {stream.batch_size} does not divide over {stream.process_count} processes; "
            "choose a multiple"
        )
    size = stream.batch_size // stream.process_count
    part = slice(stream.process_index * size, (stream.process_index + 1) * size)
    for step in range(stream.start_step, stream.num_steps):
        whole = batch_order(stream.seed, step, stream.batch_size, num_examples, stream.flip)
        yield Order(*(values[part] for values in whole))


def train_batches(dataset: PackedDataset, split: str, cache: Cache, stream: Stream) -> Iterator[Batch]:
    """The batches of `stream`, prefetched.

    Args:
        dataset: the packed dataset; with cache 'none' the TFDS dataset beside it is read instead.
        split: its name.
        cache: 'none' (tf.data, random access on disk) or 'host' (memory map, no TensorFlow).
        stream: which batches.

    Yields:
        Batch of batch_size / process_count photographs, float32 in [-1, 1].
    """
    part = dataset.splits[split]
    chosen = orders(len(part.images), stream)
    if cache == "none":
        from fundusgan_jax.data import tf_pipeline

        yield from tf_pipeline.batches(dataset.directory, split, chosen)
    else:
        yield from prefetched(lambda: (host_batch(part, order) for order in chosen))


def host_batch(split: PackedSplit, order: Order) -> Batch:
    """Gathers, flips and scales one batch on the host."""
    images = np.stack([split.images[row] for row in order.index])
    images[order.flip] = images[order.flip, :, ::-1]
    eye = split.eye[order.index]
    eye = np.where(order.flip, SWAPPED_EYE[eye], eye)
    return Batch(to_float(images), split.label[order.index], eye, order.sample.astype(np.int32))


def device_orders(dataset: PackedDataset, split: str, stream: Stream) -> Iterator[DeviceOrder]:
    """The same stream as `train_batches`, as row numbers for `gather`."""
    for order in orders(len(dataset.splits[split].images), stream):
        yield DeviceOrder(order.index.astype(np.int32), order.flip, order.sample.astype(np.int32))


def gather(data: DeviceData, order: DeviceOrder) -> Batch:
    """Gathers, flips and scales one batch on the device, inside the jitted step."""
    images: Array = jnp.take(data.images, order.index, axis=0)
    images = jnp.where(order.flip[:, None, None, None], images[:, :, ::-1], images)
    eye = jnp.take(data.eye, order.index)
    eye = jnp.where(order.flip, jnp.asarray(SWAPPED_EYE)[eye], eye)
    return Batch(to_float(images), jnp.take(data.label, order.index), eye, order.sample)


def prefetched(make: Callable[[], Iterator[Item]]) -> Iterator[Item]:
    """Runs an iterator in a thread, PREFETCH items ahead; its exceptions are raised here, and the thread
    ends when the consumer does."""
    items: queue.Queue[tuple[str, Any]] = queue.Queue(PREFETCH)
    stopped = threading.Event()

    def put(kind: str, value: Any) -> bool:
        while not stopped.is_set():
            try:
                items.put((kind, value), timeout=0.1)
                return True
            except queue.Full:
                continue
        return False

    def work() -> None:
        try:
            for item in make():
                if not put("item", item):
                    return
            put("end", None)
        except BaseException as error:
            put("error", error)

    thread = threading.Thread(target=work, daemon=True, name="prefetch")
    thread.start()
    try:
        while True:
            kind, value = items.get()
            if kind == "end":
                return
            if kind == "error":
                raise value
            yield value
    finally:
        stopped.set()
        thread.join()
