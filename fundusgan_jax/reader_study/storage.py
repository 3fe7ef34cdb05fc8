"""The answers' database: rows are added, never changed; an acknowledged row is on the disk."""

from __future__ import annotations

import json
import queue
import sqlite3
import threading
from collections.abc import Callable
from concurrent.futures import Future
from pathlib import Path
from typing import Any, NamedTuple

from fundusgan_jax.errors import UserError

TABLES = """
CREATE TABLE IF NOT EXISTS designs (sha256 TEXT PRIMARY KEY, margin REAL NOT NULL, time REAL NOT NULL, settings TEXT NOT NULL);
CREATE TABLE IF NOT EXISTS consents (reader INTEGER PRIMARY KEY, time REAL NOT NULL, text_sha256 TEXT NOT NULL,
    answers TEXT NOT NULL);
CREATE TABLE IF NOT EXISTS views (reader INTEGER NOT NULL, image TEXT NOT NULL, time REAL NOT NULL, detail TEXT NOT NULL);
CREATE TABLE IF NOT EXISTS answers (reader INTEGER NOT NULL, image TEXT NOT NULL, position INTEGER NOT NULL,
    answer TEXT NOT NULL CHECK (answer IN ('real', 'synthetic')), client_ms REAL NOT NULL, hidden_ms REAL NOT NULL,
    server_ms REAL, views INTEGER NOT NULL, time REAL NOT NULL, detail TEXT NOT NULL, UNIQUE (reader, image));
CREATE INDEX IF NOT EXISTS views_of ON views (reader, image);
"""
# REPLACE would remove a row without asking the trigger against DELETE: hence the one against a second INSERT.
TRIGGERS = """
CREATE TRIGGER IF NOT EXISTS {table}_no_update BEFORE UPDATE ON {table}
    BEGIN SELECT RAISE(ABORT, 'rows of {table} are never changed'); END;
CREATE TRIGGER IF NOT EXISTS {table}_no_delete BEFORE DELETE ON {table}
    BEGIN SELECT RAISE(ABORT, 'rows of {table} are never removed'); END;
"""
ONCE = """
CREATE TRIGGER IF NOT EXISTS {table}_once BEFORE INSERT ON {table} WHEN EXISTS (SELECT 1 FROM {table} WHERE {same})
    BEGIN SELECT RAISE(ABORT, 'already there'); END;
"""
KEYS = {
    "designs": "sha256 = NEW.sha256",
    "consents": "reader = NEW.reader",
    "answers": "reader = NEW.reader AND image = NEW.image",
}
MOST_TOGETHER = 256  # rows that one commit takes

Job = Callable[[sqlite3.Connection], Any]


def connect(path: Path) -> sqlite3.Connection:
    """A connection in autocommit mode whose commits survive a power failure.

    Raises:
        UserError: the file cannot be opened or is no database.
    """
    try:
        connection = sqlite3.connect(path, isolation_level=None, check_same_thread=False, timeout=5.0)
        connection.execute("PRAGMA journal_mode=WAL")
        connection.execute("PRAGMA synchronous=FULL")
        connection.execute("PRAGMA busy_timeout=5000")
        connection.executescript(
            TABLES
            + "".join(TRIGGERS.format(table=table) for table in (*KEYS, "views"))
            + "".join(ONCE.format(table=table, same=same) for table, same in KEYS.items())
        )
    except sqlite3.Error as error:
        raise UserError(
            f"{path} cannot be used ({error}); it must lie on a local disk that can be written"
        ) from error
    return connection


