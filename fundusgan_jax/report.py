"""report.html: one self-contained file with the figures, curves, grids, configuration and environment of a run."""

from __future__ import annotations

import base64
import html
import importlib.util
import io
import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from fundusgan_jax.atomic import atomic_write
from fundusgan_jax.config import flatten
from fundusgan_jax.grid import can_draw
from fundusgan_jax.logging import read_metrics
from fundusgan_jax.manifest import read_manifest

MAX_GRIDS, GRID_WIDTH = 4, 1200
HIGHER_IS_BETTER = ("ssim", "psnr", "ssim_fov", "psnr_fov")
TITLES = {
    "ssim": "SSIM",
    "psnr": "PSNR (dB)",
    "ssim_fov": "SSIM in field of view",
    "psnr_fov": "PSNR in field of view (dB)",
    "lpips": "LPIPS",
    "perceptual": "perceptual distance",
    "l2": "L2 (images in [-1, 1])",
    "reg": "‖w+ − w_avg‖",
    "frechet": "Fréchet distance",
    "kernel": "kernel distance",
    "loss": "loss",
    "adv": "generator's adversarial loss",
    "d_adv": "discriminator's loss",
    "d_real": "D(photographs)",
    "d_fake": "D(generated)",
    "r1": "R1, ‖∂D/∂x‖²",
    "pl_length": "path length",
    "augment_p": "augmentation p",
    "img_per_sec": "img/s",
}
# Of a training row, drawn as curves where they are there; the second group may be negative or zero.
LOSSES = ("loss", "l2", "lpips", "perceptual", "reg", "adv", "d_adv", "r1", "pl_length")
LEVELS = ("d_real", "d_fake", "augment_p")
SCORES = ("ssim", "psnr", "ssim_fov", "psnr_fov", "lpips", "perceptual", "frechet", "kernel")
STYLE = """
:root { color-scheme: light; }
body { font: 16px/1.5 system-ui, sans-serif; color: #222; background: #fff; margin: 0 auto; max-width: 1100px; padding: 1rem; }
h1 { font-size: 1.5rem; margin-bottom: 0; } h2 { font-size: 1.15rem; margin-top: 2rem; border-bottom: 1px solid #ddd; }
p.note { color: #555; font-size: .9rem; } img { max-width: 100%; height: auto; }
.scroll { overflow-x: auto; } table { border-collapse: collapse; font-size: .9rem; }
th, td { padding: .3rem .7rem; text-align: right; border-bottom: 1px solid #eee; white-space: nowrap; }
th:first-child, td:first-child { text-align: left; } td.best { font-weight: bold; } td.changed { font-weight: bold; }
td.text { text-align: left; white-space: normal; word-break: break-word; } details { margin: .5rem 0; }
"""


def write_report(workdir: str | Path) -> Path:
    """Writes WORKDIR/report.html from what is there (metrics.jsonl, eval.json, samples/, manifest.json).

    Returns:
        Its path.
    """
    workdir = Path(workdir)
    rows = read_metrics(workdir)
    manifest = read_manifest(workdir) or {}
    evaluation = _read_json(workdir / "eval.json")
    parts = [
        _headline(workdir, rows, manifest, evaluation),
        _figures(evaluation),
        _grids(workdir, manifest.get("config", {}).get("task") == "prior"),
        _curves(rows, _best(manifest, rows)),
        _settings(manifest),
        _environment(manifest),
    ]
    body = "\n".join(parts)
    page = (
        '<!doctype html>\n<html lang="en"><head><meta charset="utf-8">'
        '<meta name="viewport" content="width=device-width, initial-scale=1">'
        f'<title>FundusGAN: {html.escape(workdir.name)}</title><link rel="icon" href="data:,">'
        f"<style>{STYLE}</style></head><body>\n{body}\n</body></html>\n"
    )
    path = workdir / "report.html"
    with atomic_write(path) as temporary:
        temporary.write_text(page, encoding="utf-8")
    return path


def _read_json(path: Path) -> dict[str, Any]:
    try:
        return dict(json.loads(path.read_text()))
    except (OSError, ValueError):
        return {}


def _headline(
    workdir: Path, rows: list[dict[str, Any]], manifest: dict[str, Any], evaluation: dict[str, Any]
) -> str:
    train = [row for row in rows if row.get("kind") == "train"]
    config = manifest.get("config", {})
    facts = []
    if config:
        data, model = config["data"], config["model"]
        source = "phantom eyes" if data["dataset"] == "phantom" else "fundus photographs"
        facts.append(f"{data['resolution']} px {source}, generator at {model['resolution']} px")
        if config.get("task") == "prior":
            kind = "StyleGAN v1, growing" if model.get("style") == "adain" else "StyleGAN2"
            facts.append(f"{kind} prior, seed {config['seed']}")
        else:
            adversary = f", adversary {config['loss'].get('adv', 0):g}" if config["loss"].get("adv") else ""
            facts.append(
                f"{config['encoder']['backbone']}, δ = {model['delta']}{adversary}, seed {config['seed']}"
            )
        if config["train"].get("init_from"):
            facts.append(f"started from {Path(config['train']['init_from']).name}")
    if train:
        facts.append(f"step {train[-1]['step']:,} ({train[-1]['kimg']:.1f} kimg)")
        rates = sorted(row["img_per_sec"] for row in train if row.get("img_per_sec"))
        if rates:
            facts.append(f"{rates[len(rates) // 2]:.2f} img/s in training (median)")
    if evaluation:
        facts.append(
            f"scored against {evaluation['num_images']} photographs of split '{evaluation['split']}'"
        )
    line = html.escape(" · ".join(facts)) or "nothing was logged yet"
    return f"<h1>FundusGAN: {html.escape(workdir.name)}</h1>\n<p>{line}</p>"


