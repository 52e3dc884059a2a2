"""The wheel holds every module and no more; imports point downwards, in no circle; files are short."""

from __future__ import annotations

import ast
import fnmatch
import functools
import json
import re
import shutil
import subprocess
import sys
import sysconfig
import tomllib
import venv
import zipfile
from collections.abc import Iterator
from pathlib import Path

import networkx
import pytest

ROOT = Path(__file__).resolve().parent.parent
ROOMS = ("graph", "planning", "codegen", "runtime", "frontends")

# What each part of the tree may import of ours. "convloom" alone is the public face.
MAY_IMPORT = {
    "graph": {"graph"},
    "planning": {"planning", "graph"},
    "codegen": {"codegen", "planning", "graph"},
    "runtime": {"runtime", "codegen", "planning", "graph"},
    "frontends": {"frontends", "graph"},
    "convloom": {"convloom", *ROOMS},
}

IMPORT_EVERYTHING = """
import importlib, json, pkgutil, sys
import convloom
names = ["convloom", *(m.name for m in pkgutil.walk_packages(convloom.__path__, "convloom."))]
modules = {name: importlib.import_module(name).__file__ for name in names if not name.endswith("__main__")}
rooms = ("graph", "planning", "codegen", "runtime", "frontends")
strays = [name for name in rooms if importlib.util.find_spec(name)]
print(json.dumps({"modules": modules, "strays": strays}))
"""


def python_files(*folders: str) -> list[Path]:
    return sorted(path for folder in folders for path in (ROOT / folder).rglob("*.py"))


def module_name(path: Path) -> str:
    """The name under which a file of the tree installs: graph/ops/conv.py is convloom.graph.ops.conv."""
    parts = list(path.relative_to(ROOT).with_suffix("").parts)
    if parts[0] in ROOMS:
        parts.insert(0, "convloom")
    return ".".join(parts[:-1] if parts[-1] == "__init__" else parts)


MODULES = {module_name(path): path for path in python_files("convloom", *ROOMS)}


# ---- the wheel ---------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def wheel(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A wheel built, without a network, from a copy of the tree: a build leaves folders in its sources."""
    folder = tmp_path_factory.mktemp("wheel")
    source = folder / "source"
    ignored = shutil.ignore_patterns("__pycache__", "*.egg-info")
    for name in ("convloom", *ROOMS):
        shutil.copytree(ROOT / name, source / name, ignore=ignored)
    for name in ("pyproject.toml", "README.md", "LICENSE"):
        shutil.copy(ROOT / name, source)
    offline = ("--no-deps", "--no-build-isolation", "--no-index")
    call("-m", "pip", "wheel", *offline, "-w", str(folder), str(source))
    (built,) = folder.glob("*.whl")
    return built


def call(*arguments: str, python: Path | str = sys.executable, cwd: Path | None = None) -> str:
    done = subprocess.run([str(python), *arguments], cwd=cwd, capture_output=True, text=True, check=False)
    assert done.returncode == 0, f"{arguments}\n{done.stdout}\n{done.stderr}"
    return done.stdout


def test_wheel_holds_every_module_and_nothing_else(wheel: Path) -> None:
    names = set(zipfile.ZipFile(wheel).namelist())
    code = {name for name in names if ".dist-info/" not in name}
    expected = {"/".join(module_file(path)) for path in MODULES.values()} | {"convloom/py.typed"}
    assert code == expected
    assert any(name.endswith("licenses/LICENSE") for name in names)


def module_file(path: Path) -> tuple[str, ...]:
    parts = path.relative_to(ROOT).parts
    return parts if parts[0] == "convloom" else ("convloom", *parts)


def test_every_module_imports_from_an_installed_wheel(wheel: Path, tmp_path: Path) -> None:
    environment = tmp_path / "environment"
    # Without pip, and then pip from here: an environment in a second rather than in ten.
    venv.create(environment, with_pip=False, symlinks=True)
    python = environment / "bin" / "python"
    site = Path(call("-c", "import sysconfig; print(sysconfig.get_path('purelib'))", python=python).strip())
    call("-m", "pip", "--python", str(python), "install", "--no-deps", "--no-index", str(wheel))
    # torch and the others come from this environment's folder, whose own .pth files (an editable convloom
    # among them) are not followed from there.
    (site / "dependencies.pth").write_text("\n".join(dependency_folders()) + "\n")

    report = json.loads(call("-I", "-c", IMPORT_EVERYTHING, python=python, cwd=tmp_path).splitlines()[-1])
    assert set(report["modules"]) == {name for name in MODULES if not name.endswith("__main__")}
    for name, file in report["modules"].items():
        assert Path(file).resolve().is_relative_to(site.resolve()), f"{name} was imported from {file}"
    assert report["strays"] == []


def dependency_folders() -> list[str]:
    return sorted({sysconfig.get_path("purelib"), sysconfig.get_path("platlib")})


