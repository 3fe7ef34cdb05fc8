"""What a study's folder was begun with: written once, compared with at every start."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from fundusgan_jax.atomic import atomic_write
from fundusgan_jax.errors import UserError


def check_record(path: Path, record: Mapping[str, Any], later: Sequence[str] = ()) -> None:
    """Writes `record` to `path`, or compares it with what is there.

    Args:
        later: names that may have other values as long as the first of them was left empty.

    Raises:
        UserError: the folder holds a study with another value of one of the record's names; or a damaged file.
    """
    before = read_record(path) if path.exists() else {}
    free = later if later and not before.get(later[0]) else ()
    changed = [name for name, value in record.items() if name not in free and before.get(name) != value]
    if before and changed:
        raise UserError(
            f"{path.parent} holds a study with {changed[0]}={before.get(changed[0])}, this one has {record[changed[0]]}; name "
            "another --workdir"
        )
    if before != record:
        with atomic_write(path) as temporary:
            temporary.write_text(json.dumps(record, indent=1) + "\n")


def read_record(path: Path) -> dict[str, Any]:
    """A JSON object; UserError where it is damaged."""
    try:
        return dict(json.loads(path.read_text()))
    except ValueError as error:
        raise UserError(f"{path} is damaged; delete it and run the same command again") from error
