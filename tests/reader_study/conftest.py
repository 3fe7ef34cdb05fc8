"""A small study of phantom eyes, made by the command itself."""

import csv
import socket
import subprocess
import sys
from pathlib import Path

import pytest
from PIL import Image

from fundusgan_jax.reader_study.__main__ import main
from tests.support.phantoms import left_eyes

NUM = 6
ROOT = Path(__file__).resolve().parents[2]


@pytest.fixture(scope="session")
def phantoms(tmp_path_factory) -> Path:
    """real/ and synthetic/: 20 JPEG and 20 PNG files of 40 different eyes, 128 px."""
    folder = tmp_path_factory.mktemp("phantoms")
    for kind in ("real", "synthetic"):
        (folder / kind).mkdir()
    for number, eye in enumerate(left_eyes(40, 128, 5)):
        image = Image.fromarray(eye)
        if number % 2:
            image.save(folder / "real" / f"{number:03d}.jpg", quality=90, comment=b"a real photograph")
        else:
            image.save(folder / "synthetic" / f"{number:03d}.png")
    return folder


@pytest.fixture(scope="session")
def make_study(phantoms, tmp_path_factory):
    """Makes a study of NUM and NUM images for readers r0, r1, ...; returns its folder."""

    def make(num_readers: int = 3, *flags: str) -> Path:
        folder = tmp_path_factory.mktemp("study")
        readers = folder / "readers.csv"
        groups = ("resident", "retina")
        lines = [f"r{number},{groups[number % 2]}" for number in range(num_readers)]
        readers.write_text("\n".join(["name,group", *lines, ""]))
        words = ["create", f"--real={phantoms / 'real'}", f"--synthetic={phantoms / 'synthetic'}", f"--num={NUM}",
                 f"--output={folder / 'study'}", f"--readers={readers}", "--accept_leak", *flags]  # fmt: skip
        assert main(words) == 0
        return folder / "study"

    return make


@pytest.fixture(scope="session")
def original(make_study) -> Path:
    """A study for three readers, to be read or copied."""
    return make_study()


@pytest.fixture(scope="session")
def links():
    """The signed paths of a study's readers, in order, the organiser's last."""

    def of(study: Path) -> list[str]:
        with open(study / "links.csv", newline="") as handle:
            found = [line["link"] for line in csv.DictReader(handle)]
        return ["/" + link.split("/", 3)[3] for link in found]

    return of


def free_port() -> int:
    """One that nothing listens at."""
    with socket.create_server(("127.0.0.1", 0)) as listener:
        return listener.getsockname()[1]


def start(study: Path, port: int) -> subprocess.Popen:
    """A server of the study, once it listens."""
    words = [sys.executable, "-m", "fundusgan_jax.reader_study", "serve", str(study), f"--port={port}"]
    process = subprocess.Popen(words, cwd=ROOT, stdout=subprocess.PIPE, text=True)
    assert "listening at" in process.stdout.readline()
    return process
