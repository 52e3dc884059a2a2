"""What a step over one batch gives."""

from __future__ import annotations

from dataclasses import dataclass

import torch


@dataclass(frozen=True)
class StepResult:
    """Of one batch.

    loss: a scalar with its gradient: the losses of the outputs times their weights, and what regularizers
        add.
    losses: of each output that has a loss, before its weight.
    predictions: of each output.
    """

    loss: torch.Tensor
    losses: tuple[torch.Tensor, ...]
    predictions: tuple[torch.Tensor, ...]

    def detached(self) -> StepResult:
        """Without what the backward pass needs."""
        return StepResult(
            self.loss.detach(),
            tuple(loss.detach() for loss in self.losses),
            tuple(prediction.detach() for prediction in self.predictions),
        )
