"""A scripted reader who looks at no eye: sizes, headers, response times and the pixels' grid leave it at chance."""

import io
import statistics
import time
from itertools import islice

import numpy as np
import pytest
from PIL import Image

from fundusgan_jax.reader_study.__main__ import main
from fundusgan_jax.reader_study.leak_audit import cross_validated_auc
from fundusgan_jax.reader_study.side_information import blockiness
from fundusgan_jax.reader_study.study import open_study
from tests.reader_study.conftest import free_port, start
from tests.reader_study.test_create import truth_of
from tests.support.phantoms import left_eyes

pytest.importorskip("uvicorn", reason="extra [web] is not installed")
httpx = pytest.importorskip("httpx")
pytestmark = pytest.mark.slow

NUM, REPEATS = 40, 7
# Of a cross-validated AUC with 40 and 40 images where nothing tells: standard error 0.065 (Hanley and McNeil 1982).
CHANCE = 0.5 + 3 * 0.065


@pytest.fixture(scope="module")
def study(tmp_path_factory):
    """40 and 40 images of different eyes, the real ones JPEG, the synthetic ones PNG of another size."""
    folder = tmp_path_factory.mktemp("side")
    for number, image in enumerate(islice(left_eyes(200, 128, 11), 2 * NUM + 8)):
        kind = ("real", "synthetic")[number % 2]
        (folder / kind).mkdir(exist_ok=True)
        picture = Image.fromarray(image)
        if kind == "real":
            picture.save(folder / kind / f"{number:03d}.jpg", quality=85, comment=b"taken in a clinic")
        else:
            picture.resize((120, 120), Image.Resampling.LANCZOS).save(folder / kind / f"{number:03d}.png")
    words = ["create", f"--real={folder / 'real'}", f"--synthetic={folder / 'synthetic'}", f"--num={NUM}",
             f"--output={folder / 'study'}", "--accept_leak"]  # fmt: skip
    assert main(words) == 0
    return folder / "study"


def observed(browser, state):
    """(figures of one image that a script can take without looking at the eye, what came with it as text)."""
    seconds, response = [], None
    for _ in range(REPEATS):
        begun = time.perf_counter()
        response = browser.get(f"/image/{state['image']}.png")
        seconds.append(time.perf_counter() - begun)
        assert response.status_code == 200
        time.sleep(0.15)  # the server limits requests
    headers = {key: value for key, value in response.headers.items() if key != "date"}
    begun = time.perf_counter()
    reply = browser.post("/api/answer", json={"image": state["image"], "answer": "real", "ms": 900})
    answered = time.perf_counter() - begun
    with Image.open(io.BytesIO(response.content)) as image:
        grid = blockiness(np.asarray(image.convert("RGB")))
    figures = {
        "response times": np.asarray([statistics.median(seconds), min(seconds), answered]),
        "pixels' grid": grid,
        "name": np.asarray([float(int(letter, 36)) for letter in state["image"]]),
    }
    return (
        figures,
        (sorted(headers.items()), len(response.content), sorted(reply.headers.keys())),
        reply.json(),
    )


def test_a_reader_of_side_information_is_at_chance(study, links):
    port = free_port()
    server = start(study, port)
    try:
        with httpx.Client(base_url=f"http://127.0.0.1:{port}", follow_redirects=True) as browser:
            browser.get(links(study)[0])
            browser.post("/consent", data={"agree": "yes", "specialty": "resident", "years": "3"})
            state, seen = browser.get("/api/state").json(), []
            while state["phase"] != "end":
                figures, text, state = observed(browser, state)
                seen.append((figures, text))
    finally:
        server.terminate()
        server.wait(10)
    # The names on the page are the reader's own; the order is the study's, practice first.
    truth, names = truth_of(study), open_study(study).order
    assert len(seen) == len(names) and len({str(text) for _, text in seen}) == 1
    real = np.asarray([truth[name]["truth"] == "real" for name in names])
    number = np.arange(len(names))
    values = {kind: np.stack([figures[kind] for figures, _ in seen]) for kind in seen[0][0]}
    values["place in the order"] = number[4:, None].astype(float)
    values = {kind: value[-2 * NUM :] for kind, value in values.items()}  # practice has an order of its own
    values["all together"] = np.concatenate(list(values.values()), 1)
    auc = {
        kind: cross_validated_auc(value, real[-2 * NUM :], number[-2 * NUM :], 0)
        for kind, value in values.items()
    }
    assert max(auc.values()) < CHANCE, auc
