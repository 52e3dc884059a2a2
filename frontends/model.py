"""Model: a network that a person reads, and that files hold."""

from __future__ import annotations

import os
from collections.abc import Callable
from typing import IO, Any

from .network import Network
from .training import Trainable


class Model(Trainable, Network):
    """A network from its inputs to its outputs.

    inputs, outputs: symbolic tensors, or lists or dictionaries of them. An input may also be what a layer of
    another model gives: the new model begins there, with the layers and weights of the other.
    seed: of the initial weights; without one, it is drawn from torch's generator here, so that
    `torch.manual_seed` before the model is built makes them repeatable. The weights themselves are drawn when
    first asked for.
    Raises ConvLoomError where outputs do not follow from the inputs.
    """

    check_report: Any = None
    """What the self-check of `convloom.load(..., check=)` found."""

    def summary(self, print_fn: Callable[[str], Any] | None = None, width: int | None = None) -> None:
        """Print a table of layers, output shapes, parameters and connections; print_fn takes the text."""
        from .summary import summary_text

        (print_fn or print)(summary_text(self, width))

    def load_weights(self, path: str | os.PathLike[str] | IO[bytes]) -> None:
        """Read a `.weights.h5`, an `.h5`, a `.weights.json` with its files, the weights of a `.keras`, or an
        `.npz` by the weights' names; raises ModelFormatError, naming the weight, where they do not fit."""
        from .keras.weights import load_weights

        load_weights(self, path)

    def to_json(self, indent: int | None = None) -> str:
        """The network as Keras 3's JSON, without weights: for `convloom.loads` and Keras's `model_from_json`.

        Raises UnsupportedLayerError for what Keras has no words for, such as explicit padding.
        """
        from .keras.export import to_json

        return to_json(self, indent)

    def save(self, path: str | os.PathLike[str]) -> None:
        """Write a `.keras` archive, network and weights, which `convloom.load` and Keras 3 read.

        Raises UnsupportedLayerError as `to_json` does, ConvLoomError for another suffix and where the system
        refuses; what stood under the name before is then still there.
        """
        from .keras.export_files import save

        save(self, path)

    def save_weights(self, path: str | os.PathLike[str]) -> None:
        """Write a `.weights.h5` as Keras 3 does; `load_weights` reads it. Raises ConvLoomError as `save`."""
        from .keras.export_files import save_weights

        save_weights(self, path)
