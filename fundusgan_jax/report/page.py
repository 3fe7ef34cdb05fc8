"""report.html: one self-contained file with the figures, curves, grids, configuration and environment of a run."""

from __future__ import annotations

import html
import json
from pathlib import Path
from typing import Any

from fundusgan_jax.atomic import atomic_write
from fundusgan_jax.config import flatten
from fundusgan_jax.report.figures import (
    figures_section,
    memorisation_section,
    protocol_section,
    signatures_section,
)
from fundusgan_jax.report.pictures import best_point, curve_panels, evaluation_pictures, sample_grids
from fundusgan_jax.workdir.manifest import read_manifest
from fundusgan_jax.workdir.metrics_log import read_metrics

STYLE = """
:root { color-scheme: light; }
body { font: 16px/1.5 system-ui, sans-serif; color: #222; background: #fff; margin: 0 auto; max-width: 1100px; padding: 1rem; }
h1 { font-size: 1.5rem; margin-bottom: 0; } h2 { font-size: 1.15rem; margin-top: 2rem; border-bottom: 1px solid #ddd; }
p.note { color: #555; font-size: .9rem; } img { max-width: 100%; height: auto; }
.scroll { overflow-x: auto; } table { border-collapse: collapse; font-size: .9rem; }
th, td { padding: .3rem .7rem; text-align: right; border-bottom: 1px solid #eee; white-space: nowrap; }
th { white-space: normal; vertical-align: bottom; max-width: 9rem; } th:first-child, td:first-child { text-align: left; } td.best { font-weight: bold; } td.changed { font-weight: bold; }
p.warning { border-left: 4px solid #c0392b; padding-left: .7rem; font-size: .9rem; } h3 { font-size: 1rem; }
td.text { text-align: left; white-space: normal; overflow-wrap: anywhere; min-width: 10rem; } details { margin: .5rem 0; }
@media (max-width: 700px) { td:first-child, th:first-child { white-space: normal; min-width: 7rem; } th, td { padding: .3rem .4rem; } }
"""


def write_report(workdir: str | Path) -> Path:
    """Writes WORKDIR/report.html from what is there (metrics.jsonl, eval.json, evaluation/, samples/, manifest.json).

    Returns:
        Its path.
    """
    workdir = Path(workdir)
    rows = read_metrics(workdir)
    manifest = read_manifest(workdir) or {}
    evaluation = _read_json(workdir / "eval.json")
    pictures = dict(evaluation.get("pictures", {}))
    gallery = {name: pictures.pop(name) for name in ("memorisation.png",) if name in pictures}
    parts = [
        _headline(workdir, rows, manifest, evaluation),
        figures_section(evaluation),
        evaluation_pictures(workdir, pictures),
        signatures_section(evaluation),
        memorisation_section(evaluation) + evaluation_pictures(workdir, gallery),
    ]
    if "title" not in evaluation:  # a workdir, not two folders
        parts += [
            sample_grids(workdir, manifest.get("config", {}).get("task") == "prior"),
            curve_panels(rows, best_point(manifest, rows)),
            _settings(manifest),
        ]
    parts += [protocol_section(evaluation), _environment(manifest, evaluation)]
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
    if "title" in evaluation:
        facts.append(
            f"{evaluation['title']}: {evaluation['num_samples']} and {evaluation['num_images']} images"
        )
    elif evaluation:
        facts.append(
            f"scored against {evaluation['num_images']} photographs of split '{evaluation['split']}'"
        )
    line = html.escape(" · ".join(facts)) or "nothing was logged yet"
    return f"<h1>FundusGAN: {html.escape(workdir.name)}</h1>\n<p>{line}</p>"


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


def _environment(manifest: dict[str, Any], evaluation: dict[str, Any]) -> str:
    measured = evaluation.get("environment", {})
    if not manifest and not measured:
        return ""
    trained = _place(manifest) if manifest else {}
    facts = {
        **{
            f"trained on {name}" if name == "devices" else f"trained at {name}": value
            for name, value in trained.items()
        },
        **{
            f"scored on {name}" if name == "devices" else f"scored at {name}": value
            for name, value in _place(measured).items()
        },
        "dataset fingerprint": manifest.get("dataset_fingerprint"),
        "starts": len(manifest.get("starts", [])) or None,
        "first start": (manifest.get("starts") or [{}])[0].get("time"),
        **(manifest.get("versions") or measured.get("versions", {})),
    }
    lines = [
        f"<tr><td>{html.escape(str(name))}</td><td class=text>{html.escape(str(value))}</td></tr>"
        for name, value in facts.items()
        if value is not None
    ]
    return f'<h2>Environment</h2><div class="scroll"><table>{"".join(lines)}</table></div>'


def _place(record: dict[str, Any]) -> dict[str, str]:
    """Devices and commit of a manifest, or of an evaluation's environment."""
    if not record:
        return {}
    devices, git = record.get("devices", {}), record.get("git") or {}
    return {
        "devices": f"{devices.get('count')} x {devices.get('kind')} ({devices.get('platform')})",
        "commit": (git.get("commit") or "not from a checkout")
        + (" with changes" if git.get("modified") else ""),
    }
