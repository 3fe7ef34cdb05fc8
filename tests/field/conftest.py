"""The bench on which the field's inputs are run, and the table at the end."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.support.field import ROWS, Bench


@pytest.fixture
def bench(tmp_path: Path) -> Bench:
    return Bench(tmp_path, tmp_path)


@pytest.fixture(scope="package", autouse=True)
def table() -> Iterator[None]:
    yield
    for name, right, happened in sorted(ROWS):
        print(f"{'right' if right else 'WRONG'} | {name} | {happened}")
