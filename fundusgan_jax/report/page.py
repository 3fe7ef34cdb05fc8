"""report.html: one self-contained file with the figures, curves, pictures, configuration and environment of a run."""

from __future__ import annotations

import html
import statistics
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from fundusgan_jax.atomic import atomic_write
from fundusgan_jax.config import flatten
from fundusgan_jax.report.anatomy import anatomy_section
from fundusgan_jax.report.curves import Row, best_point, curves_section, of_kind
from fundusgan_jax.report.elements import facts_table
from fundusgan_jax.report.evaluation import Evaluation, last_evaluation
from fundusgan_jax.report.figures import figures_section, protocol_section, signatures_section
from fundusgan_jax.report.memorisation import memorisation_section
from fundusgan_jax.report.pictures import evaluation_pictures, sample_grids
from fundusgan_jax.workdir.manifest import read_manifest
from fundusgan_jax.workdir.metrics_log import read_metrics

# Pictures of an evaluation that show no photograph.
ABSTRACT_PICTURES = ("tsne.png",)
GALLERY = "memorisation.png"
NO_PHOTOGRAPHS = (
    "This page shows no photograph, no reconstruction of one and no file name: figures, curves and the images of a prior "
    "alone. With <code>--config.report.photographs=True</code> (evaluate: <code>--photographs</code>) it shows them."
)
WITH_PHOTOGRAPHS = (
    "This page shows photographs of patients and their file names. Hand it on only to those who may see them."
)
RENDERED_EYES = "The photographs on this page are rendered eyes: no patient is shown."
# WORKDIR/manifest.json.
Manifest = Mapping[str, Any]

STYLE = """
:root { color-scheme: light; }
body { font: 16px/1.5 system-ui, sans-serif; color: #222; background: #fff; margin: 0 auto; max-width: 1100px; padding: 1rem; }
h1 { font-size: 1.5rem; margin-bottom: 0; } h2 { font-size: 1.15rem; margin-top: 2rem; border-bottom: 1px solid #ddd; }
p.note { color: #555; font-size: .9rem; } img { max-width: 100%; height: auto; }
.scroll { overflow-x: auto; } table { border-collapse: collapse; font-size: .9rem; }
th, td { padding: .3rem .7rem; text-align: right; border-bottom: 1px solid #eee; white-space: nowrap; }
th { white-space: normal; vertical-align: bottom; max-width: 9rem; } th:first-child, td:first-child { text-align: left; } td.best { font-weight: bold; } td.changed { font-weight: bold; }
p.warning { border-left: 4px solid #c0392b; padding-left: .7rem; font-size: .9rem; } code { white-space: nowrap; } p.shown { border-left: 4px solid #1f5a99; padding-left: .7rem; font-size: .9rem; } h3 { font-size: 1rem; }
td.text { text-align: left; white-space: normal; overflow-wrap: anywhere; min-width: 10rem; } details { margin: .5rem 0; }
@media (max-width: 700px) { td:first-child, th:first-child { white-space: normal; min-width: 7rem; } th, td { padding: .3rem .4rem; } }
"""


def write_report(workdir: Path, photographs: bool) -> Path:
    """Writes WORKDIR/report.html from what is there (metrics.jsonl, eval.json, evaluation/, samples/, manifest.json).

    Args:
        workdir: of a run, or an evaluation's output.
        photographs: whether photographs, reconstructions and file names are shown. Rendered eyes, which are no patient's,
            always are.

    Returns:
        Its path.
    """
    log, manifest = read_metrics(workdir), read_manifest(workdir) or {}
    evaluation = last_evaluation(workdir)
    rendered = manifest.get("config", {}).get("data", {}).get("dataset") == "phantom"
    visible = photographs or rendered
    parts = [
        f"<h1>FundusGAN: {html.escape(workdir.name)}</h1>",
        f"<p>{html.escape(_headline(log, manifest, evaluation))}</p>",
        f'<p class="shown">{RENDERED_EYES if rendered else WITH_PHOTOGRAPHS if visible else NO_PHOTOGRAPHS}</p>',
        *_evaluation_sections(workdir, evaluation, visible),
    ]
    if evaluation is None or evaluation.title is None:  # a workdir, not two folders
        best = best_point(manifest.get("best_metric", ""), log)
        parts += [_samples(workdir, manifest, visible), curves_section(log, best)]
        parts.append(_settings(manifest, visible))
    parts += [protocol_section(evaluation), _environment(manifest, evaluation)]
    body = "\n".join(parts)
    path = workdir / "report.html"
    with atomic_write(path) as temporary:
        temporary.write_text(document(f"FundusGAN: {workdir.name}", body), encoding="utf-8")
    return path


def document(title: str, body: str) -> str:
    """A whole page; body: its HTML."""
    return (
        '<!doctype html>\n<html lang="en"><head><meta charset="utf-8">'
        '<meta name="viewport" content="width=device-width, initial-scale=1">'
        f'<title>{html.escape(title)}</title><link rel="icon" href="data:,">'
        f"<style>{STYLE}</style></head><body>\n{body}\n</body></html>\n"
    )


