"""The pages, by requests: the whole way of a reader, and everything an attacker may try."""

import json
import shutil
import sqlite3

import pytest

pytest.importorskip("starlette", reason="extra [web] is not installed")
pytest.importorskip("httpx")
from starlette.testclient import TestClient

from fundusgan_jax.reader_study.__main__ import main
from fundusgan_jax.reader_study.server import Server
from fundusgan_jax.reader_study.study import LINK, open_study, token
from tests.reader_study.conftest import NUM

TOTAL = 2 * NUM + 4


@pytest.fixture
def study(original, tmp_path):
    return shutil.copytree(original, tmp_path / "study")


@pytest.fixture
def server(study):
    server = Server(open_study(study))
    yield server
    server.writer.close()


@pytest.fixture
def client(server):
    """Makes browsers without cookies."""
    return browsers(server)


def browsers(server):
    app = server.app()
    return lambda: TestClient(app, base_url="http://127.0.0.1:8000")


def consented(client, link, **answers):
    browser = client()
    browser.get(link)
    form = {"agree": "yes", "specialty": "resident", "years": "3"} | answers
    assert browser.post("/consent", data=form).status_code == 200
    return browser


def answer(browser, state, choice="real", **more):
    return browser.post("/api/answer", json={"image": state["image"], "answer": choice, "ms": 1200, **more})


def read_all(browser, choose=lambda number: "real"):
    state = browser.get("/api/state").json()
    for number in range(TOTAL):
        assert browser.get(f"/image/{state['image']}.png").status_code == 200
        assert browser.post("/api/view", json={"image": state["image"], "width": 1280}).status_code == 204
        state = answer(browser, state, choose(number)).json()
    return state


def rows(study, query):
    return sqlite3.connect(study / "answers.sqlite3").execute(query).fetchall()


def test_a_whole_reading(study, client, links):
    browser = client()
    page = browser.get(links(study)[0])
    assert page.url.path == "/consent" and "Your specialty" in page.text
    refused = browser.post("/consent", data={"years": "many"})
    assert refused.status_code == 422 and refused.text.count("Please answer this question") == 2
    page = browser.post("/consent", data={"agree": "yes", "specialty": "resident", "years": "3"})
    assert page.url.path == "/instructions" and "4 practice images" in page.text
    state = browser.get("/api/state").json()
    assert (state["phase"], state["position"], state["total"]) == ("practice", 0, 4)
    state = read_all(browser, lambda number: ("real", "synthetic")[number % 2])
    assert state["phase"] == "end" and browser.get("/").url.path == "/end"
    stored = rows(
        study, "SELECT reader, answer, position, client_ms, server_ms, views FROM answers ORDER BY position"
    )
    assert len(stored) == TOTAL and stored[0][2] == -4 and {line[5] for line in stored} == {1}
    assert all(line[3] == 1200 and 0 <= line[4] < 60_000 for line in stored)


def test_resumes_on_another_device_and_never_goes_back(study, client, links):
    first = consented(client, links(study)[0])
    start = first.get("/api/state").json()
    second_state = answer(first, start).json()
    other = client()
    assert other.get(links(study)[0]).url.path == "/instructions"
    assert other.get("/api/state").json()["image"] == second_state["image"]
    repeated = answer(other, start, "synthetic").json()
    assert repeated["recorded"] is False and repeated["image"] == second_state["image"]
    assert rows(study, "SELECT answer FROM answers") == [("real",)]
    assert other.get(f"/image/{start['image']}.png").status_code == 404


def test_tokens(study, server, client, links):
    good = links(study)[0]
    secret, until = server.study.secret, server.study.until()
    expired = f"/s/{token(secret, LINK, 1, 1000)}"
    unknown = f"/s/{token(secret, LINK, 99, until)}"
    foreign = f"/s/{token(b'another study', LINK, 1, until)}"
    other_kind = links(study)[-1].replace("/admin/", "/s/")
    number, expiry, signed = good.removeprefix("/s/").split(".")
    forged = [
        f"/s/2.{expiry}.{signed}",
        f"/s/{number}.{int(expiry) + 1}.{signed}",
        good[:-1],
        good + "A",
        "/s/..",
        "/s/1.1.é",
    ]
    for link in (expired, unknown, foreign, other_kind, *forged):
        assert client().get(link).status_code == 403, link
    browser = client()
    browser.cookies.set("reader", good.removeprefix("/s/"))  # a link's token is no session
    assert browser.get("/api/state").status_code == 403
    for path in ("/", "/consent", "/read", "/end", "/api/state", "/admin"):
        assert client().get(path).status_code == 403
    response = client().get(good, follow_redirects=False)
    cookie = response.headers["set-cookie"]
    assert "HttpOnly" in cookie and "SameSite=lax" in cookie and response.headers["location"] == "/"


