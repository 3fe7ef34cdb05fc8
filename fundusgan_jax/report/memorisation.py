"""The report's section on memory: whether generated images repeat training photographs."""

from __future__ import annotations

import html

from fundusgan_jax.report.elements import cell, facts_table, note, table
from fundusgan_jax.report.evaluation import Evaluation, Match, Memorisation
from fundusgan_jax.report.table import between, shown

KINDS = {"generated": "generated", "held_out": "held-out photograph"}
MEMORISATION_NOTE = (
    "Each image is compared with its nearest training photographs after mirroring, turning and moving. An image stands out "
    "that is nearer than (nearly) all held-out photographs are, by its pixels or by its structure (local contrast: vessels, "
    "disc, lesions). 'Closer by chance': share of held-out photographs at least as close. A held-out photograph that matches "
    "a training one may be the same eye under another patient's name: look at the gallery, evaluation/memorisation.png."
)


def memorisation_section(evaluation: Evaluation | None, with_files: bool) -> str:
    """The verdict, what it rests on and the closest pairs; the training photographs' names only with_files."""
    if evaluation is None or evaluation.memorisation is None:
        return ""
    memory = evaluation.memorisation
    columns = [
        "correlation", "vessel overlap", "distance of pixels", "closer by chance", "correlation, nearest held-out",
        "overlap, nearest held-out",
    ]  # fmt: skip
    head = ["image", *(["training photograph"] if with_files else []), *columns]
    return (
        f"<h2>Memorisation</h2><p>{html.escape(memory.verdict)}</p>"
        + facts_table({**_facts(memory), **_medians(memory)})
        + table(head, [_line(match, with_files) for match in memory.closest])
        + note(MEMORISATION_NOTE)
    )


def _facts(memory: Memorisation) -> dict[str, str | None]:
    nearer, flagged, controls, auc = memory.nearer, memory.flagged, memory.controls, memory.membership_auc
    facts: dict[str, str | None] = {
        "images looked up": f"{memory.num_generated} ({memory.method})",
        "among": f"{memory.num_train} training photographs; by chance: {memory.num_held_out} held-out ones",
        "stand out by their pixels, by their structure": f"{flagged.pixels}, {flagged.structure} "
        f"(either: {flagged.either}; by chance about {memory.expected_by_chance:.1f} of each)",
        "images recognised as a training photograph": _shares(memory),
        "altered training photographs found again": f"{controls.found} of {controls.of}",
        "nearer to training than to as many held-out photographs": f"{shown(nearer.nearer_to_train)} "
        f"({between(nearer.interval)}; 0.5 without memory; {nearer.features})",
        "nearest of all is a training photograph": f"{shown(nearer.of_all)} (without memory {shown(nearer.expected)})",
    }
    if auc is not None:
        name = "AUC of the discriminator's score, training against held-out"
        facts[name] = f"{shown(auc.value)} ({between(auc.interval)}; 0.5 says nothing)"
    return facts


def _shares(memory: Memorisation) -> str | None:
    """Of generated images beside held-out photographs, each of which was looked up as if it were generated."""
    chance = memory.flagged_held_out
    if chance is None:
        return None
    return (
        f"{memory.flagged.either / memory.num_generated:.1%} of the generated, "
        f"{chance.either / memory.num_held_out:.1%} ({chance.either} of {memory.num_held_out}) of held-out photographs, each "
        "among the others"
    )


def _medians(memory: Memorisation) -> dict[str, str]:
    facts = {}
    for name, title in (("correlation", "structure (correlation)"), ("vessel_overlap", "vessels (overlap)")):
        generated, on_held_out, held_out = (
            shown(getattr(memory.medians[kind], name))
            for kind in ("generated", "generated_on_held_out", "held_out")
        )
        facts[f"{title}, median of the best match"] = (
            f"{generated} among training photographs, {on_held_out} among held-out ones; held-out among training: {held_out}"
            if generated
            else "not measured below 128 px"
        )
    return facts


def _line(match: Match, with_files: bool) -> list[str]:
    figures = (
        match.correlation,
        match.vessel_overlap,
        match.distance,
        match.closer_by_chance,
        match.held_out_correlation,
        match.held_out_vessel_overlap,
    )
    return [
        cell(f"{KINDS[match.kind]} {match.number}"),
        *([cell(match.file, "text")] if with_files else []),
        *(cell(shown(value)) for value in figures),
    ]
