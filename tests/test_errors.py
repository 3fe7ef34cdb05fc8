"""A user's mistake is one line on stderr and exit code 2; a defect of ours keeps its traceback."""

import subprocess
import sys
from pathlib import Path

import pytest

from fundusgan_jax.errors import UserError, run_door


def test_a_mistake_is_one_line(capsys: pytest.CaptureFixture[str]) -> None:
    def door() -> int:
        raise UserError("photo.png is empty;\n   give another")

    assert run_door(door) == 2
    assert capsys.readouterr().err == "error: photo.png is empty; give another\n"


def test_success_and_exit_codes_pass_through() -> None:
    assert run_door(lambda: None) == 0 and run_door(lambda: 1) == 1


def test_other_errors_are_not_hidden() -> None:
    with pytest.raises(ZeroDivisionError):
        run_door(lambda: 1 // 0)


def test_ctrl_c_is_no_traceback(capsys: pytest.CaptureFixture[str]) -> None:
    def door() -> int:
        raise KeyboardInterrupt

    assert run_door(door) == 130
    assert capsys.readouterr().err.strip() == "interrupted"


def test_a_closed_pipe_is_no_traceback() -> None:
    root = Path(__file__).resolve().parents[1]
    code = "from fundusgan_jax.errors import run_door\nrun_door(lambda: [print('x' * 1000) for _ in range(1000)] and 0)"
    words = f'{sys.executable} -c "{code}" | head -1'
    answer = subprocess.run(words, shell=True, cwd=root, capture_output=True, text=True, timeout=60)
    assert len(answer.stdout.splitlines()) == 1 and answer.stderr == ""
