"""Reads a study's answers, joins them with the truth, writes analysis.json, tables, the report and iMRMC's file."""

from __future__ import annotations

import json
import math
import sqlite3
from argparse import Namespace
from pathlib import Path
from typing import Any

import numpy as np

from fundusgan_jax.atomic import atomic_write
from fundusgan_jax.errors import UserError
from fundusgan_jax.folder_lock import owned_folder
from fundusgan_jax.reader_study.analysis import analyse_answers
from fundusgan_jax.reader_study.answers import Answers, of_lines, read_answers, write_table
from fundusgan_jax.reader_study.figures_of_merit import SHARES
from fundusgan_jax.reader_study.imrmc import write_imrmc
from fundusgan_jax.reader_study.report_page import write_page
from fundusgan_jax.reader_study.study import DATABASE, TRUTH, Study, open_study, read_lines

DEFAULT_MARGIN = 0.05
EXPERIENCED_YEARS = 5
# Seconds that the browser's clock and the server's may differ before an answer is flagged.
CLOCKS_APART = 1.0


def analyse(flags: Namespace) -> None:
    """Writes everything about one study to a folder; see __main__.

    Raises:
        UserError: there are no answers, or what there is makes no sense.
    """
    study = None if flags.answers is not None else open_study(flags.study)
    beside = flags.answers.parent if study is None else flags.study
    with owned_folder(flags.output or beside / "analysis") as output:
        _analyse(flags, study, output)


def _analyse(flags: Namespace, study: Study | None, output: Path) -> None:
    if study is None:
        answers = read_answers(flags.answers)
        margin, fixed = flags.margin or DEFAULT_MARGIN, False
    else:
        lines, facts = study_lines(study)
        answers = of_lines(lines, str(flags.study / DATABASE))
        write_table(output / "answers.csv", lines)
        margin, fixed = facts["margin"], facts["margin_fixed"]
    columns = flags.groups.split(",") if flags.groups else default_columns(answers)
    record = analyse_answers(answers, columns, flags.reference, margin, fixed)
    if study is not None:
        _add_facts(record, study, facts)
    _write_tables(output, record)
    write_imrmc(output / "answers.imrmc", answers)
    with atomic_write(output / "analysis.json") as temporary:
        temporary.write_text(json.dumps(_plain(record), indent=1, allow_nan=False) + "\n", encoding="utf-8")
    write_page(output / "report.html", record, study.folder if study else None)
    print(summary_text(record))
    print(f"analysis.json, report.html, tables and answers.imrmc in {output}")


def default_columns(answers: Answers) -> list[str]:
    """All columns with 2 to 12 values; numbers with more than that are no groups."""
    return [
        name
        for name, values in answers.columns.items()
        if 2 <= len(set(values) - {""}) <= 12 and name != "years"
    ]


def study_lines(study: Study) -> tuple[list[dict[str, str]], dict[str, Any]]:
    """The study's answers as lines of answers.csv, and what was noted beside them.

    Raises:
        UserError: no answers yet, or the truth is not there.
    """
    path = study.folder / DATABASE
    if not path.is_file():
        raise UserError(f"{path} does not exist; serve the study first")
    truth = {line["image"]: line["truth"] for line in read_lines(study.folder / TRUTH)}
    connection = sqlite3.connect(f"file:{path}?mode=ro", uri=True)
    connection.row_factory = sqlite3.Row
    stored = list(connection.execute("SELECT * FROM answers WHERE position >= 0 ORDER BY reader, position"))
    consents = {
        line["reader"]: json.loads(line["answers"]) for line in connection.execute("SELECT * FROM consents")
    }
    designs = list(connection.execute("SELECT * FROM designs ORDER BY time"))
    connection.close()
    if not stored:
        raise UserError(f"{path} holds no answers yet; run analyse when readers have read")
    # The design that was served when the first answer came.
    first = [design for design in designs if design["time"] <= min(line["time"] for line in stored)]
    later = [design for design in designs if design["time"] > min(line["time"] for line in stored)]
    facts = {
        "margin": float((first or designs)[-1]["margin"]),
        "margin_fixed": bool(first),
        "design_changed": bool(later),
        "flagged": sum(bool(_flags(line)) for line in stored),
    }
    return [_line(line, truth, study, consents.get(line["reader"], {})) for line in stored], facts


def _line(
    stored: sqlite3.Row, truth: dict[str, str], study: Study, consent: dict[str, str]
) -> dict[str, str]:
    reader = study.readers.get(stored["reader"])
    columns = {**consent, **{k: v for k, v in (reader.columns if reader else {}).items() if v}}
    years = columns.get("years", "")
    if years:
        columns["experience"] = (
            f"{'under' if float(years) < EXPERIENCED_YEARS else 'at least'} {EXPERIENCED_YEARS} years"
        )
    if stored["image"] not in truth:
        raise UserError(f"{study.folder / TRUTH} has no image {stored['image']}; it is another study's")
    return {
        "reader": f"r{stored['reader']:02d}",
        **columns,
        "image": stored["image"],
        "truth": truth[stored["image"]],
        "answer": stored["answer"],
        "seconds": f"{max(stored['client_ms'] - stored['hidden_ms'], 0) / 1000:.3f}",
        "position": str(stored["position"] + 1),
        "server_seconds": "" if stored["server_ms"] is None else f"{stored['server_ms'] / 1000:.3f}",
        "hidden_seconds": f"{stored['hidden_ms'] / 1000:.3f}",
        "views": str(stored["views"]),
        "server_time": f"{stored['time']:.3f}",
        "flags": _flags(stored),
    }


