"""One batch of a network's data."""

from __future__ import annotations

from collections.abc import Sequence
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