class Writer:
    """One thread that writes: jobs that wait for each other's disk share one commit, and are answered after it."""

    def __init__(self, path: Path) -> None:
        self._connection = connect(path)
        self._jobs: queue.SimpleQueue[tuple[Job, Future[Any]] | None] = queue.SimpleQueue()
        self._thread = threading.Thread(target=self._work, name="answers", daemon=True)
        self._thread.start()

    def submit(self, job: Job) -> Future[Any]:
        """What `job` returns, once it is on the disk; its exception, and nothing written, where it raises."""
        future: Future[Any] = Future()
        self._jobs.put((job, future))
        return future

    def close(self) -> None:
        """Finishes what was submitted."""
        self._jobs.put(None)
        self._thread.join()
        self._connection.close()

    def _work(self) -> None:
        while True:
            batch = [self._jobs.get()]
            while len(batch) < MOST_TOGETHER and batch[-1] is not None and not self._jobs.empty():
                batch.append(self._jobs.get())
            jobs = [entry for entry in batch if entry is not None]
            if jobs:
                self._commit(jobs)
            if batch[-1] is None:
                return

    def _commit(self, jobs: list[tuple[Job, Future[Any]]]) -> None:
        outcomes: list[tuple[Future[Any], Any, BaseException | None]] = []
        try:
            self._connection.execute("BEGIN IMMEDIATE")
            for job, future in jobs:
                outcomes.append((future, *self._one(job)))
            self._connection.execute("COMMIT")
        except sqlite3.Error as error:  # disk full, locked: nothing of the batch is there
            if self._connection.in_transaction:
                self._connection.execute("ROLLBACK")
            for _, future in jobs:
                future.set_exception(error)
            return
        for future, value, failure in outcomes:
            if failure is not None:
                future.set_exception(failure)
            else:
                future.set_result(value)

    def _one(self, job: Job) -> tuple[Any, BaseException | None]:
        self._connection.execute("SAVEPOINT job")
        try:
            value = job(self._connection)
        except Exception as error:  # belongs to who asked, not to the others of the batch
            self._connection.execute("ROLLBACK TO job")
            self._connection.execute("RELEASE job")
            return None, error
        self._connection.execute("RELEASE job")
        return value, None


class Answer(NamedTuple):
    """One answer as it came. client_ms: by the browser, from the first painted frame. hidden_ms: of them with the page
    hidden. detail: screen, zoom and the like."""

    reader: int
    image: str
    position: int
    answer: str
    client_ms: float
    hidden_ms: float
    detail: dict[str, Any]


def add_answer(connection: sqlite3.Connection, answer: Answer, now: float) -> bool:
    """Adds an answer; False, and nothing changes, where the reader has answered that image."""
    same = (answer.reader, answer.image)
    if connection.execute("SELECT 1 FROM answers WHERE reader = ? AND image = ?", same).fetchone():
        return False
    views, last = connection.execute(
        "SELECT COUNT(*), MAX(time) FROM views WHERE reader = ? AND image = ?", same
    ).fetchone()
    server_ms = None if last is None else 1000 * (now - last)
    connection.execute(
        "INSERT INTO answers VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?, ?)",
        (*answer[:6], server_ms, views, now, json.dumps(answer.detail, sort_keys=True)),
    )
    return True


def add_view(
    connection: sqlite3.Connection, reader: int, image: str, detail: dict[str, Any], now: float
) -> None:
    """Notes that a picture was painted."""
    connection.execute(
        "INSERT INTO views VALUES (?, ?, ?, ?)", (reader, image, now, json.dumps(detail, sort_keys=True))
    )


def add_consent(
    connection: sqlite3.Connection, reader: int, text_sha256: str, answers: dict[str, str], now: float
) -> bool:
    """Notes a consent and the answers to its questions; False where there is one."""
    if connection.execute("SELECT 1 FROM consents WHERE reader = ?", (reader,)).fetchone():
        return False
    connection.execute(
        "INSERT INTO consents VALUES (?, ?, ?, ?)", (reader, now, text_sha256, json.dumps(answers))
    )
    return True


def add_design(connection: sqlite3.Connection, sha256: str, settings: dict[str, Any], now: float) -> bool:
    """Notes the design that readers are served; False where it was noted before."""
    if connection.execute("SELECT 1 FROM designs WHERE sha256 = ?", (sha256,)).fetchone():
        return False
    connection.execute(
        "INSERT INTO designs VALUES (?, ?, ?, ?)", (sha256, settings["margin"], now, json.dumps(settings))
    )
    return True


def answered(connection: sqlite3.Connection, reader: int) -> set[str]:
    """The images that a reader has answered."""
    lines = connection.execute("SELECT image FROM answers WHERE reader = ?", (reader,))
    return {image for (image,) in lines}