def test_guessing_is_slowed(study, client):
    browser = client()
    codes = [browser.get(f"/s/1.9999999999.{'A' * 21}{chr(65 + number)}").status_code for number in range(20)]
    assert codes[0] == 403 and codes[-1] == 429


def test_other_readers_images_and_paths(study, client, links):
    first, second = (consented(client, link) for link in links(study)[:2])
    own, foreign = (browser.get("/api/state").json() for browser in (first, second))
    assert own["image"] != foreign["image"]
    assert first.get(f"/image/{foreign['image']}.png").status_code == 404
    assert first.get(f"/image/{own['next']}.png").status_code == 200
    name = open_study(study).order[0]
    for path in (f"/image/{name}.png", "/image/../truth.csv", "/image/..%2f..%2ftruth.csv", "/static/../study.py",
                 "/static/..%2f..%2fstudy.py", "/static/%2e%2e/study.py", "/truth.csv", "/answers.sqlite3", "/api"):  # fmt: skip
        assert first.get(path).status_code == 404, path
    assert client().get(f"/image/{own['image']}.png").status_code == 403
    assert answer(first, {"image": foreign["image"]}).status_code == 400


def test_posts_that_make_no_sense(study, client, links):
    browser = consented(client, links(study)[0])
    state = browser.get("/api/state").json()
    for more in (
        {"answer": "maybe"},
        {"ms": "1"},
        {"ms": -1},
        {"ms": True},
        {"ms": 1e12},
        {"ms": 10**400},
        {"hidden_ms": [1]},
        {"image": 5},
    ):
        assert (
            browser.post(
                "/api/answer", json={"image": state["image"], "answer": "real", "ms": 1} | more
            ).status_code
            == 400
        )
    for body in (b"", b"[]", b"null", b"{", b'"x"', b"\xff", b"[" * 4000, b'{"image":NaN}'):
        assert browser.post("/api/answer", content=body).status_code == 400, body
    assert answer(browser, {"image": state["next"]}).status_code == 409
    assert browser.post("/api/answer", content=b" " * 5000).status_code == 413
    chunks = (b"x" * 1000 for _ in range(9))
    assert browser.post("/consent", content=chunks).status_code == 413
    assert browser.get("/api/answer").status_code == 405
    assert browser.put("/api/answer", json={}).status_code == 405
    assert rows(study, "SELECT COUNT(*) FROM answers") == [(0,)]


@pytest.mark.parametrize(
    "text",
    [
        "real'); DELETE FROM answers; --",
        "x' OR '1'='1",
        "1; ATTACH DATABASE 'other' AS other",
        "real\0",
        "%27%20OR%201",
    ],
)
def test_text_of_sql_is_only_text(study, client, links, text):
    """As answer and as image it is refused; as a reader's own words it is stored as it stands."""
    browser = consented(client, links(study)[0])
    state = browser.get("/api/state").json()
    answer(browser, state)
    tables = rows(study, "SELECT type, name, sql FROM sqlite_master ORDER BY name")
    for body in ({"answer": text}, {"image": text}, {"ms": text}):
        sent = {"image": state["next"], "answer": "real", "ms": 1200} | body
        assert browser.post("/api/answer", json=sent).status_code == 400, body
    browser.post("/api/view", json={"image": text})
    other = client()
    other.get(links(study)[1])
    assert other.post("/consent", data={"agree": "yes", "specialty": text, "years": text}).status_code == 422
    assert rows(study, "SELECT answer FROM answers") == [("real",)]
    assert rows(study, "SELECT type, name, sql FROM sqlite_master ORDER BY name") == tables


def test_other_sites_and_hosts(study, client, links):
    browser = consented(client, links(study)[0])
    state = browser.get("/api/state").json()
    body = {"image": state["image"], "answer": "real", "ms": 1}
    for headers in ({"Origin": "https://evil.example"}, {"Origin": "null"}, {"Sec-Fetch-Site": "cross-site"}):
        assert browser.post("/api/answer", json=body, headers=headers).status_code == 403
    assert browser.get("/api/state", headers={"Host": "evil.example"}).status_code == 400
    assert (
        browser.post("/api/answer", json=body, headers={"Origin": "http://127.0.0.1:8000"}).status_code == 200
    )


