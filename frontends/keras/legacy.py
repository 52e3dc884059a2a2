"""The `.h5` files of the Keras 2 years, which Keras 3 still writes: a whole model, or weights only.

    attribute model_config, group model_weights/...      a whole model
    attribute layer_names at the root                    weights only, the groups at the root

    stem/stem/kernel:0            Keras 2: group of the layer, name of the layer, name of the weight
    stem/stem/kernel              Keras 3.3 and later;   stem/kernel before
    block/norm/gamma:0            a nested model: its layers' weights side by side, trainable ones first
    stem/BatchNorm/stem/BatchNorm/gamma:0                a layer named stem/BatchNorm, inside another's group

So position says nothing: weights are found by the name of their layer and their own. The lists of names which
the files keep as attributes are not needed for that and not read; HDF5 would take any amount of memory for
them.
"""

from __future__ import annotations

import re
from bisect import bisect_left
from collections import defaultdict
from collections.abc import Iterator
from dataclasses import dataclass
from typing import IO, Any

import h5py
import torch

from ...graph.errors import ModelFormatError
from ...graph.words import words
from ..layers import Layer
from ..lowering import Block
from ..network import Network
from ..parameters import Slot
from .hdf5 import OPAQUE, check_storage, child, child_names, first_line, open_hdf5, read_array
from .limits import DEFAULT, Limits
from .values import shown

CONFIG, WEIGHTS = "model_config", "model_weights"
NAMES = ("layer_names", "layer_names0")
"""The list of layers; lists of more than 64 kB are split and numbered."""
LONGEST_PATH = 2_000
MOST_ALIKE = 64
"""Weights of one name in one group that are told apart by the models around them."""
UNNAMED = "Variable"
"""The one weight of a layer that gave it no name: Variable:0 to TensorFlow, variable_7 or so to Keras 3."""
_UNNAMED = re.compile(r"[Vv]ariable(_\d+)?")

OTHER_NAMES = {
    ("DepthwiseConv1D", "kernel"): "depthwise_kernel",
    ("DepthwiseConv2D", "kernel"): "depthwise_kernel",
    ("LayerScale", "gamma"): UNNAMED,
}
"""Weights that these files name otherwise than the archives of Keras 3."""

INSIDE = "layer"
"""The part of a layer that keeps the layer inside it."""

ACTIVATION = "activation"
"""The part of a layer that keeps the weights of its activation."""

Found = list[tuple[Layer, str, torch.Tensor]]


def read_description(source: str | IO[bytes], label: str, limits: Limits = DEFAULT) -> str | bytes:
    """The JSON of a whole model. Raises ModelFormatError where the file holds none, or only weights."""
    with open_hdf5(source, label, limits) as file:
        if CONFIG not in file.attrs:
            raise ModelFormatError(
                f"{label}: is an HDF5 file; pass the model's .json first and this file as "
                f"{words('weights=', '--weights')}, "
                f"for it holds no description of a model"
            )
        try:
            stored = file.attrs.get_id(CONFIG)
            text = h5py.check_string_dtype(stored.dtype)
            if text is None or stored.shape != ():
                raise ModelFormatError(
                    f"{label}: {CONFIG} must be one text, found {stored.dtype} of shape {stored.shape}"
                )
            limits.check("json_bytes", text.length or 0, f"{label}: {CONFIG}", "bytes of JSON")
            value: str | bytes = file.attrs[CONFIG]
        except (OSError, RuntimeError, ValueError, KeyError, TypeError, MemoryError) as error:
            raise ModelFormatError(f"{label}: damaged HDF5 file: {first_line(error)}") from None
    return value


def legacy_root(file: h5py.File, label: str) -> h5py.Group | None:
    """The group that holds the layers' groups, or None where the file is of another form."""
    if any(name in file.attrs for name in NAMES):
        return file
    group = child(file, WEIGHTS, label)
    return group if isinstance(group, h5py.Group) else None


def read_legacy(
    model: Network, root: h5py.Group, label: str, limits: Limits = DEFAULT
) -> tuple[Found, list[str]]:
    """The weights of all layers, and what does not fit: missing, too many, or of another shape."""
    stored = _Stored(_paths(root, label, limits))
    blocks = {_name(block, model.name_of(block)): block for block in model.layers}
    names = sorted(blocks)
    found: Found = []
    problems: list[str] = []
    used: dict[str, Slot] = {}
    for name, block in blocks.items():
        slots = _slots(block)
        if not slots:
            continue
        group = stored.group(name, slots)
        for slot in slots:
            weight = slot.weight
            path = group.find(slot) or (_renamed(group, slot, names) if block is slot.layer else None)
            place = f"{slot.layer.label}: weight {weight.name!r}"
            if path is None and weight.home.endswith(ACTIVATION):
                continue  # Keras makes these when the model first runs: it was saved before
            if path is None:
                problems.append(f"{place} is missing below {shown(name)}, expected shape {weight.shape}")
            elif (other := used.setdefault(path, slot)) is not slot and other.layer is not slot.layer:
                problems.append(f"{place} and that of {other.layer.label} are both {shown(path)}")
            else:
                data = child(root, path, label, limits)
                check_storage(data, f"{label}: {shown(path)}")
                _read(data, slot, f"{place} ({shown(path)})", found, problems)
    extra = [path for path in stored.paths if path not in used]
    problems += [f"the file holds {shown(path)}, which no layer expects" for path in extra]
    return found, problems


