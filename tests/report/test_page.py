"""report.html: one file that needs nothing else, true to the figures it was given, whatever there is."""

import base64
import dataclasses
import io
import json
import re
from html.parser import HTMLParser
from pathlib import Path

import numpy as np
import pytest
from matplotlib.axes import Axes
from PIL import Image
from skimage.feature import match_template

from fundusgan_jax.metrics.confidence import Interval
from fundusgan_jax.report import curves, pictures
from fundusgan_jax.report.evaluation import (
    Controls,
    Flagged,
    Match,
    Medians,
    Membership,
    Memorisation,
    Nearer,
    evaluation_of,
    write_evaluation,
)
from fundusgan_jax.report.grid import comparison_grid, save_png
from fundusgan_jax.report.page import write_report
from fundusgan_jax.workdir.manifest import write_manifest
from tests.support.tiny import tiny_config, tiny_prior_config

EVALUATION = {
    "step": 40, "num_images": 7, "split": "test", "resolution": 64, "perceptual_name": "LPIPS <vgg>",
    "model": {"ssim": 0.8123, "psnr": 21.5, "lpips": 0.25},
    "baselines": {"mean": {"ssim": 0.7, "psnr": 18.0, "lpips": 0.5}, "16x16": {"ssim": 0.88, "psnr": 20.0, "lpips": 0.4},
                  "64x64": {"ssim": 0.8, "psnr": 20.5, "lpips": 0.3}},
}  # fmt: skip


class Balance(HTMLParser):
    """Collects tags and checks that each is closed in order."""

    def __init__(self) -> None:
        super().__init__()
        self.open: list[str] = []
        self.sources: list[str] = []

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.sources += [value or "" for name, value in attrs if name in ("src", "href")]
        if tag not in ("meta", "link", "img", "br"):
            self.open.append(tag)

    def handle_endtag(self, tag: str) -> None:
        assert self.open.pop() == tag


def parsed(path: Path) -> tuple[str, Balance]:
    text = path.read_text()
    balance = Balance()
    balance.feed(text)
    assert not balance.open
    assert all(source.startswith("data:") for source in balance.sources)
    assert not re.search(r"https?://", text)
    return text, balance


def fill(workdir: Path, dataset: str = "phantom") -> None:
    write_manifest(workdir, tiny_config(data__dataset=dataset), "fingerprint-of-data")
    lines = [
        {"kind": "train", "step": s, "kimg": s / 100, "loss": 1 / s, "l2": 0.5 / s, "img_per_sec": 3.5}
        for s in range(1, 40)
    ]
    lines += [{"kind": "eval", "step": s, "kimg": s / 100, "ssim": s / 50} for s in (20, 40)]
    (workdir / "metrics.jsonl").write_text("".join(json.dumps(line) + "\n" for line in lines))
    (workdir / "eval.json").write_text(json.dumps(EVALUATION))
    for step in range(10, 90, 10):
        save_png(workdir / "samples" / f"step-{step:06d}.png", np.full((20, 1500, 3), step, np.uint8))


def test_a_full_workdir(tmp_path: Path) -> None:
    fill(tmp_path)
    text, balance = parsed(write_report(tmp_path, False))
    for expected in (
        "0.8123",
        "fingerprint-of-data",
        "LPIPS &lt;vgg&gt;",
        "model.w_dim",
        "3.50 img/s",
        "step-000080",
    ):
        assert expected in text, expected
    # Four grids at most, the curves, the icon.
    assert len(balance.sources) == pictures.MAX_GRIDS + 2


def test_the_best_of_each_column_is_marked(tmp_path: Path) -> None:
    fill(tmp_path)
    text, _ = parsed(write_report(tmp_path, False))
    assert sorted(re.findall(r"<td class=.?best.?>([\d.]+)", text)) == ["0.2500", "0.8800", "21.50"]


def test_an_empty_workdir_says_what_is_missing(tmp_path: Path) -> None:
    text, _ = parsed(write_report(tmp_path, False))
    for expected in ("No evaluation yet", "No sample grid yet", "Too few logged steps"):
        assert expected in text


def _photographs(count: int) -> np.ndarray:
    return np.random.default_rng(0).integers(0, 256, (count, 64, 64, 3), dtype=np.uint8)


