"""The three ways of feeding: the same bits in the same order, from any step, for any number of processes."""

import subprocess
import sys
import threading
import time
from pathlib import Path

import jax
import numpy as np
import pytest

from fundusgan_jax.data import pipeline
from fundusgan_jax.data.order import batch_order
from fundusgan_jax.data.packed import PackedDataset, open_packed
from fundusgan_jax.data.prepare.__main__ import prepare
from fundusgan_jax.data.prepare.arguments import Request
from fundusgan_jax.errors import UserError
from fundusgan_jax.steps.batch import EYES, Batch, to_float
from fundusgan_jax.steps.step import decoded
from tests.support import layouts

ROOT = Path(__file__).resolve().parents[2]


@pytest.fixture(scope="module")
def dataset(tmp_path_factory: pytest.TempPathFactory) -> PackedDataset:
    """ODIR's layout: right and left eyes, labels, patients."""
    folder = tmp_path_factory.mktemp("pipeline")
    prepare(Request("odir", layouts.odir(folder / "source"), folder / "out", 64, workers=1))
    return open_packed(folder / "out")


def feed(dataset: PackedDataset, cache: str, start: int = 0, steps: int = 6, **changes) -> list[Batch]:
    """What a step computes with, decoded on the device, as numpy."""
    stream = pipeline.Stream(seed=5, batch_size=4, flip=True, start_step=start, num_steps=steps)._replace(
        **changes
    )
    stored = pipeline.stored_photographs(dataset.splits["train"]) if cache == "device" else None
    batch = jax.jit(decoded)
    sent = pipeline.prefetched(lambda: pipeline.raw_batches(dataset, "train", cache, stream))
    return [jax.device_get(batch(raw, stored)) for raw in sent]


def assert_equal(batches: list[Batch], expected: list[Batch]) -> None:
    assert len(batches) == len(expected) > 0
    for one, other in zip(batches, expected):
        for name, a, b in zip(Batch._fields, one, other):
            assert a.dtype == b.dtype, name
            np.testing.assert_array_equal(a, b, err_msg=name)


@pytest.mark.parametrize("cache", ["none", "device"])
def test_every_path_gives_the_same_bits(dataset: PackedDataset, cache: str) -> None:
    assert_equal(feed(dataset, cache), feed(dataset, "host"))


@pytest.mark.parametrize("cache", ["none", "host", "device"])
def test_a_resumed_run_sees_what_an_uninterrupted_one_sees(dataset: PackedDataset, cache: str) -> None:
    assert_equal(feed(dataset, cache, start=4), feed(dataset, cache)[4:])


def test_processes_share_a_batch_in_order(dataset: PackedDataset) -> None:
    whole = feed(dataset, "host")
    parts = [feed(dataset, "host", process_index=i, process_count=2) for i in range(2)]
    joined = [Batch(*(np.concatenate(pair) for pair in zip(*batches))) for batches in zip(*parts)]
    assert_equal(joined, whole)
    with pytest.raises(UserError, match="batch_size 4 does not divide over 3 processes"):
        feed(dataset, "host", process_index=0, process_count=3)


def test_a_flip_mirrors_the_picture_and_swaps_the_eye(dataset: PackedDataset) -> None:
    split, seen = dataset.splits["train"], set()
    for step, batch in enumerate(feed(dataset, "host", steps=12)):
        order = batch_order(5, step, 4, len(split.images), True)
        for place, (row, mirrored) in enumerate(zip(order.index, order.flip)):
            before, after = EYES[split.eye[row]], EYES[batch.eye[place]]
            source = split.images[row, :, ::-1] if mirrored else split.images[row]
            np.testing.assert_array_equal(batch.image[place], to_float(np.asarray(source)))
            assert after == ({"right": "left", "left": "right"}[before] if mirrored else before)
            assert batch.label[place] == split.label[row]
            seen.add((before, mirrored))
    assert len(seen) == 4
    assert batch.image.min() >= -1 and batch.image.max() <= 1


def test_what_is_fused_with_the_scaling_sees_the_same_floats(dataset: PackedDataset) -> None:
    """A compiler may contract a product and a sum to one rounding; 12,000 of 50,000 values would differ."""
    stream = pipeline.Stream(seed=5, batch_size=4, flip=True, start_step=0, num_steps=1)
    (raw,) = pipeline.raw_batches(dataset, "train", "host", stream)
    painted = np.random.default_rng(0).standard_normal(raw.photographs.image.shape).astype(np.float32)
    (batch,) = feed(dataset, "host", steps=1)
    apart = jax.jit(lambda raw, painted: painted - decoded(raw, None).image)(raw, painted)
    np.testing.assert_array_equal(apart, painted - batch.image)


def test_memory_mapped_feeding_imports_no_tensorflow(dataset: PackedDataset) -> None:
    code = (
        "import sys\n"
        "from fundusgan_jax.data import packed, pipeline\n"
        f"dataset = packed.ensure_packed({str(dataset.directory)!r})\n"
        "stream = pipeline.Stream(0, 2, True, 0, 2)\n"
        "assert len(list(pipeline.raw_batches(dataset, 'train', 'host', stream))) == 2\n"
        "import fundusgan_jax.train\n"
        "heavy = ('tensorflow', 'tensorflow_datasets', 'clu', 'PIL', 'skimage', 'matplotlib', 'array_record')\n"
        "print([name for name in heavy if name in sys.modules])"
    )
    words = [sys.executable, "-c", code]
    answer = subprocess.run(words, cwd=ROOT, capture_output=True, text=True, timeout=120)
    assert answer.stdout.strip() == "[]", answer.stderr


def test_prefetched_passes_errors_on_and_ends_with_its_consumer() -> None:
    def failing():
        yield 1
        raise OSError("disk is gone")

    items = pipeline.prefetched(failing)
    assert next(items) == 1
    with pytest.raises(OSError, match="disk is gone"):
        next(items)

    def endless():
        number = 0
        while True:
            yield number
            number += 1

    items = pipeline.prefetched(endless)
    assert [next(items) for _ in range(5)] == list(range(5))
    items.close()
    deadline = time.monotonic() + 5
    while time.monotonic() < deadline and any(t.name == "prefetch" for t in threading.enumerate()):
        time.sleep(0.01)
    assert not any(thread.name == "prefetch" for thread in threading.enumerate())
