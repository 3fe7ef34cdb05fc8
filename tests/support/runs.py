"""What a finished run left, as tests compare it."""

import json

from fundusgan_jax.workdir.checkpoint import Checkpoints


def rows_without_rate(workdir):
    """metrics.jsonl without what differs between two equal runs."""
    rows = [json.loads(line) for line in (workdir / "metrics.jsonl").read_text().splitlines()]
    return [{name: value for name, value in row.items() if name != "img_per_sec"} for row in rows]


def arrays_of(workdir, step):
    """Every array of a checkpoint by name."""
    checkpoints = Checkpoints(workdir, 3, "any", "max", 1, read_only=True)
    arrays = checkpoints.raw(step)
    checkpoints.close()
    return arrays
