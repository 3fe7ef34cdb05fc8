"""Checkpoints: what is read is what was saved, damage and a full disk are named, the right ones are kept."""

import os
import resource
import shutil
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from fundusgan_jax.errors import UserError
from fundusgan_jax.workdir.checkpoint import Checkpoints


def state(seed: int = 0, size: int = 1000) -> dict:
    rng = np.random.default_rng(seed)
    return {
        "step": jnp.asarray(seed, jnp.int32),
        "nested": ({"kernel": jnp.asarray(rng.standard_normal((size, 7)), jnp.float32)}, jnp.ones(3, bool)),
        "half": jnp.asarray(rng.standard_normal(5), jnp.bfloat16),
        "scalar": jnp.asarray(np.nan, jnp.float32),
    }


def open_in(folder: Path, **changes) -> Checkpoints:
    arguments = {"keep_last": 2, "best_metric": "score", "best_mode": "max", "keep_best": 1} | changes
    return Checkpoints(folder, **arguments)


def assert_same_bits(one, other) -> None:
    assert jax.tree.structure(one) == jax.tree.structure(other)
    for a, b in zip(jax.tree.leaves(one), jax.tree.leaves(other)):
        assert np.asarray(a).dtype == np.asarray(b).dtype
        assert np.asarray(a).tobytes() == np.asarray(b).tobytes()


def test_round_trip(tmp_path: Path) -> None:
    checkpoints = open_in(tmp_path)
    assert checkpoints.restore(None, state()) is None and checkpoints.latest_step() is None
    checkpoints.save(5, state(3))
    checkpoints.wait()
    step, found = checkpoints.restore(None, jax.eval_shape(lambda: state()))
    assert step == 5
    assert_same_bits(found, state(3))
    checkpoints.close()


def test_what_an_older_version_saved_although_it_follows_from_the_step_is_passed_over(tmp_path: Path) -> None:
    checkpoints = open_in(tmp_path)
    checkpoints.save(1, {**state(3), "alpha": jnp.float32(0.25)})
    checkpoints.wait()
    _, restored = checkpoints.restore(1, state())
    assert_same_bits(restored, state(3))
    with pytest.raises(UserError, match="another model"):
        checkpoints.restore(1, {**state(), "beta": jnp.float32(0)})
    checkpoints.close()


def test_progress_stands_beside_the_state(tmp_path: Path) -> None:
    checkpoints = open_in(tmp_path)
    checkpoints.save(1, state(1), progress={"sums": {"loss": [0.1, 3.0]}})
    checkpoints.save(2, state(2))
    checkpoints.wait()
    assert checkpoints.progress(1) == {"sums": {"loss": [0.1, 3.0]}} and checkpoints.progress(2) == {}
    checkpoints.close()


def test_metrics_that_come_later_rank_a_checkpoint_and_touch_nothing_else(
    tmp_path: Path, monkeypatch
) -> None:
    checkpoints = open_in(tmp_path)
    checkpoints.save(1, state(1), {"score": 0.5})
    checkpoints.save(2, state(2))
    checkpoints.wait()
    assert checkpoints.best_step() == 1
    with monkeypatch.context() as patched:
        patched.setattr(
            os, "fsync", lambda number: (_ for _ in ()).throw(OSError(28, "No space left on device"))
        )
        with pytest.raises(UserError, match="cannot write .*No space left"):
            checkpoints.add_metrics(2, {"score": 0.75})
    # What a kill or a full disk leaves is a checkpoint without metrics, whoever opens it.
    assert not list((tmp_path / "checkpoints" / "2" / "metrics").glob("*"))
    for opened in (checkpoints, open_in(tmp_path, read_only=True)):
        assert opened.best_step() == 1 and opened.latest_step() == 2
        assert_same_bits(opened.restore(2, state())[1], state(2))
    checkpoints.add_metrics(2, {"other": 1.0})
    assert checkpoints.best_step() == 1
    checkpoints.add_metrics(2, {"score": 0.75})
    assert checkpoints.best_step() == 2
    checkpoints.close()
    again = open_in(tmp_path)
    assert again.best_step() == 2 and again.steps() == [1, 2]
    assert_same_bits(again.restore(2, state())[1], state(2))
    # What it displaced goes with the next save; it stays, the best, after others.
    for step in (3, 4, 5):
        again.save(step, state(step), {"score": 0.1})
    again.wait()
    assert again.steps() == [2, 4, 5]
    again.close()


def test_a_state_that_is_donated_while_the_write_goes_on(tmp_path: Path) -> None:
    checkpoints = open_in(tmp_path, keep_last=20)
    grow = jax.jit(lambda tree: jax.tree.map(lambda x: x + 1, tree), donate_argnums=0)
    current, expected = {"x": jnp.zeros((500, 500))}, {}
    for step in range(1, 6):
        current = grow(current)
        expected[step] = np.array(current["x"])
        checkpoints.save(step, current)
    checkpoints.wait()
    for step, value in expected.items():
        np.testing.assert_array_equal(checkpoints.restore(step, current)[1]["x"], value)
    checkpoints.close()


