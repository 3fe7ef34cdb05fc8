"""What the prepare command says: the source, the split, the classes."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Sequence
from typing import Any

from fundusgan_jax.data.packed import PackedDataset
from fundusgan_jax.data.prepare.listing import Source
from fundusgan_jax.data.prepare.splits import Assignment


def describe(dataset: str, source: Source) -> None:
    patients = (
        f" of {len({photo.patient for photo in source.photos})} patients" if source.has_patients else ""
    )
    say(
        f"{dataset}: {len(source.photos)} photographs{patients}, {len(source.rejected)} other files set aside"
    )
    if source.label_names:
        say(f"classes: {_classes_line(source.label_names, [photo.label for photo in source.photos])}")
    if not source.has_patients:
        say(
            "no patient ids here: every file is its own patient, so eyes of one person may stand on two sides"
        )
    for note in source.notes:
        say(f"note: {note}")


def describe_squashed(ratios: Sequence[tuple[str, float]]) -> None:
    """Says of which photographs the proportions were changed."""
    squashed = [(file, ratio) for file, ratio in ratios if ratio != 1]
    if squashed:
        file, ratio = squashed[0]
        say(
            f"note: {len(squashed)} photographs are copies whose proportions were changed; their fields of view are stretched back "
            f"into circles (first: {file}, {ratio:.2f} times as high as wide)"
        )


MUCH_OF_A_CLASS = 0.25  # share of its photographs
NAMED_REASONS = 8  # kinds of reason in the summary; rejected.csv has all
NAMED_PAIRS = 10  # near-duplicates in the summary; near_duplicates.csv has all


def describe_rejected(reasons: Sequence[str]) -> None:
    """A line for each of the commonest kinds of reason, and one for all others together."""
    kinds = Counter(re.split(r"[:(]|(?<=duplicate) of ", reason)[0].strip()[:60] for reason in reasons)
    named = kinds.most_common(NAMED_REASONS)
    for kind, count in named:
        say(f"  {count} x {kind}")
    others, rest = len(kinds) - len(named), len(reasons) - sum(count for _, count in named)
    if others:
        say(f"  {rest} x {others} other reason{'s' * (others > 1)}, in rejected.csv")


def describe_lost_classes(
    label_names: Sequence[str], labels: Sequence[int], unreadable: Sequence[bool]
) -> None:
    """Says which classes lose much by --quality: a cataract is a haze, and another disease may be as hard to photograph.

    Args:
        label_names: of the source.
        labels: of each photograph, -1 for none.
        unreadable: whether the level of quality rejects it.
    """
    counts, lost = Counter(labels), Counter(label for label, bad in zip(labels, unreadable) if bad)
    for index, name in enumerate(label_names):
        if lost[index] > MUCH_OF_A_CLASS * counts[index]:
            share = (
                f"{lost[index]} of {counts[index]} photographs of {name} ({lost[index] / counts[index]:.0%})"
            )
            say(f"note: --quality rejects {share}; --quality=off keeps them")


def describe_splits(
    rows: Sequence[tuple[str, str, str]],
    assignment: Assignment,
    pairs: Sequence[tuple[str, str, str]],
    duplicates: int,
) -> None:
    say(f"duplicates dropped: {duplicates}; near-duplicates between patients: {len(pairs)}")
    for file, other, alike in pairs[:NAMED_PAIRS]:
        say(f"  {file} and {other} (correlation {alike})")
    if len(pairs) > NAMED_PAIRS:
        say(f"  and {len(pairs) - NAMED_PAIRS} more in near_duplicates.csv")
    if assignment.both_sides:
        say(f"{len(assignment.both_sides)} patients stood on two official sides and are kept on one")
    if assignment.regrouped:
        first = ", ".join(assignment.regrouped[:5])
        say(
            f"note: {len(assignment.regrouped)} patients ({first}) have photographs that stood on two sides under other ids: all "
            "of theirs go to the training side"
        )
    if assignment.moved:
        say(f"{len(assignment.moved)} patients moved to the side of their duplicates")
    for split in sorted({row[2] for row in rows}):
        of_split = [row for row in rows if row[2] == split]
        say(f"{split}: {len(of_split)} photographs of {len({row[1] for row in of_split})} patients")
    if "train" not in {row[2] for row in rows}:
        say("note: nothing is here for training (--resplit splits what is here by patient)")
    if "test" not in {row[2] for row in rows}:
        say("note: nothing is kept for testing (one patient, or --test_fraction=0)")


def describe_classes(dataset: PackedDataset) -> None:
    """A line per split: its classes by name."""
    if dataset.label_names:
        for name, split in sorted(dataset.splits.items()):
            say(f"classes, {name}: {_classes_line(dataset.label_names, split.label.tolist())}")


def _classes_line(names: Sequence[str], labels: Sequence[int]) -> str:
    counts = Counter(labels)
    shown = [f"{name} {counts[index]}" for index, name in enumerate(names)]
    return ", ".join([*shown, *([f"unknown {counts[-1]}"] if counts[-1] else [])])


def counts_line(done: dict[str, Any]) -> str:
    counts = ", ".join(f"{name} {count}" for name, count in done["splits"].items())
    return f"{counts}, {done['rejected_count']} rejected, {done['resolution']} px"


def say(text: str) -> None:
    print(text, flush=True)
