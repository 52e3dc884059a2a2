"""`load` and `loads`: a saved Keras model -> a `Model`."""

from __future__ import annotations

import copy
import os
from pathlib import Path
from typing import Any

from ...graph.errors import ModelFormatError, ShapeError
from ..model import Model
from .archive import open_archive
from .assemble import assemble
from .guard import check_tree, parse_json
from .legacy import CONFIG, read_description
from .limits import DEFAULT, Limits
from .reader import read_model
from .shapes import Wanted, entries, is_open
from .weights import largest_file, load_weights

ZIP_MAGIC = b"PK\x03\x04"
HDF5_MAGIC = b"\x89HDF\r\n\x1a\n"


def loads(
    text: str | bytes | dict[str, Any], limits: Limits = DEFAULT, *, input_shape: Wanted = None
) -> Model:
    """A model from Keras's JSON, as text or parsed; Sequential or Functional, of Keras 2 or 3.

    limits: what the file may ask for.
    input_shape: of one sample, for a model that leaves axes open, or at another size than the file's: one
    shape, a list of them in the order of the inputs, or a dictionary by name.

    Its weights are initial ones. Raises ModelFormatError with the place in the JSON, UnsupportedLayerError
    naming every layer that ConvLoom does not know, UnsafeModelError for a Lambda and its like.
    """
    return _from_json(text, "JSON", limits, input_shape)


def load(
    path: str | os.PathLike[str],
    weights: str | os.PathLike[str] | None = None,
    limits: Limits = DEFAULT,
    *,
    input_shape: Wanted = None,
) -> Model:
    """A model from a `.json`, `.keras` or `.h5` file, with the weights of a `.weights.h5` or `.h5`.

    Keras is not needed; which form a file has is seen from its first bytes.
    weights: without it a `.json` gets initial weights, the other two the weights inside.
    limits: what the files may ask for. input_shape, errors: as of `loads`.
    """
    file, label = Path(path), os.path.basename(os.fspath(path))
    try:
        with file.open("rb") as stream:
            magic = stream.read(8)
            binary = magic.startswith((ZIP_MAGIC, HDF5_MAGIC))
            rest = b"" if binary else stream.read(limits.json_bytes + 1)
    except OSError as error:
        raise ModelFormatError(f"{label}: cannot be read: {error.strerror}") from None
    if magic == HDF5_MAGIC:
        model = _from_json(read_description(file, label, limits), f"{label}: {CONFIG}", limits, input_shape)
        weights = file if weights is None else weights
    elif magic.startswith(ZIP_MAGIC):
        with open_archive(file, label, limits) as archive:
            text = archive.config()
        model = _from_json(text, f"{label}: config.json", limits, input_shape)
        with open_archive(file, label, limits) as archive:
            stored = archive.weights(largest_file(model)) if weights is None else None
        if stored is not None:
            load_weights(model, stored, f"{label}: model.weights.h5", limits)
    else:
        model = _from_json(magic + rest, label, limits, input_shape)
    if weights is not None:
        load_weights(model, weights, limits=limits)
    return model


def _from_json(
    text: str | bytes | dict[str, Any], where: str, limits: Limits, input_shape: Wanted
) -> Model:
    data: Any = text
    if isinstance(text, dict):
        check_tree(data, where, limits)
        data = copy.deepcopy(data)  # the model keeps it, and the caller may change it
    elif isinstance(text, (str, bytes)):
        data = parse_json(text, where, limits)
    else:
        raise ModelFormatError(f"{where}: must be text or a dictionary, got {type(text).__name__}")
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
                f"{mine.layer.label}: with this input_shape its weight {mine.weight.name!r} would have shape "
                f"{mine.weight.shape}, while the file's has {own.weight.shape}; the model works at its own "
                f"size only"
            )
