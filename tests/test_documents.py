"""The documents: README is short, what they link and name is there, every command's flags and settings are known."""

import re
import shlex
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

import pytest

from fundusgan_jax import cli, main
from fundusgan_jax.config import load_config
from fundusgan_jax.data.prepare.arguments import _parser as prepare_parser
from fundusgan_jax.evaluate.__main__ import parser as evaluate_parser
from fundusgan_jax.reader_study.__main__ import parser as reader_study_parser
from fundusgan_jax.settings import SETTINGS
from fundusgan_jax.studies.ablation import parser as ablation_parser
from fundusgan_jax.studies.augmentation import parser as augmentation_parser
from fundusgan_jax.studies.disentanglement import parser as disentanglement_parser
from fundusgan_jax.studies.gradcam import parser as gradcam_parser
from fundusgan_jax.studies.imbalance import parser as imbalance_parser
from fundusgan_jax.studies.lesions import parser as lesions_parser
from fundusgan_jax.studies.opinion import parser as opinion_parser
from fundusgan_jax.studies.shortcuts import parser as shortcuts_parser
from fundusgan_jax.vessels.__main__ import parser as vessels_parser
from fundusgan_jax.weights.__main__ import _parser as weights_parser

ROOT = Path(__file__).resolve().parents[1]
DOCUMENTS = sorted(
    [*ROOT.glob("*.md"), *(ROOT / "docs").glob("*.md"), ROOT / "benchmarks" / "NOTES.md"],
    key=lambda path: path.relative_to(ROOT),
)
PARSERS = {
    "fundusgan_jax.main": main.parser,
    "fundusgan_jax.data.prepare": prepare_parser,
    "fundusgan_jax.evaluate": evaluate_parser,
    "fundusgan_jax.weights": weights_parser,
    "fundusgan_jax.reader_study": reader_study_parser,
    "fundusgan_jax.vessels": vessels_parser,
    "fundusgan_jax.studies.ablation": ablation_parser,
    "fundusgan_jax.studies.disentanglement": disentanglement_parser,
    "fundusgan_jax.studies.augmentation": augmentation_parser,
    "fundusgan_jax.studies.gradcam": gradcam_parser,
    "fundusgan_jax.studies.imbalance": imbalance_parser,
    "fundusgan_jax.studies.lesions": lesions_parser,
    "fundusgan_jax.studies.opinion": opinion_parser,
    "fundusgan_jax.studies.shortcuts": shortcuts_parser,
}
FENCE = re.compile(r"^```\w*\n(.*?)^```", re.MULTILINE | re.DOTALL)
# Not ours.
OTHER = ("pytest", "venv")


class Command(NamedTuple):
    """`python -m module words`, as it stands in a document."""

    document: str
    module: str
    words: tuple[str, ...]


def pieces(text: str) -> Iterator[str]:
    """Lines of code blocks and spans of code, each as one line."""
    for block in FENCE.findall(text):
        yield from re.sub(r"\\\n\s*", " ", block).splitlines()
    for span in re.findall(r"`([^`]+)`", FENCE.sub("", text)):
        yield " ".join(span.split())


def commands_of(path: Path) -> Iterator[Command]:
    """The commands of a document; $NAME stands for what the document sets it to."""
    text = path.read_text()
    variables = dict(re.findall(r'^([A-Z]+)="(.*)"$', text, re.MULTILINE))
    for piece in pieces(text):
        piece = re.sub(r"\$([A-Z]+)", lambda name: variables.get(name[1], name[0]), piece)
        for command in re.findall(r"python -m (\S+(?: [^#;&|]*)?)", piece):
            module, *words = shlex.split(command)
            if module not in OTHER:
                yield Command(str(path.relative_to(ROOT)), module, tuple(words))
        if re.match("fundusgan [a-z]", piece):
            console, words = cli.command_of(shlex.split(piece)[1:])
            yield Command(str(path.relative_to(ROOT)), console.module, tuple(words))


COMMANDS = [command for path in DOCUMENTS for command in commands_of(path)]


def source_of(module: str) -> str:
    """The source of a command, and of the benchmarks whose flags it takes too."""
    path = ROOT / module.replace(".", "/")
    text = path.with_suffix(".py").read_text()
    for name in re.findall(r"^from benchmarks\.(\w+) import .*\badd_\w*flags", text, re.MULTILINE):
        text += (ROOT / "benchmarks" / f"{name}.py").read_text()
    return text + (ROOT / "benchmarks" / "harness" / "driver.py").read_text()


def test_readme_is_short():
    assert len((ROOT / "README.md").read_text().split()) <= 1100


@pytest.mark.parametrize("path", DOCUMENTS, ids=lambda path: path.name)
def test_links_lead_somewhere(path):
    text = FENCE.sub("", path.read_text())
    for target in re.findall(r"\]\(([^)\s]+)\)", text):
        if target.startswith(("http:", "https:")):
            continue
        file, _, anchor = target.partition("#")
        there = (path.parent / file).resolve() if file else path
        assert there.exists(), f"{path.name} links {target}"
        headings = re.findall(r"^#+ (.*)$", there.read_text(), re.MULTILINE) if anchor else []
        anchors = [re.sub(r"[^\w\- ]", "", line.lower()).replace(" ", "-") for line in headings]
        assert not anchor or anchor in anchors, f"{path.name} links {target}"


@pytest.mark.parametrize("path", DOCUMENTS, ids=lambda path: path.name)
def test_named_files_exist(path):
    """Names in code spans that begin with a folder of the repository or of the package."""
    if path.name == "CHANGELOG.md":  # names what there was
        return
    folders = {
        file.name: file.parent
        for parent in (ROOT / "fundusgan_jax", ROOT)
        for file in parent.iterdir()
        if file.is_dir() and (file / "__init__.py").exists() or file.name in ("docs", "launch")
    }
    for name in re.findall(r"`([\w.]+/[\w./*-]*)`", FENCE.sub("", path.read_text())):
        folder = folders.get(name.split("/")[0])
        if folder is not None:
            assert list(folder.glob(name.rstrip("/"))), f"{path.name} names {name}"


def test_there_are_commands():
    modules = {command.module for command in COMMANDS}
    assert len(COMMANDS) > 40 and modules >= set(PARSERS) | {"fundusgan_jax.doctor", "benchmarks.peers"}


@pytest.mark.parametrize("command", COMMANDS, ids=lambda command: f"{command.document} {command.module}")
def test_flags_and_settings_are_known(command):
    words = [re.sub(r"=[NK]$", "=1", word) for word in command.words if word != "..."]
    settings = [word for word in words if word.startswith("--config.")]
    flags = [word for word in words if word not in settings]
    if command.module not in PARSERS:  # benchmarks build theirs around what they import
        source = source_of(command.module)
        for flag in flags:
            assert not flag.startswith("--") or f'"{flag.split("=")[0]}"' in source, flag
    elif "--help" not in flags and flags:
        PARSERS[command.module]().parse_args(flags)
    named = "--base=" if command.module == "fundusgan_jax.studies.ablation" else "--config="
    configurations = [flag.split("=")[1] for flag in flags if flag.startswith(named)]
    load_config([*configurations, "default"][0], [filled(word) for word in settings])


def filled(setting: str) -> str:
    """--config.NAME=VALUE with the default where VALUE is a placeholder in capitals."""
    name, value = setting.removeprefix("--config.").split("=")
    if not re.fullmatch("[A-Z]+", value):
        return setting
    return f"--config.{name}={SETTINGS[name].default}"
