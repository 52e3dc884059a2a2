"""Weights from Keras's HDF5 files, read by the file's own layout.

    layers/conv2d/vars/0, 1        class in snake case, counted per class in the model's layer order
    layers/functional/layers/...   inside nested models
    layers/multi_head_attention/query_dense/vars/0     inside a layer that is made of others

A shape is known from the model before the file is asked, so a file can never make us take more memory than
the model has. Only plain data sets inside the file are read: no links, no external or virtual storage.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path

import h5py
import torch

from ...graph.errors import ModelFormatError
from ...graph.op import snake_case
from ...graph.words import words
from ..layers import InputLayer, Layer, Weight
from ..lowering import Block
from ..network import Network
from ..operations import Operation
from .archive import CONFIG, WEIGHTS, open_members, open_zip
from .hdf5 import check_storage, first_line, is_bfloat16, open_hdf5, read_array
from .kinds import FOLDER, OTHER, ZIP
from .legacy import ACTIVATION, Found, legacy_root, read_legacy
from .legacy import CONFIG as DESCRIPTION
from .limits import DEFAULT, Limits
from .npz import read_named
from .shards import OneFile, Shards, Store
from .source import Readable, Source, examine
from .values import shown

KERAS_3 = "layers"
KERAS_2_12 = "_layer_checkpoint_dependencies"
"""Where Keras 2.12 and 2.13 keep the layers; there the counter moves by two past a layer that has weights."""


@dataclass(frozen=True)
class Group:
    """The file's group of one layer: its path and the layer whose weights it holds.

    again: a layer that stands in several models is read from its first place; this is a later one.
    """

    path: str
    layer: Layer
    again: bool = False


def largest_file(model: Network) -> int:
    """Bytes that a weight file of this model may have: eight values for each weight (an optimizer keeps
    three beside it), and what HDF5 writes for each object."""
    slots = list(model.slots())
    return 32 * sum(slot.size for slot in slots) + 2**16 * len(slots) + 2**24


def load_weights(model: Network, source: Readable | Source, limits: Limits = DEFAULT) -> None:
    """Give `model` the weights of a file; nothing changes where they do not fit.

    source: a `.weights.h5`, an `.h5`, the index of several (`.weights.json`), the weights in a `.keras` or in
    the folder it was unpacked to, or an `.npz` of arrays by the weights' names; a path or a binary file.
    Raises ModelFormatError naming what is missing or has another shape, UnsafeModelError for links.
    """
    given = source if isinstance(source, Source) else examine(source, "weights")
    model.inputs  # noqa: B018  a Sequential without a shape says so here
    with ExitStack() as stack:
        try:
            found = _found(model, given, limits, stack)
        except (OSError, RuntimeError, ValueError, KeyError, TypeError, MemoryError) as error:
            raise ModelFormatError(f"{given.label}: damaged file: {first_line(error)}") from None
    for layer, name, value in found:
        layer.values[name] = value


def _found(model: Network, source: Source, limits: Limits, stack: ExitStack) -> Found:
    """The weights, each of the shape it must have."""
    stored, label = source.hdf5, source.label
    if source.form == ZIP and WEIGHTS not in (names := _members(source, limits)) and CONFIG not in names:
        archive = stack.enter_context(open_zip(source, limits))
        return _fitting(model, label, *read_named(model, archive, label, limits))
    if not model.has_layers:
        raise ModelFormatError(
            f"{label}: {model.label} takes weights by their names, as `convloom convert NET -o w.npz` writes "
            f"them"
        )
    if source.form == OTHER and isinstance(source.file, Path) and source.file.suffix == ".json":
        shards = Shards(source.file, label, limits, stack)
        return _fitting(model, label, *_read_by_class(model, shards, label))
    if source.form in (ZIP, FOLDER):
        inside = stack.enter_context(open_members(source, limits)).weights(largest_file(model))
        if inside is None:
            return _nothing(model, label, f"no {WEIGHTS}")
        stored, label = inside, f"{label}: {WEIGHTS}"
    source.refuse_other_kinds()
    return _read(model, stack.enter_context(open_hdf5(stored, label, limits)), label, limits)


def _members(source: Source, limits: Limits) -> list[str]:
    with open_zip(source, limits) as archive:
        return archive.namelist()


def _nothing(model: Network, label: str, lacks: str) -> Found:
    """For a file without weights: none, where the model has none. Raises ModelFormatError where it has."""
    if next(model.slots(), None) is None:
        return []
    raise ModelFormatError(
        f"{label}: only the architecture is there, without its weights ({lacks}). Give a file that has them "
        + words(
            "as weights=, or ask for initial ones: load(..., architecture_only=True)",
            "as --weights, or ask for initial ones: --random-weights",
        )
    )


def _read(model: Network, file: h5py.File, label: str, limits: Limits) -> Found:
    root = legacy_root(file, label)
    if root is None and DESCRIPTION in file.attrs:
        return _nothing(model, label, "no group model_weights")
    if root is not None:
        found, problems = read_legacy(model, root, label, limits)
    else:
        found, problems = _read_by_class(model, OneFile(file, label), label)
    return _fitting(model, label, found, problems)


def _fitting(model: Network, label: str, found: Found, problems: list[str]) -> Found:
    if problems:
        rest = f"; and {len(problems) - 10} more" if len(problems) > 10 else ""
        raise ModelFormatError(f"{label} does not fit {model.label}: {'; '.join(problems[:10])}{rest}")
    return found


def _read_by_class(model: Network, store: Store, label: str) -> tuple[Found, list[str]]:
    root = KERAS_3 if store.has(KERAS_3) else KERAS_2_12
    if not store.has(root):
        raise ModelFormatError(
            f"{label}: has no group 'layers'; it is neither a .weights.h5 as Keras 3 writes it, nor an .h5 "
            f"of Keras 2"
        )
    groups = list(_groups(model, root, "", set()))
    problems: list[str] = []
    found: Found = []
    for group in groups:
        if not group.again:
            found += _read_layer(store, group, label, problems)
    problems += _unexpected(store, root, {group.path for group in groups})
    return found, problems


def group_stem(model: Network, block: Block) -> str | None:
    """What the group of a block is called before it is numbered; None where it has no group."""
    if isinstance(block, Operation):
        return None
    if model.is_sequential and isinstance(block, InputLayer):
        return None
    if isinstance(block, Network):
        return snake_case(block.keras_class)
    return snake_case((block.inner_class if isinstance(block, Layer) else "") or type(block).__name__)


def homes(layer: Layer) -> dict[str, list[Weight]]:
    """The weights by the part of the layer that Keras keeps them in; "" is the layer itself."""
    parts: dict[str, list[Weight]] = {"": []}
    for weight in layer.all_weights:
        for home in (*weight.also_in, weight.home):
            parts.setdefault(home, []).append(weight)
    return parts


def _groups(model: Network, root: str, prefix: str, seen: set[Block]) -> Iterator[Group]:
    """Where each layer's variables lie. Of a shared layer only the first place is read, but all count."""
    counters: Counter[str] = Counter()
    for block in model.layers:
        stem = group_stem(model, block)
        if stem is None:
            continue
        count = counters[stem]
        has_weights = (
            next(block.slots(), None) is not None
            if isinstance(block, Network)
            else isinstance(block, Layer) and bool(block.all_weights)
        )
        counters[stem] += 2 if root == KERAS_2_12 and has_weights else 1
        path = f"{prefix}{root}/{stem}_{count}" if count else f"{prefix}{root}/{stem}"
        if isinstance(block, Network):
            yield from _groups(block, root, f"{path}/", seen)
        elif isinstance(block, Layer):
            yield Group(path, block, again=block in seen)
            if isinstance(block.model_inside, Network):
                yield from _groups(block.model_inside, root, f"{path}/{block.model_home}/", seen)
        seen.add(block)


