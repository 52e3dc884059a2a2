"""`load`: a saved model, and the self-check that may come with it."""

from __future__ import annotations

import os

from .checking import TOLERANCE
from .checking import check as replay
from .frontends import Model
from .frontends.keras import load as load_model
from .frontends.keras.limits import DEFAULT, Limits
from .frontends.keras.source import Readable
from .frontends.open_axes import Wanted


def load(
    path: Readable,
    weights: Readable | None = None,
    limits: Limits = DEFAULT,
    *,
    input_shape: Wanted = None,
    architecture_only: bool = False,
    check: str | os.PathLike[str] | None = None,
    tolerance: float = TOLERANCE,
) -> Model:
    """A model from a saved Keras model: `.json`, `.keras` or `.h5`. Keras is not needed.

    path: of the file, or of the folder that a `.keras` was unpacked to; or a binary file object.
    weights: a `.weights.h5`, `.h5` or `.keras`, or an `.npz` of arrays by the weights' names; without it the
    model has those of its own file. A `.json` has none, and gives initial ones.
    limits: what the files may ask for.
    architecture_only: leave a file's weights aside, or do without them, and take initial ones.
    input_shape: of one sample, where the file leaves axes open, or at another size than its own: one shape, a
    list of them in the order of the inputs, or a dictionary by name.
    check: an `.npz` of stored inputs and outputs, replayed as by `check`; the report is then the model's
    `check_report`. tolerance: of that check, relative.
    Raises ModelFormatError with the place in the file, UnsupportedLayerError naming every layer that ConvLoom
    does not know, UnsafeModelError for a Lambda and its like, ConvLoomError where the check fails.
    """
    model = load_model(path, weights, limits, input_shape=input_shape, architecture_only=architecture_only)
    if check is not None:
        model.check_report = replay(model, check, tolerance)
    return model
