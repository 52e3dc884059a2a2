"""Sequential: a network as layers one after another."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from ..graph.errors import ConvLoomError
from ..graph.types import TensorType
from ..graph.words import words
from .layers.base import Layer
from .layers.core import InputLayer
from .lowering import Block
from .model import Model
from .symbolic import SymbolicTensor


class Sequential(Model):
    """Layers one after another.

    layers: the first an Input(shape), an InputLayer, or a layer with input_shape=. `add` appends one more,
    `pop` takes the last one away. seed: as for Model.
    """

    is_sequential = True

    def __init__(self, layers: Sequence[Any] = (), name: str | None = None, seed: int | None = None) -> None:
        self._configure(name, seed, "Sequential")
        self._chain: list[Block] = []
        self._names: dict[str, Block] = {}
        self._ends: list[SymbolicTensor] = []
        """The input and, from there on, what each layer gives; none before the input's shape is known."""
        for layer in layers:
            self.add(layer)

    def add(self, layer: Any) -> None:
        """Append a layer or a model; raises ConvLoomError where it does not fit what is there."""
        self._may_change()
        if isinstance(layer, SymbolicTensor) and isinstance(layer.node.block, InputLayer):
            layer = layer.node.block
        if not isinstance(layer, Block):
            raise ConvLoomError(f"{self.label}: takes layers, got {type(layer).__name__} {str(layer)[:60]!r}")
        if isinstance(layer, InputLayer):
            if self._chain or self._ends:
                raise ConvLoomError(f"{self.label}: {layer.label} must come first")
            self._ends = [layer.tensor()]
            return
        if layer.default_name is None and self._names.setdefault(layer.name, layer) is not layer:
            raise ConvLoomError(f"{self.label}: two layers are named {layer.name!r}; give each its own name")
        if not self._chain and not self._ends and (shape := _sample_shape(layer)) is not None:
            self._ends = [InputLayer(shape).tensor()]
        if self._ends:
            self._append(layer)
        self._chain.append(layer)
        self._reopen()

    def pop(self) -> Block:
        """Take the last layer away and return it, weights and all; raises ConvLoomError where there is none.

        What was compiled before stays as it is.
        """
        self._may_change()
        if not self._chain:
            raise ConvLoomError(f"{self.label}: has no layers to take away")
        layer = self._chain.pop()
        del self._ends[len(self._chain) + 1 :]
        if layer not in self._chain and self._names.get(layer.name) is layer:
            del self._names[layer.name]
        self._reopen()
        return layer

    def build(self, input_shape: Sequence[int | None]) -> None:
        """Begin the chain with an input of this shape, the batch first; one that has begun stays as it is."""
        self._begin(InputLayer(tuple(input_shape)[1:]).tensor())

    def _may_change(self) -> None:
        if self._calls:
            raise ConvLoomError(
                f"{self.label}: another model is made with it, which its layers must not change under; "
                f"change it before, or make a new Sequential of its layers"
            )

    @property
    def end(self) -> SymbolicTensor | None:
        """What the chain gives so far; None before it has an input shape."""
        return self._ends[-1] if self._ends else None

    def _append(self, layer: Block) -> None:
        """Call a layer on what the chain gives so far."""
        result = layer(self._ends[-1])
        if not isinstance(result, SymbolicTensor):
            raise ConvLoomError(f"{self.label}: {layer.label} has several outputs; use Model instead")
        self._ends.append(result)

    def _call(
        self, tensors: Sequence[SymbolicTensor], training: bool | None, options: Mapping[str, Any]
    ) -> Any:
        """A chain without an input shape takes that of its first call."""
        if len(tensors) == 1:
            (x,) = tensors
            self._begin(InputLayer(x.shape[1:], x.dtype).tensor(x.type, x.other))
        return super()._call(tensors, training, options)

    def prepare(self, inputs: Sequence[TensorType]) -> None:
        if len(inputs) == 1:
            self._begin(InputLayer(inputs[0].size()[1:], inputs[0].dtype).tensor())
        super().prepare(inputs)

    def _begin(self, start: SymbolicTensor) -> None:
        if self._ends:
            return
        self._ends = [start]
        for layer in self._chain:
            self._append(layer)
        self._reopen()

    # What `_connect` sets is made on first use: a chain of n layers costs n steps to build, not n * n.
    _LAZY = (
        *("_inputs", "_outputs", "_network", "_blocks", "_call_count", "_called", "_parameters", "_masking"),
    )

    def _reopen(self) -> None:
        for name in self._LAZY:
            self.__dict__.pop(name, None)

    def __getattr__(self, name: str) -> Any:
        if name not in self._LAZY:
            raise AttributeError(f"{type(self).__name__!r} object has no attribute {name!r}")
        if not self._ends or not self._chain:
            lacks = "layers" if self._ends else "input shape"
            how = words("start with Input(shape) and add layers", "give --input-shape H,W,C")
            raise ConvLoomError(f"{self.label}: has no {lacks} yet; {how}")
        self._connect([self._ends[0]], [self._ends[-1]], order=list(dict.fromkeys(self._chain)))
        return self.__dict__[name]


def _sample_shape(block: Block) -> Sequence[int | None] | None:
    """Shape of one sample that a first layer takes, where it says so."""
    if isinstance(block, Layer):
        return block.input_shape
    if isinstance(block, Sequential) and not block._ends:
        return None
    return block.inputs[0].shape[1:] if isinstance(block, Model) and len(block.inputs) == 1 else None
