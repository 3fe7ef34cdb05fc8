"""The wheel: one top-level package with the configurations in it, which works from another folder."""

import os
import shutil
import subprocess
import sys
import sysconfig
import zipfile
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[1]
# As tests compile: nothing here depends on how fast the programs are.
FLAGS = "--xla_backend_optimization_level=0 --xla_llvm_disable_expensive_passes=true"
SMALL = ["--config.data.phantom_num=16", "--config.train.num_steps=2", "--config.train.checkpoint_every=2",
         "--config.train.grid_every=2", "--config.train.eval_every=2", "--config.optim.decay=constant"]  # fmt: skip

pytestmark = pytest.mark.slow


@pytest.fixture(scope="module")
def wheel(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Built of a copy: setuptools leaves a folder build/ beside what it builds."""
    source, output = tmp_path_factory.mktemp("source"), tmp_path_factory.mktemp("wheel")
    for name in ("fundusgan_jax", "configs", "benchmarks", "tests"):
        shutil.copytree(ROOT / name, source / name, ignore=shutil.ignore_patterns("__pycache__"))
    for name in ("pyproject.toml", "setup.py", "requirements.txt", "README.md", "LICENSE"):
        shutil.copy(ROOT / name, source / name)
    words = [sys.executable, "-m", "pip", "wheel", "-q", "--no-deps", "-w", str(output), str(source)]
    built = subprocess.run(words, capture_output=True, text=True)
    assert built.returncode == 0, built.stderr
    (file,) = output.glob("*.whl")
    return file


@pytest.fixture(scope="module")
def scripts(wheel: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The commands' folder of an environment with the wheel, whose other packages are those of this one."""
    folder = tmp_path_factory.mktemp("environment")
    subprocess.run([sys.executable, "-m", "venv", folder], check=True)
    python = folder / "bin" / "python"
    install = [python, "-m", "pip", "install", "-q", "--no-deps", "--no-index", wheel]
    subprocess.run(install, check=True, capture_output=True)
    paths = {"base": str(folder), "platbase": str(folder)}
    packages = Path(sysconfig.get_path("purelib", vars=paths))
    (packages / "others.pth").write_text(sysconfig.get_path("purelib") + "\n")
    return folder / "bin"


def test_the_wheel_has_one_package_with_the_configurations_in_it(wheel: Path) -> None:
    names = zipfile.ZipFile(wheel).namelist()
    assert {name.split("/")[0].split("-")[0] for name in names} == {"fundusgan_jax"}
    installed = {name for name in names if name.endswith(".py")}
    package = {path.relative_to(ROOT).as_posix() for path in (ROOT / "fundusgan_jax").rglob("*.py")}
    configurations = {f"fundusgan_jax/configs/{path.name}" for path in (ROOT / "configs").glob("*.py")}
    assert installed == package | configurations
    # What is no code and the commands read: pages, words and weights.
    data = {
        path.relative_to(ROOT).as_posix()
        for folder in ("reader_study/pages", "reader_study/static", "weights")
        for path in (ROOT / "fundusgan_jax" / folder).iterdir()
        if path.is_file() and path.suffix not in (".py", ".pyc")
    }
    assert len(data) > 5 and data | {"fundusgan_jax/reader_study/text_en.json"} <= set(names)


def test_it_works_from_another_folder(scripts: Path, tmp_path: Path) -> None:
    environment = {**os.environ, "XLA_FLAGS": FLAGS, "JAX_PLATFORMS": "cpu"}
    environment.pop("PYTHONPATH", None)

    def run(program: str, *words: str) -> str:
        line = [scripts / program, *words]
        answer = subprocess.run(line, cwd=tmp_path, env=environment, capture_output=True, text=True)
        assert answer.returncode == 0, answer.stdout + answer.stderr
        return answer.stdout

    places = run("python", "-c", "import fundusgan_jax, fundusgan_jax.configs.demo as demo; print(fundusgan_jax.__file__)\n"
                 "try:\n    import configs\nexcept ImportError:\n    print('no configs')")  # fmt: skip
    assert str(scripts.parent) in places and "no configs" in places
    assert "\n  doctor " in run("fundusgan", "--help")
    shown = run("fundusgan", "train", "--config=configs/demo.py", "--workdir=run", *SMALL)
    assert "1 checkpoint of 0." in shown
    assert '"git": null' in (tmp_path / "run" / "manifest.json").read_text()
    # The run travels: what is imported evaluates, paints the same and starts another.
    run("fundusgan", "weights", "export", "run", "travel.safetensors")
    run("fundusgan", "weights", "import", "--from=fundusgan_jax", "travel.safetensors", "imported")
    for workdir in ("run", "imported"):
        run("fundusgan", "eval", f"--workdir={workdir}")
        run(
            "fundusgan",
            "generate",
            f"--workdir={workdir}",
            "--method=reconstruct",
            "--num=2",
            f"--output={workdir}_out",
        )
    painted, again = (sorted((tmp_path / f"{name}_out").glob("*.png")) for name in ("run", "imported"))
    assert painted and [path.read_bytes() for path in painted] == [path.read_bytes() for path in again]
    first = ["--config=demo", "--workdir=second", "--init_from=imported", *SMALL]
    assert "starting from imported, step 0: " in run("python", "-m", "fundusgan_jax.main", *first)