def test_pyproject_lists_every_package_once() -> None:
    settings = tomllib.loads((ROOT / "pyproject.toml").read_text())["tool"]["setuptools"]
    packages = settings["packages"]
    on_disk = {name for name, path in MODULES.items() if path.name == "__init__.py"}
    assert sorted(packages) == sorted(on_disk), "packages of pyproject.toml (left) and of the tree (right)"
    folders = {str(path.parent.relative_to(ROOT)) for path in python_files("convloom", *ROOMS)}
    bare = {folder for folder in folders if not (ROOT / folder / "__init__.py").exists()}
    assert not bare, f"folders of modules without __init__.py: {sorted(bare)}"


# ---- what may import what ----------------------------------------------------------------------------------


def imported(path: Path, module: str) -> Iterator[tuple[int, str]]:
    """Every (line, absolute dotted name) that a file imports, also inside functions."""
    package = module if path.name == "__init__.py" else module.rpartition(".")[0]
    for node in ast.walk(ast.parse(path.read_text(), str(path))):
        if isinstance(node, ast.Import):
            for alias in node.names:
                yield node.lineno, alias.name
        elif isinstance(node, ast.ImportFrom):
            base = node.module or ""
            if node.level:
                parents = package.split(".")[: len(package.split(".")) - node.level + 1]
                base = ".".join([*parents, base] if base else parents)
            # "from .. import graph" names a room only in its list of names.
            for alias in node.names:
                yield node.lineno, f"{base}.{alias.name}"


def room_of(name: str) -> str | None:
    """Which of our parts a dotted name belongs to: a room, "convloom", or None for somebody else's module."""
    parts = name.split(".")
    if parts[0] != "convloom":
        return None
    return parts[1] if len(parts) > 1 and parts[1] in ROOMS else "convloom"


@pytest.mark.parametrize("part", MAY_IMPORT)
def test_imports_never_point_upwards(part: str) -> None:
    wrong = []
    for module, path in MODULES.items():
        if room_of(module) != part:
            continue
        for line, name in imported(path, module):
            target = room_of(name)
            if target is not None and target not in MAY_IMPORT[part]:
                wrong.append(f"{path.relative_to(ROOT)}:{line} imports {name}")
            if part != "convloom" and name.split(".")[0] == "convloom" and not is_relative(path, line):
                wrong.append(f"{path.relative_to(ROOT)}:{line} names {name} where a relative import belongs")
    assert not wrong, "\n".join(wrong)


def is_relative(path: Path, line: int) -> bool:
    return re.match(r"\s*from\s+\.", path.read_text().splitlines()[line - 1]) is not None


@pytest.mark.parametrize(
    ("source", "names"),
    [
        ("from ..runtime.executor import Executor", ["convloom.runtime.executor.Executor"]),
        ("from .. import runtime", ["convloom.runtime"]),
        ("from . import ir, op", ["convloom.graph.ir", "convloom.graph.op"]),
        ("def f():\n    from ..runtime import x", ["convloom.runtime.x"]),
        ("import convloom.cli as c", ["convloom.cli"]),
    ],
)
def test_import_reader(tmp_path: Path, source: str, names: list[str]) -> None:
    """The reader the test above stands on, on imports that it must catch."""
    file = tmp_path / "passes.py"
    file.write_text(source)
    assert [name for _, name in imported(file, "convloom.graph.passes")] == names


def test_tests_and_examples_import_convloom() -> None:
    """Not the rooms by their names in the tree, which exist for nobody who installs ConvLoom."""
    wrong = [
        f"{path.relative_to(ROOT)}:{line} imports {name}"
        for path in python_files("tests", "examples", "benchmarks")
        for line, name in imported(path, module_name(path))
        if name.split(".")[0] in ROOMS
    ]
    assert not wrong, "\n".join(wrong)


# ---- circles -----------------------------------------------------------------------------------------------

TYPES = "only for annotations"

IN_CIRCLES = {
    ("graph.op", "graph.gradients"): TYPES,
    ("graph.op", "graph.ir"): TYPES,
    ("graph.ops.*", "graph.gradients"): TYPES,
    ("graph.ops.*", "graph.ir"): TYPES,
    ("graph.losses.builder", "graph.losses.base"): TYPES,
    ("graph.losses.weights", "graph.losses.base"): TYPES,
    ("planning.listing", "planning.program"): TYPES,
    ("planning.telling", "planning.program"): TYPES,
    ("runtime.open_axes", "runtime.network"): TYPES,
    ("runtime.steps", "runtime.network"): TYPES,
    ("frontends.activations", "frontends.lowering"): TYPES,
    ("frontends.calls", "frontends.layers.base"): TYPES,
    ("frontends.lowering", "frontends.layers.base"): TYPES,
    ("frontends.lowering", "frontends.regularizers"): TYPES,
    ("frontends.names", "frontends.lowering"): TYPES,
    ("frontends.parameters", "frontends.layers.base"): TYPES,
    ("frontends.symbolic", "frontends.lowering"): TYPES,
    ("frontends.symbolic", "frontends.operations"): "arithmetic on a symbolic tensor calls an operation",
    ("frontends.policies", "frontends.network"): "a layer may be a model",
    ("frontends.keras.catalogue", "frontends.keras.assemble"): "an argument of a layer may be a model",
    ("frontends.keras.export_layers", "frontends.keras.export"): "an argument of a layer may be a model",
}
"""Imports inside functions, and under TYPE_CHECKING, that lie on a circle: who, what, why."""