def _evaluation_sections(workdir: Path, evaluation: Evaluation | None, visible: bool) -> list[str]:
    titles = evaluation.pictures if evaluation else {}
    titles = {name: title for name, title in titles.items() if visible or name in ABSTRACT_PICTURES}
    gallery = {name: title for name, title in titles.items() if name == GALLERY}
    others = {name: title for name, title in titles.items() if name != GALLERY}
    return [
        figures_section(evaluation),
        evaluation_pictures(workdir, others),
        signatures_section(evaluation),
        anatomy_section(evaluation),
        memorisation_section(evaluation, visible) + evaluation_pictures(workdir, gallery),
    ]


def _samples(workdir: Path, manifest: Manifest, visible: bool) -> str:
    """A prior's samples show nobody; FundusGAN's grids show photographs, and reconstructions have their vessels."""
    if manifest.get("config", {}).get("task") == "classifier":
        return ""
    if manifest.get("config", {}).get("task") in ("prior", "latent"):
        return sample_grids(workdir, "Samples")
    if manifest.get("config", {}).get("task") == "vessels" and visible:
        return sample_grids(workdir, "A held-out photograph: input, tracing, probability")
    if visible or not any((workdir / "samples").glob("*.png")):
        return sample_grids(workdir, "Held-out photographs: input, reconstruction, difference")
    return "<h2>Samples</h2><p>Left out, because they show photographs.</p>"


def _headline(log: list[Row], manifest: Manifest, evaluation: Evaluation | None) -> str:
    facts = _model_facts(manifest["config"]) if "config" in manifest else []
    train = of_kind(log, "train")
    if train:
        facts.append(f"step {train[-1]['step']:,} ({train[-1]['kimg']:.1f} kimg)")
        rates = [row["img_per_sec"] for row in train if row.get("img_per_sec")]
        if rates:
            facts.append(f"{statistics.median_high(rates):.2f} img/s in training (median)")
    if evaluation is not None and evaluation.title is not None:
        facts.append(f"{evaluation.title}: {evaluation.num_samples} and {evaluation.num_images} images")
    elif evaluation is not None:
        facts.append(f"scored against {evaluation.num_images} photographs of split '{evaluation.split}'")
    return " · ".join(facts) or "nothing was logged yet"


def _model_facts(config: Mapping[str, Any]) -> list[str]:
    data, model = config["data"], config["model"]
    source = "phantom eyes" if data["dataset"] == "phantom" else "fundus photographs"
    if config.get("task") == "vessels":
        return [
            f"vessels by {config['vessels']['network']}, crops of {data['resolution']} px, seed {config['seed']}"
        ]
    if config.get("task") == "classifier":
        network = config["classifier"]["network"]
        return [f"{network} for {data['classes']}, {data['resolution']} px {source}, seed {config['seed']}"]
    facts = [f"{data['resolution']} px {source}, generator at {model['resolution']} px"]
    if config.get("task") == "prior":
        kind = "StyleGAN v1, growing" if model.get("style") == "adain" else "StyleGAN2"
        facts.append(f"{kind} prior, seed {config['seed']}")
    elif config.get("task") == "latent":
        facts.append(f"flow over latents of {model['latent_channels']} channels, seed {config['seed']}")
    else:
        adversary = f", adversary {config['loss'].get('adv', 0):g}" if config["loss"].get("adv") else ""
        facts.append(
            f"{config['encoder']['backbone']}, δ = {model['delta']}{adversary}, seed {config['seed']}"
        )
    if config["train"].get("init_from"):
        facts.append(f"started from {Path(config['train']['init_from']).name}")
    return facts


def _settings(manifest: Manifest, visible: bool) -> str:
    """Every setting; of the dataset's folder the last part alone where nothing may name a patient."""
    if "config" not in manifest:
        return ""
    settings = {name: str(value) for name, value in flatten(manifest["config"]).items()}
    if not visible:
        settings["data.dir"] = Path(settings.get("data.dir", "")).name
    return (
        "<h2>Configuration</h2><details><summary>every setting</summary>"
        + facts_table(settings)
        + "</details>"
    )


def _environment(manifest: Manifest, evaluation: Evaluation | None) -> str:
    measured = evaluation.environment if evaluation else {}
    if not manifest and not measured:
        return ""
    starts = manifest.get("starts", [])
    facts = {
        **_place(manifest, "trained"),
        **_place(measured, "scored"),
        "dataset fingerprint": manifest.get("dataset_fingerprint"),
        "starts": len(starts) or None,
        "first start": starts[0].get("time") if starts else None,
        **(manifest.get("versions") or measured.get("versions", {})),
    }
    return "<h2>Environment</h2>" + facts_table(facts)


def _place(record: Mapping[str, Any], done: str) -> dict[str, str]:
    """Devices and commit of a manifest ('trained') or of an evaluation's environment ('scored')."""
    if not record:
        return {}
    devices, git = record.get("devices", {}), record.get("git") or {}
    commit = git.get("commit") or "not from a checkout"
    return {
        f"{done} on devices": f"{devices.get('count')} x {devices.get('kind')} ({devices.get('platform')})",
        f"{done} at commit": commit + (" with changes" if git.get("modified") else ""),
    }
