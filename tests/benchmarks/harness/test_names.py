"""Names of the harness: scripts of it run in other interpreters, where their folder comes first."""

import sys
from pathlib import Path

HARNESS = Path(__file__).resolve().parents[3] / "benchmarks" / "harness"


def test_no_file_hides_a_module_of_the_standard_library():
    """torch.optim imports cProfile, which imports profile: a file of that name here imported jax in its place."""
    assert not {path.stem for path in HARNESS.glob("*.py")} & set(sys.stdlib_module_names)
