"""The weights of a model: names, shapes and values."""

from __future__ import annotations

from collections.abc import Iterator, MutableMapping
from dataclasses import dataclass
from math import prod
from typing import TYPE_CHECKING, Any

import torch

from ..graph.errors import ConvLoomError, ShapeError
from ..graph.values import Value
from .initializers import INITIALIZERS, Constant, Initializer, generator

if TYPE_CHECKING:
    from .layers.base import Layer, Weight

LARGEST_MODEL = 2**34
"""Numbers in the weights of one model; a file that asks for more is wrong, or means harm."""


@dataclass(frozen=True)
class Slot:
    """One weight of a model: its parameter name, the layer that keeps its value, and its declaration."""

    name: str
    layer: Layer
    weight: Weight

    @property
    def trainable(self) -> bool:
        return self.weight.trained_with(self.layer)

    @property
    def size(self) -> int:
        return prod(self.weight.shape)


class Values(MutableMapping[str, torch.Tensor]):
    """The values that a layer keeps: weight name -> tensor, the very same one for as long as the layer lives.

    Reading one takes what a network trained; writing one writes into the tensor that is there.
    """

    def __init__(self) -> None:
        self._held: dict[str, Value] = {}

    def __iter__(self) -> Iterator[str]:
        return iter(self._held)

    def __len__(self) -> int:
        return len(self._held)

    def __contains__(self, name: object) -> bool:
        return name in self._held

    def __getitem__(self, name: str) -> torch.Tensor:
        return self._held[name].read()

    def __setitem__(self, name: str, tensor: torch.Tensor) -> None:
        if name in self._held:
            self._held[name].write(tensor)
        else:
            self._held[name] = Value(tensor)

    def __delitem__(self, name: str) -> None:
        raise ConvLoomError(f"weight {name!r} belongs to its layer and cannot be removed")

    def held(self, name: str) -> Value:
        return self._held[name]


class Parameters(MutableMapping[str, torch.Tensor]):
    """Parameter name -> float32 tensor in Keras's shape, in Keras's order.

    The values belong to the layers, so models that share layers share them, and so do the networks compiled
    from them (`graph/values.py`). They are drawn when first read. Assignment checks the shape and copies; no
    parameter can be added or removed.
    """

    def __init__(self, slots: list[Slot], seed: int) -> None:
        self._slots = {slot.name: slot for slot in slots}
        self._seed = seed

    def __iter__(self) -> Iterator[str]:
        return iter(self._slots)

    def __len__(self) -> int:
        return len(self._slots)

    def __getitem__(self, name: str) -> torch.Tensor:
        return self.held(name).read()

    def held(self, name: str) -> Value:
        """What the layer keeps of that name, and networks are tied to."""
        slot = self._slot(name)
        if slot.weight.name not in slot.layer.values:
            self._initialize()
        return slot.layer.values.held(slot.weight.name)

    @property
    def undrawn(self) -> list[str]:
        """Names of those that nobody has given a value yet, and that will be drawn when first read."""
        return [slot.name for slot in self._slots.values() if slot.weight.name not in slot.layer.values]

    def is_state(self, name: str) -> bool:
        """Whether no optimizer ever moves it, such as a moving mean."""
        return not self._slot(name).weight.trainable

    def __setitem__(self, name: str, value: Any) -> None:
        slot = self._slot(name)
        tensor = torch.as_tensor(value).detach()
        if tuple(tensor.shape) != slot.weight.shape:
            raise ShapeError(
                f"{slot.layer.label}: weight {slot.weight.name!r} has shape {slot.weight.shape}, "
                f"got {tuple(tensor.shape)}"
            )
        slot.layer.values[slot.weight.name] = tensor.to(torch.float32)

    def __delitem__(self, name: str) -> None:
        raise ConvLoomError(f"parameter {name!r} belongs to its layer and cannot be removed")

    def __contains__(self, name: object) -> bool:
        return name in self._slots

    def _slot(self, name: str) -> Slot:
        try:
            return self._slots[name]
        except KeyError:
            raise ConvLoomError(
                f"no parameter {name!r}; there are {', '.join(self._slots) or 'none'}"
            ) from None

    def _initialize(self) -> None:
        """Draw every value that is missing, in order, from one generator."""
        if (total := sum(slot.size for slot in self._slots.values())) > LARGEST_MODEL:
            raise ConvLoomError(f"the model has {total:,} weights; at most {LARGEST_MODEL:,} can be made")
        source = generator(self._seed)
        for slot in self._slots.values():
            if slot.weight.name not in slot.layer.values:
                drawn = _initializer(slot.weight)(slot.weight.matrix or slot.weight.shape, source)
                slot.layer.values[slot.weight.name] = drawn.reshape(slot.weight.shape)


def _initializer(weight: Weight) -> Initializer:
    start = weight.initializer
    if isinstance(start, Initializer):
        return start
    return INITIALIZERS[start] if isinstance(start, str) else Constant(start)
