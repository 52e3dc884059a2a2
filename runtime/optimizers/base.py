"""What every optimizer of Keras does around its formula, as a torch.optim.Optimizer.

A step is, in Keras's order: the rate that a schedule gives, accumulation, clipping, weight decay, the
formula, and the average of the weights. What is needed to go on stands in the groups and the state, as torch
has it, so that copies, pickles and state dictionaries carry it: numbers, and tensors beside the weights.
"""

from __future__ import annotations

import abc
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, overload

import torch

from .groups import Group, Tensors, clip, slopes_of

Rate = Callable[[int], float]
"""(steps done) -> learning rate."""


class KerasOptimizer(torch.optim.Optimizer, abc.ABC):
    """Keras's step around a formula. schedule: gives the rate of each step, or None."""

    schedule: Rate | None = None

    @abc.abstractmethod
    def _move(self) -> None:
        """Decay and move the weights of every group, in place, by their gradients."""

    @overload
    def step(self, closure: None = None) -> None: ...

    @overload
    def step(self, closure: Callable[[], float]) -> float: ...

    @torch.no_grad()
    def step(self, closure: Callable[[], float] | None = None) -> float | None:
        loss = None
        if closure is not None:
            with torch.enable_grad():
                loss = closure()
        for group in self.param_groups:
            if self.schedule is not None:
                group["lr"] = float(self.schedule(group["steps"]))
            if group["loss_scale_factor"] and (slopes := slopes_of(group)):
                torch._foreach_div_(slopes, group["loss_scale_factor"])
        if self._gathered():
            clip(self.param_groups)
            self._move()
        for group in self.param_groups:
            if group["use_ema"]:
                self._average(group)
            group["steps"] += 1
        return loss

    def scale_loss(self, loss: torch.Tensor) -> torch.Tensor:
        """The loss to call backward() of: times `loss_scale_factor`, by which `step` divides gradients."""
        factor = self.param_groups[0]["loss_scale_factor"]
        return loss * factor if factor else loss

    # -- accumulation ----------
    def _gathered(self) -> bool:
        """Whether this step moves the weights; gradients are then the mean since the last that did."""
        last = True
        for group in self.param_groups:
            every = group["gradient_accumulation_steps"]
            slopes = slopes_of(group)
            if not every or not slopes:
                continue
            last = (group["steps"] + 1) % every == 0
            sums = self.beside([p for p in group["params"] if p.grad is not None], "accumulated")
            if last:
                torch._foreach_add_(slopes, sums)
                torch._foreach_div_(slopes, every)
                torch._foreach_zero_(sums)
            else:
                torch._foreach_add_(sums, slopes)
        return last

    # -- averages of the weights ----------
    def _average(self, group: Group) -> None:
        weights = [p for p in group["params"] if p.requires_grad]
        if not weights:
            return
        moves = group["steps"] // (group["gradient_accumulation_steps"] or 1)
        averages = self._averages(weights)
        if moves == 0:
            torch._foreach_copy_(averages, weights)
        else:
            torch._foreach_lerp_(averages, weights, 1 - group["ema_momentum"])
        every = group["ema_overwrite_frequency"]
        if every and (moves + 1) % every == 0:
            torch._foreach_copy_(weights, averages)

    def _averages(self, weights: Tensors) -> Tensors:
        for weight in weights:
            if "average" not in self.state[weight]:
                self.state[weight]["average"] = weight.detach().clone()
        return [self.state[weight]["average"] for weight in weights]

    def _averaged(self) -> Tensors:
        """The weights that have an average."""
        held = (p for group in self.param_groups for p in group["params"])
        return [p for p in held if "average" in self.state.get(p, ())]

    @torch.no_grad()
    def swap_averages(self) -> None:
        """Exchange the weights and their averages, where `use_ema` keeps some."""
        for weight in self._averaged():
            average = self.state[weight]["average"]
            kept = weight.detach().clone()
            weight.copy_(average)
            average.copy_(kept)

    @torch.no_grad()
    def finalize_variable_values(self) -> None:
        """Put the averages in the place of the weights, where `use_ema` keeps some: `fit` ends with it."""
        for weight in self._averaged():
            weight.copy_(self.state[weight]["average"])

    # -- state, and copies ----------
    def beside(self, weights: Tensors, name: str, start: float = 0.0) -> Tensors:
        """A tensor beside each weight, all `start` at first."""
        for weight in weights:
            if name not in self.state[weight]:
                self.state[weight][name] = torch.full_like(weight, start)
        return [self.state[weight][name] for weight in weights]

    def add_param_group(self, param_group: Group) -> None:
        """As torch's; the group counts its steps from where the others are, as Keras's one counter does."""
        known = getattr(self, "param_groups", [])
        if known:
            param_group.setdefault("steps", known[0].get("steps", 0))
        super().add_param_group(param_group)

    def __getstate__(self) -> dict[str, Any]:
        state: dict[str, Any] = super().__getstate__()
        return {**state, "schedule": self.schedule}


# -- formulas of ours ----------------------------------------------------------------------------------------
@dataclass(frozen=True)
class Move:
    """A move of one group: its weights, their gradients, and the group's options as `now[name]`."""

    optimizer: KerasOptimizer
    group: Group
    weights: Tensors
    slopes: Tensors

    def __getitem__(self, name: str) -> Any:
        return self.group[name]

    @property
    def rate(self) -> float:
        """The learning rate."""
        return float(self.group["lr"])

    @property
    def t(self) -> int:
        """Moves so far, with this one."""
        return int(self.group["steps"]) // (self.group["gradient_accumulation_steps"] or 1) + 1

    def beside(self, name: str, start: float = 0.0) -> Tensors:
        """A tensor beside each weight, all `start` at first."""
        return self.optimizer.beside(self.weights, name, start)

    def mean(self, name: str, of: Tensors, decay: float) -> Tensors:
        """A moving mean beside each weight, moved towards the next value."""
        means = self.beside(name)
        torch._foreach_mul_(means, decay)
        torch._foreach_add_(means, of, alpha=1 - decay)
        return means

    def mean_square(self, name: str, decay: float) -> Tensors:
        """The moving mean of the gradients' squares."""
        squares = self.beside(name)
        torch._foreach_mul_(squares, decay)
        torch._foreach_addcmul_(squares, self.slopes, self.slopes, value=1 - decay)
        return squares


class ByFormula(KerasOptimizer):
    """Weight decay, then a formula over all tensors of a group at once.

    name: what it is called where it is printed.
    """

    def __init__(
        self, groups: list[Group], options: Group, formula: Callable[[Move], None], name: str
    ) -> None:
        self.formula, self.name = formula, name
        super().__init__(groups, options)

    def _move(self) -> None:
        for group in self.param_groups:
            weights = [p for p in group["params"] if p.grad is not None]
            if not weights:
                continue
            if group["weight_decay"]:
                torch._foreach_mul_(weights, 1 - group["lr"] * group["weight_decay"])
            self.formula(Move(self, group, weights, slopes_of(group)))

    def __getstate__(self) -> dict[str, Any]:
        return {**super().__getstate__(), "formula": self.formula, "name": self.name}

    def __repr__(self) -> str:
        return super().__repr__().replace(type(self).__name__, self.name, 1)
