"""`ModelSpec` -> `Model`: check every entry, order the calls, and make them."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from typing import Any

from ...graph.errors import ConvLoomError, UnsafeModelError, UnsupportedLayerError
from ..layers import InputLayer, Layer
from ..layers.aliases import UNSAFE
from ..lowering import Block
from ..model import Model
from ..open_axes import Shape, Wanted
from ..operations import Operation
from ..sequential import Sequential
from ..symbolic import SymbolicTensor
from .budget import within
from .catalogue import declare, is_operation, refusal
from .keep import remember
from .limits import DEFAULT, Limits
from .order import Node, check_references, ordered
from .shapes import entries, first_shape, input_layer, input_specs, is_open, wanted_shapes
from .spec import CallSpec, LayerSpec, ModelSpec, TensorRef, with_references
from .values import malformed, shown

# Arguments of a call that only repeat the default.
NEUTRAL_KWARGS: dict[str, tuple[Any, ...]] = {"mask": (None,), "training": (None,)}


def assemble(spec: ModelSpec, limits: Limits = DEFAULT, input_shape: Wanted = None) -> Model:
    """The model of a file. Raises one error for all unsupported layers together.

    input_shape: of one sample, where the file leaves axes open or another size is wanted.
    """
    check_layers(spec)
    with within(limits):
        wanted = wanted_shapes(spec, input_shape)
        return _Assembler(resizing=wanted is not None).build(spec, wanted)


def check_layers(spec: ModelSpec) -> None:
    """Look every entry up, those of nested models included, and report all that fail together."""
    found = list(_entries(spec))
    if unsafe := [f"{e.place}: {e.class_name}" for e in found if e.class_name in UNSAFE]:
        raise UnsafeModelError(
            f"the model asks for code or files outside itself, which ConvLoom never runs or opens: "
            f"{_joined(unsafe)}; replace such layers before saving"
        )
    if unknown := [problem for entry in found if (problem := _declared(entry))]:
        raise UnsupportedLayerError(
            f"{len(unknown)} layer(s) are not supported by ConvLoom: {_joined(unknown)}"
        )


def _declared(entry: LayerSpec) -> str | None:
    """Give the entry its layer, or say why it has none. An input gets its own with its shape."""
    if why := refusal(entry):
        return f"{entry.place}: {why}"
    if entry.class_name != "InputLayer":
        try:
            entry.layer = declare(entry)
            remember(entry.layer, entry.written)
        except UnsupportedLayerError as error:
            return str(error)
    return None


def _joined(items: list[str], most: int = 20) -> str:
    rest = f"; and {len(items) - most} more" if len(items) > most else ""
    return "; ".join(items[:most]) + rest


def _entries(spec: ModelSpec) -> Iterator[LayerSpec]:
    """All entries that are layers, those of nested models included."""
    for layer in spec.layers:
        if layer.model is None:
            yield layer
        else:
            yield from _entries(layer.model)


class _Assembler:
    """Builds models inside models. resizing: whether the file's own input shapes are to be replaced."""

    def __init__(self, resizing: bool) -> None:
        self._resizing = resizing

    def build(self, spec: ModelSpec, wanted: Sequence[Shape] | None) -> Model:
        """wanted: shapes of the inputs, in their order."""
        model = self._sequential(spec, wanted) if spec.sequential else self._functional(spec, wanted)
        model.written = spec.written
        return model

    def _sequential(self, spec: ModelSpec, wanted: Sequence[Shape] | None) -> Sequential:
        model = Sequential(name=spec.name)
        if entry := first_shape(spec):
            model.add(input_layer(entry, wanted[0] if wanted else None, self._resizing))
        elif wanted and not entries(spec):  # the file leaves its shape to whoever calls it
            model.add(InputLayer(wanted[0]))
        for layer in spec.layers[_begins_with_input(spec) :]:
            with _Place(layer.place):
                if is_operation(layer):
                    malformed(layer.place, "an operation cannot stand in a Sequential")
                before = [model.end] if model.end is not None else []
                model.add(self._block(layer, before, wanted))
        return model

    def _block(
        self, layer: LayerSpec, inputs: Sequence[SymbolicTensor], wanted: Sequence[Shape] | None = None
    ) -> Block:
        """A layer or a model. One that leaves axes open stays open, since it may be called at several sizes,
        but for layers that cannot: they take the sizes that it is first called at.
        """
        if layer.model is None:
            return layer.layer if layer.layer is not None else malformed(layer.place, "was not checked")
        found = [tensor.shape[1:] for tensor in inputs] or wanted
        if self._resizing or not is_open(layer.model):
            return self.build(layer.model, found if self._resizing else None)
        try:
            return self.build(layer.model, None)
        except ConvLoomError:
            if found is None or any(None in shape for shape in found):
                raise
            check_layers(layer.model)  # layers anew, since those there are may have been built
            return self.build(layer.model, found)

    def _functional(self, spec: ModelSpec, wanted: Sequence[Shape] | None) -> Model:
        layers = {layer.name: layer for layer in spec.layers}
        check_references(spec, layers)
        blocks: dict[str, Block] = {}
        if wanted is not None and len(wanted) != len(spec.inputs):
            malformed(spec.place, f"has {len(spec.inputs)} inputs, called with {len(wanted)}")
        for position, entry in enumerate(input_specs(spec)):
            if entry.name not in blocks:
                blocks[entry.name] = input_layer(entry, wanted[position] if wanted else None, self._resizing)
        values: dict[Node, list[SymbolicTensor]] = {}
        for name, k in ordered(spec):
            layer = layers[name]
            if layer.class_name == "InputLayer":
                if name not in blocks:  # not among the inputs, which the model will say
                    blocks[name] = input_layer(layer, None)
                values[name, k] = [_entry_tensor(blocks[name])]
                continue
            call = layer.calls[k]
            with _Place(layer.place):
                args, kwargs = with_references([call.args, call.kwargs], _lookup(values, call.place))
                if name not in blocks:
                    blocks[name] = self._block(layer, _tensors_in([args, kwargs]))
                values[name, k] = _call(blocks[name], args, kwargs, call)
            values[name, k][0].node.written = call.written
        for name, layer in layers.items():
            if name not in blocks:  # called by nothing
                blocks[name] = self._block(layer, [])
        inputs = [_tensor(ref, values, f"{spec.place}: input_layers") for ref in spec.inputs]
        outputs = [_tensor(ref, values, f"{spec.place}: output_layers") for ref in spec.outputs]
        order = [blocks[layer.name] for layer in spec.layers]
        with _Place(spec.place):
            return Model.in_order(inputs, outputs, spec.name, spec.class_name, order)