def test_nothing_after_the_end(study, links):
    now = [0.0]
    opened = open_study(study)
    server = Server(opened, clock=lambda: opened.until() - 100 + now[0])
    client = browsers(server)
    browser = consented(client, links(study)[0])
    state = browser.get("/api/state").json()
    now[0] = 101
    response = answer(browser, state)
    assert response.status_code == 403 and response.json()["error"] == "closed"
    assert "The study is closed" in browser.get("/").text
    assert "The study is closed" in client().get(links(study)[1]).text
    server.writer.close()
    assert rows(study, "SELECT COUNT(*) FROM answers") == [(0,)]


def test_nothing_before_the_consent(study, client, links):
    browser = client()
    browser.get(links(study)[0])
    assert browser.get("/api/state").status_code == 409
    assert browser.get("/read").url.path == "/consent"
    assert browser.get("/instructions").url.path == "/consent"


def test_too_many_requests(study, client, links):
    browser = consented(client, links(study)[0])
    assert 429 in {browser.get("/api/state").status_code for _ in range(200)}


def test_headers(study, client, links):
    browser = consented(client, links(study)[0])
    for path in ("/", "/read", "/api/state", "/static/reader.js", "/nothing"):
        headers = browser.get(path).headers
        assert headers["content-security-policy"].startswith("default-src 'self'")
        assert headers["x-frame-options"] == "DENY" and headers["cache-control"] == "no-store"
    page = browser.get("/read").text
    assert "http" not in page.replace("http-equiv", "") and "<script>" not in page and "style=" not in page


def test_side_information_is_the_same_for_both_kinds(study, client, links):
    """Every header, length and name that comes with an image, apart from what differs between all requests."""
    truth = {
        line.split(",")[0]: line.split(",")[1] for line in (study / "truth.csv").read_text().splitlines()[1:]
    }
    browser = consented(client, links(study)[0])
    state = browser.get("/api/state").json()
    seen = {"real": set(), "synthetic": set()}
    for name in open_study(study).order:
        image = browser.get(f"/image/{state['image']}.png")
        headers = {key: value for key, value in image.headers.items() if key != "date"}
        assert "etag" not in headers and "last-modified" not in headers
        reply = answer(browser, state)
        lengths = len(state["image"]), len(image.content)
        seen[truth[name]].add((json.dumps(headers, sort_keys=True), lengths, tuple(reply.headers)))
        state = reply.json()
        assert set(state) == {"recorded", "phase", "position", "total", "image", "next"}
    assert seen["real"] == seen["synthetic"] and len(seen["real"]) == 1


def test_the_server_never_reads_the_truth(study, client, links):
    (study / "truth.csv").unlink()
    assert read_all(consented(client, links(study)[0]))["phase"] == "end"


def test_organiser_sees_progress_and_no_answer(study, client, links):
    browser = consented(client, links(study)[0])
    read_all(browser)
    organiser = client()
    page = organiser.get(links(study)[-1])
    assert (
        page.url.path == "/admin" and f"{2 * NUM} / {2 * NUM}" in page.text and "1 of 3 readers" in page.text
    )
    assert "synthetic" not in page.text.replace("Real or synthetic", "")
    assert organiser.get("/api/state").status_code == 403


def test_changed_design_is_noted_and_analysed(study, links, capsys):
    pytest.importorskip("statsmodels")
    settings = json.loads((study / "study.json").read_text())
    for margin, readers in ((0.05, (0, 1)), (0.2, (2,))):
        (study / "study.json").write_text(json.dumps(settings | {"margin": margin}))
        server = Server(open_study(study))
        for reader in readers:
            browser = consented(browsers(server), links(study)[reader])
            read_all(browser, lambda number: "real" if number % 3 else "synthetic")
        server.writer.close()
    assert main(["analyse", str(study)]) == 0
    record = json.loads((study / "analysis" / "analysis.json").read_text())
    assert (
        record["equivalence"]["margin"] == 0.05 and record["equivalence"]["margin_fixed_before_first_answer"]
    )
    assert any("changed after the first answer" in text for text in record["warnings"])
    assert record["num_answers"] == 3 * 2 * NUM and record["num_readers"] == 3  # practice does not count
    assert "image Turing" in (study / "analysis" / "answers.imrmc").read_text()
    page = (study / "analysis" / "report.html").read_text()
    assert page.count("data:image/jpeg") == 12  # four lists of three
    table = (study / "analysis" / "answers.csv").read_text().splitlines()
    assert table[0].startswith("reader,specialty,years,group,experience,image,truth,answer,seconds")
    # The exported file gives the same figures.
    assert (
        main(["analyse", f"--answers={study / 'analysis' / 'answers.csv'}", f"--output={study / 'again'}"])
        == 0
    )
    again = json.loads((study / "again" / "analysis.json").read_text())
    assert again["overall"]["accuracy"] == record["overall"]["accuracy"]