def _figures(evaluation: dict[str, Any]) -> str:
    if not evaluation:
        return "<h2>Figures</h2><p>No evaluation yet: run --mode=eval.</p>"
    names = list(evaluation["model"])
    rows = {"this model": evaluation["model"]}
    titles = {
        "mean": "training set's mean image",
        "16x16": "input reduced to 16×16",
        "64x64": "input reduced to 64×64",
    }
    rows |= {titles.get(name, name): figures for name, figures in evaluation["baselines"].items()}
    head = "".join(
        f"<th>{html.escape(TITLES.get(n, n))} {'↑' if n in HIGHER_IS_BETTER else '↓'}</th>" for n in names
    )
    lines = []
    for title, figures in rows.items():
        cells = []
        for name in names:
            values = [row[name] for row in rows.values() if row.get(name) is not None]
            best = max(values) if name in HIGHER_IS_BETTER else min(values)
            shown = "" if figures.get(name) is None else f"{figures[name]:.4f}"
            cells.append(f"<td{' class=best' if figures.get(name) == best else ''}>{shown}</td>")
        lines.append(f"<tr><td>{html.escape(title)}</td>{''.join(cells)}</tr>")
    if "num_samples" in evaluation:
        note = (
            f"Step {evaluation['step']}: {evaluation['num_samples']} generated images against "
            f"{evaluation['num_images']} photographs of split '{evaluation['split']}' by {evaluation['features']}. "
            "These are no FID and KID, which have Inception features. The other row is what photographs of other "
            "patients score."
        )
        return _figures_table(head, lines, note)
    perceptual = evaluation.get("perceptual_name") or "no perceptual network"
    note = (
        f"Step {evaluation['step']}, {evaluation['num_images']} photographs of split '{evaluation['split']}' whose "
        f"patients were not trained on, {evaluation['resolution']} px; perceptual distance: {perceptual}. The other "
        "rows are trivial reconstructions: what a model scores only means something beside them. The black surround "
        "raises whole-image SSIM; the field-of-view columns leave it out."
    )
    if evaluation.get("features"):
        note += f" Fréchet and kernel distance: sets compared by {evaluation['features']} (no FID, no KID)."
    return _figures_table(head, lines, note)


def _figures_table(head: str, lines: list[str], note: str) -> str:
    return (
        f'<h2>Figures</h2><div class="scroll"><table><tr><th></th>{head}</tr>{"".join(lines)}</table></div>'
        f'<p class="note">{html.escape(note)}</p>'
    )


def _embedded(image: bytes, kind: str, alt: str) -> str:
    return f'<img alt="{html.escape(alt)}" src="data:image/{kind};base64,{base64.b64encode(image).decode()}">'


def _grids(workdir: Path, prior: bool) -> str:
    """The newest grid in full, earlier ones behind a fold; JPEG keeps the file small."""
    files = sorted((workdir / "samples").glob("*.png"), key=lambda path: (path.stat().st_mtime, path.name))
    if not files:
        return "<h2>Samples</h2><p>No sample grid yet.</p>"
    count = min(MAX_GRIDS, len(files))
    chosen = [files[round(index * (len(files) - 1) / max(count - 1, 1))] for index in range(count)][::-1]
    blocks = []
    for index, file in enumerate(chosen):
        picture = _embedded(*_compact(file), f"samples, {file.stem}")
        name = html.escape(file.stem)
        opened = " open" if index == 0 else ""
        blocks.append(f"<details{opened}><summary>{name}</summary>{picture}</details>")
    what = "Samples" if prior else "Held-out photographs: input, reconstruction, difference"
    return f"<h2>{what}</h2>" + "".join(blocks)


def _compact(file: Path) -> tuple[bytes, str]:
    """The picture's bytes and kind: a JPEG of at most GRID_WIDTH, or the PNG itself where Pillow is absent."""
    if not can_draw():
        return file.read_bytes(), "png"
    from PIL import Image

    buffer = io.BytesIO()
    with Image.open(file) as image:
        height = round(image.height * min(GRID_WIDTH / image.width, 1))
        image.convert("RGB").resize((min(image.width, GRID_WIDTH), height)).save(buffer, "JPEG", quality=88)
    return buffer.getvalue(), "jpeg"


