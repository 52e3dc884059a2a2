"""What the command line reads for a network: arrays by the names of its inputs, and pictures."""

from __future__ import annotations

import zipfile
import zlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from .frontends.keras.kinds import HEAD, other_kind
from .graph.errors import ConvLoomError
from .graph.ir import Node
from .pictures import read_picture
from .runtime.inputs import by_name

Array = np.ndarray[Any, Any]


@dataclass(frozen=True)
class Given:
    """A batch for a network. arrays: by the names of its inputs. notes: what was done, for a person."""

    arrays: dict[str, Array]
    notes: list[str]


def read_batch(path: str, inputs: Sequence[Node], resize: bool = False, scale: float | None = None) -> Given:
    """The batch of a .npy, .npz or picture's file.

    resize: pictures, to the size that the input takes. scale: multiplies inputs of floating point, which it
    converts to float32. Raises ConvLoomError for a file that cannot be read, or does not fit by its names.
    """
    kind = _other_kind(path)
    if kind.startswith("an image"):
        if len(inputs) != 1:
            names = ", ".join(node.name for node in inputs)
            raise ConvLoomError(
                f"{path} is one image, and the network has {len(inputs)} inputs: {names}; give a .npz with "
                f"an array for each, by these names"
            )
        pixels, note = read_picture(path, inputs[0], resize)
        if scale is None and inputs[0].type.is_floating:
            note += "; --scale 1/255 where the network wants 0 to 1"
        return Given(_scaled({inputs[0].name: pixels}, inputs, scale), [note])
    if resize:
        raise ConvLoomError(f"--resize is for images, and {path} is none; resize the arrays beforehand")
    arrays, rest = assign(_arrays(path, kind), [node.name for node in inputs], path)
    notes = [f"{path}: {', '.join(rest)} left aside; the network does not take them"] if rest else []
    return Given(_scaled(arrays, inputs, scale), notes)


Pair = tuple[dict[str, Array], Array | dict[str, Array]]
"""The inputs by their names, and the target, or the targets by the outputs' names."""


def read_training_data(
    path: str, inputs: Sequence[Node], outputs: Sequence[str], scale: float | None
) -> tuple[Pair, Pair | None, list[str]]:
    """Pairs (x, y) to train and to validate on, the latter None where there is none, and notes to show.

    The file holds the inputs, named as for `read_batch`, and the targets: y, or for several outputs their
    names, or y0, y1, ... by place; and all of them again with _val at the end of their names to validate on.
    Raises ConvLoomError where some are missing.
    """
    names = [node.name for node in inputs]
    arrays = _arrays(path, _other_kind(path))
    held_out = {name: a for name, a in arrays.items() if name.endswith("_val") and name not in names}
    pairs: list[Pair] = []
    rest: list[str] = []
    for suffix in ("", "_val") if held_out else ("",):
        part = held_out if suffix else {name: a for name, a in arrays.items() if name not in held_out}
        part = {name.removesuffix(suffix): array for name, array in part.items()}
        targets = _targets(outputs, part)
        if targets is None or len(part) <= len(targets):
            wanted = "x" if len(names) == 1 else ", ".join(names)
            of_targets = "y" if len(outputs) == 1 else ", ".join(outputs)
            with_suffix = " and ".join(
                ", ".join(name + suffix for name in group.split(", ")) for group in (wanted, of_targets)
            )
            for_what = "validation" if suffix else "training"
            raise ConvLoomError(
                f"{path} holds {', '.join(arrays)}; {for_what} needs arrays named {with_suffix}"
            )
        taken = {name: part.pop(own) for name, own in targets.items()}
        x, more = assign(part, names, path)
        pairs.append((_scaled(x, inputs, scale), taken if len(outputs) > 1 else next(iter(taken.values()))))
        rest += [name + suffix for name in more]
    notes = [f"{path}: {', '.join(rest)} left aside; training does not use them"] if rest else []
    return pairs[0], pairs[1] if held_out else None, notes