def _flags(stored: sqlite3.Row) -> str:
    """What is unusual about one answer's time."""
    remarks = []
    server, client = stored["server_ms"], stored["client_ms"]
    if server is not None and abs(server - client) > 1000 * CLOCKS_APART:
        remarks.append("clocks")
    if stored["hidden_ms"] > 0:
        remarks.append("hidden")
    if stored["views"] > 1:
        remarks.append("reloaded")
    return " ".join(remarks)


def _add_facts(record: dict[str, Any], study: Study, facts: dict[str, Any]) -> None:
    settings = study.settings
    record["study"] = {
        name: settings.get(name)
        for name in ("title", "note", "seed", "side", "audit", "sources", "version", "created")
    }
    leaks = (settings.get("audit") or {}).get("leaks", [])
    if leaks:
        record["warnings"].insert(
            0,
            f"The leak audit had found that {', '.join(leaks)} alone tell real from synthetic, and it was accepted: readers may "
            "have used that.",
        )
    if facts["design_changed"]:
        record["warnings"].insert(
            0, "study.json or text.json was changed after the first answer: say so, and why."
        )
    if facts["flagged"]:
        record["warnings"].append(
            f"{facts['flagged']} answers have unusual times (page hidden, reloaded, or clocks apart): column flags of answers.csv."
        )


def _write_tables(output: Path, record: dict[str, Any]) -> None:
    write_table(output / "readers.csv", [_flat(line) for line in record["readers"]])
    write_table(output / "images.csv", [_flat(line) for line in record["images"]])
    groups = [{"column": "", "group": "all readers", **_flat(record["overall"])}]
    groups += [
        {"column": column, "group": name, **_flat(block)}
        for column, table in record["groups"].items() for name, block in table.items()
    ]  # fmt: skip
    write_table(output / "groups.csv", groups)
    tests = [
        {"column": column, "figure": figure, "reference": table["reference"], "coefficient": name, "estimate": value,
         "se": block["se"][name], "p": block["p"][name], "ci_low": block["ci"][name][0], "ci_high": block["ci"][name][1],
         "covariance": block["covariance"], "working_correlation": block["working_correlation"],
         "converged": block["converged"], "robust_se": block["robust"]["se"][name], "robust_p": block["robust"]["p"][name]}
        for column, table in record["gee"].items() for figure, block in table.items() if isinstance(block, dict)
        for name, value in block["coefficients"].items()
    ]  # fmt: skip
    differences = [
        {"column": column, "group": name, "figure": figure, **_flat(block)}
        for column, table in record["two_way_differences"].items()
        for name, figures in table.items() for figure, block in figures.items()
    ]  # fmt: skip
    for name, lines in (("gee.csv", tests), ("two_way_differences.csv", differences)):
        if lines:
            write_table(output / name, lines)


def _flat(block: dict[str, Any], prefix: str = "") -> dict[str, Any]:
    """Nested figures as columns: accuracy_mean, accuracy_two_way_ci_low, ..."""
    line: dict[str, Any] = {}
    for name, value in block.items():
        if isinstance(value, dict):
            line |= _flat(value, f"{prefix}{name}_")
        elif isinstance(value, list) and len(value) == 2:
            line |= {f"{prefix}{name}_low": value[0], f"{prefix}{name}_high": value[1]}
        else:
            line[f"{prefix}{name}"] = value
    return line


def _plain(value: Any) -> Any:
    """For JSON: numpy's numbers as Python's, unknown ones as null."""
    if isinstance(value, dict):
        return {str(key): _plain(one) for key, one in value.items()}
    if isinstance(value, list | tuple):
        return [_plain(one) for one in value]
    if isinstance(value, np.generic):
        value = value.item()
    return None if isinstance(value, float) and not math.isfinite(value) else value


def summary_text(record: dict[str, Any]) -> str:
    """The first lines of the result, for the terminal."""
    lines = [
        f"{record['num_readers']} readers, {record['num_images']} images, {record['num_answers']} answers"
    ]
    for share in SHARES:
        block = record["overall"][share]
        low, high = block["two_way_ci"]
        lines.append(
            f"  {share:12s} {100 * block['mean']:5.1f} % (SD over readers {100 * block['sd_readers']:.1f}); 95 % interval, readers "
            f"and images random: {100 * low:.1f} to {100 * high:.1f}"
        )
    test = record["equivalence"]
    verdict = "shown" if test["equivalent"] else "not shown"
    lines.append(f"  equivalence with chance within +- {test['margin']:g}: {verdict} (p {test['p']:.3f})")
    lines += [f"note: {text}" for text in record["warnings"]]
    return "\n".join(lines)
