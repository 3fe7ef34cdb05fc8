"""A study's folder: what is in it, how it is read, and the signed links of its readers.

study.json      the design: order, settings, questions; what may be edited before the first answer
text.json       every word on the pages, to be edited or translated before the first answer
images/         the pictures, by opaque names, all of one length
readers.csv     each reader's number and groups      links.csv   names and signed links: the organiser's
truth.csv       which picture is real: read by `analyse` alone, the server never opens it
secret.key      what links and names are signed with
answers.sqlite3 consents, views, answers
"""

from __future__ import annotations

import base64
import csv
import datetime
import hashlib
import hmac
import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any, NamedTuple

from fundusgan_jax.errors import UserError

STUDY, TEXT, TRUTH, READERS, LINKS = "study.json", "text.json", "truth.csv", "readers.csv", "links.csv"
SECRET, DATABASE, IMAGES = "secret.key", "answers.sqlite3", "images"
LINK, SESSION, ADMIN = "link", "session", "admin"
DEFAULT_TEXT = Path(__file__).with_name("text_en.json")
# What the design is checked against after the first answer: all that decides what readers see or what is tested.
FIXED = ("images", "practice", "sha256", "margin", "questions", "side", "largest_zoom", "seed")


class Reader(NamedTuple):
    """number: 1, 2, ... columns: what is known of them beforehand (group, years, ...); no name."""

    number: int
    columns: dict[str, str]


class Study(NamedTuple):
    """A study without its truth. settings: study.json. text: text.json. secret: the key."""

    folder: Path
    settings: dict[str, Any]
    text: dict[str, str]
    readers: dict[int, Reader]
    secret: bytes

    @property
    def order(self) -> list[str]:
        """Practice images, then the study's, by their names."""
        return [*self.settings["practice"], *self.settings["images"]]

    def until(self) -> float:
        """Unix time after which nothing is taken: the end of the last day, UTC."""
        day = datetime.date.fromisoformat(self.settings["until"]) + datetime.timedelta(days=1)
        return datetime.datetime(day.year, day.month, day.day, tzinfo=datetime.UTC).timestamp()

    def fixed(self) -> str:
        """SHA-256 of what must not change once readers have begun."""
        parts = {name: self.settings[name] for name in FIXED} | {"text": self.text}
        return hashlib.sha256(json.dumps(parts, sort_keys=True).encode()).hexdigest()


def read_json(path: Path) -> Any:
    """A JSON file; UserError where it is missing or damaged."""
    try:
        return json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise UserError(f"{path} is missing or damaged ({error}); name a folder that create wrote") from error


def read_lines(path: Path) -> list[dict[str, str]]:
    """The lines of a CSV file below its first; UserError where it cannot be read."""
    try:
        with open(path, newline="", encoding="utf-8-sig") as handle:
            return [
                {name.strip(): (value or "").strip() for name, value in line.items() if isinstance(name, str)}
                for line in csv.DictReader(handle)
            ]
    except (OSError, UnicodeDecodeError, csv.Error) as error:
        raise UserError(f"{path} cannot be read ({error}); give a CSV file in UTF-8") from error


def open_study(folder: Path) -> Study:
    """Reads a study, without its truth.

    Raises:
        UserError: a file is missing or damaged, or a setting makes no sense.
    """
    settings, text = read_json(folder / STUDY), read_json(folder / TEXT)
    for name in (*FIXED, "until", "address", "title", "smallest_screen"):
        if name not in settings:
            raise UserError(
                f"{folder / STUDY} has no '{name}'; restore it from a copy or create the study anew"
            )
    missing = sorted(set(read_json(DEFAULT_TEXT)) - set(text))
    if missing:
        raise UserError(
            f"{folder / TEXT} has no '{missing[0]}'; translate every entry, add none, remove none"
        )
    try:
        datetime.date.fromisoformat(settings["until"])
    except (TypeError, ValueError) as error:
        raise UserError(f"{folder / STUDY}: until is '{settings['until']}'; write 2027-02-28") from error
    if not 0 < float(settings["margin"]) < 0.5:
        raise UserError(f"{folder / STUDY}: margin is {settings['margin']}; it must lie between 0 and 0.5")
    readers = {
        int(line["reader"]): Reader(int(line["reader"]), {k: v for k, v in line.items() if k != "reader"})
        for line in read_lines(folder / READERS)
    }
    try:
        secret = bytes.fromhex((folder / SECRET).read_text().strip())
    except (OSError, ValueError) as error:
        raise UserError(f"{folder / SECRET} is missing or damaged; without it no link is valid") from error
    return Study(folder, settings, text, readers, secret)


def signature(secret: bytes, *parts: object) -> str:
    """22 characters that only who knows the secret can compute."""
    message = "\x1f".join(map(str, parts)).encode()
    digest = hmac.new(secret, message, hashlib.sha256).digest()[:16]
    return base64.urlsafe_b64encode(digest).decode().rstrip("=")


def token(secret: bytes, kind: str, number: int, expires: float) -> str:
    """'number.expiry.signature'; one for a link is none for a session."""
    return f"{number}.{int(expires)}.{signature(secret, kind, number, int(expires))}"


def number_of(secret: bytes, kind: str, text: str, now: float) -> int | None:
    """The number in a token that is valid and not expired, else None."""
    parts = text.split(".")
    if len(parts) != 3 or not all(part.isascii() for part in parts):
        return None
    number, expires, signed = parts
    if not (number.isdigit() and expires.isdigit() and len(number) < 10 and len(expires) < 13):
        return None
    genuine = hmac.compare_digest(signature(secret, kind, int(number), int(expires)), signed)
    return (
        int(number)
        if genuine and text == token(secret, kind, int(number), int(expires)) and now < int(expires)
        else None
    )


def image_key(secret: bytes, reader: int, image: str) -> str:
    """The name under which one reader's browser asks for a picture; no other reader's browser gets it."""
    return signature(secret, "image", reader, image).replace("-", "a").replace("_", "b")


def reader_links(study: Study) -> Iterator[tuple[int, str]]:
    """(number, path of the signed link) of each reader."""
    for number in study.readers:
        yield number, f"/s/{token(study.secret, LINK, number, study.until())}"


def admin_link(study: Study) -> str:
    """Path of the organiser's link."""
    return f"/admin/{token(study.secret, ADMIN, 0, study.until())}"