def _read(data: Any, slot: Slot, place: str, found: Found, problems: list[str]) -> None:
    weight = slot.weight
    try:
        # Two opaque bytes are bfloat16: the file does not say so, but Keras writes nothing else in this form.
        values = read_array(data, weight.shape, place, weight.dtype, bfloat16=data.dtype == OPAQUE)
    except ModelFormatError as error:
        problems.append(str(error))
    else:
        found.append((slot.layer, weight.name, torch.from_numpy(values)))


def _slots(block: Any) -> list[Slot]:
    """A layer's weights, or those of a nested model, under their path inside the block."""
    if isinstance(inner := getattr(block, "model_inside", None) or block, Network):
        return list(inner.slots())
    if isinstance(block, Layer):
        return [Slot(f"{block.name}/{weight.name}", block, weight) for weight in block.all_weights]
    return []


# -- what the file holds -------------------------------------------------------------------------------------
def _paths(root: h5py.Group, label: str, limits: Limits) -> list[str]:
    """The paths of all data sets below a group, each group visited once."""
    paths: list[str] = []
    visited: set[int] = set()
    groups = [("", root, 1)]
    objects = 0
    while groups:
        prefix, group, depth = groups.pop()
        address = h5py.h5o.get_info(group.id).addr
        if address in visited:
            continue
        visited.add(address)
        names = child_names(group, label, limits)
        objects += len(names)
        limits.check("hdf5_objects", objects, label, "entries")
        limits.check("hdf5_depth", depth, f"{label}: {shown(prefix)}", "groups in groups")
        for name in names:
            path = f"{prefix}{name}"
            if len(path) > LONGEST_PATH:
                raise ModelFormatError(f"{label}: {shown(path)} is a path of {len(path):,} characters")
            member = child(group, name, f"{label}: below {shown(prefix)}", limits)
            if isinstance(member, h5py.Group):
                groups.append((f"{path}/", member, depth + 1))
            elif isinstance(member, h5py.Dataset):
                paths.append(path)
    return paths


@dataclass(frozen=True)
class _Group:
    """The data sets below the group of one block. prefix: its path; ends: paths by what they end with."""

    prefix: str
    ends: dict[str, list[str]]

    def find(self, slot: Slot) -> str | None:
        """The data set that is named after the layer and the weight, or after the weight alone."""
        for name in _names(slot):
            alike = self.ends.get(f"{_name(slot.layer, slot.layer.name)}/{name}", [])
            if alike and len(alike) <= MOST_ALIKE:
                # Layers of one name in several models: the path that agrees furthest, else the shortest.
                inside = slot.name.removesuffix(slot.weight.name).split("/")[:-1] + name.split("/")
                return min(alike, key=lambda path: (-_agreement(_parts(path), inside), len(path), path))
            for path in self.ends.get(name, []):
                if "/".join(_parts(path)) == f"{self.prefix}{name}":
                    return path
        return None


class _Stored:
    """The paths of a file, by group."""

    def __init__(self, paths: list[str]) -> None:
        self.paths = sorted(paths)

    def group(self, name: str, slots: list[Slot]) -> _Group:
        prefix = f"{name}/"
        ends: defaultdict[str, list[str]] = defaultdict(list)
        names = [(_name(slot.layer, slot.layer.name), name) for slot in slots for name in _names(slot)]
        keys = {key for layer, name in names for key in (name, f"{layer}/{name}")}
        lengths = {key.count("/") + 1 for key in keys}
        for path in self._below(prefix):
            parts = _parts(path[len(prefix) :])
            for length in lengths:
                if length <= len(parts):
                    ends["/".join(parts[-length:])].append(path)
        return _Group(prefix, ends)

    def _below(self, prefix: str) -> Iterator[str]:
        for index in range(bisect_left(self.paths, prefix), len(self.paths)):
            if not self.paths[index].startswith(prefix):
                return
            yield self.paths[index]


def _renamed(group: _Group, slot: Slot, names: list[str]) -> str | None:
    """The only weight of that name, where a layer was renamed after its weights had been made."""
    inner = []
    for index in range(bisect_left(names, group.prefix), len(names)):
        if not names[index].startswith(group.prefix):
            break
        inner.append(f"{names[index]}/")
    alike = [p for name in _names(slot) for p in group.ends.get(name, []) if not p.startswith(tuple(inner))]
    return alike[0] if len(alike) == 1 else None


def _names(slot: Slot) -> list[str]:
    """What a weight may be called in a file."""
    name, path = slot.weight.name, slot.weight.path
    old = OTHER_NAMES.get((type(slot.layer).__name__, name))
    inside = set(slot.weight.home.split("/")) == {INSIDE}
    innermost = "/".join(path.split("/")[-2:]) if inside else ""
    bare = name.split("/")[-1] if inside else ""  # as Keras 2 has it
    return [found for found in (name, path, old, innermost, bare) if found]


def _name(block: Block, called: str = "") -> str:
    """What the file calls a layer. called: what its model calls it, where that is not its own name."""
    name = called or block.name
    return block.written.original(name) if block.written is not None else name


def _parts(path: str) -> list[str]:
    """The steps of a path, without the numbers that TensorFlow and Keras give to variables."""
    *above, leaf = path.removesuffix(":0").split("/")
    return [*above, UNNAMED if _UNNAMED.fullmatch(leaf) else leaf]


def _agreement(a: list[str], b: list[str]) -> int:
    """How many steps two paths share, from their ends."""
    count = 0
    while count < min(len(a), len(b)) and a[-1 - count] == b[-1 - count]:
        count += 1
    return count
