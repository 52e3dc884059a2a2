"""Shapes of inputs: what a file says, what the caller wants instead, and axes that a file leaves open."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from ...graph.errors import ConvLoomError, ShapeError
from ...graph.words import words
from .. import fields as f
from ..layers import InputLayer
from ..open_axes import Shape, Wanted
from .catalogue import declare_input
from .keep import remember
from .spec import LayerSpec, ModelSpec
from .values import malformed, shown


# -- what the file says --------------------------------------------------------------------------------------
def batch_shape(entry: LayerSpec) -> list[Any]:
    """[null, 28, 28, 1], its axes known, open (null) or not yet checked."""
    shape = entry.config.get("batch_shape", entry.config.get("batch_input_shape"))
    if not isinstance(shape, list) or not shape:
        malformed(entry.place, f"batch_shape must be a list such as [null, 28, 28, 1], found {shown(shape)}")
    return shape


def first_shape(spec: ModelSpec) -> LayerSpec | None:
    """The input of a Sequential: its own entry, or one made of the shape it gives elsewhere."""
    first = spec.layers[0]
    if first.class_name == "InputLayer" and first.model is None:
        return first
    shape = first.config.get("batch_input_shape") or spec.input_shape
    if shape is None:
        return None
    return LayerSpec(spec.place, "InputLayer", None, None, "", {"batch_shape": shape})


def input_specs(spec: ModelSpec) -> list[LayerSpec]:
    """The entries of a Functional's inputs, in their order."""
    layers = {layer.name: layer for layer in spec.layers}
    found = [layers[reference.layer] for reference in spec.inputs if reference.layer in layers]
    return [entry for entry in found if entry.class_name == "InputLayer" and entry.model is None]


def entries(spec: ModelSpec) -> list[LayerSpec]:
    """The inputs of a model of either kind; none where a Sequential takes its shape from its first call."""
    if not spec.sequential:
        return input_specs(spec)
    entry = first_shape(spec)
    if entry is not None:
        return [entry]
    return entries(spec.layers[0].model) if spec.layers[0].model is not None else []


def is_open(spec: ModelSpec) -> bool:
    """Whether an input has axes without a size."""
    return any(None in batch_shape(entry)[1:] for entry in entries(spec))


# -- what is wanted ------------------------------------------------------------------------------------------
def wanted_shapes(spec: ModelSpec, wanted: Wanted) -> list[Shape] | None:
    """`input_shape=` as one shape an input. Raises ShapeError where it does not fit the model's inputs."""
    if wanted is None:
        return None
    inputs = entries(spec)
    if isinstance(wanted, Mapping):
        return _by_name(inputs, wanted)
    single = isinstance(wanted, (list, tuple)) and all(n is None or isinstance(n, int) for n in wanted)
    shapes = [wanted] if single else wanted
    if not isinstance(shapes, (list, tuple)) or len(shapes) != max(1, len(inputs)):
        raise ShapeError(
            f"{_option()}: the model has {_listed(inputs)}; give one shape for each, "
            f"{words('as a list or by name', 'as NAME=H,W,C')}, got {shown(wanted)}"
        )
    return [_sizes(shape) for shape in shapes]


def _by_name(inputs: Sequence[LayerSpec], wanted: Mapping[str, Any]) -> list[Shape]:
    names = [entry.name for entry in inputs]
    if unknown := [name for name in wanted if name not in names]:
        raise ShapeError(
            f"{_option()}: no input is named {shown(unknown[0])}; the model has {_listed(inputs)}"
        )
    own = {entry.name: batch_shape(entry)[1:] for entry in inputs}
    return [_sizes(wanted[name]) if name in wanted else own[name] for name in names]


def _option() -> str:
    """What a caller knows it as."""
    return words("input_shape", "--input-shape")


def _sizes(shape: Any) -> Shape:
    try:
        return f.image_shape(shape)
    except ConvLoomError as error:
        raise ShapeError(f"{_option()} {error}") from None


def _listed(inputs: Sequence[LayerSpec]) -> str:
    texts = [f"{shown(entry.name)} {_shown(batch_shape(entry))}" for entry in inputs]
    return f"the input(s) {', '.join(texts)}" if texts else "one input"


def _shown(shape: Sequence[Any]) -> str:
    return shown(tuple(shape))


# -- the layer -----------------------------------------------------------------------------------------------
def input_layer(entry: LayerSpec, wanted: Shape | None, resizing: bool = False) -> InputLayer:
    """The input of an entry. wanted: its shape without the batch, which may give open axes their size.

    resizing: whether sizes may be replaced that the file does give. Raises ShapeError for a wanted shape of
    another rank or of other sizes.
    """
    saved = batch_shape(entry)
    sample = saved[1:]
    if wanted is not None and len(wanted) != len(sample):
        raise ShapeError(
            f"{entry.place}: {_option()} {tuple(wanted)} has {len(wanted)} axes; {shown(entry.name)} has the "
            f"shape {_shown(saved)}, {len(sample)} without the batch"
        )
    for axis, (said, size) in enumerate(zip(sample, wanted or sample, strict=True), start=1):
        if said not in (None, size) and not resizing:
            raise ShapeError(
                f"{entry.place}: axis {axis} of {shown(entry.name)} {_shown(saved)} cannot be {size}"
            )
    layer = declare_input(entry, sample if wanted is None else wanted)
    kept = [None if said is None else size for said, size in zip(sample, layer.shape, strict=True)]
    layer.saved_shape = (saved[0], *kept)
    remember(layer, entry.written)
    return layer