def _smoothed(values: Sequence[float], window: int) -> list[float]:
    """Running mean over `window` values up to each."""
    means = []
    for end in range(1, len(values) + 1):
        part = values[max(0, end - window) : end]
        means.append(sum(part) / len(part))
    return means


def _best(manifest: dict[str, Any], rows: list[dict[str, Any]]) -> tuple[str, float] | None:
    """The metric that ranks the checkpoints and the kimg of its best value; None where nothing is ranked."""
    name = manifest.get("best_metric", "")
    scored = [row for row in rows if row.get("kind") == "eval" and row.get(name) is not None]
    scored = [row for row in scored if row.get("ranked", True)]
    if not scored:
        return None
    choose = max if name in HIGHER_IS_BETTER else min
    return name, choose(scored, key=lambda row: row[name])["kimg"]


def _curves(rows: list[dict[str, Any]], best: tuple[str, float] | None) -> str:
    train = [row for row in rows if row.get("kind") == "train"]
    evals = [row for row in rows if row.get("kind") == "eval"]
    if len(train) < 2:
        return "<h2>Curves</h2><p>Too few logged steps for a curve.</p>"
    if importlib.util.find_spec("matplotlib") is None:
        return "<h2>Curves</h2><p>matplotlib is not installed: metrics.jsonl has the numbers.</p>"
    import matplotlib

    matplotlib.use("Agg")
    from matplotlib import pyplot

    # Terms of regularisers that are not due in every step may be absent from the last row.
    seen = {name for row in train for name in row}
    losses = [name for name in LOSSES if name in seen]
    scores = [name for name in SCORES if len(evals) > 1 and name in evals[-1]]
    panels = [(name, evals, "scored") for name in scores] + [(name, train, "training") for name in losses]
    panels += [(name, train, "training") for name in LEVELS if name in seen]
    panels.append(("img_per_sec", train, "training"))
    lines = -(-len(panels) // 3)
    figure, axes = pyplot.subplots(lines, 3, figsize=(11, 2.7 * lines), layout="constrained", squeeze=False)
    for axis, (name, source, kind) in zip(axes.flat, panels):
        points = [(row["kimg"], row[name]) for row in source if row.get(name) is not None]
        x, y = [p[0] for p in points], [p[1] for p in points]
        if kind == "training" and len(y) > 20:
            axis.plot(x, y, color="#b8c8dc", linewidth=0.8)
            y = _smoothed(y, max(len(y) // 50, 5))
        axis.plot(x, y, color="#1f5a99", marker="o" if kind == "scored" else None, markersize=3)
        if name in losses and kind == "training" and min(y, default=0) > 0:
            axis.set_yscale("log")
        if best is not None and name == best[0] and kind == "scored":
            axis.axvline(
                best[1], color="#c0392b", linestyle="--", linewidth=1, label=f"best: {best[1]:g} kimg"
            )
            axis.legend(fontsize=7)
        axis.set_title(f"{TITLES.get(name, name)}, {kind}", fontsize=9)
        axis.set_xlabel("kimg (thousand photographs)", fontsize=8)
        axis.tick_params(labelsize=7)
        axis.grid(alpha=0.3)
    for axis in list(axes.flat)[len(panels) :]:
        axis.axis("off")
    buffer = io.BytesIO()
    figure.savefig(buffer, format="png", dpi=110)
    pyplot.close(figure)
    return "<h2>Curves</h2>" + _embedded(buffer.getvalue(), "png", "training curves")


def _settings(manifest: dict[str, Any]) -> str:
    if "config" not in manifest:
        return ""
    flat = flatten(manifest["config"])
    lines = [
        f"<tr><td>{html.escape(name)}</td><td class=text>{html.escape(str(value))}</td></tr>"
        for name, value in flat.items()
    ]
    return (
        "<h2>Configuration</h2><details><summary>every setting</summary>"
        f'<div class="scroll"><table>{"".join(lines)}</table></div></details>'
    )


def _environment(manifest: dict[str, Any]) -> str:
    if not manifest:
        return ""
    devices, git = manifest.get("devices", {}), manifest.get("git") or {}
    facts = {
        "devices": f"{devices.get('count')} x {devices.get('kind')} ({devices.get('platform')})",
        "commit": (git.get("commit") or "not from a checkout")
        + (" with changes" if git.get("modified") else ""),
        "dataset fingerprint": manifest.get("dataset_fingerprint"),
        "starts": len(manifest.get("starts", [])),
        "first start": (manifest.get("starts") or [{}])[0].get("time"),
        **manifest.get("versions", {}),
    }
    lines = [
        f"<tr><td>{html.escape(str(name))}</td><td class=text>{html.escape(str(value))}</td></tr>"
        for name, value in facts.items()
    ]
    return f'<h2>Environment</h2><div class="scroll"><table>{"".join(lines)}</table></div>'
