"""Makes a study: picks images, sends them through one pipeline, audits what they give away, writes the folder."""

from __future__ import annotations

import datetime
import hashlib
import json
import os
import secrets
import shutil
import tempfile
from argparse import Namespace
from collections import Counter
from collections.abc import Callable
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from fundusgan_jax.atomic import atomic_write
from fundusgan_jax.data.read_image import Rejected
from fundusgan_jax.errors import UserError
from fundusgan_jax.folder_lock import LOCK, owned_folder
from fundusgan_jax.progress import Progress
from fundusgan_jax.reader_study.answers import write_table
from fundusgan_jax.reader_study.leak_audit import LARGEST_AUC, Leak, audit, audit_record, copies
from fundusgan_jax.reader_study.pictures import (
    LARGEST_SIDE,
    native_side,
    padded_png,
    png_bytes,
    uniform_picture,
)
from fundusgan_jax.reader_study.side_information import side_information
from fundusgan_jax.reader_study.sources import Source, balanced_order, common_classes, in_pairs, of_argument
from fundusgan_jax.reader_study.study import (
    DEFAULT_TEXT,
    IMAGES,
    LINKS,
    READERS,
    SECRET,
    STUDY,
    TEXT,
    TRUTH,
    admin_link,
    open_study,
    read_lines,
    reader_links,
    signature,
)
from fundusgan_jax.version import __version__

PRACTICE = 2  # images of each kind
AUDITED = 150  # of each kind, shown ones among them: with fewer the audit's AUC is uncertain
SMALLEST_SIDE = 64
QUESTIONS: list[dict[str, Any]] = [
    {
        "name": "specialty",
        "kind": "choice",
        "choices": ["resident", "ophthalmologist, not retina", "retina specialist"],
    },
    {"name": "years", "kind": "number"},
]


class Picture(NamedTuple):
    """A source that was read: its field of view's square in its own pixels, and how to make the page's picture of it."""

    source: Source
    real: bool
    native: int
    at_side: Callable[[int], np.ndarray]


def create_study(flags: Namespace) -> None:
    """Writes the study that the flags ask for; see __main__.

    Raises:
        UserError: too few images, a copy among them, a leak that is not accepted, or a folder that is not empty.
    """
    _assert_new(flags.output)
    with owned_folder(flags.output):
        _assert_new(flags.output)
        _create(flags)


def _assert_new(output: Path) -> None:
    """UserError where the folder holds something; a lock is nothing."""
    if output.exists() and any(path.name != LOCK for path in output.iterdir()):
        raise UserError(f"--output={output} is not empty; choose a new folder, a study is never written over")


def _create(flags: Namespace) -> None:
    readers = reader_table(flags.readers)
    rng = np.random.default_rng([flags.seed, 21])
    with tempfile.TemporaryDirectory(prefix="reader_study_") as scratch:
        pictures, counts = _gather(flags, rng, Path(scratch))
        shown = [picture for kind in (True, False) for picture in _of_kind(pictures, kind)[: flags.num]]
        practice = [
            p for kind in (True, False) for p in _of_kind(pictures, kind)[flags.num : flags.num + PRACTICE]
        ]
        side = chosen_side(pictures, flags.side)
        images = _rendered([*shown, *practice], side)
        _refuse_copies([*shown, *practice], images)
        content = [png_bytes(image) for image in images]
        length = max(map(len, content)) + 12
        leaks, audited = _audit(pictures, [*shown, *practice], images, side, length, flags.seed)
    record = audit_record(leaks, audited, flags.accept_leak)
    print_audit(record)
    if record["leaks"] and not flags.accept_leak:
        raise UserError(
            f"{', '.join(record['leaks'])} alone tell real from synthetic (AUC above {LARGEST_AUC}): readers may too, without "
            "looking at the eye. Mend the images or their choice, or give --accept_leak, which the report will say"
        )
    files = [padded_png(one, length) for one in content]
    _write(flags, readers, [*shown, *practice], files, len(shown), side, record, counts, rng)


def reader_table(path: Path | None) -> list[dict[str, str]]:
    """One line per reader: name, and what is known of them. Without a file: 40 numbered readers, as in Kim et al."""
    if path is None:
        return [{"name": ""} for _ in range(40)]
    lines = read_lines(path)
    first = next((name for name in ("name", "reader") if lines and name in lines[0]), None)
    if first is None:
        raise UserError(
            f"--readers={path} has no column 'name' (or holds no reader); write name,group,years below it"
        )
    readers = [{"name": line.pop(first), **line} for line in lines]
    names = [reader["name"] for reader in readers]
    twice = next((name for name in names if names.count(name) > 1), None)
    if twice is not None:
        raise UserError(
            f"--readers={path}: '{twice}' stands there twice; each reader needs a name or number of their own"
        )
    return readers