def _read_layer(store: Store, group: Group, label: str, problems: list[str]) -> Found:
    """The weights of one layer; what does not fit goes to `problems`."""
    found: Found = []
    for home, weights in homes(group.layer).items():
        path = _home(store, group, home)
        if home.endswith(ACTIVATION) and not store.count(path) and store.has_group(path):
            continue  # Keras makes these when the model first runs: it was saved before, and they start anew
        for position, weight in enumerate(weights):
            place = f"{group.layer.label}: weight {weight.name!r} ({path}/{position})"
            data = store.find(f"{path}/{position}")
            if not isinstance(data, h5py.Dataset):
                problems.append(f"{place} is missing, expected shape {weight.shape}")
                continue
            check_storage(data, f"{label}: {path}/{position}")
            try:
                values = read_array(data, weight.shape, place, weight.dtype, bfloat16=is_bfloat16(data))
            except ModelFormatError as error:
                problems.append(str(error))
                continue
            found.append((group.layer, weight.name, torch.from_numpy(values)))
        stored = store.count(path)
        if stored > len(weights):
            problems.append(
                f"{group.layer.label}: the file holds {stored} variables ({path}), expected {len(weights)}"
            )
    return found


def _home(store: Store, group: Group, home: str) -> str:
    """The group of a layer's part, which older versions of Keras name with a "_" before it."""
    if not home:
        return f"{group.path}/vars"
    paths = [f"{group.path}/{name}/vars" for name in (home, f"_{home}")]
    return next((path for path in paths if store.count(path)), paths[0])


def _unexpected(store: Store, root: str, known: set[str]) -> list[str]:
    """Layers of the file that hold variables and are none of the model's."""
    problems = []
    # The groups at this level that are known, or hold known ones.
    expected = {path.removeprefix(f"{root}/").split("/")[0] for path in known}
    for name in store.groups(root):
        path = f"{root}/{name}/vars"
        if name not in expected and (stored := store.count(path)):
            problems.append(
                f"the file holds {stored} variables at {shown(path)[1:-1]}, which no layer expects"
            )
    return problems
