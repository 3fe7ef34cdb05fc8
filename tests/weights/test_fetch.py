"""Downloads from a server on this machine: cuts, wrong files, refusals; what stands at the file's name is whole."""

import hashlib
import socket
import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import numpy as np
import pytest

from fundusgan_jax.errors import UserError
from fundusgan_jax.weights import __main__
from fundusgan_jax.weights import fetch as fetching
from fundusgan_jax.weights.fetch import fetch_weights
from fundusgan_jax.weights.perceptual import find_weights
from fundusgan_jax.weights.public_weights import PUBLIC_WEIGHTS, WEIGHTS_FOLDER_VARIABLE, PublicWeights

CONTENT = np.random.default_rng(0).bytes(3_000_000)
DIGEST = hashlib.sha256(CONTENT).hexdigest()
NAME = "vgg16-397923af.pth"


class _Server(ThreadingHTTPServer):
    """content: what it sends. answers: statuses for the next requests, before it serves. cuts: after how many bytes
    the next responses break off. ranges: whether it knows them. asked: the Range headers it saw."""

    daemon_threads = True

    def __init__(self) -> None:
        super().__init__(("127.0.0.1", 0), _Handler)
        self.content, self.ranges = CONTENT, True
        self.answers: list[int] = []
        self.cuts: list[int] = []
        self.asked: list[str] = []


class _Handler(BaseHTTPRequestHandler):
    server: _Server

    def do_GET(self) -> None:
        wanted = self.headers.get("Range", "")
        self.server.asked.append(wanted)
        if self.server.answers:
            self.send_error(self.server.answers.pop(0))
            return
        start = int(wanted.removeprefix("bytes=").rstrip("-")) if wanted and self.server.ranges else 0
        content = self.server.content
        if start >= len(content):
            self.send_error(416)
            return
        self.send_response(206 if start else 200)
        if start:
            self.send_header("Content-Range", f"bytes {start}-{len(content) - 1}/{len(content)}")
        self.send_header("Content-Length", str(len(content) - start))
        self.end_headers()
        stop = start + self.server.cuts.pop(0) if self.server.cuts else len(content)
        self.wfile.write(content[start:stop])

    def log_message(self, *_: object) -> None:
        pass


@pytest.fixture
def server(monkeypatch: pytest.MonkeyPatch) -> Iterator[_Server]:
    monkeypatch.setattr(fetching, "FIRST_WAIT", 0.001)
    monkeypatch.setenv("no_proxy", "*")
    with _Server() as server:
        thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01})
        thread.start()
        yield server
        server.shutdown()
        thread.join()


@pytest.fixture
def public(server: _Server) -> PublicWeights:
    return PublicWeights(NAME, f"http://127.0.0.1:{server.server_port}/{NAME}", DIGEST, "a test", "none")


def _files(folder: Path) -> list[str]:
    return sorted(path.name for path in folder.iterdir())


def test_a_whole_download_and_nothing_the_second_time(
    server: _Server, public: PublicWeights, tmp_path: Path
) -> None:
    folder = tmp_path / "new" / "folder"
    assert "fetched" in fetch_weights(public, folder)
    assert (folder / NAME).read_bytes() == CONTENT and _files(folder) == [NAME]
    assert "already there" in fetch_weights(public, folder)
    assert server.asked == [""]


