"""What a model computes: layers called on symbolic tensors, from inputs to outputs."""

from __future__ import annotations

import operator
from collections.abc import Container, Iterator, Sequence
from typing import Any, ClassVar, Self

import numpy as np
import numpy.typing as npt
import torch

from ..graph import ops
from ..graph.errors import ConvLoomError, ShapeError, UnsupportedLayerError, nearest
from ..graph.ir import Graph
from ..graph.op import snake_case
from ..graph.passes.precision import Policies
from ..graph.types import BATCH, TensorType
from .budget import BUDGET
from .cutting import begun_at, put_in
from .initializers import check_seed
from .layers.base import Layer
from .layers.core import InputLayer
from .layers.masking import HANDS_ON, READS
from .lowering import Block, Lowering, alone, check_size, flatten_tensors
from .names import DefaultName, check_name, settle, visible
from .open_axes import Wanted, closed
from .operations import Operation
from .ordering import keras_layer_order
from .parameters import Parameters, Slot
from .pickling import flattened, restored
from .policies import policies
from .symbolic import Call, SymbolicTensor, reachable_calls


class Network(Block):
    """Base of the models: calls between inputs and outputs, their weights, and how they are lowered."""

    is_sequential: ClassVar[bool] = False
    """Whether its layers stand one after another, and Keras's files list them so."""
    has_layers: ClassVar[bool] = True
    """Whether it is made of layers, which files group weights by; else it has weights by name alone."""

    _masking: bool
    """Whether a layer that makes a mask is in it, or in a model inside."""

    structure: tuple[Any, Any] = (None, None)
    """Inputs and outputs as they were given: alone, in a list or in a dictionary."""

    def __init__(self, inputs: Any, outputs: Any, name: str | None = None, seed: int | None = None) -> None:
        self._configure(name, seed, "Functional")
        given, made = flatten_tensors(inputs, self.label), flatten_tensors(outputs, self.label)
        ways = begun_at(given, made, self.label)
        self.structure = put_in(inputs, ways), put_in(outputs, ways)
        self._connect(put_in(given, ways), put_in(made, ways))

    @classmethod
    def in_order(
        cls, inputs: Any, outputs: Any, name: str, keras_class: str, layers: Sequence[Block]
    ) -> Self:
        """A model whose layers are listed as a file lists them, rather than in Keras's own order."""
        model = cls.__new__(cls)
        model._configure(name, None, keras_class)
        model._connect(flatten_tensors(inputs, model.label), flatten_tensors(outputs, model.label), layers)
        return model

    def _configure(self, name: str | None, seed: int | None, keras_class: str) -> None:
        self.keras_class = keras_class
        """The name of its class in Keras's files, where "Model" is Functional."""
        if not name:
            self.default_name = DefaultName(keras_class)
        self.name = check_name(name or snake_case(keras_class), keras_class)
        given = check_seed(seed, self.label)
        self.seed = int(torch.randint(2**63 - 1, (), device="cpu")) if given is None else given

    def _connect(
        self,
        inputs: list[SymbolicTensor],
        outputs: list[SymbolicTensor],
        order: Sequence[Block] | None = None,
    ) -> None:
        """Settle what the network is. order: of the layers; else Keras's own."""
        self._inputs, self._outputs = inputs, outputs
        self._network = sorted(reachable_calls(outputs), key=lambda call: call.serial)
        self._call_count = sum(call.block.call_count for call in self._network)
        BUDGET.get().calls(self._call_count, self.label)
        check_size(self._call_count, self.label)
        self._blocks = list(order) if order is not None else keras_layer_order(outputs)
        self._called = settle(dict.fromkeys([*(tensor.node.block for tensor in inputs), *self._blocks]))
        self._check()
        self._parameters = Parameters(list(self.slots()), self.seed)

    def _check(self) -> None:
        for tensor in self._inputs:
            if not isinstance(tensor.node.block, InputLayer):
                raise ConvLoomError(
                    f"{self.label}: input {tensor!r} must come from Input(shape), not from a layer"
                )
        used = dict.fromkeys(call.block for call in self._network if isinstance(call.block, InputLayer))
        given: set[Block] = {tensor.node.block for tensor in self._inputs}
        if len(given) != len(self._inputs):
            raise ConvLoomError(f"{self.label}: an input is listed twice; list each once")
        for source in used:
            if source not in given:
                raise ConvLoomError(
                    f"{self.label}: the graph is disconnected: its outputs depend on {source.label}, which "
                    f"is not among the inputs; add it to inputs="
                )
        for block in given:
            if block not in used:
                raise ConvLoomError(
                    f"{self.label}: the graph is disconnected: no output depends on {block.label}; "
                    f"leave it out"
                )
        first: dict[str, Block] = {}
        for block in self._blocks:
            if (other := first.setdefault(self.name_of(block), block)) is not block:
                raise ConvLoomError(
                    f"{self.label}: two layers are named {block.name!r} ({type(other).__name__} and "
                    f"{type(block).__name__}); give each layer its own name"
                )
        self._masking = any(
            block._masking if isinstance(block, Network) else isinstance(block, Layer) and block.masks
            for block in self._blocks
        )
        if self._masking:
            self.masked([])

    def masked(self, inputs: Sequence[int]) -> list[int]:
        """The outputs that have a mask, where the inputs at these places have one.

        Raises UnsupportedLayerError where a layer would read it.
        """
        found = {self._inputs[place] for place in inputs}
        for call in self._network:
            block, kind = call.block, type(call.block).__name__
            places = [i for i, tensor in enumerate(call.inputs) if tensor in found]
            if isinstance(block, Network):
                if places or block._masking:
                    found |= {call.outputs[i] for i in block.masked(places)}
            elif isinstance(block, Operation):
                continue  # drops it
            elif places and kind in READS:
                raise UnsupportedLayerError(
                    f"{self.label}: {block.label} comes after a Masking layer, or an Embedding with "
                    f"mask_zero, and would read its mask, which ConvLoom does not do; remove the mask, or "
                    f"mask the values yourself"
                )
            elif (isinstance(block, Layer) and block.masks) or (places and kind in HANDS_ON):
                found |= set(call.outputs)
        return [i for i, tensor in enumerate(self._outputs) if tensor in found]

    @property
    def masked_outputs(self) -> list[str]:
        """The layers whose results, outputs here, have a mask in Keras, whose losses read it."""
        places = self.masked([]) if self._masking else []
        return [self.name_of(self._outputs[place].node.block) for place in places]

    # -- reading ---------------------------------------------------------------------------------------------
    @property
    def inputs(self) -> list[SymbolicTensor]:
        return list(self._inputs)

    @property
    def outputs(self) -> list[SymbolicTensor]:
        return list(self._outputs)

    @property
    def input(self) -> Any:
        """Its inputs as they were given: a tensor, or a list or a dictionary of them."""
        return alone(self._inputs) if self.structure[0] is None else self.structure[0]

    @property
    def output(self) -> Any:
        """Its outputs as they were given: a tensor, or a list or a dictionary of them."""
        return alone(self._outputs) if self.structure[1] is None else self.structure[1]

    @property
    def layers(self) -> list[Block]:
        """The layers and nested models, in Keras's order."""
        return list(self._blocks)

    @property
    def network(self) -> list[Call]:
        """The calls, operands before their readers."""
        return list(self._network)

    def get_layer(self, name: str | None = None, index: int | None = None) -> Block:
        """The layer of that name, or at that place in `layers`; raises ConvLoomError where there is none."""
        if (name is None) == (index is None):
            raise ConvLoomError(f"{self.label}: get_layer takes a name or an index, one of the two")
        if index is not None:
            place = operator.index(index) if isinstance(index, (int, np.integer)) else len(self._blocks)
            if not -len(self._blocks) <= place < len(self._blocks):
                raise ConvLoomError(
                    f"{self.label}: has {len(self._blocks)} layers, 0 to {len(self._blocks) - 1}; there is "
                    f"no layer {index!r:.80}"
                )
            return self._blocks[place]
        for block in self._blocks:
            if name is not None and self.name_of(block) in (name, visible(name)):
                return block
        known = [self.name_of(block) for block in self._blocks]
        near = nearest(name, known, "there are")
        raise ConvLoomError(f"{self.label}: no layer is named {name!r:.80}{near}")

    def name_of(self, block: Block) -> str:
        """What this model calls one of its layers. Mostly the layer's own name; but where layers that were
        never named meet again in a second model, having got the same name in their first, they are numbered.
        """
        return self._called.get(block, block.name)

    def __repr__(self) -> str:
        return f"<{self.label}>"

    # -- weights ---------------------------------------------------------------------------------------------
    def slots(self, prefix: str = "", seen: set[Block] | None = None) -> Iterator[Slot]:
        """Every weight once, in Keras's order, nested models included."""
        seen = set() if seen is None else seen
        for block in self._blocks:
            if block in seen:
                continue
            seen.add(block)
            inner = block.model_inside or block
            if isinstance(inner, Network):
                yield from inner.slots(f"{prefix}{self.name_of(block)}/", seen)
            elif isinstance(block, Layer):
                for weight in block.all_weights:
                    yield Slot(f"{prefix}{self.name_of(block)}/{weight.name}", block, weight)

    @property
    def trainable(self) -> bool:
        """Whether any layer with weights is; setting it freezes or frees all layers, nested models included.

        A frozen batch norm keeps its statistics and normalises with them in training too, as in Keras. What
        was compiled before follows at its next call.
        """
        found = [slot.layer.trainable for slot in self.slots()]
        return any(found) or not found

    @trainable.setter
    def trainable(self, value: bool) -> None:
        for block in self._blocks:
            if isinstance(block, Network | Layer):
                block.trainable = value

    @property
    def changes(self) -> int:
        """How often layers have been frozen or freed so far; a network looks at it at every call."""
        return Layer.changes

    @property
    def parameters(self) -> Parameters:
        """Parameter name -> float32 tensor: initial, loaded, assigned or trained, whichever was last."""
        return self._parameters

    def count_params(self) -> int:
        return sum(slot.size for slot in self.slots())

    def get_weights(self) -> list[npt.NDArray[np.float32]]:
        """Copies of all weights, in Keras's order and shapes."""
        return [tensor.numpy().copy() for tensor in self.parameters.values()]

    def set_weights(self, weights: Sequence[npt.ArrayLike]) -> None:
        """The inverse of `get_weights`; raises ShapeError where number or shapes differ."""
        parameters = self.parameters
        if len(weights) != len(parameters):
            raise ShapeError(f"{self.label}: has {len(parameters)} weights, got {len(weights)}")
        for name, value in zip(parameters, weights, strict=True):
            parameters[name] = np.asarray(value)

    def __getstate__(self) -> dict[str, Any]:
        return flattened({**self.__dict__, "first_call": None, "_training": None})

    def __setstate__(self, state: dict[str, Any]) -> None:
        self.__dict__.update(restored(state))

    # -- lowering --------------------------------------------------------------------------------------------
    @property
    def open_axes(self) -> list[tuple[int, ...]]:
        """Of each input the axes of any size, the batch's apart; nothing where all sizes are known."""
        found = [tuple(i for i, d in enumerate(x.shape) if i and d is None) for x in self._inputs]
        return found if any(found) else []

    @property
    def described_at(self) -> list[tuple[int, ...]]:
        """The shape of one sample of each input at which the network is described; see `open_axes`."""
        return [tensor.type.size()[1:] for tensor in self._inputs]

    @property
    def policies(self) -> Policies | None:
        """What to compute in where `compile` is not told, as the file says; None for float32."""
        return policies(self)

    def to_graph(self, input_shape: Wanted = None, *, thawed: bool = False) -> Graph:
        """The network as IR: inputs, parameters and outputs under the names of their layers.

        input_shape: of one sample, where inputs leave axes open: one shape, a list of them in the order of
        the inputs, or a dictionary by name. thawed: as if no layer were frozen.
        Raises ShapeError where an axis has no size, or does not fit.
        """
        graph = Graph(self.name)
        shapes = closed(self._inputs, input_shape, self.label)
        names = {(slot.layer, slot.weight.name): slot.name for slot in self.slots()}
        sources = []
        for tensor, shape in zip(self._inputs, shapes, strict=True):
            layer = self.name_of(tensor.node.block)
            sources.append(graph.add(ops.Input((BATCH, *shape), tensor.dtype), name=layer, layer=layer))
        results = self._lower_calls(Lowering(graph, names, thawed=thawed, blocks=self._called), sources)
        for tensor, result in zip(self._outputs, results, strict=True):
            graph.outputs[_unused(self.name_of(tensor.node.block), graph.outputs)] = result
        return graph

    def prepare(self, inputs: Sequence[TensorType]) -> None:
        if not (
            len(inputs) == len(self._inputs)
            and all(_takes(tensor, kind) for tensor, kind in zip(self._inputs, inputs, strict=True))
        ):
            expected = ", ".join(_said(tensor) for tensor in self._inputs)
            raise ShapeError(f"{self.label}: takes {expected}, found {', '.join(map(str, inputs))}")

    @property
    def call_count(self) -> int:
        return self._call_count

    def results(self, types: Sequence[TensorType], **options: Any) -> list[TensorType]:
        """Known without lowering, unless the inputs have another dtype or size than it was made for."""
        if list(types) == [tensor.type for tensor in self._inputs]:
            return [tensor.type for tensor in self._outputs]
        return super().results(types, **options)

    def lower(self, into: Lowering, inputs: Sequence[str], call: int, **options: Any) -> list[str]:
        return self._lower_calls(into.inside(self, call, self._called), inputs)

    def _lower_calls(self, into: Lowering, inputs: Sequence[str]) -> list[str]:
        values = dict(zip(self._inputs, inputs, strict=True))
        uses: dict[Block, int] = {}
        for call in self._network:
            if isinstance(call.block, InputLayer):
                continue
            # Numbered by the uses in this model: a layer may also be called in others.
            use = uses.get(call.block, 0)
            uses[call.block] = use + 1
            operands = [values[tensor] for tensor in call.inputs]
            types = [into.graph[name].type for name in operands]
            if any(kind.shape != tensor.type.shape for kind, tensor in zip(types, call.inputs, strict=True)):
                call.block.prepare(types)  # of another size than it was described at
            results = call.block.lower(into.called(call), operands, use, **call.options)
            values.update(zip(call.outputs, results, strict=True))
        return [values[tensor] for tensor in self._outputs]


def _takes(tensor: SymbolicTensor, kind: TensorType) -> bool:
    """Whether an input takes values of this type."""
    pairs = zip(tensor.shape, kind.shape, strict=False)
    return len(tensor.shape) == kind.rank and all(d in (None, e) for d, e in pairs)


def _said(tensor: SymbolicTensor) -> str:
    return f"{tensor.dtype}[{','.join(map(str, ('N', *tensor.shape[1:])))}]"


def _unused(name: str, taken: Container[str]) -> str:
    count = 0
    while (candidate := f"{name}_{count}" if count else name) in taken:
        count += 1
    return candidate
