"""Weights from Keras's HDF5 files, read by the file's own layout.

    layers/conv2d/vars/0, 1        class in snake case, counted per class in the model's layer order
    layers/functional/layers/...   inside nested models

A shape is known from the model before the file is asked, so a file can never make us take more memory than
the model has. Only plain data sets inside the file are read: no links, no external or virtual storage.
"""

from __future__ import annotations

import os
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass
from typing import IO, Any

import h5py
import numpy as np
import torch

from ...graph.errors import ModelFormatError, UnsafeModelError
from ...graph.op import snake_case
from ..layers import InputLayer, Layer
from ..lowering import Block
from ..model import Model, Sequential

KERAS_3 = "layers"
KERAS_2_12 = "_layer_checkpoint_dependencies"
"""Where Keras 2.12 and 2.13 keep the layers; there the counter moves by two past a layer that has weights."""


@dataclass(frozen=True)
class Group:
    """The file's group of one layer: its path and the layer whose weights it holds."""

    path: str
    layer: Layer


def load_weights(model: Model, source: str | os.PathLike[str] | IO[bytes], where: str | None = None) -> None:
    """Give `model` the weights of a `.weights.h5`; nothing changes where the file does not fit.

    Raises ModelFormatError naming what is missing or has another shape, UnsafeModelError for links.
    """
    label = where or (
        os.path.basename(os.fspath(source)) if isinstance(source, (str, os.PathLike)) else "weights"
    )
    model.inputs  # noqa: B018  a Sequential without a shape says so here
    try:
        file = h5py.File(source, "r")
    except FileNotFoundError:
        raise ModelFormatError(f"{label}: there is no such file") from None
    except OSError as error:
        raise ModelFormatError(f"{label}: not a readable HDF5 file: {str(error).splitlines()[0]}") from None
    with file:
        try:
            found = _read(model, file, label)
        except (OSError, RuntimeError, ValueError, KeyError) as error:
            raise ModelFormatError(f"{label}: damaged HDF5 file: {str(error).splitlines()[0]}") from None
    for layer, name, value in found:
        layer.values[name] = value


def _read(model: Model, file: h5py.File, label: str) -> list[tuple[Layer, str, torch.Tensor]]:
    root = KERAS_3 if _child(file, KERAS_3, label) is not None else KERAS_2_12
    if _child(file, root, label) is None:
        raise ModelFormatError(
            f"{label}: has no group 'layers'; it is not a .weights.h5 as Keras 3 writes it"
        )
    groups = list(_groups(model, root, "", set()))
    problems: list[str] = []
    found: list[tuple[Layer, str, torch.Tensor]] = []
    for group in groups:
        found += _read_layer(file, group, label, problems)
    problems += _unexpected(file, root, {group.path for group in groups}, label)
    if problems:
        rest = f"; and {len(problems) - 10} more" if len(problems) > 10 else ""
        raise ModelFormatError(f"{label} does not fit {model.label}: {'; '.join(problems[:10])}{rest}")
    return found


def _groups(model: Model, root: str, prefix: str, seen: set[Block]) -> Iterator[Group]:
    """Where each layer's variables lie. A shared layer is stored at its first place, but counted at each."""
    counters: Counter[str] = Counter()
    for block in model.layers:
        if isinstance(block, Layer) and block.operation:
            continue
        if isinstance(model, Sequential) and isinstance(block, InputLayer):
            continue
        stem = snake_case(block.keras_class if isinstance(block, Model) else type(block).__name__)
        count = counters[stem]
        has_weights = (
            next(block.slots(), None) is not None if isinstance(block, Model) else bool(_built(block))
        )
        counters[stem] += 2 if root == KERAS_2_12 and has_weights else 1
        path = f"{prefix}{root}/{stem}_{count}" if count else f"{prefix}{root}/{stem}"
        if block in seen:
            continue
        seen.add(block)
        if isinstance(block, Model):
            yield from _groups(block, root, f"{path}/", seen)
        elif isinstance(block, Layer):
            yield Group(path, block)


def _built(block: Block) -> tuple[Any, ...]:
    return block.built if isinstance(block, Layer) else ()


def _read_layer(
    file: h5py.File, group: Group, label: str, problems: list[str]
) -> list[tuple[Layer, str, torch.Tensor]]:
    """The weights of one layer; what does not fit goes to `problems`."""
    found = []
    stored = _child(file, f"{group.path}/vars", label)
    for position, weight in enumerate(group.layer.built):
        place = f"{group.layer.label}: weight {weight.name!r} ({group.path}/vars/{position})"
        data = _child(file, f"{group.path}/vars/{position}", label)
        if not isinstance(data, h5py.Dataset):
            problems.append(f"{place} is missing, expected shape {weight.shape}")
            continue
        if data.external or data.is_virtual:
            raise UnsafeModelError(f"{label}: {group.path}/vars/{position} keeps its data outside the file")
        if tuple(data.shape or ()) != weight.shape or data.dtype.kind != "f":
            problems.append(
                f"{place} has shape {tuple(data.shape or ())} of {data.dtype}, "
                f"expected {weight.shape} of float32"
            )
            continue
        found.append((group.layer, weight.name, torch.from_numpy(np.asarray(data[()], dtype=np.float32))))
    if isinstance(stored, h5py.Group) and len(stored) > len(group.layer.built):
        problems.append(
            f"{group.layer.label}: the file holds {len(stored)} variables ({group.path}/vars), "
            f"expected {len(group.layer.built)}"
        )
    return found


def _unexpected(file: h5py.File, root: str, known: set[str], label: str) -> list[str]:
    """Layers of the file that hold variables and are none of the model's."""
    problems = []
    group = _child(file, root, label)
    for name in group if isinstance(group, h5py.Group) else ():
        path = f"{root}/{name}"
        if path not in known and not any(k.startswith(f"{path}/") for k in known):
            stored = _child(file, f"{path}/vars", label)
            if isinstance(stored, h5py.Group) and len(stored):
                problems.append(
                    f"the file holds {len(stored)} variables at {path}/vars, which no layer expects"
                )
    return problems


def _child(file: h5py.File, path: str, label: str) -> Any:
    """The object at a path, or None. Raises UnsafeModelError where a step of the path is a link elsewhere."""
    current: Any = file
    for part in path.split("/"):
        if not isinstance(current, h5py.Group) or part not in current.keys():  # noqa: SIM118  "in" follows links
            return None
        link = current.get(part, getlink=True)
        if not isinstance(link, h5py.HardLink):
            raise UnsafeModelError(
                f"{label}: {path} is a {type(link).__name__}; only data inside the file is read"
            )
        current = current[part]
    return current
