"""data/prepare/summary.py: what the command says of the files that it leaves out."""

from __future__ import annotations

import pytest

from fundusgan_jax.data.prepare.summary import NAMED_REASONS, describe_rejected


def test_reasons_beyond_the_commonest_are_counted_in_one_line(capsys: pytest.CaptureFixture) -> None:
    kinds = [f"kind {chr(ord('a') + number)}" for number in range(NAMED_REASONS + 3)]
    reasons = [kind for number, kind in enumerate(reversed(kinds), 1) for _ in range(number)]
    describe_rejected([*reasons, "duplicate of a.png", "duplicate of b.png"])
    lines = capsys.readouterr().out.splitlines()
    assert len(lines) == NAMED_REASONS + 1 and lines[0] == f"  {len(kinds)} x kind a"
    assert sum(int(line.split()[0]) for line in lines) == len(reasons) + 2
    assert lines[-1].endswith("x 4 other reasons, in rejected.csv")
    describe_rejected(["a: 1", "a: 2", "b"])
    assert capsys.readouterr().out.splitlines() == ["  2 x a", "  1 x b"]