def _with_patients(workdir: Path) -> np.ndarray:
    """A finished run on photographs of patients, with every picture that shows one."""
    images = _photographs(6)
    fill(workdir, "prepared")
    for file in (workdir / "samples").iterdir():
        file.unlink()
    save_png(workdir / "samples" / "step-000010.png", comparison_grid(images[:2], images[2:4]))
    for name in ("ranked.png", "memorisation.png"):
        save_png(workdir / "evaluation" / name, comparison_grid(images[:3], images[3:]))
    save_png(workdir / "evaluation" / "tsne.png", np.full((40, 800, 3), 200, np.uint8))
    match = Match("generated", 3, "patient-17_left.jpg", 0.5, 0.25, 12.0, 0.1, 0.4, 0.2)
    interval = Interval(0.4, 0.6)
    medians = {kind: Medians(0.5, 0.25) for kind in ("generated", "generated_on_held_out", "held_out")}
    memorisation = Memorisation(
        "mix", 4, 20, 10, Nearer(0.5, interval, 0.7, 0.66, "pixels", 1.0, 1.1), Flagged(0, 1, 1), 0.4,
        Controls(15, 16), Membership(0.5, interval), medians, [match], "No sign of repeated training photographs.",
    )  # fmt: skip
    titles = {"ranked.png": "Best", "tsne.png": "t-SNE", "memorisation.png": "Closest pairs"}
    evaluation = evaluation_of(EVALUATION)
    evaluation = dataclasses.replace(evaluation, pictures=titles, memorisation=memorisation)
    write_evaluation(workdir / "eval.json", evaluation)
    return images


def _pictures_of(balance: Balance) -> list[np.ndarray]:
    encoded = [source.split(",", 1)[1] for source in balance.sources if source.startswith("data:image/")]
    return [np.asarray(Image.open(io.BytesIO(base64.b64decode(part))).convert("RGB")) for part in encoded]


def _shows(picture: np.ndarray, photograph: np.ndarray) -> bool:
    """Whether a photograph stands somewhere in a picture, at any whole magnification, JPEG's losses aside."""
    reference = photograph[..., 1].astype(np.float32)
    for times in range(1, 1 + min(picture.shape[:2]) // len(photograph)):
        small = picture[times // 2 :: times, times // 2 :: times, 1].astype(np.float32)
        if match_template(small, reference).max() > 0.7:
            return True
    return False


def test_no_patient_by_default(tmp_path: Path) -> None:
    images = _with_patients(tmp_path)
    text, balance = parsed(write_report(tmp_path, False))
    shown = _pictures_of(balance)
    assert len(shown) == 2  # the curves and t-SNE
    assert not any(_shows(picture, image) for picture in shown for image in images)
    assert "patient-17" not in text and "shows no photograph" in text and "Closest pairs" not in text
    assert "No sign of repeated" in text and "0.8123" in text


def test_patients_where_they_are_asked_for(tmp_path: Path) -> None:
    images = _with_patients(tmp_path)
    text, balance = parsed(write_report(tmp_path, True))
    shown = _pictures_of(balance)
    assert all(any(_shows(picture, image) for picture in shown) for image in images[:2])
    assert "patient-17_left.jpg" in text and "shows photographs of patients" in text


def test_rendered_eyes_are_no_patients(tmp_path: Path) -> None:
    fill(tmp_path)
    text, _ = parsed(write_report(tmp_path, False))
    assert "no patient is shown" in text and "step-000080" in text


def test_without_pillow_and_matplotlib(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    fill(tmp_path)
    monkeypatch.setattr(pictures, "can_draw", lambda: False)
    monkeypatch.setattr(curves.importlib.util, "find_spec", lambda name: None)
    text, balance = parsed(write_report(tmp_path, False))
    assert "matplotlib is not installed" in text
    assert sum(source.startswith("data:image/png") for source in balance.sources) == pictures.MAX_GRIDS


def test_a_priors_report_marks_its_best_checkpoint_and_calls_no_distance_fid(tmp_path, monkeypatch):
    config = tiny_prior_config(train__init_from="runs/other")
    write_manifest(tmp_path, config, "fingerprint-of-data", best_metric="frechet")
    lines = [
        {
            "kind": "train",
            "step": s,
            "kimg": s / 100,
            "loss": 1 / s,
            "d_adv": 1.0,
            "d_real": -0.5,
            "augment_p": 0.1,
        }
        for s in range(1, 40)
    ]
    scores = {10: 50.0, 20: 30.0, 30: 40.0}
    lines += [
        {"kind": "eval", "step": s, "kimg": s / 100, "frechet": f, "kernel": 1.0} for s, f in scores.items()
    ]
    (tmp_path / "metrics.jsonl").write_text("".join(json.dumps(line) + "\n" for line in lines))
    record = {
        "step": 30, "num_images": 7, "num_samples": 50, "split": "train", "resolution": 64, "features": "squeezenet maps",
        "model": {"frechet": 40.0, "kernel": 1.0}, "baselines": {}, "floors": {"held-out photographs": {"frechet": 3.0, "kernel": 0.1}},
    }  # fmt: skip
    (tmp_path / "eval.json").write_text(json.dumps(record))
    marked = []
    monkeypatch.setattr(Axes, "axvline", lambda axis, x, **style: marked.append((axis, x)))
    text, _ = parsed(write_report(tmp_path, False))
    assert "50 generated images against 7 photographs" in text and "no FID and KID" in text
    assert "StyleGAN2 prior" in text and "started from other" in text and "held-out photographs" in text
    # Lowest Fréchet distance, not the last.
    assert [x for _, x in marked] == [0.2]
