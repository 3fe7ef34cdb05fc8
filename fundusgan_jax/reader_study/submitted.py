"""What a browser sends of answers, checked: nothing of another kind reaches the answers' file."""

from __future__ import annotations

from typing import Any

LONGEST_MS = 86_400_000.0  # a day


def valid_answer(question: dict[str, Any], value: str) -> bool:
    """Whether `value` is an answer that the question allows: one of its choices, or a number from 0 to 80."""
    if question["kind"] == "choice":
        return value in question["choices"]
    try:
        return question["kind"] == "number" and 0 <= float(value) <= 80
    except ValueError:
        return False


def milliseconds(body: dict[str, Any], name: str) -> float | None:
    """A duration of the body, 0 where it has none; None for what is no number of milliseconds within a day."""
    value = body.get(name, 0.0)
    valid = isinstance(value, int | float) and not isinstance(value, bool)
    return float(value) if valid and 0 <= value <= LONGEST_MS else None


def numbers(body: dict[str, Any], names: tuple[str, ...]) -> dict[str, Any]:
    """Of the body only what is expected, and numbers only."""
    return {
        name: round(float(body[name]), 3)
        for name in names
        if isinstance(body.get(name), int | float) and abs(body[name]) < 1e9
    }