def _of_kind(pictures: list[Picture], real: bool) -> list[Picture]:
    return [picture for picture in pictures if picture.real == real]


def _gather(
    flags: Namespace, rng: np.random.Generator, scratch: Path
) -> tuple[list[Picture], dict[str, Any]]:
    """Usable pictures of both kinds in a drawn order, and how many were left out."""
    needed = flags.num + PRACTICE
    most = max(AUDITED, needed)
    sides = [
        of_argument(folder, flag, most, flags.seed, scratch)
        for folder, flag in ((flags.real, "--real"), (flags.synthetic, "--synthetic"))
    ]
    classes = common_classes(*sides)
    usable_pictures: list[list[Picture]] = []
    counts: dict[str, Any] = {}
    for sources, real, folder in zip(sides, (True, False), (flags.real, flags.synthetic)):
        kind = "real" if real else "synthetic"
        order = balanced_order(sources, rng, classes)
        usable, rejected = _usable(order, real, most)
        counts[kind] = {
            "folder": folder.resolve().name,
            "available": len(sources),
            "left_out": len(rejected),
            "reasons": sorted(set(rejected))[:3],
        }
        if len(usable) < needed:
            reason = f", for example: {rejected[0]}" if rejected else ""
            raise UserError(
                f"{len(usable)} {kind} images can be used where {needed} are needed ({flags.num} and {PRACTICE} for practice; "
                f"one of each patient; {len(rejected)} left out{reason}); add images or give a smaller --num"
            )
        usable_pictures.append(usable)
    orders = in_pairs(*([picture.source.label for picture in usable] for usable in usable_pictures))
    chosen = [[usable[place] for place in order] for usable, order in zip(usable_pictures, orders)]
    for kind, usable in zip(("real", "synthetic"), chosen):
        shown = Counter(picture.source.label for picture in usable[: flags.num])
        counts[kind]["classes"] = dict(sorted(shown.items())) if set(shown) != {""} else None
    if counts["real"]["classes"] != counts["synthetic"]["classes"]:
        print(
            f"note: the classes of both kinds differ: real {counts['real']['classes'] or 'unknown'}, synthetic "
            f"{counts['synthetic']['classes'] or 'unknown'}; what a picture shows may then tell its kind",
            flush=True,
        )
    return [*chosen[0], *chosen[1]], counts


def _usable(order: list[Source], real: bool, most: int) -> tuple[list[Picture], list[str]]:
    """The first `most` that show a field of view, and why others do not."""
    usable: list[Picture] = []
    rejected: list[str] = []
    progress = Progress(min(most, len(order)), "img", f"reading {'real' if real else 'synthetic'} images")
    for source in order:
        if len(usable) == most:
            break
        try:
            circle, native = native_side(source.read())
        except Rejected as reason:
            rejected.append(str(reason))
            continue

        def at_side(side: int, source: Source = source, circle: Any = circle) -> np.ndarray:
            return uniform_picture(source.read(), circle, side)

        usable.append(Picture(source, real, native, at_side))
        progress.update()
    progress.close()
    return usable, rejected


def chosen_side(pictures: list[Picture], wanted: int | None) -> int:
    """The side of all pictures: --side, or the largest at which none is enlarged, at most LARGEST_SIDE.

    Raises:
        UserError: --side would enlarge some: that shows.
    """
    least = min(pictures, key=lambda picture: picture.native)
    # Circles are found to a pixel or two.
    if wanted is not None and wanted > least.native * 1.04:
        raise UserError(
            f"--side={wanted} would enlarge {least.source.name} ({least.native} px), and that shows; give at most {least.native}"
        )
    side = wanted if wanted is not None else min(least.native, LARGEST_SIDE) // 8 * 8
    if side < SMALLEST_SIDE:
        raise UserError(
            f"{least.source.name} gives {side} px, at least {SMALLEST_SIDE} are needed; take it out"
        )
    return side


def _rendered(pictures: list[Picture], side: int) -> list[np.ndarray]:
    progress = Progress(len(pictures), "img", f"pictures of {side} px")
    images = []
    for picture in pictures:
        images.append(picture.at_side(side))
        progress.update()
    progress.close()
    return images


def _refuse_copies(pictures: list[Picture], images: list[np.ndarray]) -> None:
    names = {f"{number}": image for number, image in enumerate(images)}
    pairs = copies(names, {f"{number}": picture.real for number, picture in enumerate(pictures)})
    if pairs:
        synthetic, real, likeness = pairs[0]
        raise UserError(
            f"{len(pairs)} synthetic images are copies of photographs of this study, for example "
            f"{pictures[int(synthetic)].source.name} of {pictures[int(real)].source.name} (correlation {likeness:.2f}); take "
            "these images out, or take photographs that the model was not trained on"
        )


