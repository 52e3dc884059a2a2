"""One step of an optimizer over a network's weights."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

import torch

from .network import CompiledNetwork
from .step_result import StepResult


class Stepper:
    """All that the training loop knows of an optimizer."""

    def __init__(self, net: torch.nn.Module, optimizer: torch.optim.Optimizer) -> None:
        self.net, self.optimizer = net, optimizer
        self.networks = networks_in(net)

    def step(self, compute: Callable[[], StepResult]) -> StepResult:
        """Move the weights by the gradient of what `compute` gives, and return that, detached."""
        self.optimizer.zero_grad(set_to_none=True)
        result = compute()
        result.loss.backward()  # type: ignore[no-untyped-call]
        self.optimizer.step()
        for network in self.networks:
            network.apply_constraints()
        return result.detached()

    @property
    def learning_rate(self) -> float:
        return float(self.optimizer.param_groups[0]["lr"])

    @learning_rate.setter
    def learning_rate(self, value: float) -> None:
        for group in self.optimizer.param_groups:
            group["lr"] = value

    def state_dict(self) -> dict[str, Any]:
        return {"optimizer": self.optimizer.state_dict()}

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        self.optimizer.load_state_dict(state["optimizer"])


def networks_in(net: torch.nn.Module) -> list[CompiledNetwork]:
    """The compiled networks in a module: itself, or what data parallelism and other modules wrap."""
    return [part for part in net.modules() if isinstance(part, CompiledNetwork)]