def _lookup(
    values: dict[Node, list[SymbolicTensor]], place: str
) -> Callable[[TensorRef], SymbolicTensor]:
    return lambda reference: _tensor(reference, values, place)


def _begins_with_input(spec: ModelSpec) -> int:
    return int(spec.layers[0].class_name == "InputLayer" and spec.layers[0].model is None)


def _entry_tensor(block: Block) -> SymbolicTensor:
    assert isinstance(block, InputLayer)
    return block.tensor()


# -- calls ---------------------------------------------------------------------------------------------------
def _call(block: Block, args: list[Any], kwargs: dict[str, Any], call: CallSpec) -> list[SymbolicTensor]:
    if isinstance(block, Operation):
        result = block(*args, **kwargs)
        return result if isinstance(result, list) else [result]
    names = block.tensors if isinstance(block, Layer) else ()
    named = {key: value for key, value in kwargs.items() if _tensors_in(value)}
    if wrong := [key for key in named if key not in (names or ("inputs",))]:
        raise UnsupportedLayerError(f"{call.place}: called with a tensor as {wrong[0]}, which is unsupported")
    options = _options(block, {key: value for key, value in kwargs.items() if key not in named}, call)
    given = args if names else [*args, *named.values()]
    tensors = _tensors_in(given)
    if len(tensors) < _leaves(given):
        malformed(call.place, "a layer takes tensors, not numbers")
    if isinstance(block, Layer) and names:
        if several := [key for key, value in named.items() if not isinstance(value, SymbolicTensor)]:
            malformed(call.place, f"gives {several[0]} several tensors, where the layer takes one")
        result = block(*tensors, **named, **options)
    else:
        result = block(tensors, **options)
    return result if isinstance(result, list) else [result]


def _options(block: Block, kwargs: dict[str, Any], call: CallSpec) -> dict[str, Any]:
    """The keyword arguments that are options of the layer; others must say what is so anyway."""
    options: dict[str, Any] = {}
    for key, value in kwargs.items():
        if isinstance(block, Layer) and key in (*block.options, *block.tensors):
            options[key] = value
            continue
        if key == "training" and isinstance(block, Layer) and _says_nothing(value, block, call):
            continue
        if key == "training" and value is False:
            options[key] = value
            continue
        # A model of several inputs is called with as many masks.
        single = None if key == "mask" and isinstance(value, list) and not any(value) else value
        if not any(single is neutral for neutral in NEUTRAL_KWARGS.get(key, ())):
            raise UnsupportedLayerError(
                f"{call.place}: called with {key}={shown(value)}, which is not supported"
            )
    return options


def _says_nothing(training: Any, layer: Layer, call: CallSpec) -> bool:
    """Whether it is what Keras 3 writes of every call. Keras 2 writes what was said, with nodes as lists."""
    return training is layer.said_training and (training is True or call.written is not None)


def _tensors_in(value: Any) -> list[SymbolicTensor]:
    """The tensors among arguments, in their order; those of a dictionary in the order of its keys."""
    if isinstance(value, SymbolicTensor):
        return [value]
    if isinstance(value, dict):
        value = [value[key] for key in sorted(value)]
    return [tensor for item in value for tensor in _tensors_in(item)] if isinstance(value, list) else []


def _leaves(value: Any) -> int:
    """How many single values there are among arguments."""
    if isinstance(value, (list, dict)):
        return sum(map(_leaves, value.values() if isinstance(value, dict) else value))
    return 1


def _tensor(reference: TensorRef, values: dict[Node, list[SymbolicTensor]], place: str) -> SymbolicTensor:
    results = values[reference.layer, reference.node]
    if reference.tensor >= len(results):
        malformed(
            place, f"refers to output {reference.tensor} of {reference.layer!r}, which has {len(results)}"
        )
    return results[reference.tensor]


class _Place:
    """Puts the place in the file before an error of a layer."""

    def __init__(self, place: str) -> None:
        self.place = place

    def __enter__(self) -> None:
        pass

    def __exit__(self, kind: Any, error: BaseException | None, trace: Any) -> None:
        if isinstance(error, ConvLoomError) and not str(error).startswith(self.place):
            raise type(error)(f"{self.place}: {error}") from None
