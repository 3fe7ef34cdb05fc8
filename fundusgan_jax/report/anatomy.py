"""The report's table of what drawn images have of a fundus, beside photographs."""

from __future__ import annotations

from fundusgan_jax.anatomy.plausibility import MEASURES
from fundusgan_jax.report.elements import cell, note, table
from fundusgan_jax.report.evaluation import Anatomy, Evaluation
from fundusgan_jax.report.table import shown

HEAD = ("drawn", "photographs", "known of drawn", "known of photographs", "KS distance", "KS, other patients")
ANATOMY_NOTE = (
    "Medians over the images where a measure means something (known: their share); shares where it says so. KS distance: the "
    "largest difference of the two distribution functions, 0 to 1. Other patients: the same of photographs of other patients, "
    "what chance and the choice of patients bring. Found by classical image processing; below 200 px vessels are thinner than a "
    "pixel."
)


def anatomy_section(evaluation: Evaluation | None) -> str:
    """Disc, macula, vessels, light and sharpness of drawn images beside photographs."""
    if evaluation is None or evaluation.anatomy is None:
        return ""
    anatomy = evaluation.anatomy
    lines = [[cell(MEASURES.get(name, name)), *map(cell, cells)] for name, cells in _cells(anatomy).items()]
    return "<h2>Anatomy</h2>" + table([_numbers(anatomy), *HEAD], lines) + note(ANATOMY_NOTE)


def anatomy_lines(anatomy: Anatomy) -> str:
    """The same as text, one measure a line."""
    lines = [f"anatomy, {_numbers(anatomy)}", "".join([f"{'':>24}", *(f"{title:>22}" for title in HEAD)])]
    lines += [
        "".join([f"{name:>24}", *(f"{text:>22}" for text in cells)])
        for name, cells in _cells(anatomy).items()
    ]
    return "\n".join(lines)


def _numbers(anatomy: Anatomy) -> str:
    others = f", {anatomy.num_others} of other patients" if anatomy.num_others else ""
    return f"{anatomy.num_generated} drawn images and {anatomy.num_photographs} photographs{others}"


def _cells(anatomy: Anatomy) -> dict[str, list[str]]:
    return {
        name: [
            shown(row.generated),
            shown(row.photographs),
            f"{row.known_generated:.0%}",
            f"{row.known_photographs:.0%}",
            shown(row.distance),
            shown(row.distance_photographs),
        ]
        for name, row in anatomy.measures.items()
    }
