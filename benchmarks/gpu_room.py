"""ConvLoom on a machine where nothing of it is installed: its rooms laid into one folder, by links.

    python benchmarks/gpu_room.py FOLDER [CACHE]

FOLDER is then what PYTHONPATH names: it holds `convloom` with its rooms, as pyproject.toml lays them out, and
stand-ins for packages that the machine lacks and a session needs not. CACHE is a folder of Triton's that was
carried here: its lists name files where they were made, and are written anew.
"""

from __future__ import annotations

import importlib.util
import json
import sys
import tomllib
from pathlib import Path

HOME = Path(__file__).resolve().parent.parent
SPARED = ("rich", "h5py")
"""Tables and progress in a terminal, and files of weights: a session has neither."""

STAND_INS = '''\
"""Modules for packages that are not there: they can be imported, and nothing of them can be called."""

import importlib.abc
import importlib.machinery
import sys

ABSENT = {absent!r}


class _Nothing(type):
    def __getattr__(cls, name):
        if name.startswith("__"):
            raise AttributeError(name)
        return Nothing


class Nothing(metaclass=_Nothing):
    def __init__(self, *_, **__):
        raise ImportError(f"this machine lacks {{' and '.join(ABSENT)}}, one of which is wanted here")


class Finder(importlib.abc.MetaPathFinder, importlib.abc.Loader):
    def find_spec(self, name, path=None, target=None):
        if name.partition(".")[0] in ABSENT:
            return importlib.machinery.ModuleSpec(name, self, is_package=True)
        return None

    def exec_module(self, module):
        module.__getattr__ = _Nothing.__getattr__.__get__(Nothing)


sys.meta_path.insert(0, Finder())
'''


def lay(folder: Path, absent: tuple[str, ...] | None = None) -> Path:
    """Links to the rooms in `folder`/convloom, and stand-ins for what is absent: by default, what is."""
    package = folder / "convloom"
    package.mkdir(parents=True, exist_ok=True)
    rooms = tomllib.loads((HOME / "pyproject.toml").read_text())["tool"]["setuptools"]["package-dir"]
    for path in (HOME / rooms["convloom"]).iterdir():
        _link(package / path.name, path)
    for name, place in rooms.items():
        if name != "convloom":
            _link(package / name.partition(".")[2], HOME / place)
    if absent is None:
        absent = tuple(name for name in SPARED if importlib.util.find_spec(name) is None)
    # Python imports a module of this name by itself when it starts.
    (folder / "sitecustomize.py").write_text(STAND_INS.format(absent=absent))
    return folder


def _link(link: Path, target: Path) -> None:
    if target.name != "__pycache__":
        link.unlink(missing_ok=True)
        link.symlink_to(target)


def settle(cache: Path) -> int:
    """Let the lists of Triton's cache name the files beside them; how many lists there are."""
    lists = sorted(cache.glob("*/__grp__*.json"))
    for path in lists:
        files = json.loads(path.read_text())["child_paths"]
        here = {name: str(path.parent.resolve() / Path(file).name) for name, file in files.items()}
        path.write_text(json.dumps({"child_paths": here}))
    return len(lists)


def main(argv: list[str]) -> None:
    print(f"rooms in {lay(Path(argv[0]))}")
    if len(argv) > 1:
        print(f"{settle(Path(argv[1]))} kernels in {argv[1]}")


if __name__ == "__main__":
    main(sys.argv[1:])
