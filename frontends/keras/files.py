"""`load` and `loads`: a saved Keras model -> a `Model`."""

from __future__ import annotations

import copy
from typing import Any

from ...graph.errors import ConvLoomError, ModelFormatError, ShapeError
from ...graph.serial import FAMILY, from_data
from ...graph.words import words
from ..graph_model import GraphModel
from ..model import Model
from ..open_axes import Wanted
from .archive import open_members
from .assemble import assemble
from .budget import within
from .guard import check_tree, parse_json
from .kinds import FOLDER, HDF5, ZIP
from .legacy import CONFIG, read_description
from .limits import DEFAULT, Limits
from .reader import read_model
from .shapes import entries, is_open
from .source import Readable, examine
from .weights import load_weights


def loads(
    text: str | bytes | dict[str, Any], limits: Limits = DEFAULT, *, input_shape: Wanted = None
) -> Model:
    """A model from Keras's JSON, as text or parsed; Sequential or Functional, of Keras 2 or 3.

    The JSON of a graph, as `convloom convert` writes it, is read too.

    limits: what the file may ask for.
    input_shape: of one sample, for a model that leaves axes open, or at another size than the file's: one
    shape, a list of them in the order of the inputs, or a dictionary by name.

    Its weights are initial ones. Raises ModelFormatError with the place in the JSON, UnsupportedLayerError
    naming every layer that ConvLoom does not know, UnsafeModelError for a Lambda and its like.
    """
    return _from_json(text, "JSON", limits, input_shape)


def load(
    path: Readable,
    weights: Readable | None = None,
    limits: Limits = DEFAULT,
    *,
    input_shape: Wanted = None,
    architecture_only: bool = False,
) -> Model:
    """A model from a `.json`, `.keras` or `.h5` file, with the weights of one of `load_weights`'s files.

    Keras is not needed; which form a file has is seen from its first bytes.
    path: of the file, or of the folder that a `.keras` was unpacked to; or a binary file object.
    weights: without it a `.json` gets initial weights, the others the weights inside.
    limits: what the files may ask for. input_shape, errors: as of `loads`.
    architecture_only: leave the weights inside aside, or do without them, and take initial ones.
    """
    if weights is not None and architecture_only:
        raise ConvLoomError("load takes weights= or architecture_only=True, not both")
    source = examine(path)
    where, own = source.label, True
    text: str | bytes
    if source.form == HDF5:
        where = f"{source.label}: {CONFIG}"
        text = read_description(source.hdf5, source.label, limits)
    elif source.form in (ZIP, FOLDER):
        where = f"{source.label}: config.json"
        with open_members(source, limits) as members:
            text = members.config()
    else:
        text, own = source.text(limits), False
    model = _from_json(text, where, limits, input_shape)
    if weights is not None:
        load_weights(model, weights, limits=limits)
    elif own and not architecture_only:
        load_weights(model, source, limits=limits)
    return model


def _from_json(text: str | bytes | dict[str, Any], where: str, limits: Limits, input_shape: Wanted) -> Model:
    data: Any = text
    if isinstance(text, dict):
        check_tree(data, where, limits)
        data = copy.deepcopy(data)  # the model keeps it, and the caller may change it
    elif isinstance(text, (str, bytes)):
        data = parse_json(text, where, limits)
    else:
        raise ModelFormatError(f"{where}: must be text or a dictionary, got {type(text).__name__}")
    if isinstance(data, dict) and str(data.get("format")).startswith(FAMILY):
        if input_shape is not None:
            option = words("input_shape", "--input-shape")
            raise ShapeError(f"{where}: is a graph, whose sizes are settled; it takes no {option}")
        nodes = data.get("nodes")
        limits.check("nodes", len(nodes) if isinstance(nodes, list) else 0, where, "nodes")
        with within(limits):
            return GraphModel(from_data(data))
    spec = read_model(data, limits)
    model = assemble(spec, limits, input_shape)
    model.inputs  # noqa: B018  a Sequential without a shape says so here
    if input_shape is not None and entries(spec) and not is_open(spec):
        _check_weights(model, assemble(read_model(data, limits), limits))
    return model


def _check_weights(model: Model, original: Model) -> None:
    """Raises ShapeError where another input shape would give a weight another shape than the file's."""
    for mine, own in zip(model.slots(), original.slots(), strict=True):
        if mine.weight.shape != own.weight.shape:
            raise ShapeError(
                f"{mine.layer.label}: with this {words('input_shape', '--input-shape')} its weight "
                f"{mine.weight.name!r} would have shape {mine.weight.shape}, while the file's has "
                f"{own.weight.shape}; the model works at its own size only"
            )
