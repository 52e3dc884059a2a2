"""Axes left open: a fully convolutional network takes images of any size.

A network is described at known sizes all the same, since its ops are typed so: at two sizes of each open axis
at once. What differs between the two descriptions is open too; and what must not differ, such as the shapes
of weights, can be told. Neither is ever computed: a network is planned for the sizes that it meets.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import TypeVar

from ..graph.errors import ModelFormatError, ShapeError
from ..graph.types import BATCH, TensorType
from ..graph.words import words
from .symbolic import SymbolicTensor, reachable_calls

Sizes = tuple[int, int]

FIRST: Sizes = (448, 576)
"""Both can be halved six times over, and are large enough for kernels and crops."""
OTHERS: tuple[Sizes, ...] = ((572, 700),)
"""Tried where those do not fit: for the crops of a U-Net without padding (Ronneberger et al. 2015)."""
OF_VOLUMES: Sizes = (64, 96)
"""For samples of four axes and more: volumes, and videos, whose steps may be computed in turn."""

Found = TypeVar("Found")

Shape = Sequence[int | None]
Wanted = Shape | Sequence[Shape] | Mapping[str, Shape] | None
"""What `input_shape=` takes: one shape of a sample, a list of them in the order of the inputs, or by name."""


def described(shape: Shape, dtype: str, sizes: Sizes = FIRST) -> tuple[TensorType, TensorType | None]:
    """The types at which an input of this shape of one sample is described; a second where axes are open."""
    first, second = OF_VOLUMES if len(shape) > 3 else sizes
    at = [TensorType((BATCH, *(size if d is None else d for d in shape)), dtype) for size in (first, second)]
    return at[0], at[1] if None in shape else None


def described_elsewhere(tensors: Sequence[SymbolicTensor], attempt: Callable[[], Found]) -> Found | None:
    """What `attempt` gives with all that `tensors` follow from described at other sizes of its open axes.

    None where no sizes do; everything is then described as before.
    """
    if all(tensor.other is None for tensor in tensors):
        return None
    calls = sorted(reachable_calls(tensors), key=lambda call: call.serial)
    before = [(tensor, tensor.type, tensor.other) for call in calls for tensor in call.outputs]
    begin = [call for call in calls if not call.inputs]
    for sizes in (FIRST, *OTHERS):
        for call in begin:
            call.block.describe_again(call, sizes)
        if all(tensor.type == kind for tensor, kind, _ in before):
            continue  # they are what did not fit
        try:
            for call in calls:
                call.block.describe_again(call, sizes)
            return attempt()
        except (ShapeError, ModelFormatError):
            continue
    for tensor, kind, other in before:
        tensor.describe(kind, other)
    return None


def closed(inputs: Sequence[SymbolicTensor], wanted: Wanted, where: str) -> list[tuple[int, ...]]:
    """The shape of one sample of each input, with the sizes that are wanted for open axes.

    Raises ShapeError where an axis has no size, or one that it cannot have.
    """
    shapes = [tensor.shape[1:] for tensor in inputs]
    names = [tensor.node.block.name for tensor in inputs]
    found: Sequence[Shape] = shapes
    if isinstance(wanted, Mapping):
        if unknown := [name for name in wanted if name not in names]:
            raise ShapeError(f"{where}: no input is named {unknown[0]!r:.80}; there are {', '.join(names)}")
        found = [wanted.get(name, shape) for name, shape in zip(names, shapes, strict=True)]
    elif wanted is not None:
        single = all(isinstance(size, int) for size in wanted)
        found = [wanted] if single else wanted  # type: ignore[list-item, assignment]
    listed = ", ".join(f"{name} {shape}" for name, shape in zip(names, shapes, strict=True))
    if len(found) != len(shapes):
        raise ShapeError(f"{where}: takes {listed}; {_option()} gives {len(found)} shape(s)")
    for given, shape in zip(found, shapes, strict=True):
        pairs = zip(shape, given, strict=False)
        if len(given) != len(shape) or any(known not in (None, size) for known, size in pairs):
            raise ShapeError(f"{where}: takes {listed}; {_option()} {tuple(given)} does not fit")
        if any(not isinstance(size, int) or size < 1 for size in given):
            example = tuple(224 if size is None else size for size in given)
            how = words(f"input_shape={example}", f"--input-shape {','.join(map(str, example))}")
            raise ShapeError(f"{where}: takes {listed}, axes left open; say their sizes: {how}")
    return [tuple(int(size) for size in given if size is not None) for given in found]


def _option() -> str:
    return words("input_shape", "--input-shape")
