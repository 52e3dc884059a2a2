"""Optimizers that follow the gradient: SGD, and those that divide it by its own size."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

import torch

from .base import Move
from .recipe import LearningRate, Recipe


@dataclass(frozen=True)
class SGD(Recipe):
    """Gradient descent, with momentum where it is not 0; nesterov: looks a step ahead.

    w += m, where m = momentum * m - lr * g; Nesterov: w += momentum * m - lr * g with the new m.
    """

    learning_rate: LearningRate = 0.01
    momentum: float = 0.0
    nesterov: bool = False
    weight_decay: float | None = None

    @staticmethod
    def formula(now: Move) -> None:
        if not now["momentum"]:
            torch._foreach_add_(now.weights, now.slopes, alpha=-now.rate)
            return
        steps = now.beside("momentum")
        torch._foreach_mul_(steps, now["momentum"])
        torch._foreach_add_(steps, now.slopes, alpha=-now.rate)
        if now["nesterov"]:
            torch._foreach_add_(now.weights, now.slopes, alpha=-now.rate)
            torch._foreach_add_(now.weights, steps, alpha=now["momentum"])
        else:
            torch._foreach_add_(now.weights, steps)


@dataclass(frozen=True)
class RMSprop(Recipe):
    """Steps divided by the root of the gradients' mean square (Hinton's lecture 6e, 2012).

    w -= lr * g / sqrt(v + epsilon), where v = rho * v + (1 - rho) * g^2. centered: v less the square of the
    gradient's own average. momentum: of the steps.
    """

    learning_rate: LearningRate = 0.001
    rho: float = 0.9
    momentum: float = 0.0
    epsilon: float = 1e-7
    centered: bool = False
    weight_decay: float | None = None

    @staticmethod
    def formula(now: Move) -> None:
        roots = torch._foreach_add(now.mean_square("square", now["rho"]), now["epsilon"])
        if now["centered"]:
            means = now.mean("mean", now.slopes, now["rho"])
            torch._foreach_addcmul_(roots, means, means, value=-1)
        torch._foreach_sqrt_(roots)
        if not now["momentum"]:
            torch._foreach_addcdiv_(now.weights, now.slopes, roots, value=-now.rate)
            return
        steps = now.beside("momentum")
        torch._foreach_mul_(steps, now["momentum"])
        torch._foreach_addcdiv_(steps, now.slopes, roots, value=-now.rate)
        torch._foreach_add_(now.weights, steps)


@dataclass(frozen=True)
class Adagrad(Recipe):
    """Steps divided by the root of the sum of all squares so far (Duchi et al. 2011).

    w -= lr * g / sqrt(a + epsilon), where a += g^2.
    """

    learning_rate: LearningRate = 0.001
    initial_accumulator_value: float = 0.1
    epsilon: float = 1e-7
    weight_decay: float | None = None

    _more: ClassVar[dict[str, dict[str, float]]] = {"initial_accumulator_value": {"least": 0}}

    @staticmethod
    def formula(now: Move) -> None:
        sums = now.beside("sum", now["initial_accumulator_value"])
        torch._foreach_addcmul_(sums, now.slopes, now.slopes)
        roots = torch._foreach_add(sums, now["epsilon"])
        torch._foreach_sqrt_(roots)
        torch._foreach_addcdiv_(now.weights, now.slopes, roots, value=-now.rate)


@dataclass(frozen=True)
class Adadelta(Recipe):
    """Steps as large as the last ones were (Zeiler 2012).

    w += lr * d, where d = -g * sqrt(D + epsilon) / sqrt(v + epsilon); v and D are the moving mean squares of
    g and d. Torch's of that name, but for the weight decay, which there is part of the gradient.
    """

    learning_rate: LearningRate = 0.001
    rho: float = 0.95
    epsilon: float = 1e-7
    weight_decay: float | None = None

    @staticmethod
    def formula(now: Move) -> None:
        roots = torch._foreach_add(now.mean_square("square", now["rho"]), now["epsilon"])
        torch._foreach_sqrt_(roots)
        lengths = now.beside("length")
        steps = torch._foreach_add(lengths, now["epsilon"])
        torch._foreach_sqrt_(steps)
        torch._foreach_mul_(steps, now.slopes)
        torch._foreach_div_(steps, roots)
        torch._foreach_mul_(lengths, now["rho"])
        torch._foreach_addcmul_(lengths, steps, steps, value=1 - now["rho"])
        torch._foreach_add_(now.weights, steps, alpha=-now.rate)


@dataclass(frozen=True)
class Ftrl(Recipe):
    """Follow the regularized leader (McMahan et al. 2013, algorithm 1), with Keras's shrinkage and beta.

    z += g + 2 * shrinkage * w - (A^-p - a^-p) / lr * w, where A = a + g^2 and p is learning_rate_power;
    w = (clip(z, -l1, l1) - z) / (A^-p / lr + 2 * l2 + beta / lr).
    """

    learning_rate: LearningRate = 0.001
    learning_rate_power: float = -0.5
    initial_accumulator_value: float = 0.1
    l1_regularization_strength: float = 0.0
    l2_regularization_strength: float = 0.0
    l2_shrinkage_regularization_strength: float = 0.0
    beta: float = 0.0
    weight_decay: float | None = None

    _more: ClassVar[dict[str, dict[str, float]]] = {
        "learning_rate_power": {"most": 0},
        "initial_accumulator_value": {"least": 0},
        "l1_regularization_strength": {"least": 0},
        "l2_regularization_strength": {"least": 0},
        "l2_shrinkage_regularization_strength": {"least": 0},
        "beta": {},
    }

    @staticmethod
    def formula(now: Move) -> None:
        power, rate, l1 = -now["learning_rate_power"], now.rate, now["l1_regularization_strength"]
        sums = now.beside("sum", now["initial_accumulator_value"])
        leads = now.beside("lead")
        before = torch._foreach_pow(sums, power)
        torch._foreach_addcmul_(sums, now.slopes, now.slopes)
        after = torch._foreach_pow(sums, power)
        torch._foreach_add_(leads, now.slopes)
        shrinkage = now["l2_shrinkage_regularization_strength"]
        if shrinkage:
            torch._foreach_add_(leads, now.weights, alpha=2 * shrinkage)
        torch._foreach_sub_(before, after)
        torch._foreach_addcmul_(leads, before, now.weights, value=1 / rate)
        torch._foreach_div_(after, rate)
        torch._foreach_add_(after, 2 * now["l2_regularization_strength"] + now["beta"] / rate)
        clipped = torch._foreach_clamp_min(leads, -l1)
        torch._foreach_clamp_max_(clipped, l1)
        torch._foreach_sub_(clipped, leads)
        torch._foreach_div_(clipped, after)
        torch._foreach_copy_(now.weights, clipped)