def test_cut_connections_are_continued_where_they_broke(
    server: _Server, public: PublicWeights, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    server.cuts, server.answers = [1_200_000, 500_000], [503]
    fetch_weights(public, tmp_path)
    assert (tmp_path / NAME).read_bytes() == CONTENT and _files(tmp_path) == [NAME]
    assert server.asked == ["", "", "bytes=1200000-", "bytes=1700000-"]
    assert "MB/s" in capsys.readouterr().err


def test_an_earlier_part_is_continued_and_the_name_stays_free_until_the_end(
    server: _Server, public: PublicWeights, tmp_path: Path
) -> None:
    server.cuts = [900_000] + [0] * fetching.TRIES
    with pytest.raises(UserError, match=r"ended after 900000 of 3000000 bytes.*900000 bytes.*--file=PATH"):
        fetch_weights(public, tmp_path)
    assert _files(tmp_path) == [f"{NAME}.part"]
    server.cuts, server.asked = [], []
    fetch_weights(public, tmp_path)
    assert server.asked == ["bytes=900000-"] and (tmp_path / NAME).read_bytes() == CONTENT


@pytest.mark.parametrize("ranges", [True, False])
@pytest.mark.parametrize("part", [b"of something else", CONTENT, CONTENT + b"longer"])
def test_whatever_the_part_holds_the_result_is_the_file(
    server: _Server, public: PublicWeights, tmp_path: Path, part: bytes, ranges: bool
) -> None:
    server.ranges = ranges
    (tmp_path / f"{NAME}.part").write_bytes(part)
    fetch_weights(public, tmp_path)
    assert (tmp_path / NAME).read_bytes() == CONTENT and _files(tmp_path) == [NAME]


def test_another_file_is_refused_and_removed_and_the_old_one_stays(
    server: _Server, public: PublicWeights, tmp_path: Path
) -> None:
    (tmp_path / NAME).write_bytes(b"old")
    server.content = b"<html>log in first</html>"
    with pytest.raises(
        UserError, match=f"another file.*{hashlib.sha256(server.content).hexdigest()}.*{DIGEST}"
    ):
        fetch_weights(public, tmp_path)
    assert _files(tmp_path) == [NAME] and (tmp_path / NAME).read_bytes() == b"old"
    server.content = CONTENT
    fetch_weights(public, tmp_path)
    assert (tmp_path / NAME).read_bytes() == CONTENT


def test_a_missing_page_is_not_asked_for_again(
    server: _Server, public: PublicWeights, tmp_path: Path
) -> None:
    server.answers = [404, 404]
    with pytest.raises(UserError, match="404 Not Found.*--file=PATH"):
        fetch_weights(public, tmp_path / "new" / "folder")
    assert len(server.asked) == 1 and _files(tmp_path) == []
    server.answers = [503] * 9
    with pytest.raises(UserError, match="503"):
        fetch_weights(public, tmp_path)
    assert len(server.asked) == 1 + fetching.TRIES


def test_no_internet_is_one_line_with_the_address(
    public: PublicWeights, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def offline(*_: object, **__: object) -> None:
        raise socket.gaierror(-2, "Name or service not known")

    monkeypatch.setattr(socket, "getaddrinfo", offline)
    assert __main__.main(["fetch", "vgg16", f"--weights_dir={tmp_path}"]) == 2
    error = capsys.readouterr().err
    assert error.count("\n") == 1 and PUBLIC_WEIGHTS["vgg16"].url in error and "--file=PATH" in error
    assert "Name or service not known" in error


def test_a_refused_connection_is_tried_again(
    public: PublicWeights, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    with pytest.raises(UserError, match="refused"):
        fetch_weights(public._replace(url="http://127.0.0.1:9/file.pth"), tmp_path)
    assert capsys.readouterr().err.count("trying again") == fetching.TRIES - 1


def test_a_folder_that_cannot_be_written_is_named(public: PublicWeights, tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    with pytest.raises(UserError, match="cannot write.*--weights_dir=DIR"):
        fetch_weights(public, tmp_path / "file")


def test_a_copy_is_checked_too(
    public: PublicWeights, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys
) -> None:
    monkeypatch.setitem(PUBLIC_WEIGHTS, "vgg16", public)
    monkeypatch.setenv(WEIGHTS_FOLDER_VARIABLE, str(tmp_path / "cache"))
    (tmp_path / "good").write_bytes(CONTENT)
    (tmp_path / "bad").write_bytes(b"bad")
    assert __main__.main(["fetch", "vgg16", f"--file={tmp_path / 'bad'}"]) == 2
    assert DIGEST in capsys.readouterr().err and (tmp_path / "bad").exists()
    assert __main__.main(["fetch", "vgg16", f"--file={tmp_path / 'none'}"]) == 2
    assert __main__.main(["fetch", "all", f"--file={tmp_path / 'good'}"]) == 2
    assert __main__.main(["fetch", "vgg16", f"--file={tmp_path / 'good'}"]) == 0
    assert "note" not in capsys.readouterr().out
    assert find_weights("vgg16").read_bytes() == CONTENT and _files(tmp_path / "cache") == [NAME]
    assert (
        __main__.main(["fetch", "vgg16", f"--weights_dir={tmp_path / 'd'}", f"--file={tmp_path / 'good'}"])
        == 0
    )
    assert f"{WEIGHTS_FOLDER_VARIABLE}={tmp_path / 'd'}" in capsys.readouterr().out


def test_all_fetches_every_file(
    server: _Server, public: PublicWeights, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name, entry in PUBLIC_WEIGHTS.items():
        monkeypatch.setitem(PUBLIC_WEIGHTS, name, public._replace(file=entry.file))
    assert __main__.main(["fetch", "all", f"--weights_dir={tmp_path}"]) == 0
    assert len(_files(tmp_path)) == len(PUBLIC_WEIGHTS)


def test_the_table_is_consistent() -> None:
    for public in PUBLIC_WEIGHTS.values():
        assert len(public.sha256) == 64 and set(public.sha256) <= set("0123456789abcdef")
        assert public.url.endswith(f"/{public.file}") and public.url.startswith("https://")
        published = public.file.removesuffix(".pth").rpartition("-")[2]
        assert public.sha256.startswith(published) or public.file in ("vgg.pth", "alex.pth", "squeeze.pth")
    assert len({public.sha256 for public in PUBLIC_WEIGHTS.values()}) == len(PUBLIC_WEIGHTS)
