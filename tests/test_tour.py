"""docs/tour.ipynb runs from its first cell to its last, and is kept without outputs."""

import json
import os
from pathlib import Path

import pytest

from tests.support.tiny import tiny_config
from tests.support.workdirs import untrained_workdir

ROOT = Path(__file__).resolve().parents[1]
TOUR = ROOT / "docs" / "tour.ipynb"


def test_the_tour_is_kept_without_outputs():
    cells = [cell for cell in json.loads(TOUR.read_text())["cells"] if cell["cell_type"] == "code"]
    assert cells and not any(cell["outputs"] or cell["execution_count"] for cell in cells)


@pytest.mark.slow
def test_the_tour_runs(tmp_path, monkeypatch):
    nbclient, nbformat = pytest.importorskip("nbclient"), pytest.importorskip("nbformat")
    workdir = untrained_workdir(tmp_path / "run", tiny_config(data__dataset="phantom", data__phantom_num=40))
    monkeypatch.setenv("WORKDIR", str(workdir))
    monkeypatch.setenv("PYTHONPATH", os.pathsep.join([str(ROOT), os.environ.get("PYTHONPATH", "")]))
    book = nbformat.read(TOUR, as_version=4)
    nbclient.NotebookClient(book, timeout=300, resources={"metadata": {"path": str(TOUR.parent)}}).execute()
    text = json.dumps(book)
    assert "64 px" in text and "ssim_fov" in text and text.count("image/png") == 2
    assert "did not start from a prior" in text
