"""The one intermediate form into which every dialect of Keras's JSON is read."""

from __future__ import annotations

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


Operand = TensorRef | float


@dataclass
class CallSpec:
    """One entry of inbound_nodes. operands: tensors, and numbers for arithmetic; kwargs: the rest, plain.

    keywords: the names under which the last operands were given; a list of tensors repeats its name.
    """

    operands: list[Operand]
    kwargs: dict[str, Any]
    place: str
    written: Written | None = None
    keywords: tuple[str, ...] = ()

    @property
    def references(self) -> list[TensorRef]:
        return [operand for operand in self.operands if isinstance(operand, TensorRef)]


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
