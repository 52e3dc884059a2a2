"""Optimizers by the moving moments of the gradient: Adam and its kin."""

from __future__ import annotations

import math
from dataclasses import dataclass, replace
from typing import Any, ClassVar

import torch

from ...graph.errors import ConvLoomError
from .base import KerasOptimizer, Move
from .groups import Group, Tensors
from .recipe import LearningRate, Recipe


class _OfTorch(KerasOptimizer):
    """An optimizer of torch's, with Keras's step around its own: `moving`. It makes what it keeps beside a
    weight where there is nothing yet, so that what is kept for Keras's step is set aside meanwhile."""

    moving: ClassVar[type[torch.optim.Optimizer]]

    def _move(self) -> None:
        held = (p for group in self.param_groups for p in group["params"])
        aside = {p: self.state.pop(p) for p in held if p in self.state and "step" not in self.state[p]}
        self.moving.step(self)
        for p, kept in aside.items():
            self.state[p].update(kept)

    def __setstate__(self, state: dict[str, Any]) -> None:
        """As torch's, which asks each weight that has a state for its "step"; the others stay aside."""
        held = state["state"]
        aside = {p: held.pop(p) for p in [*held] if "step" not in held[p]}
        super().__setstate__(state)
        self.state.update(aside)


class _Adam(_OfTorch, torch.optim.AdamW):
    """torch's AdamW, whose epsilon follows the step so that it means Keras's.

    torch divides by sqrt(v) / c + eps, Keras by (sqrt(v) + epsilon) / c, c = sqrt(1 - beta_2^t): they agree
    where eps = epsilon / c. Each group counts its own steps: torch's counters may lie on a GPU.
    """

    moving = torch.optim.AdamW

    def _move(self) -> None:
        for group in self.param_groups:
            t = group["steps"] // (group["gradient_accumulation_steps"] or 1) + 1
            group["epsilon"] = group.get("epsilon", group["eps"])
            group["eps"] = group["epsilon"] / math.sqrt(1 - group["betas"][1] ** t)
        super()._move()


@dataclass(frozen=True)
class Adam(Recipe):
    """Adaptive moments (Kingma & Ba 2015, the form with epsilon-hat before section 2.1)."""

    learning_rate: LearningRate = 0.001
    beta_1: float = 0.9
    beta_2: float = 0.999
    epsilon: float = 1e-7
    amsgrad: bool = False
    weight_decay: float | None = None

    def _make(self, groups: list[Group], learning_rate: float) -> KerasOptimizer:
        made = _Adam(
            groups,
            lr=learning_rate,
            betas=(self.beta_1, self.beta_2),
            eps=self.epsilon,
            weight_decay=self.weight_decay or 0.0,
            amsgrad=self.amsgrad,
            fused=True,
        )
        made._step_supports_amp_scaling = False  # torch's scaler unscales before the clipping, not inside
        return made


@dataclass(frozen=True)
class AdamW(Recipe):
    """Adam with weight decay (Loshchilov & Hutter 2019)."""

    learning_rate: LearningRate = 0.001
    weight_decay: float = 0.004
    beta_1: float = 0.9
    beta_2: float = 0.999
    epsilon: float = 1e-7
    amsgrad: bool = False

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.weight_decay is None:
            raise ConvLoomError("AdamW: weight_decay is None; it must be a number, or take Adam")

    def _make(self, groups: list[Group], learning_rate: float) -> KerasOptimizer:
        plain = Adam(learning_rate, self.beta_1, self.beta_2, self.epsilon, self.amsgrad)
        return replace(plain, weight_decay=self.weight_decay)._make(groups, learning_rate)


class _Nadam(_OfTorch, torch.optim.NAdam):
    """torch's NAdam, whose momentum decays by 0.96^(t * momentum_decay): Keras's 0.96^t where that is 1."""

    moving = torch.optim.NAdam