def _audit(
    pictures: list[Picture], used: list[Picture], images: list[np.ndarray], side: int, length: int, seed: int
) -> tuple[list[Leak], int]:
    """The leaks among the study's pictures and as many others of their sources as AUDITED allows."""
    chosen = {id(picture) for picture in used}
    others = [picture for picture in pictures if id(picture) not in chosen]
    information = [side_information(image, length) for image in images]
    progress = Progress(len(others), "img", "leak audit")
    for picture in others:
        information.append(side_information(picture.at_side(side), length))
        progress.update()
    progress.close()
    every = [*used, *others]
    real = np.asarray([picture.real for picture in every])
    groups = [f"{picture.real} {picture.source.patient or picture.source.name}" for picture in every]
    return audit(information, real, groups, seed), len(every)


def print_audit(record: dict[str, Any]) -> None:
    """The audit's table."""
    print(
        f"leak audit ({record['num_images']} images; AUC 0.5 tells nothing, {record['limit']} is the limit):"
    )
    for name, auc in record["auc"].items():
        print(f"  {name:15s} {auc:.2f}{'  LEAK' if name in record['leaks'] else ''}")


def _write(
    flags: Namespace,
    readers: list[dict[str, str]],
    pictures: list[Picture],
    files: list[bytes],
    num_shown: int,
    side: int,
    record: dict[str, Any],
    counts: dict[str, Any],
    rng: np.random.Generator,
) -> None:
    output, secret = flags.output, secrets.token_bytes(32)
    names = [_opaque(secret, number) for number in range(len(files))]
    order = [names[place] for place in rng.permutation(num_shown)]
    practice = [names[num_shown + place] for place in rng.permutation(len(files) - num_shown)]
    (output / IMAGES).mkdir()
    # Written in the order of their names: neither dates nor places on the disk follow the kinds.
    for name, content in sorted(zip(names, files)):
        with atomic_write(output / IMAGES / f"{name}.png") as temporary:
            temporary.write_bytes(content)
    truth = [
        {
            "image": name,
            "truth": "real" if picture.real else "synthetic",
            "label": picture.source.label,
            "file": picture.source.name,
        }
        for name, picture in sorted(zip(names, pictures), key=lambda pair: pair[0])
    ]
    write_table(output / TRUTH, truth)
    os.chmod(output / TRUTH, 0o600)
    _write_private(output / SECRET, secret.hex() + "\n")
    shutil.copyfile(DEFAULT_TEXT, output / TEXT)
    known = [{k: v for k, v in reader.items() if k != "name"} for reader in readers]
    write_table(output / READERS, [{"reader": number, **columns} for number, columns in enumerate(known, 1)])
    until = flags.until or (datetime.date.today() + datetime.timedelta(days=90)).isoformat()
    settings = {
        "version": __version__,
        "title": "Real or synthetic?",
        "note": "",
        "address": flags.address.rstrip("/"),
        "until": until,
        "margin": flags.margin,
        "questions": QUESTIONS,
        "smallest_screen": 600,
        "largest_zoom": 4,
        "side": side,
        "seed": flags.seed,
        "created": datetime.datetime.now(datetime.UTC).isoformat(timespec="seconds"),
        "sources": counts,
        "audit": record,
        "practice": practice,
        "images": order,
        "sha256": {name: hashlib.sha256(content).hexdigest() for name, content in sorted(zip(names, files))},
    }
    with atomic_write(output / STUDY) as temporary:
        temporary.write_text(json.dumps(settings, indent=1) + "\n", encoding="utf-8")
    _write_links(output, readers)


def _write_links(output: Path, readers: list[dict[str, str]]) -> None:
    study = open_study(output)
    address = study.settings["address"]
    links = [
        {"reader": number, **readers[number - 1], "link": address + path}
        for number, path in reader_links(study)
    ]
    links.append({"reader": "organiser", "name": "progress page", "link": address + admin_link(study)})
    write_table(output / LINKS, links)
    os.chmod(output / LINKS, 0o600)
    count = len(study.settings["images"])
    print(
        f"{count} images of {study.settings['side']} px for {len(readers)} readers in {output}; links in {LINKS}\n"
        f"the margin of equivalence is {study.settings['margin']} (accuracy within 0.5 +- it); edit {STUDY} and {TEXT} before "
        f"the first answer, then: python -m fundusgan_jax.reader_study serve {output}"
    )


def _opaque(secret: bytes, number: int) -> str:
    """12 letters and digits that say nothing."""
    return hashlib.sha256(signature(secret, "name", number).encode()).hexdigest()[:12]


def _write_private(path: Path, text: str) -> None:
    with atomic_write(path) as temporary:
        temporary.touch(mode=0o600)
        temporary.write_text(text)
