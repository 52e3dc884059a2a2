"""`ModelSpec` -> `Model`: check every entry, order the calls, and make them."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from ...graph.errors import ConvLoomError, UnsafeModelError, UnsupportedLayerError
from ..layers import InputLayer, Layer
from ..lowering import Block
from ..model import Model, Sequential
from ..symbolic import SymbolicTensor, combine
from .budget import within
from .catalogue import UNSAFE, arithmetic, declare, is_operation, refusal, sample_shape
from .keep import remember
from .limits import DEFAULT, Limits
from .spec import CallSpec, LayerSpec, ModelSpec, TensorRef
from .values import malformed, shown

Node = tuple[str, int]
"""A layer's name and which of its calls."""

# Arguments of a call that only repeat the default in inference.
NEUTRAL_KWARGS: dict[str, tuple[Any, ...]] = {"mask": (None,), "training": (None, False)}


def assemble(spec: ModelSpec, limits: Limits = DEFAULT) -> Model:
    """The model of a file. Raises one error for all unsupported layers together."""
    check_layers(spec)
    with within(limits):
        return _build(spec)


def check_layers(spec: ModelSpec) -> None:
    """Look every entry up, those of nested models included, and report all that fail together."""
    entries = list(_entries(spec))
    if unsafe := [f"{e.place}: {e.class_name}" for e in entries if e.class_name in UNSAFE]:
        raise UnsafeModelError(
            f"the model asks for code or files outside itself, which ConvLoom never runs or opens: "
            f"{_joined(unsafe)}; replace such layers before saving"
        )
    if unknown := [problem for entry in entries if (problem := _declared(entry))]:
        raise UnsupportedLayerError(
            f"{len(unknown)} layer(s) are not supported by ConvLoom: {_joined(unknown)}"
        )


def _declared(entry: LayerSpec) -> str | None:
    """Give the entry its layer, or say why it has none."""
    if why := refusal(entry):
        return f"{entry.place}: {why}"
    if not is_operation(entry):
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


def _build(spec: ModelSpec) -> Model:
    model = _build_sequential(spec) if spec.sequential else _build_functional(spec)
    model.written = spec.written
    return model


def _build_sequential(spec: ModelSpec) -> Sequential:
    model = Sequential(name=spec.name)
    if spec.layers[0].class_name != "InputLayer" or spec.layers[0].model is not None:
        first = spec.layers[0].config.get("batch_input_shape") or spec.input_shape
        if first is not None:
            model.add(InputLayer(sample_shape(first, spec.place)))
    for layer in spec.layers:
        with _Place(layer.place):
            if is_operation(layer):
                malformed(layer.place, "an operation cannot stand in a Sequential")
            model.add(_block(layer))
    return model


def _block(layer: LayerSpec) -> Block:
    block = _build(layer.model) if layer.model is not None else layer.layer
    return block if block is not None else malformed(layer.place, "was not checked")


def _build_functional(spec: ModelSpec) -> Model:
    layers = {layer.name: layer for layer in spec.layers}
    _check_references(spec, layers)
    blocks: dict[str, Block] = {layer.name: _block(layer) for layer in spec.layers if not is_operation(layer)}
    values: dict[Node, list[SymbolicTensor]] = {}
    for name, k in _ordered(spec):
        block, layer = blocks.get(name), layers[name]
        if isinstance(block, InputLayer):
            values[name, k] = [block.tensor()]
            continue
        call = layer.calls[k]
        with _Place(layer.place):
            operands = [_value(x, values, call) for x in call.operands]
            if block is None:
                results = [_operate(layer, operands)]
                blocks[name] = results[0].node.block
                blocks[name].written = layer.written
            else:
                results = _call(block, operands, call)
        results[0].node.written = call.written
        values[name, k] = results
    inputs = [_tensor(ref, values, f"{spec.place}: input_layers") for ref in spec.inputs]
    outputs = [_tensor(ref, values, f"{spec.place}: output_layers") for ref in spec.outputs]
    with _Place(spec.place):
        return Model.in_order(
            inputs, outputs, spec.name, spec.class_name, [blocks[x.name] for x in spec.layers]
        )


# -- calls ---------------------------------------------------------------------------------------------------
def _call(block: Block, operands: list[SymbolicTensor | float], call: CallSpec) -> list[SymbolicTensor]:
    for key, value in call.kwargs.items():
        # A model of several inputs is called with as many masks.
        single = None if key == "mask" and isinstance(value, list) and not any(value) else value
        # Keras writes training=True of its image preprocessing, and follows the model's mode all the same.
        steady = key == "training" and value is True and isinstance(block, Layer) and block.steady
        if not steady and not any(single is neutral for neutral in NEUTRAL_KWARGS.get(key, ())):
            raise UnsupportedLayerError(
                f"{call.place}: called with {key}={shown(value)}, which is not supported"
            )
    tensors = [x for x in operands if isinstance(x, SymbolicTensor)]
    if len(tensors) < len(operands):
        malformed(call.place, "a layer takes tensors, not numbers")
    result = block(tensors)
    return result if isinstance(result, list) else [result]


