"""Shards: TFDS' order and cuts, the same bytes from every process, nothing half-written."""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import tensorflow_datasets as tfds
from PIL import Image
from tensorflow_datasets.core.utils import shard_utils

from fundusgan_jax.data.prepare import builders
from fundusgan_jax.data.prepare.shards import Layout, Record, Shard, features_of, plan_shards, write_shard

ROOT = Path(__file__).resolve().parents[3]
LAYOUT = Layout(16, ("a", "b", "c"), False, "array_record")


@pytest.fixture
def records(tmp_path: Path) -> list[Record]:
    """Noise, named and labelled; every fourth photograph is a test one."""
    rng = np.random.default_rng(0)
    made = []
    for number in range(40):
        png = tmp_path / f"{number}.png"
        Image.fromarray(rng.integers(0, 256, (16, 16, 3), np.uint8)).save(png)
        split = "test" if number % 4 == 0 else "train"
        made.append(Record(str(png), f"é/{number}.jpg", number % 3, f"p{number}", "left", split))
    return made


class Reference(tfds.core.GeneratorBasedBuilder, skip_registration=True):
    """The same records, shuffled, cut and written by TFDS alone."""

    VERSION = tfds.core.Version("1.0.0")
    code_path = None
    records: list[Record] = []

    def _info(self) -> tfds.core.DatasetInfo:
        return self.dataset_info_from_configs(features=features_of(LAYOUT))

    def _split_generators(self, dl_manager: Any) -> dict[str, Iterator]:
        return {split: self._generate_examples(split) for split in ("test", "train")}

    def _generate_examples(self, split: str) -> Iterator[tuple[str, dict[str, Any]]]:
        for record in self.records:
            if record.split == split:
                example = record._asdict()
                example["image"] = Path(example.pop("png")).read_bytes()
                yield record.file, example


def rows(builder: Any, split: str) -> list[dict[str, Any]]:
    return [
        {name: np.asarray(value).tolist() for name, value in row.items()}
        for row in builder.as_data_source(split)
    ]


def test_order_and_cuts_are_those_of_the_library(
    tmp_path: Path, records: list[Record], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(shard_utils.ShardConfig, "min_shard_size", 5_000)
    planned = plan_shards(records, LAYOUT, tmp_path / "shards")
    assert {name: len(shards) for name, shards in planned.items()} == {"test": 1, "train": 4}
    for shards in planned.values():
        for shard in shards:
            write_shard(shard, LAYOUT)
    config = builders.FundusConfig(name="16px", layout=LAYOUT, shards=planned)
    ours = tfds.builder_from_directory(str(builders.build("folder", tmp_path / "ours", config)))
    monkeypatch.setattr(Reference, "records", records)
    theirs = Reference(data_dir=tmp_path / "theirs")
    theirs.download_and_prepare(
        file_format="array_record", download_config=tfds.download.DownloadConfig(try_download_gcs=False)
    )
    for split in ("test", "train"):
        assert ours.info.splits[split].shard_lengths == theirs.info.splits[split].shard_lengths
        assert rows(ours, split) == rows(theirs, split)


def test_every_process_writes_the_same_bytes(tmp_path: Path, records: list[Record]) -> None:
    shard = plan_shards(records, LAYOUT, tmp_path / "shards")["train"][0]
    write_shard(shard, LAYOUT)
    before = Path(shard.path).read_bytes()
    other = shard._replace(path=str(tmp_path / "other.array_record"))
    code = (
        "import json, sys; from fundusgan_jax.data.prepare.shards import Layout, Shard, write_shard; "
        "shard, layout = json.loads(sys.argv[1]); write_shard(Shard(*shard), Layout(*layout))"
    )
    subprocess.run([sys.executable, "-c", code, json.dumps([other, LAYOUT])], cwd=ROOT, check=True)
    assert Path(other.path).read_bytes() == before


def test_a_shard_is_named_by_its_content_and_never_half_there(tmp_path: Path, records: list[Record]) -> None:
    shard = plan_shards(records, LAYOUT, tmp_path / "shards")["test"][0]
    assert plan_shards(records[::-1], LAYOUT, tmp_path / "shards")["test"][0] == shard
    relabelled = [record._replace(label=0) for record in records]
    assert plan_shards(relabelled, LAYOUT, tmp_path / "shards")["test"][0].path != shard.path
    Path(json.loads(Path(shard.records).read_text().splitlines()[-1])[0]).unlink()  # the last photograph
    with pytest.raises(Exception, match="No such file"):
        write_shard(Shard(*shard), LAYOUT)
    assert [path.suffix for path in (tmp_path / "shards").iterdir()] == [".jsonl"] * 4