@pytest.mark.parametrize(("mode", "kept"), [("max", [2, 5, 6]), ("min", [3, 5, 6])])
def test_the_newest_and_the_best_are_kept(tmp_path: Path, mode: str, kept: list[int]) -> None:
    checkpoints = open_in(tmp_path, best_mode=mode)
    scores = {1: 0.5, 2: 0.9, 3: 0.1, 4: 0.6, 5: None, 6: 0.4}
    for step, score in scores.items():
        checkpoints.save(step, state(), {"other": 1.0} if score is None else {"score": score})
        checkpoints.wait()
    assert checkpoints.steps() == kept and checkpoints.best_step() == kept[0]
    assert checkpoints.latest_step() == 6
    checkpoints.close()
    again = open_in(tmp_path, best_mode=mode)
    assert again.best_step() == kept[0]
    again.close()


def test_a_write_that_was_killed_is_ignored_and_removed(tmp_path: Path) -> None:
    checkpoints = open_in(tmp_path)
    checkpoints.save(1, state(1))
    checkpoints.close()
    folder = tmp_path / "checkpoints"
    half = folder / "2.orbax-checkpoint-tmp"
    shutil.copytree(folder / "1", half)
    checkpoints = open_in(tmp_path)
    assert checkpoints.steps() == [1]
    checkpoints.save(3, state(3))  # waits for the removal, which goes on in the background
    checkpoints.close()
    assert not half.exists()


def largest_file(folder: Path) -> Path:
    return max((path for path in folder.rglob("*") if path.is_file()), key=lambda path: path.stat().st_size)


@pytest.mark.parametrize("damage", ["truncated", "one bit", "missing"])
def test_damage_is_named_with_what_to_do(tmp_path: Path, damage: str) -> None:
    checkpoints = open_in(tmp_path)
    for step in (1, 2):
        checkpoints.save(step, state(step))
    checkpoints.close()
    file = largest_file(tmp_path / "checkpoints" / "2" / "state")
    content = bytearray(file.read_bytes())
    if damage == "missing":
        file.unlink()
    elif damage == "truncated":
        os.truncate(file, len(content) // 2)
    else:
        content[len(content) // 2] ^= 1
        file.write_bytes(content)
    checkpoints = open_in(tmp_path)
    with pytest.raises(
        UserError, match=r"checkpoints/2 is damaged .* delete that folder to resume from step 1"
    ):
        checkpoints.restore(None, state())
    assert_same_bits(checkpoints.restore(1, state())[1], state(1))
    checkpoints.close()


def test_a_checkpoint_with_fusions_at_their_earlier_places_says_what_helps(tmp_path: Path) -> None:
    # Until commit 2a17aab the first skip fusion, fusion0, preceded the first layer.
    checkpoints = open_in(tmp_path)
    checkpoints.save(1, {"generator": {"fusion0": {"merge_bias": np.zeros(3, np.float32)}}})
    checkpoints.wait()
    with pytest.raises(
        UserError, match="checkpoints/1 has its skip fusions .* train anew, or open it with commit"
    ):
        checkpoints.restore(None, {"generator": {"fusion1": {"merge_bias": np.zeros(3, np.float32)}}})
    checkpoints.close()


def test_another_models_checkpoint_is_refused(tmp_path: Path) -> None:
    checkpoints = open_in(tmp_path)
    checkpoints.save(1, state())
    checkpoints.wait()
    with pytest.raises(UserError, match="belongs to another model"):
        checkpoints.restore(1, {**state(), "more": jnp.zeros(2)})
    with pytest.raises(UserError, match="kernel"):
        checkpoints.restore(1, state(size=999))
    checkpoints.close()


def test_a_full_disk_is_named_and_older_checkpoints_stay(tmp_path: Path) -> None:
    checkpoints = open_in(tmp_path)
    checkpoints.save(1, state(1))
    checkpoints.wait()
    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (4096, before[1]))
    try:
        with pytest.raises(UserError, match="free some space and run the same command again"):
            checkpoints.save(2, state(2))
            checkpoints.wait()
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, before)
    again = open_in(tmp_path)
    assert again.steps() == [1]
    assert_same_bits(again.restore(None, state())[1], state(1))
    again.save(2, state(2))
    again.close()
    assert open_in(tmp_path).steps() == [1, 2]


def test_reading_leaves_a_running_write_alone(tmp_path: Path) -> None:
    writer = open_in(tmp_path)
    writer.save(1, state(1))
    writer.wait()
    half = tmp_path / "checkpoints" / "2.orbax-checkpoint-tmp"
    shutil.copytree(tmp_path / "checkpoints" / "1", half)
    reader = open_in(tmp_path, read_only=True)
    assert_same_bits(reader.restore(None, state())[1], state(1))
    reader.close()
    assert half.exists()
    writer.close()


def test_checkpoints_that_lack_the_metric_are_no_candidates(tmp_path: Path) -> None:
    checkpoints = open_in(tmp_path)
    for step, score in ((1, 0.9), (2, 0.1)):
        checkpoints.save(step, state(step), {"score": score})
    checkpoints.close()
    other = open_in(tmp_path, best_metric="else", keep_last=9)
    other.save(3, state(3), {"else": 0.5})
    other.save(4, state(4), {"score": 2.0})
    other.wait()
    assert other.best_step() == 3
    other.close()


def test_opening_to_read_changes_nothing(tmp_path: Path) -> None:
    with pytest.raises(UserError, match="has no checkpoint"):
        open_in(tmp_path, read_only=True)
    assert not list(tmp_path.iterdir())
