"""Progress counts, rates and time left."""

import pytest

from fundusgan_jax import progress
from fundusgan_jax.progress import Progress, format_seconds, waiting


@pytest.mark.parametrize(
    ("seconds", "text"),
    [
        (-1, "0 s"),
        (59.4, "59 s"),
        (60, "1 min 00 s"),
        (185, "3 min 05 s"),
        (7620, "2 h 07 min"),
        (3599.7, "1 h 00 min"),
    ],
)
def test_format_seconds(seconds: float, text: str) -> None:
    assert format_seconds(seconds) == text


def test_rate_leaves_out_what_was_done_before(monkeypatch, capsys) -> None:
    now = [100.0]
    monkeypatch.setattr(progress.time, "monotonic", lambda: now[0])
    shown = Progress(100, "img", "training", done=40)
    now[0] += 10.0
    shown.update(20, "step 3")
    assert capsys.readouterr().err == "training: 60/100 (60 %), 2 img/s, 20 s left | step 3\n"
    now[0] += 1.0
    shown.update(1)
    assert capsys.readouterr().err == ""
    shown.close()
    assert "61/100" in capsys.readouterr().err


def test_a_log_is_told_what_begins_and_not_told_twice_what_is_done(monkeypatch, capsys) -> None:
    now = [100.0]
    monkeypatch.setattr(progress.time, "monotonic", lambda: now[0])
    shown = Progress(1, "programs", "compiling")
    shown.begin()
    now[0] += 20.0
    shown.update()
    shown.close()
    assert capsys.readouterr().err.splitlines() == [
        "compiling: 0/1 (0 %)", "compiling: 1/1 (100 %), 20 s/program, 0 s left"
    ]  # fmt: skip


def test_the_last_note_stands_in_every_line(monkeypatch, capsys) -> None:
    now = [100.0]
    monkeypatch.setattr(progress.time, "monotonic", lambda: now[0])
    shown = Progress(100, "img", "training")
    shown.update(0, "step 3 loss 0.5")
    now[0] += 10.0
    shown.update(50)
    now[0] += 10.0
    shown.update(10)
    assert [line.split(" | ")[1] for line in capsys.readouterr().err.splitlines()] == ["step 3 loss 0.5"] * 2


def test_what_takes_long_says_for_how_long_and_only_the_innermost_speaks(monkeypatch, capsys) -> None:
    now = [100.0]
    monkeypatch.setattr(progress.time, "monotonic", lambda: now[0])
    outer, inner = Progress(8, "img", "training"), Progress(1, "programs", "compiling")
    outer.begin()
    inner.begin("HINT")
    capsys.readouterr()
    now[0] += 7.0
    outer.tick()
    inner.tick()
    assert capsys.readouterr().err == "compiling: 0/1 (0 %), for 7 s | HINT\n"
    inner.close()
    capsys.readouterr()
    outer.tick()
    assert capsys.readouterr().err == "training: 0/8 (0 %), for 7 s\n"
    outer.close()


def test_time_that_is_left_out_does_not_count_in_the_rate(monkeypatch, capsys) -> None:
    now = [100.0]
    monkeypatch.setattr(progress.time, "monotonic", lambda: now[0])
    shown = Progress(100, "img", "training")
    now[0] += 60.0
    shown.leave_out(50.0)
    shown.update(20)
    assert "2 img/s, 40 s left" in capsys.readouterr().err


def test_waiting_is_silent_where_it_is_short(capsys) -> None:
    with waiting("starting"):
        pass
    assert capsys.readouterr().err == ""
