"""Imports: the package itself is quick, the core brings in none of the heavy libraries, no module starts JAX's backend."""

import ast
import graphlib
import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
HEAVY = ("tensorflow", "tensorflow_datasets", "clu", "orbax.checkpoint", "starlette", "statsmodels")
# What a file may import: only what stands to the left of its own folder, or its own folder without a circle.
ROOMS = """version errors atomic folder_lock progress flags | ops | models | anatomy | metrics | steps | settings config validation | data | devices | workdir
    | weights | report | generate | evaluate | train | studies reader_study vessels explore export
    | doctor main cli interface __init__"""
ORDER = {name: place for place, group in enumerate(ROOMS.split("|")) for name in group.split()}
CORE = [name for name in ORDER if ORDER[name] < ORDER["config"]]
CODE = """
import importlib, pkgutil, sys
import fundusgan_jax
print([name for name in ("jax", "numpy", "tensorflow") if name in sys.modules])
core, heavy = sys.argv[1].split(), sys.argv[2].split()
for found in pkgutil.walk_packages(fundusgan_jax.__path__, "fundusgan_jax."):
    if found.name.split(".")[1] in core:
        importlib.import_module(found.name)
print("jax" in sys.modules, [name for name in heavy if name in sys.modules])
for found in pkgutil.walk_packages(fundusgan_jax.__path__, "fundusgan_jax."):
    importlib.import_module(found.name)
from jax._src import xla_bridge
print(xla_bridge.backends_are_initialized(), "tensorflow" in sys.modules)
"""


def imported_files(file: Path) -> set[Path]:
    """The package's files that one imports, inside functions too."""
    nodes = [
        node
        for node in ast.walk(ast.parse(file.read_text()))
        if isinstance(node, ast.Import | ast.ImportFrom)
    ]
    names = [alias.name for node in nodes if isinstance(node, ast.Import) for alias in node.names]
    files = {file_of(name) for name in names}
    for node in nodes:
        if isinstance(node, ast.ImportFrom) and node.module:
            # A name that is no file of a package is one of its __init__.py.
            files |= {file_of(f"{node.module}.{alias.name}") or file_of(node.module) for alias in node.names}
    return {path for path in files if path is not None}


def file_of(name: str) -> Path | None:
    """The file of a module or of a package in the repository."""
    place = ROOT / name.replace(".", "/")
    files = [path for path in (place.with_suffix(".py"), place / "__init__.py") if path.is_file()]
    return files[0] if files else None


def room_of(file: Path) -> str:
    """The folder or file of the package that a file is in."""
    return file.relative_to(ROOT / "fundusgan_jax").parts[0].removesuffix(".py")


def test_a_name_of_a_package_is_an_import_of_its_init(tmp_path):
    file = tmp_path / "a.py"
    file.write_text(
        "from fundusgan_jax import cli\nimport fundusgan_jax.report\nfrom fundusgan_jax.data import packed\n"
    )
    package = ROOT / "fundusgan_jax"
    files = {package / "cli.py", package / "report" / "__init__.py", package / "data" / "packed.py"}
    assert imported_files(file) == files
    file.write_text("def f():\n    from fundusgan_jax import __version__, cli\n")
    assert imported_files(file) == {package / "__init__.py", package / "cli.py"}


def test_imports_run_one_way():
    files = {file: imported_files(file) for file in (ROOT / "fundusgan_jax").rglob("*.py")}
    assert {room_of(file) for file in files} <= set(ORDER)
    place = {file: ORDER[room_of(file)] for file in files}
    wrong = [
        f"{file} -> {other}"
        for file, others in files.items()
        for other in others
        if place[other] > place[file]
    ]
    assert len(files) > 100 and not wrong
    assert len(list(graphlib.TopologicalSorter(files).static_order())) == len(
        files
    )  # CycleError where there is one


def test_core_and_backend():
    words = [sys.executable, "-c", CODE, " ".join(CORE), " ".join(HEAVY)]
    answer = subprocess.run(words, cwd=ROOT, capture_output=True, text=True, timeout=120)
    assert answer.stdout.splitlines() == ["[]", "True []", "False False"], answer.stderr


# As on Windows: signals and modules of Unix are absent.
ELSEWHERE = """
import os, signal, sys
for name in ("SIGTERM", "SIGHUP", "SIGUSR1", "SIGUSR2", "SIGURG", "SIGALRM", "SIGKILL", "SIGCHLD", "SIGPIPE", "pthread_kill"):
    if hasattr(signal, name):
        delattr(signal, name)
for name in ("confstr", "sysconf", "fork"):
    delattr(os, name)
for name in ("fcntl", "resource", "pwd", "grp", "termios"):
    sys.modules[name] = None
"""


def test_every_module_and_the_stop_of_a_training_do_without_unix():
    code = (
        ELSEWHERE
        + CODE.split("for found", 1)[0]
        + """
for found in pkgutil.walk_packages(fundusgan_jax.__path__, "fundusgan_jax."):
    if not found.name.endswith("__main__"):
        importlib.import_module(found.name)
from fundusgan_jax import main
from fundusgan_jax.devices import memory
from fundusgan_jax.train.stopping import Stopper
stopper = Stopper()
signal.raise_signal(signal.SIGINT)
stopper.close()
print(stopper.heard(), memory.host_memory(), len(main.parser().format_help()) > 1000)
"""
    )
    answer = subprocess.run(
        [sys.executable, "-c", code, "", ""], cwd=ROOT, capture_output=True, text=True, timeout=120
    )
    assert answer.stdout.splitlines()[-1] == "True None True", answer.stderr


def test_help_imports_no_jax():
    code = (
        "import sys\nfrom fundusgan_jax import main\nmain.parser().format_help()\nprint('jax' in sys.modules)"
    )
    answer = subprocess.run(
        [sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True, timeout=60
    )
    assert answer.stdout.strip() == "False", answer.stderr
