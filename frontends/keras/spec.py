"""The one intermediate form into which every dialect of Keras's JSON is read."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from ..written import Written

if TYPE_CHECKING:
    from ..layers import Layer


@dataclass(frozen=True)
class TensorRef:
    """Output `tensor` of the `node`-th call (from 0) of the layer named `layer`."""

    layer: str
    node: int
    tensor: int


@dataclass
class CallSpec:
    """One entry of inbound_nodes: the arguments of a call, with a `TensorRef` for each tensor.

    Constants are numbers, text, None, slices, Ellipsis, and lists and dictionaries of all these.
    """

    args: list[Any]
    kwargs: dict[str, Any]
    place: str
    written: Written | None = None

    @property
    def references(self) -> list[TensorRef]:
        return list(references_in([self.args, self.kwargs]))


def references_in(value: Any) -> Iterator[TensorRef]:
    """The tensors among arguments, in their order."""
    if isinstance(value, TensorRef):
        yield value
    elif isinstance(value, (list, dict)):
        for item in value.values() if isinstance(value, dict) else value:
            yield from references_in(item)


def with_references(value: Any, replace: Callable[[TensorRef], Any]) -> Any:
    """Arguments with something else in the place of each tensor."""
    if isinstance(value, TensorRef):
        return replace(value)
    if isinstance(value, dict):
        return {key: with_references(item, replace) for key, item in value.items()}
    return [with_references(item, replace) for item in value] if isinstance(value, list) else value


@dataclass
class LayerSpec:
    """One entry of config.layers. place: where it stands in the file, for errors.

    model: its content, where it is a model. layer: its declaration, once checked.
    """

    place: str
    class_name: str
    module: str | None
    registered_name: str | None
    name: str
    config: dict[str, Any]
    calls: list[CallSpec] = field(default_factory=list)
    model: ModelSpec | None = None
    layer: Layer | None = None
    written: Written | None = None


@dataclass
class ModelSpec:
    """A Functional (with inputs and outputs) or a Sequential (layers in order, perhaps an input shape)."""

    place: str
    class_name: str
    name: str
    layers: list[LayerSpec]
    inputs: list[TensorRef] = field(default_factory=list)
    outputs: list[TensorRef] = field(default_factory=list)
    input_shape: list[Any] | None = None
    written: Written | None = None

    @property
    def sequential(self) -> bool:
        return self.class_name == "Sequential"
