"""The order of photographs: every epoch complete, every batch a function of (seed, step) alone."""

import numpy as np
import pytest

from fundusgan_jax.data.order import batch_order


def stream(seed: int, batch_size: int, examples: int, steps: int, flip: bool = True):
    orders = [batch_order(seed, step, batch_size, examples, flip) for step in range(steps)]
    return tuple(np.concatenate([order[part] for order in orders]) for part in range(3))


@pytest.mark.parametrize(("batch_size", "examples"), [(4, 10), (7, 5), (1, 3), (16, 16)])
def test_each_epoch_has_every_photograph_once(batch_size: int, examples: int) -> None:
    steps = -(-4 * examples // batch_size)
    index, _, sample = stream(3, batch_size, examples, steps)
    np.testing.assert_array_equal(sample, np.arange(steps * batch_size))
    epochs = index[: 4 * examples].reshape(4, examples)
    np.testing.assert_array_equal(np.sort(epochs, 1), np.tile(np.arange(examples), (4, 1)))
    assert examples < 5 or len({tuple(epoch) for epoch in epochs}) == 4


def test_a_batch_needs_no_other() -> None:
    index, flip, _ = stream(1, 6, 25, 40)
    alone = batch_order(1, 33, 6, 25, True)
    np.testing.assert_array_equal(alone.index, index[33 * 6 : 34 * 6])
    np.testing.assert_array_equal(alone.flip, flip[33 * 6 : 34 * 6])


def test_the_batch_size_divides_one_and_the_same_stream() -> None:
    for small, large in zip(stream(5, 4, 30, 30), stream(5, 12, 30, 10)):
        np.testing.assert_array_equal(small, large)


def test_seeds_differ_and_flips_are_half() -> None:
    index, flip, _ = stream(1, 10, 500, 200)
    other = stream(2, 10, 500, 200)
    assert (index != other[0]).mean() > 0.9 and (flip != other[1]).mean() > 0.3
    assert 0.45 < flip.mean() < 0.55
    # The same photograph is mirrored in some epochs and not in others.
    seen = {row: set(flip[index == row].tolist()) for row in range(20)}
    assert sum(len(values) == 2 for values in seen.values()) > 10
    assert not stream(1, 10, 500, 20, flip=False)[1].any()


def test_the_order_is_written_in_stone() -> None:
    """Runs made by earlier versions resume: this order must never change."""
    assert batch_order(0, 0, 8, 20, True).index.tolist() == STONE[0]
    assert batch_order(7, 1234, 8, 20, True).index.tolist() == STONE[1]


STONE = ([19, 6, 8, 14, 1, 17, 13, 15], [9, 10, 15, 6, 17, 12, 19, 1])
