"""Feeds batches: from disk through tf.data, from a memory map, or as row numbers of photographs kept on the devices.

All three give the same rows in the same order (`order.batch_order`): which photograph, mirrored or not, is a function
of (seed, step) alone, so a resumed run continues without replaying what it has seen. Photographs travel as bytes; the
step mirrors and scales them (`steps.step.decoded`).
"""

from __future__ import annotations

import queue
import threading
from collections.abc import Callable, Generator, Iterator
from typing import Any, Literal, NamedTuple, TypeVar

import numpy as np

from fundusgan_jax.data.order import Order, batch_order
from fundusgan_jax.data.packed import PackedDataset, PackedSplit
from fundusgan_jax.errors import UserError
from fundusgan_jax.steps.batch import Photographs, RawBatch, photographs_at

Cache = Literal["none", "host", "device"]
PREFETCH = 2
Item = TypeVar("Item")


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


def raw_batches(dataset: PackedDataset, split: str, cache: Cache, stream: Stream) -> Iterator[RawBatch]:
    """The batches of `stream` as numpy arrays, each of batch_size / process_count rows.

    Args:
        dataset: the packed dataset; with cache 'none' the TFDS dataset beside it is read instead.
        split: its name.
        cache: 'none' (tf.data, random access on disk), 'host' (memory map, no TensorFlow) or 'device' (row numbers
            alone: the devices hold the photographs).
        stream: which batches.
    """
    stored = stored_photographs(dataset.splits[split])
    count = len(stored.image)
    numbers = (
        RawBatch(order.index.astype(np.int32), order.flip, order.sample.astype(np.int32), None)
        for order in orders(count, stream)
    )
    if cache == "device":
        return numbers
    if cache == "host":
        return (raw._replace(photographs=photographs_at(stored, raw.index)) for raw in numbers)
    from fundusgan_jax.data import tf_pipeline

    # A stream of its own: tf.data draws its row numbers in another thread, and ahead.
    indices = (order.index for order in orders(count, stream))
    decoded = tf_pipeline.photographs(dataset.directory, split, indices)
    return (raw._replace(photographs=photographs) for raw, photographs in zip(numbers, decoded))


def stored_photographs(split: PackedSplit) -> Photographs:
    """A split's memory map and its labels and eyes."""
    return Photographs(split.images, split.label, split.eye)


def prefetched(produce: Callable[[], Iterator[Item]]) -> Generator[Item, None, None]:
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
            for item in produce():
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
