"""Preparation by Apache Beam: the same bytes as without it, killed runs, failures that are one line."""

from __future__ import annotations

import os
import shutil
import signal
from collections import Counter
from pathlib import Path

import numpy as np
import pytest
from tensorflow_datasets.core.utils import shard_utils

from fundusgan_jax.data.prepare import near_duplicates
from fundusgan_jax.data.prepare import workers as pool
from fundusgan_jax.data.prepare.__main__ import prepare
from fundusgan_jax.data.prepare.arguments import Request
from fundusgan_jax.errors import UserError
from tests.data.prepare.test_command import outputs, rejected, start, wait_for
from tests.data.test_read_image import write_dicom
from tests.support import layouts

beam_runner = pytest.importorskip(
    "fundusgan_jax.data.prepare.beam_runner",
    reason="needs Apache Beam: pip install '.[beam]'",
    exc_type=ImportError,
)

TWO_PROCESSES = ("direct_num_workers=2", "direct_running_mode=multi_processing")


def collection(root: Path, count: int) -> Path:
    """Photographs of several formats, a DICOM, a duplicate, a near-duplicate, two that are rejected; with patients."""
    for number in range(count):
        layouts.save(root / f"{number:02d}.{('png', 'jpg', 'tif')[number % 3]}", 60 + number)
    write_dicom(root / "clinic.dcm", np.asarray(layouts.photograph(90)), "RGB", PatientID="4711")
    shutil.copy(root / "00.png", root / "copy.png")
    layouts.photograph(61).save(root / "again.jpg", quality=70)
    (root / "zero.jpg").write_bytes(b"")
    (root / "notes.txt").write_text("not a photograph")
    files = sorted(path.name for path in root.iterdir())
    rows = [f"{file},{'ill' if index % 2 else 'healthy'},p{index}" for index, file in enumerate(files)]
    (root / "labels.csv").write_text("\n".join(["file,label,patient", *rows]) + "\n")
    return root


@pytest.mark.slow
@pytest.mark.parametrize("file_format", ["array_record", "tfrecord"])
def test_the_same_bytes_as_without_beam(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, file_format: str
) -> None:
    monkeypatch.setattr(shard_utils.ShardConfig, "min_shard_size", 10_000)
    monkeypatch.setattr(near_duplicates, "PAIRS_PER_BLOCK", 20)
    local = Request("folder", collection(tmp_path / "s", 14), tmp_path / "local", 64, file_format)
    done = prepare(local)
    by_beam = local._replace(output=tmp_path / "beam", runner="DirectRunner")
    assert prepare(by_beam) == done
    assert done["near_duplicates"] == 1 and done["duplicates"] == 1
    assert rejected(local.output)["copy.png"] == "duplicate of 00.png"
    assert {"zero.jpg", "notes.txt"} < set(rejected(local.output))
    assert outputs(by_beam.output) == outputs(local.output)
    shards = Counter(Path(name).suffix.split("-")[0] for name in outputs(by_beam.output))
    assert shards[f".{file_format}"] > 3, "one shard for each side would show little"
    prepare(by_beam._replace(runner="local"))  # it is the same dataset, whoever made it


@pytest.mark.slow
def test_killed_and_continued_by_any_runner_is_the_same_to_the_byte(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    source, output = collection(tmp_path / "s", 24), tmp_path / "out"
    work = output / ".work"
    process = start(
        source, output, "--runner=DirectRunner", f"--beam_pipeline_options={','.join(TWO_PROCESSES)}"
    )

    def outcomes() -> set[str]:
        return {path.stem for path in work.glob("[0-9a-f]" * 32 + ".json")}

    wait_for(process, lambda: len(outcomes()) >= 3)
    os.killpg(process.pid, signal.SIGKILL)  # the driver and its workers
    process.wait()
    assert sorted(path.name for path in output.iterdir()) == [".lock", ".work"]
    ready = outcomes()
    assert 3 <= len(ready) < 27, "killed too late to show anything"
    asked: list[list[str]] = []
    for_each = beam_runner.for_each

    def counting(function, items, label, *rest) -> None:
        if label == "preparing":
            asked.append([item.key for item in items])
        for_each(function, items, label, *rest)

    monkeypatch.setattr(beam_runner, "for_each", counting)
    request = Request("folder", source, output, 64, runner="DirectRunner")
    prepare(request)
    assert len(asked[0]) == 27 - len(ready) and not ready & set(asked[0])
    prepare(request._replace(output=tmp_path / "straight", runner="local"))
    assert outputs(output) == outputs(tmp_path / "straight")


def fail(task: pool.Task) -> None:
    raise OSError(28, "No space left on device", task.path)


def test_a_failed_pipeline_is_one_line_that_says_how_to_go_on(tmp_path: Path) -> None:
    options = beam_runner.options_of("DirectRunner", ())
    results = beam_runner.Results(tmp_path, ".json")
    with pytest.raises(UserError, match="No space left.*same command again.*--runner=local") as failure:
        beam_runner.for_each(fail, [pool.Task("a", "b")], "preparing", "img", options, tmp_path, results)
    assert "\n" not in str(failure.value)
    with pytest.raises(UserError, match="--runner=Nowhere"):
        beam_runner.options_of("Nowhere", ())


def test_a_worker_without_the_folder_rejects_nothing(tmp_path: Path) -> None:
    worker = beam_runner._Apply(fail, pool.Task, str(tmp_path / "items.jsonl"))
    with pytest.raises(RuntimeError, match="does not see .*items.jsonl"):
        worker.setup()


def test_options_as_a_user_of_beam_writes_them() -> None:
    made = beam_runner.options_of("DirectRunner", (*TWO_PROCESSES, "--job_name=eyes")).get_all_options()
    assert (made["direct_num_workers"], made["direct_running_mode"]) == (2, "multi_processing")
    assert (made["runner"], made["job_name"]) == ("DirectRunner", "eyes")


def test_progress_counts_what_is_whole(tmp_path: Path) -> None:
    results = beam_runner.Results(tmp_path / "absent", ".json")
    assert results.number() == 0
    for name in ("a.json", "b.json", ".c.tmp.json", "d.png"):
        (tmp_path / name).touch()
    assert beam_runner.Results(tmp_path, ".json").number() == 2
