"""answers.csv: what is read, and which line a mistake is in."""

import numpy as np
import pytest

from fundusgan_jax.errors import UserError
from fundusgan_jax.reader_study.answers import read_answers, write_table

HEAD = "reader,group,image,truth,answer,seconds\n"


def read(tmp_path, text):
    (tmp_path / "answers.csv").write_text(text, encoding="utf-8-sig")
    return read_answers(tmp_path / "answers.csv")


def test_values(tmp_path):
    lines = "a,resident,1,real,Real,3.5\nb,retina,1,real,synthetic,\na,resident,2,synthetic,real,1\n"
    answers = read(tmp_path, HEAD + lines)
    assert (answers.readers, answers.images) == (("a", "b"), ("1", "2"))
    np.testing.assert_array_equal(answers.truth, [True, False])
    np.testing.assert_array_equal(answers.correct, [True, False, False])
    np.testing.assert_array_equal(answers.matrix(answers.correct.astype(float)), [[1, 0], [0, np.nan]])
    np.testing.assert_array_equal(answers.seconds, [3.5, np.nan, 1])
    assert answers.columns == {"group": ("resident", "retina")}


@pytest.mark.parametrize(
    ("lines", "message"),
    [
        ("a,g,1,real,maybe,1\n", "line 2: answer is 'maybe'"),
        ("a,g,1,real,real,1\nb,g,1,synthetic,real,1\n", "line 3: image 1 is real in one line"),
        ("a,g,1,real,real,1\na,g,1,real,synthetic,1\n", "line 3: reader a answered image 1 twice"),
        ("a,g,1,real,real,1\na,h,2,real,real,1\n", "line 3: reader a is 'g' and 'h' in column group"),
        ("a,g,1,real,real,-2\n", "line 2: seconds is '-2'"),
        (",g,1,real,real,2\n", "line 2: reader is empty"),
        ("", "holds no answers"),
    ],
)
def test_mistakes_are_named_by_their_line(tmp_path, lines, message):
    with pytest.raises(UserError, match=message):
        read(tmp_path, HEAD + lines)


def test_missing_column_and_file(tmp_path):
    with pytest.raises(UserError, match="no column truth"):
        read(tmp_path, "reader,image,answer\n1,2,real\n")
    with pytest.raises(UserError, match="cannot be read"):
        read_answers(tmp_path / "none.csv")


def test_tables_run_no_formula(tmp_path):
    write_table(tmp_path / "t.csv", [{"name": "=1+1", "value": 0.25}, {"name": "b", "more": float("nan")}])
    assert (tmp_path / "t.csv").read_text() == "name,value,more\n'=1+1,0.25,\nb,,\n"