def _operate(layer: LayerSpec, operands: list[SymbolicTensor | float]) -> SymbolicTensor:
    kind = arithmetic(layer)
    if (
        len(layer.calls) != 1
        or len(operands) != 2
        or not any(isinstance(x, SymbolicTensor) for x in operands)
    ):
        malformed(layer.place, f"an operation is called once with two operands, found {len(operands)}")
    a, b = operands
    if kind == "Divide":
        if isinstance(b, SymbolicTensor) or b == 0:
            raise UnsupportedLayerError(f"{layer.place}: division is supported by a number other than 0 only")
        return combine("Multiply", a, 1.0 / b, layer.name)
    return combine(str(kind), a, b, layer.name)


def _value(
    operand: TensorRef | float, values: dict[Node, list[SymbolicTensor]], call: CallSpec
) -> SymbolicTensor | float:
    return _tensor(operand, values, call.place) if isinstance(operand, TensorRef) else operand


def _tensor(reference: TensorRef, values: dict[Node, list[SymbolicTensor]], place: str) -> SymbolicTensor:
    results = values[reference.layer, reference.node]
    if reference.tensor >= len(results):
        malformed(
            place, f"refers to output {reference.tensor} of {reference.layer!r}, which has {len(results)}"
        )
    return results[reference.tensor]


# -- order ---------------------------------------------------------------------------------------------------
def _calls_of(layer: LayerSpec) -> int:
    """How often a layer is called; an input is there once without being called."""
    return 1 if layer.class_name == "InputLayer" else len(layer.calls)


def _check_references(spec: ModelSpec, layers: dict[str, LayerSpec]) -> None:
    """Every reference names a layer of this model and one of its calls."""
    found = [(call.place, ref) for layer in spec.layers for call in layer.calls for ref in call.references]
    found += [(f"{spec.place}: input_layers", ref) for ref in spec.inputs]
    found += [(f"{spec.place}: output_layers", ref) for ref in spec.outputs]
    for place, reference in found:
        layer = layers.get(reference.layer)
        if layer is None:
            malformed(place, f"refers to a layer {reference.layer!r:.80}, which the model does not have")
        if reference.node >= _calls_of(layer):
            malformed(
                place,
                f"refers to call {reference.node} of {reference.layer!r:.80}, "
                f"which has {_calls_of(layer)} call(s)",
            )


def _ordered(spec: ModelSpec) -> list[Node]:
    """All calls, each after those it reads (Kahn 1962). By call, not by layer: A(B(A(x))) is legal."""
    waiting: dict[Node, set[Node]] = {}
    readers: dict[Node, list[Node]] = {}
    for layer in spec.layers:
        for k in range(_calls_of(layer)):
            needs = {(r.layer, r.node) for r in layer.calls[k].references} if k < len(layer.calls) else set()
            waiting[layer.name, k] = needs
            for need in needs:
                readers.setdefault(need, []).append((layer.name, k))
    ready = [node for node, needs in waiting.items() if not needs]
    order: list[Node] = []
    for node in ready:  # grows while it is read
        order.append(node)
        for reader in readers.get(node, []):
            waiting[reader].discard(node)
            if not waiting[reader]:
                ready.append(reader)
    if len(order) < len(waiting):
        malformed(spec.place, f"the layers form a cycle: {_cycle(waiting, set(order))}")
    return order


def _cycle(waiting: dict[Node, set[Node]], done: set[Node]) -> str:
    """One cycle among the calls that never became ready, each of which needs another such call."""
    node = next(node for node in waiting if node not in done)
    path: list[Node] = []
    while node not in path:
        path.append(node)
        node = next(need for need in sorted(waiting[node]) if need not in done)
    names = [name for name, _ in [*path[path.index(node) :], node]]
    return " <- ".join(map(repr, names if len(names) <= 12 else [*names[:10], "...", names[-1]]))


class _Place:
    """Puts the place in the file before an error of a layer."""

    def __init__(self, place: str) -> None:
        self.place = place

    def __enter__(self) -> None:
        pass

    def __exit__(self, kind: Any, error: BaseException | None, trace: Any) -> None:
        if isinstance(error, ConvLoomError) and not str(error).startswith(self.place):
            raise type(error)(f"{self.place}: {error}") from None
