"""The command with a record of what each step saw: python -m tests.support.recorded_main RECORD FLAGS (a test's stand-in for -m fundusgan_jax.main).

Where the file RECORD.long is there, an evaluation takes five minutes, and RECORD.begun says that it is under way.
"""

import json
import sys
import time
import zlib
from pathlib import Path

import jax
import numpy as np

from fundusgan_jax import main
from fundusgan_jax.errors import run_door
from fundusgan_jax.evaluate.stop import stoppable
from fundusgan_jax.train.phase_programs import StepPrograms
from fundusgan_jax.train.prior_task import PriorTask


def local_rows(x: jax.Array) -> np.ndarray:
    """This process's rows of an array that is split over the devices."""
    shards = sorted(x.addressable_shards, key=lambda shard: shard.index[0].start or 0)
    return np.concatenate([shard.data for shard in shards])


def record(path: str) -> None:
    """Appends to PATH, per step and process: the numbers of its samples and a checksum of each image."""
    run = StepPrograms.run

    def recorded(self, call, state, batch):
        sample, flip, images = map(local_rows, (batch.sample, batch.flip, batch.photographs.image))
        seen = [np.where(mirrored, image[:, ::-1], image) for mirrored, image in zip(flip, images)]
        rows = {
            "process": jax.process_index(),
            "sample": sample.tolist(),
            "image": [zlib.crc32(np.ascontiguousarray(image).tobytes()) for image in seen],
        }
        with open(path, "a") as file:
            file.write(json.dumps(rows) + "\n")
        return run(self, call, state, batch)

    StepPrograms.run = recorded


def lengthen(path: str) -> None:
    evaluate = PriorTask.evaluate

    def long(self, number, state, should_stop):
        if Path(f"{path}.long").exists():
            Path(f"{path}.begun").touch()
            for _ in stoppable(range(300), should_stop):
                time.sleep(1)
        return evaluate(self, number, state, should_stop)

    PriorTask.evaluate = long


if __name__ == "__main__":
    record(sys.argv[1])
    lengthen(sys.argv[1])
    sys.exit(run_door(lambda: main.main(sys.argv[2:])))
