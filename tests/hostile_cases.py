"""What a crafted file is: the table that the files hostile_*.py fill, and two that are right."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

from convloom.graph.serial import FORMAT
from keras_files import (
    Json,
    called,
    entry,
    functional,
    kernel,
    layer,
    small,
    write_json,
    write_keras,
    write_weights,
)

Files = tuple[Path, Path | None]
Maker = Callable[[Path], Path | Files]
CASES: dict[str, tuple[Maker, str, str]] = {}
"""Name -> (makes the file in a folder of its own, class of the error or "loaded", pattern of its text)."""


def case(name: str, kind: str, text: str = "") -> Callable[[Maker], Maker]:
    def add(make: Maker) -> Maker:
        CASES[name] = (make, kind, text)
        return make

    return add


def describe(name: str, kind: str, text: str, data: Any) -> None:
    """A case that is only a description."""
    CASES[name] = (lambda folder: write_json(folder / "net.json", data), kind, text)


def alone(class_name: str, /, module: str = "keras.layers", **config: Any) -> Json:
    """A network whose only layer is of this class."""
    bad = layer(class_name, "bad", called("x"), **config) | {"module": module}
    return functional(entry(3), bad)


def graph(**op: Any) -> Json:
    """An input and one op, as ConvLoom writes a graph."""
    nodes = [
        {"name": "x", "inputs": [], "layer": "x", "phase": "forward", "op": "input", "shape": ["N", 3]},
        {"name": "y", "inputs": ["x"], "layer": "y", "phase": "forward", **op},
    ]
    return {"format": FORMAT, "name": "g", "nodes": nodes, "outputs": {"y": "y"}, "updates": []}


# The first three load as they are: whatever is imported on first use is in memory after them.
describe("a good description", "loaded", "", small())
CASES["a good archive"] = (
    lambda folder: write_keras(folder / "a.keras", small(), write_weights(folder / "w.h5", **kernel())),
    "loaded",
    "",
)

describe("a good graph", "loaded", "", graph(op="relu"))

CODE = {"class_name": "__lambda__", "config": {"code": "4wEAAAAA", "defaults": None, "closure": None}}
UNSAFE = "the model asks for code or files outside itself"
