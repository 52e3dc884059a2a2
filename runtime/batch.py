"""One batch of a network's data."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

import torch


@dataclass(frozen=True)
class Batch:
    """inputs: of the network, in order. targets: one an output, None where there is none.

    weights: of the examples, one tensor an output or None; None where nothing is weighted.
    """

    inputs: Sequence[torch.Tensor]
    targets: Sequence[torch.Tensor | None] = ()
    weights: Sequence[torch.Tensor | None] | None = None

    @property
    def size(self) -> int:
        """How many examples there are."""
        return len(self.inputs[0])


@dataclass(frozen=True)
class Form:
    """What the data of a network must be.

    names: of its inputs, in order, where known. outputs: the names of its outputs. trained: those of them
    that have a loss, and so targets. checks: by output, each raises ConvLoomError for targets that do not
    fit; called before they are moved to the device, once for whole arrays.
    """

    names: Sequence[str] = ()
    outputs: Sequence[str] = ("output",)
    trained: Sequence[str] = ("output",)
    checks: Mapping[str, Callable[[torch.Tensor], None]] | None = None

    def check(self, targets: Sequence[object]) -> None:
        """Raises ConvLoomError for targets that do not fit. Those that are not in memory are not read."""
        for name, target in zip(self.outputs, targets, strict=False):
            if isinstance(target, torch.Tensor) and self.checks and name in self.checks:
                self.checks[name](target)
