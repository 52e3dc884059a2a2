"""Keras's loss scaling for float16."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import torch

from ..checks import number, whole


@dataclass(frozen=True)
class LossScaleOptimizer:
    """An optimizer and a loss scale that follows what float16 can hold; `fit` has one there by itself.

    The loss is multiplied by the scale and the gradients are divided by it, so that small ones do not round
    to 0. Where a gradient is infinite or NaN the step is left out, and the scale halved; after
    dynamic_growth_steps steps without that it is doubled. In a loop of your own torch.amp.GradScaler does the
    same, with init_scale=2**15.

    inner_optimizer: anything that `fit` takes. Raises ConvLoomError for numbers out of range.
    """

    inner_optimizer: Any
    initial_scale: float = 2.0**15
    dynamic_growth_steps: int = 2000
    name: str | None = None

    def __post_init__(self) -> None:
        number(self.initial_scale, "LossScaleOptimizer: initial_scale", above=0)
        whole(self.dynamic_growth_steps, "LossScaleOptimizer: dynamic_growth_steps", 1)

    def scaler(self, device: torch.device) -> torch.amp.GradScaler:
        """What scales, with torch's means."""
        return torch.amp.GradScaler(
            device.type,
            init_scale=float(self.initial_scale),
            growth_factor=2.0,
            backoff_factor=0.5,
            growth_interval=self.dynamic_growth_steps,
        )
