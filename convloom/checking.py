"""The self-check: stored inputs and outputs of a network, replayed through the compiled network."""

from __future__ import annotations

import os
import re
import zipfile
from dataclasses import dataclass
from math import inf
from typing import Any

import numpy as np
import numpy.typing as npt
import torch

from .frontends import Model
from .frontends.keras.npz import read_npy
from .graph.errors import ConvLoomError, ModelFormatError
from .runtime.compile import compile

TOLERANCE = 1e-4
"""Relative; float32 over the depth of ResNet50 leaves less than 3e-5."""
LARGEST_CHECK = 2**31
"""Bytes of one stored array; a few samples are enough for a check."""

Array = npt.NDArray[Any]


@dataclass(frozen=True)
class Difference:
    """How far one output lies from what was stored: name of its layer, shape, and the largest differences.

    relative: the largest difference over the largest stored magnitude of this output.
    """

    name: str
    shape: tuple[int, ...]
    absolute: float
    relative: float

    def __str__(self) -> str:
        return (
            f"{self.name} {self.shape}: largest difference {self.absolute:.3g}, relative {self.relative:.3g}"
        )


@dataclass(frozen=True)
class CheckReport:
    """What a self-check that passed found, one `Difference` an output."""

    outputs: tuple[Difference, ...]
    tolerance: float

    @property
    def absolute(self) -> float:
        """The largest absolute difference of all outputs."""
        return max(output.absolute for output in self.outputs)

    @property
    def relative(self) -> float:
        """The largest relative difference of all outputs."""
        return max(output.relative for output in self.outputs)

    def __str__(self) -> str:
        return "\n".join([*map(str, self.outputs), f"within the tolerance of {self.tolerance:g}"])


def check(model: Model, path: str | os.PathLike[str], tolerance: float = TOLERANCE) -> CheckReport:
    """Replay stored inputs and outputs through the network, compiled in float32 for aten on the CPU.

    path: an `.npz` with the inputs x, or x0, x1, ... in the model's order, each with the batch first, and the
    outputs y, or y0, y1, ... that were computed from them in inference mode.
    tolerance: relative; with infinity every difference is only reported.
    Raises ConvLoomError, naming the outputs, where they differ by more, ModelFormatError where the file does
    not fit the model.
    """
    if not isinstance(tolerance, (int, float)) or isinstance(tolerance, bool) or not tolerance >= 0:
        raise ConvLoomError(f"the tolerance must be a number from 0 on, got {tolerance!r:.80}")
    label = os.path.basename(os.fspath(path))
    inputs, stored = _read(path, label, len(model.inputs), len(model.outputs))
    _check_shapes(model, inputs, stored, label)
    with torch.no_grad():
        net = compile(model, device="cpu", backend="aten", dtype="float32")
        result = net(*inputs)
    found = result if isinstance(result, tuple) else (result,)
    names = list(net.source.outputs)
    for name, y, array in zip(names, found, stored, strict=True):
        if tuple(y.shape) != array.shape:  # of a size that only this input tells
            raise _misfit(label, "output", model, name, tuple(y.shape), array)
    pairs = zip(names, found, stored, strict=True)
    report = CheckReport(tuple(_difference(n, y.double().numpy(), s) for n, y, s in pairs), float(tolerance))
    if wrong := [str(output) for output in report.outputs if output.relative > tolerance]:
        raise ConvLoomError(
            f"{model.label} does not compute what {label} holds: {'; '.join(wrong)}; the tolerance is "
            f"{tolerance:g}. Were its weights loaded, and were the outputs stored in inference mode?"
        )
    return report


def _difference(name: str, found: Array, stored: Array) -> Difference:
    expected = stored.astype(np.float64)
    with np.errstate(invalid="ignore"):
        distance = np.where(found == expected, 0.0, np.abs(found - expected))
    absolute = float(np.nan_to_num(distance, nan=inf, posinf=inf).max(initial=0.0))
    scale = float(np.abs(expected[np.isfinite(expected)]).max(initial=0.0))
    relative = absolute / scale if scale else (inf if absolute else 0.0)
    return Difference(name, tuple(found.shape), absolute, relative)


def _check_shapes(model: Model, inputs: list[Array], outputs: list[Array], label: str) -> None:
    """Every array is a batch of what the model takes or gives, and the batches are of one size."""
    batch = inputs[0].shape[0] if inputs[0].ndim else 0
    if batch < 1:
        raise ModelFormatError(f"{label}: the stored inputs hold no sample; their shape is {inputs[0].shape}")
    for kind, tensors, arrays in (("input", model.inputs, inputs), ("output", model.outputs, outputs)):
        for tensor, array in zip(tensors, arrays, strict=True):
            expected = (batch, *tensor.shape[1:])
            if not _fits(array.shape, expected):
                raise _misfit(label, kind, model, tensor.node.block.name, expected, array)


def _fits(shape: tuple[int, ...], expected: tuple[int | None, ...]) -> bool:
    """Whether a shape is the expected one, where None stands for any size."""
    pairs = zip(shape, expected, strict=False)
    return len(shape) == len(expected) and all(size in (None, have) for have, size in pairs)


def _misfit(
    label: str, kind: str, model: Model, name: str, expected: tuple[int | None, ...], array: Array
) -> ModelFormatError:
    return ModelFormatError(
        f"{label}: {kind} {name!r} of {model.label} has shape {expected}, the stored one {array.shape}"
    )


# -- the file ------------------------------------------------------------------------------------------------
def _read(
    path: str | os.PathLike[str], label: str, inputs: int, outputs: int
) -> tuple[list[Array], list[Array]]:
    """The arrays x.. and y.. in order, read after their headers have been checked."""
    try:
        with zipfile.ZipFile(path) as archive:
            members = {info.filename.removesuffix(".npy"): info for info in archive.infolist()}
            found = [
                [
                    read_npy(archive, members[name], label, LARGEST_CHECK)
                    for name in _names(members, letter, count, label)
                ]
                for letter, count in (("x", inputs), ("y", outputs))
            ]
    except FileNotFoundError:
        raise ModelFormatError(f"{label}: there is no such file") from None
    except (zipfile.BadZipFile, NotImplementedError, RuntimeError, OSError, EOFError, ValueError) as error:
        raise ModelFormatError(f"{label}: is no .npz file of plain arrays: {error}") from None
    return found[0], found[1]


def _names(members: dict[str, zipfile.ZipInfo], letter: str, count: int, label: str) -> list[str]:
    """x for a single one, or x0, x1, ...; raises ModelFormatError where they are not `count`."""
    there = [name for name in members if re.fullmatch(rf"{letter}\d*", name)]
    wanted = [letter] if there == [letter] and count == 1 else [f"{letter}{i}" for i in range(count)]
    if set(there) != set(wanted):
        kind = "inputs" if letter == "x" else "outputs"
        raise ModelFormatError(
            f"{label}: the model has {count} {kind}, stored as {letter} or {letter}0, {letter}1, ...; "
            f"the file holds {', '.join(sorted(there)) or 'none of these'}"
        )
    return wanted
