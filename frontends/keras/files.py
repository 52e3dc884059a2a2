"""`load` and `loads`: a saved Keras model -> a `Model`."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

from ...graph.errors import ModelFormatError
from ..model import Model
from .archive import read_archive
from .assemble import assemble
from .guard import LARGEST_TEXT, check_tree, parse_json
from .reader import read_model
from .weights import load_weights

ZIP_MAGIC = b"PK\x03\x04"
HDF5_MAGIC = b"\x89HDF\r\n\x1a\n"


def loads(text: str | bytes | dict[str, Any]) -> Model:
    """A model from Keras's JSON, as text or parsed; Sequential or Functional, of Keras 2 or 3.

    Its weights are initial ones. Raises ModelFormatError with the place in the JSON, UnsupportedLayerError
    naming every layer that ConvLoom does not know, UnsafeModelError for a Lambda and its like.
    """
    return _from_json(text, "JSON")


def load(path: str | os.PathLike[str], weights: str | os.PathLike[str] | None = None) -> Model:
    """A model from a `.json` or `.keras` file, with the weights of a `.weights.h5`. Keras is not needed.

    weights: without it a `.json` gets initial weights, and a `.keras` the weights inside. Raises as `loads`.
    """
    file, label = Path(path), os.path.basename(os.fspath(path))
    try:
        with file.open("rb") as stream:
            magic = stream.read(8)
            rest = stream.read(LARGEST_TEXT + 1) if not magic.startswith((ZIP_MAGIC, HDF5_MAGIC)) else b""
    except OSError as error:
        raise ModelFormatError(f"{label}: cannot be read: {error.strerror}") from None
    if magic == HDF5_MAGIC:
        raise ModelFormatError(
            f"{label}: is an HDF5 file; pass the model's .json first and a .weights.h5 as weights="
        )
    if magic.startswith(ZIP_MAGIC):
        archive = read_archive(file, label)
        model = _from_json(archive.config, f"{label}: config.json")
        if weights is None and archive.weights is not None:
            load_weights(model, archive.weights, f"{label}: model.weights.h5")
    else:
        model = _from_json(magic + rest, label)
    if weights is not None:
        load_weights(model, weights)
    return model


def _from_json(text: str | bytes | dict[str, Any], where: str) -> Model:
    if isinstance(text, dict):
        data: Any = text
        check_tree(data, where)
    elif isinstance(text, (str, bytes)):
        data = parse_json(text, where)
    else:
        raise ModelFormatError(f"{where}: must be text or a dictionary, got {type(text).__name__}")
    model = assemble(read_model(data))
    model.inputs  # noqa: B018  a Sequential without a shape says so here
    return model