@functools.cache
def imports_of(module: str, deferred: bool) -> set[str]:
    """The modules that a file imports when it is loaded; deferred: those that it imports later, or never."""
    path, found = MODULES[module], set()
    later = [node for node in ast.walk(ast.parse(path.read_text())) if puts_off(node)]
    lines = {inner.lineno for node in later for inner in ast.walk(node) if isinstance(inner, ast.stmt)}
    for line, name in imported(path, module):
        if (line in lines) == deferred:
            found.add(name if name in MODULES else name.rpartition(".")[0])
    return found & MODULES.keys() - {module}


def puts_off(node: ast.AST) -> bool:
    """Whether what stands inside is not run when the module is loaded."""
    if isinstance(node, ast.If):
        return isinstance(node.test, ast.Name) and node.test.id == "TYPE_CHECKING"
    return isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef)


def circles(deferred: bool) -> list[set[str]]:
    graph = networkx.DiGraph()
    for module in MODULES:
        for kind in (False, True) if deferred else (False,):
            graph.add_edges_from((module, name) for name in imports_of(module, kind))
    return [found for found in networkx.strongly_connected_components(graph) if len(found) > 1]


def test_no_modules_import_each_other_in_a_circle() -> None:
    assert circles(deferred=False) == []


def test_imports_that_are_put_off_lie_on_circles_that_are_known() -> None:
    found = {
        (module.removeprefix("convloom."), name.removeprefix("convloom."))
        for circle in circles(deferred=True)
        for module in circle
        for name in imports_of(module, True) & circle
    }
    unknown = {pair for pair in found if not any(matches(pair, known) for known in IN_CIRCLES)}
    gone = [known for known in IN_CIRCLES if not any(matches(pair, known) for pair in found)]
    assert not unknown, "move what both need to a file of its own, or say here why not"
    assert not gone


def matches(pair: tuple[str, str], known: tuple[str, str]) -> bool:
    return all(fnmatch.fnmatchcase(name, pattern) for name, pattern in zip(pair, known, strict=True))


# ---- length ------------------------------------------------------------------------------------------------

LONGEST = {"tests": 500}
OTHERWISE = 400


def test_no_file_is_too_long() -> None:
    lengths = {
        str(path.relative_to(ROOT)): len(path.read_text().splitlines())
        for path in python_files("convloom", *ROOMS, "tests", "examples", "benchmarks", "docs")
    }
    wrong = {n: lines for n, lines in lengths.items() if lines > LONGEST.get(n.split("/")[0], OTHERWISE)}
    assert not wrong


# ---- nothing that holds on one machine only ----------------------------------------------------------------

ONE_MACHINE = re.compile(
    r"""(?<![\w.$)}])/(?:home|root|tmp|work|opt|mnt|Users)/   # somebody's folders
      | (?:extra-)?index-url | find-links | trusted-host     # somebody's package index
    """,
    re.VERBOSE,
)

CPU_BUILDS = "--index-url https://download.pytorch.org/whl/cpu"
"""Where PyTorch itself has its builds for the CPU: in README's line that installs one."""


def test_nothing_names_one_machine() -> None:
    paths = python_files("convloom", *ROOMS, "tests", "examples", "benchmarks")
    paths += [*ROOT.glob("*.md"), *ROOT.glob("docs/*.md"), *ROOT.glob("*.toml"), *ROOT.glob("*.txt")]
    paths += [ROOT / "Makefile", ROOT / ".ci" / "run"]
    wrong = [
        f"{path.relative_to(ROOT)}:{number}: {line.strip()}"
        for path in paths
        if path != Path(__file__).resolve()
        for number, line in enumerate(path.read_text().splitlines(), start=1)
        if ONE_MACHINE.search(line.replace(CPU_BUILDS, ""))
    ]
    assert not wrong, "\n".join(wrong)


def test_one_machine_pattern() -> None:
    assert ONE_MACHINE.search('open("/tmp/x")')
    assert ONE_MACHINE.search("pip install --extra-index-url somewhere")
    assert not ONE_MACHINE.search("see docs/work/plan.md and $(CURDIR)/tmp/x")
