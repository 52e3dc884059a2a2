"""What training calls the inputs and outputs of a network."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import torch

from .network import CompiledNetwork


@dataclass(frozen=True)
class Names:
    """What the inputs and outputs of a network are called, in order, and how a prediction is handed out.

    A model that was given its inputs or outputs in a dictionary calls them by its keys, as Keras does; others
    by the names of their layers. in_a_dictionary: whether predictions come in one.
    """

    inputs: Sequence[str]
    outputs: Sequence[str]
    in_a_dictionary: bool = False

    @classmethod
    def of(cls, net: torch.nn.Module, model: Any = None) -> Names:
        """model: what the network was compiled from, where that is known."""
        compiled = compiled_in(net)
        if compiled is None:
            return cls((), ["output"])
        given = getattr(model or compiled._model, "structure", (None, None))
        inputs = [node.name for node in compiled.input_nodes]
        outputs = list(compiled.source.outputs)
        keys = [sorted(part) if isinstance(part, Mapping) else None for part in given]
        return cls(keys[0] or inputs, keys[1] or outputs, keys[1] is not None)

    def handed_out(self, values: Sequence[Any]) -> Any:
        if self.in_a_dictionary:
            return dict(zip(self.outputs, values, strict=True))
        return values[0] if len(values) == 1 else list(values)


def compiled_in(net: torch.nn.Module) -> CompiledNetwork | None:
    """The compiled network, which torch's data parallelism may wrap."""
    inner = getattr(net, "module", net)
    return inner if isinstance(inner, CompiledNetwork) else None
