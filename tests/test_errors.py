"""A user's mistake is one line on stderr and exit code 2; a defect of ours keeps its traceback."""

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
