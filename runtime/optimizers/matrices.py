"""Optimizers that see a weight as a matrix: Muon and Adafactor."""

from __future__ import annotations

import math
import re
from collections.abc import Sequence
from dataclasses import dataclass
from typing import ClassVar

import torch

from ...graph.errors import ConvLoomError
from .base import Move
from .groups import Group
from .moments import adam_step
from .recipe import LearningRate, Recipe


@dataclass(frozen=True)
class Muon(Recipe):
    """A matrix's momentum made orthogonal (Jordan et al. 2024), as long as Adam's step (Liu et al. 2025).

    Weights that are no matrices are trained by Adam, and so are embeddings (exclude_embeddings) and those
    whose layer and weight match an expression in exclude_layers; adam_lr_ratio: the rate of those.
    muon_a, muon_b, muon_c: of the ns_steps polynomials of Newton and Schulz. rms_rate: the length of a step
    per root of the longer side, or None for the step as it is.
    """

    learning_rate: LearningRate = 0.001
    adam_beta_1: float = 0.9
    adam_beta_2: float = 0.999
    adam_weight_decay: float | None = 0.004
    epsilon: float = 1e-7
    weight_decay: float | None = 0.004
    exclude_layers: Sequence[str] = ()
    exclude_embeddings: bool = True
    muon_a: float = 3.4445
    muon_b: float = -4.7750
    muon_c: float = 2.0315
    adam_lr_ratio: float = 1.0
    momentum: float = 0.95
    ns_steps: int = 5
    nesterov: bool = True
    rms_rate: float | None = 0.2

    _more: ClassVar[dict[str, dict[str, float]]] = {
        "adam_beta_1": {"least": 0, "below": 1},
        "adam_beta_2": {"least": 0, "below": 1},
        "adam_weight_decay": {"least": 0},
        "adam_lr_ratio": {"least": 0},
        "ns_steps": {"least": 0},
        "rms_rate": {"least": 0},
    }

    def _own(self, name: str | None, parameter: torch.Tensor) -> Group:
        by_adam = self._is_by_adam(name, parameter)
        decay = self.adam_weight_decay if by_adam else self.weight_decay
        return {"by_adam": by_adam, "weight_decay": decay or 0.0, **super()._own(name, parameter)}

    def _is_by_adam(self, name: str | None, parameter: torch.Tensor) -> bool:
        if parameter.dim() != 2:
            return True
        if name is None and self.exclude_embeddings and not self.exclude_layers:
            raise ConvLoomError(
                "Muon leaves embeddings to Adam, and tells them by name; give net.named_parameters(), or "
                "exclude_embeddings=False"
            )
        if self.exclude_embeddings and "embedding" in self._named(name).lower():
            return True
        return any(re.search(word, self._named(name)) for word in self.exclude_layers or ())

    @staticmethod
    def formula(now: Move) -> None:
        if now["by_adam"]:
            rate = now.rate * now["adam_lr_ratio"]
            adam_step(now, now.weights, rate, now["adam_beta_1"], now["adam_beta_2"])
            return
        momenta = now.beside("mean")
        torch._foreach_mul_(momenta, now["momentum"])
        torch._foreach_add_(momenta, now.slopes)
        ahead: Sequence[torch.Tensor] = momenta
        if now["nesterov"]:
            ahead = torch._foreach_mul(momenta, now["momentum"])
            torch._foreach_add_(ahead, now.slopes)
        for weight, matrix in zip(now.weights, ahead, strict=True):
            length = 1.0 if now["rms_rate"] is None else math.sqrt(max(matrix.shape)) * now["rms_rate"]
            weight.add_(_orthogonal(matrix, now), alpha=-now.rate * length)


def _orthogonal(matrix: torch.Tensor, now: Move) -> torch.Tensor:
    """About the orthogonal matrix next to this one, by the iteration of Newton and Schulz."""
    tall = matrix.shape[0] > matrix.shape[1]
    x: torch.Tensor = matrix.mT if tall else matrix
    x = x / (torch.linalg.vector_norm(x) + 1e-7)
    for _ in range(now["ns_steps"]):
        square = x @ x.mT
        x = now["muon_a"] * x + (now["muon_b"] * square + now["muon_c"] * square @ square) @ x
    return x.mT if tall else x


@dataclass(frozen=True)
class Adafactor(Recipe):
    """Mean squares kept as a row and a column of the last two axes (Shazeer & Stern 2018).

    A step is as long as the weight's root mean square (epsilon_2 at least), times the lesser of the learning
    rate and 1 / sqrt(t); one of more than clip_threshold times that is shortened. relative_step is Keras's
    argument: with a schedule it makes no difference, and without one neither.
    """

    learning_rate: LearningRate = 0.001
    beta_2_decay: float = -0.8
    epsilon_1: float = 1e-30
    epsilon_2: float = 1e-3
    clip_threshold: float = 1.0
    relative_step: bool = True
    weight_decay: float | None = None

    _more: ClassVar[dict[str, dict[str, float]]] = {
        "beta_2_decay": {},
        "epsilon_1": {"least": 0},
        "epsilon_2": {"least": 0},
        "clip_threshold": {"above": 0},
    }

    @staticmethod
    def formula(now: Move) -> None:
        decay = 1 - now.t ** now["beta_2_decay"]
        rate = min(now.rate, 1 / math.sqrt(now.t))
        for weight, slope in zip(now.weights, now.slopes, strict=True):
            square = slope.square() + now["epsilon_1"]
            step = slope / _factored(now, weight, square, decay).sqrt()
            step /= (_size(step) / now["clip_threshold"]).clamp(min=1.0)
            weight.sub_(step * (_size(weight).clamp(min=now["epsilon_2"]) * rate))


def _factored(now: Move, weight: torch.Tensor, square: torch.Tensor, decay: float) -> torch.Tensor:
    """The moving mean of the squares: of a matrix, what its rows' and its columns' means make of it."""
    state: dict[str, torch.Tensor] = now.optimizer.state[weight]
    parts = {"square": square}
    if weight.dim() >= 2:
        parts = {"rows": square.mean(-1), "columns": square.mean(-2)}
    for name, part in parts.items():
        if name not in state:
            state[name] = torch.zeros_like(part)
        state[name].mul_(decay).add_(part, alpha=1 - decay)
    if weight.dim() < 2:
        return state["square"]
    rows = state["rows"] / state["rows"].mean(-1, keepdim=True)
    return rows.unsqueeze(-1) * state["columns"].unsqueeze(-2)


def _size(value: torch.Tensor) -> torch.Tensor:
    """Root mean square."""
    return value.square().mean().sqrt()
