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


def record(path: str) -> None:
    """Appends to PATH, per step and process: the numbers of its samples and a checksum of each image."""
    run = StepPrograms.run

    def recorded(self, call, state, batches):
        with open(path, "a") as file:
            for batch in batches:
                rows = {
                    "process": jax.process_index(),
                    "sample": np.asarray(batch.sample).tolist(),
                    "image": [zlib.crc32(np.ascontiguousarray(image).tobytes()) for image in batch.image],
                }
                file.write(json.dumps(rows) + "\n")
        return run(self, call, state, batches)

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
