"""metrics.jsonl: whole rows, no NaN, and after a kill the rows of an uninterrupted run."""

import json
from pathlib import Path

from fundusgan_jax.workdir.metrics_log import MetricsLog, read_metrics


def rows(*steps: int) -> list[dict]:
    return [{"kind": "train", "step": step, "loss": step / 3} for step in steps]


def write(workdir: Path, resume_step: int, found: list[dict]) -> None:
    log = MetricsLog(workdir, resume_step, tensorboard=False)
    for row in found:
        log.write(row)
    log.close()


def test_each_row_is_on_disk_when_write_returns(tmp_path: Path) -> None:
    log = MetricsLog(tmp_path, 0, tensorboard=False)
    for number, row in enumerate(rows(1, 2, 3), 1):
        log.write(row)
        assert len(read_metrics(tmp_path)) == number
    log.close()
    assert read_metrics(tmp_path) == rows(1, 2, 3)


def test_a_resume_drops_later_rows_and_a_half_written_one(tmp_path: Path) -> None:
    write(tmp_path, 0, rows(10, 20, 30))
    with open(tmp_path / "metrics.jsonl", "a") as file:
        file.write('{"kind": "train", "st')
    assert read_metrics(tmp_path) == rows(10, 20, 30)
    write(tmp_path, 20, rows(30, 40))
    assert read_metrics(tmp_path) == rows(10, 20, 30, 40)
    assert all(json.loads(line) for line in (tmp_path / "metrics.jsonl").read_text().splitlines())


def test_an_evaluation_that_is_made_again_has_one_row(tmp_path: Path) -> None:
    scored = [{"kind": "eval", "step": step, "ssim": 0.5} for step in (1, 2)]
    write(tmp_path, 0, [*rows(1), scored[0], *rows(2), scored[1], *rows(3)])
    MetricsLog(tmp_path, 2, evaluate_again=True, tensorboard=False).close()
    assert read_metrics(tmp_path) == [*rows(1), scored[0], *rows(2)]


def test_what_is_not_finite_is_null_and_named(tmp_path: Path) -> None:
    write(tmp_path, 0, [{"kind": "train", "step": 1, "loss": float("nan"), "l2": float("inf"), "reg": 1.0}])
    line = (tmp_path / "metrics.jsonl").read_text()
    assert "NaN" not in line and "Infinity" not in line
    assert read_metrics(tmp_path) == [
        {"kind": "train", "step": 1, "loss": None, "l2": None, "reg": 1.0, "not_finite": ["l2", "loss"]}
    ]


def test_tensorboard_has_the_same_numbers(tmp_path: Path) -> None:
    log = MetricsLog(tmp_path, 0)
    for row in rows(1, 2):
        log.write(row)
    log.close()
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    events = EventAccumulator(str(tmp_path / "tensorboard"), size_guidance={"tensors": 0})
    events.Reload()
    assert [event.step for event in events.Tensors("train/loss")] == [1, 2]
