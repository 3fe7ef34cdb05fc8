"""The answers' file: rows are added and never changed, by whatever statement; what shares a commit fails alone."""

import sqlite3

import pytest

from fundusgan_jax.reader_study.storage import (
    Answer,
    Writer,
    add_answer,
    add_consent,
    add_view,
    answered,
    connect,
)

ANSWER = Answer(1, "a", 0, "real", 1500.0, 0.0, {"zoom": 1})


@pytest.fixture
def writer(tmp_path):
    writer = Writer(tmp_path / "answers.sqlite3")
    yield writer
    writer.close()


def add(writer, answer, now=10.0):
    return writer.submit(lambda connection: add_answer(connection, answer, now)).result()


@pytest.mark.parametrize(
    "statement",
    [
        "UPDATE answers SET answer = 'synthetic'",
        "DELETE FROM answers",
        "INSERT OR REPLACE INTO answers SELECT reader, image, position, 'synthetic', client_ms, hidden_ms, server_ms, views, time, detail FROM answers",
        "INSERT INTO answers SELECT * FROM answers",
        "REPLACE INTO consents SELECT reader, 0, text_sha256, answers FROM consents",
        "DELETE FROM consents",
        "UPDATE views SET time = 0",
        "DELETE FROM views",
    ],
)
def test_no_statement_changes_a_row(tmp_path, writer, statement):
    add(writer, ANSWER)
    writer.submit(lambda connection: add_consent(connection, 1, "x", {}, 1.0)).result()
    writer.submit(lambda connection: add_view(connection, 1, "a", {}, 1.0)).result()
    other = sqlite3.connect(tmp_path / "answers.sqlite3", isolation_level=None)
    before = [list(other.execute(f"SELECT * FROM {table}")) for table in ("answers", "consents", "views")]
    with pytest.raises(sqlite3.IntegrityError):
        other.execute(statement)
    assert before == [
        list(other.execute(f"SELECT * FROM {table}")) for table in ("answers", "consents", "views")
    ]


def test_a_second_answer_changes_nothing(writer):
    assert add(writer, ANSWER) is True
    assert add(writer, ANSWER._replace(answer="synthetic")) is False
    lines = writer.submit(
        lambda c: c.execute("SELECT reader, image, answer FROM answers").fetchall()
    ).result()
    assert lines == [(1, "a", "real")]


def test_server_time_counts_from_the_last_view(writer):
    for now in (5.0, 8.0):
        writer.submit(lambda connection, now=now: add_view(connection, 1, "a", {}, now)).result()
    add(writer, ANSWER, 10.0)
    line = writer.submit(lambda c: c.execute("SELECT server_ms, views FROM answers").fetchone()).result()
    assert line == (2000.0, 2)


def test_jobs_of_one_commit_fail_alone(tmp_path, writer):
    wrong = ANSWER._replace(image="b", answer="perhaps")
    jobs = [ANSWER, wrong, ANSWER._replace(image="c")]
    futures = [writer.submit(lambda connection, job=job: add_answer(connection, job, 1.0)) for job in jobs]
    assert futures[0].result() and futures[2].result()
    with pytest.raises(sqlite3.IntegrityError):
        futures[1].result()
    assert answered(connect(tmp_path / "answers.sqlite3"), 1) == {"a", "c"}


def test_commits_reach_the_disk(tmp_path):
    connection = connect(tmp_path / "answers.sqlite3")
    assert connection.execute("PRAGMA journal_mode").fetchone() == ("wal",)
    assert connection.execute("PRAGMA synchronous").fetchone() == (2,)  # FULL
