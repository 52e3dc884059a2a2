"""The test files with tests for a GPU whose imports this machine has: `python benchmarks/gpu_tests.py`.

Collecting the others would fail where Keras, hypothesis or a library of files is not installed.
"""

from __future__ import annotations

import ast
import importlib.util
import re
from functools import cache
from pathlib import Path

HOME = Path(__file__).resolve().parent.parent
PLACES = (HOME / "tests", HOME / "benchmarks", HOME / "examples")
FOR_A_GPU = re.compile(r"\bdevice: torch\.device\b|\bon_gpu\(|mark\.gpu\b")


def files() -> list[Path]:
    """Those with a test for a GPU, which can be collected here."""
    return [path for path in sorted(PLACES[0].glob("test_*.py")) if _has_gpu_tests(path) and not lacks(path)]


def _has_gpu_tests(path: Path) -> bool:
    return FOR_A_GPU.search(path.read_text()) is not None


@cache
def lacks(path: Path) -> frozenset[str]:
    """Packages that a file imports when it is loaded, or files beside it do, and that are not there."""
    missing: set[str] = set()
    for name in _imported(path):
        beside = next((place / f"{name}.py" for place in PLACES if (place / f"{name}.py").exists()), None)
        if beside is not None:
            missing |= lacks(beside)
        elif importlib.util.find_spec(name) is None:
            missing.add(name)
    return frozenset(missing)


def _imported(path: Path) -> set[str]:
    found: set[str] = set()
    for node in ast.parse(path.read_text()).body:
        if isinstance(node, ast.Import):
            found.update(alias.name.partition(".")[0] for alias in node.names)
        elif isinstance(node, ast.ImportFrom) and node.module and not node.level:
            found.add(node.module.partition(".")[0])
    return found


if __name__ == "__main__":
    print(*(path.relative_to(HOME) for path in files()), sep="\n")
