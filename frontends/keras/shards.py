"""Where weights lie: in one HDF5 file, or in several that an index lists.

    m.weights.json          {"metadata": {...}, "weight_map": {"/layers/dense/vars": ["m_00000.weights.h5"]}}
    m_00000.weights.h5      beside it, with some of the groups; a group's data sets may lie in several files

The names of the files are a stranger's: only plain names beside the index are opened, and no links.
"""

from __future__ import annotations

import abc
import os
import stat
from collections.abc import Iterator
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import h5py

from ...graph.errors import ModelFormatError, UnsafeModelError
from .guard import parse_json
from .hdf5 import child, child_names, open_hdf5
from .limits import Limits
from .values import get_dict, shown

SUFFIX = ".weights.h5"


class Store(abc.ABC):
    """Groups and data sets by their path in the whole."""

    @abc.abstractmethod
    def find(self, path: str) -> Any:
        """The data set at a path, or None."""

    @abc.abstractmethod
    def count(self, path: str) -> int:
        """How many variables the group at a path holds."""

    @abc.abstractmethod
    def has_group(self, path: str) -> bool:
        """Whether there is a group at a path, be it an empty one."""

    @abc.abstractmethod
    def has(self, root: str) -> bool:
        """Whether there is a group of this name at the top."""

    @abc.abstractmethod
    def groups(self, root: str) -> Iterator[str]:
        """The groups just below a root."""


class OneFile(Store):
    """An HDF5 file."""

    def __init__(self, file: h5py.File, label: str) -> None:
        self._file, self._label = file, label
        self._path = ""
        self._group: Any = None

    def find(self, path: str) -> Any:
        above, _, name = path.rpartition("/")
        group = self._opened(above)
        if isinstance(group, h5py.Group) and isinstance(group.get(name, getlink=True), h5py.HardLink):
            return group[name]
        return child(self._file, path, self._label)  # which says what is there instead

    def count(self, path: str) -> int:
        group = self._opened(path)
        return len(group) if isinstance(group, h5py.Group) else 0

    def has_group(self, path: str) -> bool:
        return isinstance(self._opened(path), h5py.Group)

    def _opened(self, path: str) -> Any:
        """The object at a path; the last one is kept, for the variables of a layer are asked for in turn."""
        if path != self._path:
            self._group = child(self._file, path, self._label)
            self._path = path
        return self._group

    def has(self, root: str) -> bool:
        return child(self._file, root, self._label) is not None

    def groups(self, root: str) -> Iterator[str]:
        group = child(self._file, root, self._label)
        yield from child_names(group, self._label) if isinstance(group, h5py.Group) else ()


class Shards(Store):
    """The files of an index, each opened once, when something in it is asked for."""

    def __init__(self, index: Path, label: str, limits: Limits, stack: ExitStack) -> None:
        self._folder, self._label, self._limits, self._stack = index.parent, label, limits, stack
        self._files: dict[str, h5py.File] = {}
        self._bytes = 0
        self._map = _weight_map(index, label, limits)

    def find(self, path: str) -> Any:
        group, _, _ = path.rpartition("/")
        found = None
        for name in self._map.get(group, ()):
            value = child(self._file(name), path, name)
            if value is not None and found is not None:
                raise UnsafeModelError(f"{self._label}: {shown(path)} stands in two of its files")
            found = value if value is not None else found
        return found

    def count(self, path: str) -> int:
        files = [child(self._file(name), path, name) for name in self._map.get(path, ())]
        return sum(len(group) for group in files if isinstance(group, h5py.Group))

    def has_group(self, path: str) -> bool:
        return path in self._map

    def has(self, root: str) -> bool:
        return any(path.startswith(f"{root}/") for path in self._map)

    def groups(self, root: str) -> Iterator[str]:
        inside = [path.removeprefix(f"{root}/") for path in self._map if path.startswith(f"{root}/")]
        yield from dict.fromkeys(path.split("/")[0] for path in inside)

    def _file(self, name: str) -> h5py.File:
        if name not in self._files:
            path = self._folder / name
            try:
                entry = path.lstat()
            except OSError as error:
                raise ModelFormatError(f"{self._label}: {shown(name)}: {error.strerror}") from None
            if not stat.S_ISREG(entry.st_mode):
                raise UnsafeModelError(f"{self._label}: {shown(name)} is a link, or no plain file")
            self._bytes += entry.st_size
            self._limits.check("hdf5_bytes", self._bytes, self._label, "bytes in its files")
            self._files[name] = self._stack.enter_context(open_hdf5(path, name, self._limits))
        return self._files[name]


def _weight_map(index: Path, label: str, limits: Limits) -> dict[str, list[str]]:
    """Path of a group, without the first slash -> names of files. Raises for names that are paths."""
    try:
        with index.open("rb") as stream:
            text = stream.read(limits.json_bytes + 1)
    except OSError as error:
        raise ModelFormatError(f"{label}: cannot be read: {error.strerror}") from None
    data = parse_json(text, label, limits)
    if not isinstance(data, dict) or "weight_map" not in data:
        raise ModelFormatError(f"{label}: is no index of weights: it has no weight_map")
    found: dict[str, list[str]] = {}
    names: set[str] = set()
    for group, value in get_dict(data, "weight_map", label).items():
        files = value if isinstance(value, list) else [value]
        for name in files:
            if not _is_plain(name):
                raise UnsafeModelError(
                    f"{label}: {shown(group)} is said to lie in {shown(name)}; only files named *{SUFFIX} "
                    f"beside the index are opened"
                )
        if len(set(files)) != len(files) or found.setdefault(group.lstrip("/"), files) is not files:
            raise ModelFormatError(f"{label}: {shown(group)} stands twice")
        names.update(files)
    limits.check("weight_files", len(names), label, "files of weights")
    return found


def _is_plain(name: Any) -> bool:
    """A file's name without a way in it."""
    return (
        isinstance(name, str)
        and name.endswith(SUFFIX)
        and name.isprintable()
        and len(name) <= 255
        and not name.startswith(".")
        and not set(name) & set("/\\:")
        and name == os.path.basename(name)
    )