@dataclass(frozen=True)
class Nadam(Recipe):
    """Adam with Nesterov's momentum (Dozat 2015)."""

    learning_rate: LearningRate = 0.001
    beta_1: float = 0.9
    beta_2: float = 0.999
    epsilon: float = 1e-7
    weight_decay: float | None = None

    def _make(self, groups: list[Group], learning_rate: float) -> KerasOptimizer:
        return _Nadam(
            groups,
            lr=learning_rate,
            betas=(self.beta_1, self.beta_2),
            eps=self.epsilon,
            weight_decay=self.weight_decay or 0.0,
            momentum_decay=1.0,
            decoupled_weight_decay=True,
            foreach=True,
        )


@dataclass(frozen=True)
class Adamax(Recipe):
    """Adam by the largest gradient in place of the mean square (Kingma & Ba 2015, section 7.1).

    w -= lr / (1 - beta_1^t) * m / (u + epsilon), where u = max(beta_2 * u, |g|).
    """

    learning_rate: LearningRate = 0.001
    beta_1: float = 0.9
    beta_2: float = 0.999
    epsilon: float = 1e-7
    weight_decay: float | None = None

    @staticmethod
    def formula(now: Move) -> None:
        means = now.mean("mean", now.slopes, now["beta_1"])
        largest = now.beside("largest")
        torch._foreach_mul_(largest, now["beta_2"])
        torch._foreach_maximum_(largest, torch._foreach_abs(now.slopes))
        sizes = torch._foreach_add(largest, now["epsilon"])
        rate = now.rate / (1 - now["beta_1"] ** now.t)
        torch._foreach_addcdiv_(now.weights, means, sizes, value=-rate)


@dataclass(frozen=True)
class Lion(Recipe):
    """The sign of a momentum (Chen et al. 2023): w -= lr * sign(beta_1 * m + (1 - beta_1) * g)."""

    learning_rate: LearningRate = 0.001
    beta_1: float = 0.9
    beta_2: float = 0.99
    weight_decay: float | None = None

    _more: ClassVar[dict[str, dict[str, float]]] = {"beta_1": {"above": 0, "most": 1}}

    @staticmethod
    def formula(now: Move) -> None:
        signs = torch._foreach_mul(now.beside("mean"), now["beta_1"])
        torch._foreach_add_(signs, now.slopes, alpha=1 - now["beta_1"])
        torch._foreach_sign_(signs)
        torch._foreach_add_(now.weights, signs, alpha=-now.rate)
        now.mean("mean", now.slopes, now["beta_2"])


@dataclass(frozen=True)
class Lamb(Recipe):
    """Adam's step, made as long as the weight is (You et al. 2020).

    w -= lr * |w| / |u| * u, where u is Adam's step with epsilon after the correction of its bias; the ratio
    is 1 where either length is 0.
    """

    learning_rate: LearningRate = 0.001
    beta_1: float = 0.9
    beta_2: float = 0.999
    epsilon: float = 1e-7
    weight_decay: float | None = None

    @staticmethod
    def formula(now: Move) -> None:
        means = now.mean("mean", now.slopes, now["beta_1"])
        squares = now.mean_square("square", now["beta_2"])
        roots = torch._foreach_div(squares, 1 - now["beta_2"] ** now.t)
        torch._foreach_sqrt_(roots)
        torch._foreach_add_(roots, now["epsilon"])
        steps = torch._foreach_div(means, 1 - now["beta_1"] ** now.t)
        torch._foreach_div_(steps, roots)
        lengths = zip(torch._foreach_norm(now.weights), torch._foreach_norm(steps), strict=True)
        torch._foreach_mul_(steps, [_ratio(weight, step) for weight, step in lengths])
        torch._foreach_add_(now.weights, steps, alpha=-now.rate)


def _ratio(weight: torch.Tensor, step: torch.Tensor) -> torch.Tensor:
    return torch.where((weight > 0) & (step > 0), weight / step, torch.ones_like(weight))


def adam_step(now: Move, weights: Tensors, rate: float, beta_1: float, beta_2: float) -> None:
    """Adam's move by foreach, for those who train a part of the weights so."""
    means = now.mean("mean", now.slopes, beta_1)
    roots = torch._foreach_sqrt(now.mean_square("square", beta_2))
    torch._foreach_add_(roots, now["epsilon"])
    alpha = rate * math.sqrt(1 - beta_2**now.t) / (1 - beta_1**now.t)
    torch._foreach_addcdiv_(weights, means, roots, value=-alpha)
