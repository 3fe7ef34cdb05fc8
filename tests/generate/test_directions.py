"""directions.npz: written and read again, refused where it is of another model, and what an edit is asked for."""

import numpy as np
import pytest

from fundusgan_jax.errors import UserError
from fundusgan_jax.generate.directions import (
    FILE,
    Direction,
    direction_named,
    read_directions,
    write_directions,
)
from fundusgan_jax.generate.recipes import recipe_edit
from fundusgan_jax.generate.request import Request, check_request

VECTOR = np.zeros((4, 3), np.float32)
VECTOR[1:3] = 2
ONE = Direction("green", VECTOR, "supervised", {"green": 0.5}, True, 0.9)
TWO = Direction("pca_fine_1", VECTOR[::-1], "principal", {}, False, float("nan"))


def test_directions_are_read_as_they_were_written(tmp_path):
    write_directions(tmp_path, 7, [ONE, TWO])
    step, found = read_directions(tmp_path, (4, 3))
    assert step == 7 and list(found) == ["green", "pca_fine_1"]
    np.testing.assert_array_equal(found["green"].vector, VECTOR)
    assert found["green"]._replace(vector=None) == ONE._replace(vector=None)
    assert found["green"].layers == [1, 2] and np.isnan(found["pca_fine_1"].vessel_overlap)


def test_what_does_not_fit_is_one_line(tmp_path, capsys):
    with pytest.raises(UserError, match="has no directions.npz"):
        read_directions(tmp_path, (4, 3))
    write_directions(tmp_path, 7, [ONE, TWO])
    with pytest.raises(UserError, match=r"this model's w\+ is \(4, 5\)"):
        read_directions(tmp_path, (4, 5))
    with pytest.raises(UserError, match="did you mean green"):
        direction_named(tmp_path, (4, 3), "gren", 7)
    with pytest.raises(UserError, match="there are green, pca_fine_1"):
        direction_named(tmp_path, (4, 3), "zzz", 7)
    direction_named(tmp_path, (4, 3), "green", 7)
    assert capsys.readouterr().out == ""
    direction_named(tmp_path, (4, 3), "pca_fine_1", 8)
    shown = capsys.readouterr().out
    assert "measured on step 7, this is step 8" in shown and "nothing beyond chance" in shown
    (tmp_path / FILE).write_bytes(b"no archive")
    with pytest.raises(UserError, match="is damaged"):
        read_directions(tmp_path, (4, 3))


def test_an_edit_adds_the_offset_to_every_photograph():
    class Split:
        images = np.zeros((5, 8, 8, 3), np.uint8)

    recipe = recipe_edit(Split, 3, 4, 0, -1.5 * VECTOR)
    w_plus = np.random.default_rng(0).standard_normal((3, 4, 3)).astype(np.float32)
    np.testing.assert_array_equal(recipe.w_plus(np.arange(3), w_plus, w_plus), w_plus - 1.5 * VECTOR)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"method": "edit", "amount": 1.0}, "needs --direction"),
        ({"method": "edit", "direction": "a"}, "--amount=None"),
        ({"method": "edit", "direction": "a", "amount": float("nan")}, "--amount=nan"),
        ({"method": "mix", "direction": "a"}, "go with --method=edit"),
        ({"amount": 1.0}, "go with --method=edit"),
    ],
)
def test_an_edit_needs_a_direction_and_an_amount(tmp_path, changes, message):
    with pytest.raises(UserError, match=message):
        check_request(Request(tmp_path, **changes))
    check_request(Request(tmp_path, method="edit", direction="a", amount=0.0, input=tmp_path))
