"""Means over an epoch that stay on the device, so that no step waits for one."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import torch

from ..graph.errors import ConvLoomError


class RunningMean:
    """The mean of values, each counted as often as it has examples. name: what errors call it."""

    def __init__(self, name: str) -> None:
        self.name, self.count = name, 0
        self.total: torch.Tensor | None = None

    def add(self, value: torch.Tensor, examples: int) -> None:
        """Raises ConvLoomError where the value is not one number."""
        if value.numel() != 1:
            raise ConvLoomError(
                f"{self.name} gave a tensor of shape {tuple(value.shape)}; it must give one number, "
                f"such as the mean over the batch"
            )
        part = value.detach().reshape(()).to(torch.float64) * examples
        self.total = part if self.total is None else self.total + part
        self.count += examples

    @property
    def value(self) -> torch.Tensor | float:
        """Still on its device."""
        return 0.0 if self.total is None else self.total / max(1, self.count)

    def state_dict(self) -> dict[str, Any]:
        return {"total": self.total, "count": self.count}

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        self.total, self.count = state["total"], state["count"]