def _targets(outputs: Sequence[str], arrays: Mapping[str, Array]) -> dict[str, str] | None:
    """The array of each output by its name; None where some are not there."""
    places = ["y"] if len(outputs) == 1 else [f"y{index}" for index in range(len(outputs))]
    for way in (places, list(outputs)):
        if all(name in arrays for name in way):
            return dict(zip(outputs, way, strict=True))
    return None


def assign(
    arrays: Mapping[str, Array], names: Sequence[str], path: str
) -> tuple[dict[str, Array], list[str]]:
    """The arrays by the inputs' names, and the names of those that are for no input.

    They are found by name; or by place, as x0, x1, ... (x where there is one input); or, one alone for a
    single input, whatever its name. Raises ConvLoomError for a name that is wrong or missing, with the right
    ones.
    """
    places = [f"x{index}" for index in range(len(names))]
    ways = [list(names), places]
    if len(names) == 1:
        ways += [["x"], list(arrays)] if len(arrays) == 1 else [["x"]]
    for way in ways:
        if all(name in arrays for name in way):
            found = {name: arrays[own] for name, own in zip(names, way, strict=True)}
            return found, [name for name in arrays if name not in way]
    if not arrays:
        raise ConvLoomError(f"{path} holds no arrays; the network takes {', '.join(names)}")
    try:
        by_name(names, arrays)  # raises: they do not fit
    except ConvLoomError as error:
        by_place = "x" if len(names) == 1 else f"{places[0]} to {places[-1]}"
        raise ConvLoomError(f"{path}: {error}; or {by_place}, by place") from None
    raise AssertionError("the names fit after all")


def _scaled(arrays: dict[str, Array], inputs: Sequence[Node], scale: float | None) -> dict[str, Array]:
    if scale is None:
        return arrays
    floating = {node.name for node in inputs if node.type.is_floating}
    if not floating:
        raise ConvLoomError("--scale is for inputs of floating point, and the network has none")
    for name in floating:
        if arrays[name].dtype.kind not in "fiub":
            raise ConvLoomError(f"the array of input {name!r} has dtype {arrays[name].dtype}; give numbers")
    return {
        name: (array.astype(np.float32) * np.float32(scale)) if name in floating else array
        for name, array in arrays.items()
    }


# -- files ---------------------------------------------------------------------------------------------------
def _other_kind(path: str) -> str:
    """What a file is, where it can be told; nothing for a .npy or .npz. Raises ConvLoomError for no file."""
    if not path:
        raise ConvLoomError("the path of the input is empty text; give the path of a file")
    try:
        with Path(path).open("rb") as stream:
            head = stream.read(HEAD)
    except (OSError, ValueError) as error:
        reason = error.strerror if isinstance(error, OSError) else error
        raise ConvLoomError(f"cannot read {path}: {reason or error}") from None
    if head.startswith(b"\x93NUMPY") or zipfile.is_zipfile(path):
        return ""
    return (other_kind(head) or "something else").partition(";")[0]


def _arrays(path: str, kind: str) -> dict[str, Array]:
    """The arrays of a .npy or .npz file; raises ConvLoomError where it is no such file."""
    if kind:
        hint = f": it is {kind}" if kind != "something else" else ""
        raise ConvLoomError(f"{path} is no .npy or .npz file of plain arrays{hint}")
    try:
        loaded = np.load(path, allow_pickle=False)
        if isinstance(loaded, np.ndarray):
            return {"x": loaded}
        with loaded as archive:
            found = {name: archive[name] for name in archive.files}
    except OSError as error:
        raise ConvLoomError(f"cannot read {path}: {error.strerror or error}") from None
    except (
        ValueError,
        EOFError,
        KeyError,
        MemoryError,  # a header may claim any size
        NotImplementedError,
        RuntimeError,
        zipfile.BadZipFile,
        zlib.error,
    ) as error:  # pickled objects, which a stranger's file must not bring, among them
        raise ConvLoomError(f"{path} is no .npy or .npz file of plain arrays: {error}") from None
    if strange := [name for name, array in found.items() if not isinstance(array, np.ndarray)]:
        raise ConvLoomError(f"{path} is no .npz file of arrays: it holds {', '.join(strange[:5])}")
    return found
