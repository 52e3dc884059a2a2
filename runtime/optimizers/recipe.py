"""The base of Keras's optimizers by name: their arguments, checked, and the optimizer they make."""

from __future__ import annotations

import inspect
import re
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, field, fields
from typing import Any, ClassVar

import torch

from ...graph.errors import ConvLoomError
from ..checks import number, whole
from .base import ByFormula, KerasOptimizer, Move, Rate
from .groups import Group, Parameters, grouped

LearningRate = float | Callable[..., float]


@dataclass(frozen=True)
class Recipe:
    """Base of Keras's optimizers by name. Raises ConvLoomError for arguments out of their ranges.

    Called with parameters, as `fit` does, it makes a torch.optim.Optimizer of them.

    learning_rate: a number; one of `cl.schedules`, or a function of the steps done, or of nothing.
    weight_decay: each step first shrinks the weights by this much of the learning rate.
    One of these may clip the gradients before each step. clipvalue: each number of them. clipnorm: the norm
    of each weight's. global_clipnorm: the norm of all together.
    use_ema: keep a moving average of the weights, average = ema_momentum * average + (1 - ema_momentum) *
    weight, and end `fit` with it; it replaces the weights after every ema_overwrite_frequency steps, too.
    loss_scale_factor: the loss is multiplied by it, and gradients divided. For a factor that follows
    overflows see `LossScaleOptimizer`, which float16 has by default.
    gradient_accumulation_steps: the weights move at every so many steps only, by the mean gradient.
    """

    learning_rate: LearningRate
    clipnorm: float | None = field(default=None, kw_only=True)
    clipvalue: float | None = field(default=None, kw_only=True)
    global_clipnorm: float | None = field(default=None, kw_only=True)
    use_ema: bool = field(default=False, kw_only=True)
    ema_momentum: float = field(default=0.99, kw_only=True)
    ema_overwrite_frequency: int | None = field(default=None, kw_only=True)
    loss_scale_factor: float | None = field(default=None, kw_only=True)
    gradient_accumulation_steps: int | None = field(default=None, kw_only=True)
    name: str | None = field(default=None, kw_only=True)
    _undecayed: tuple[Any, ...] = field(default=(), init=False, repr=False, compare=False)

    _ranges: ClassVar[dict[str, dict[str, float]]] = {
        "learning_rate": {"above": 0},
        "clipvalue": {"above": 0},
        "clipnorm": {"above": 0},
        "global_clipnorm": {"above": 0},
        "ema_momentum": {"least": 0, "most": 1},
        "loss_scale_factor": {"above": 0},
        "momentum": {"least": 0},
        "rho": {"least": 0},
        "beta_1": {"least": 0, "below": 1},
        "beta_2": {"least": 0, "below": 1},
        "epsilon": {"least": 0},
        "weight_decay": {"least": 0},
    }
    """Of arguments that several have; a class adds its own in `_more`."""
    _more: ClassVar[dict[str, dict[str, float]]] = {}

    def __post_init__(self) -> None:
        name = type(self).__name__
        for argument, bounds in {**self._ranges, **self._more}.items():
            value = getattr(self, argument, None)
            if value is not None and not (argument == "learning_rate" and callable(value)):
                number(value, f"{name}: {argument}", **bounds)
        limits = self.clipvalue, self.clipnorm, self.global_clipnorm
        if sum(limit is not None for limit in limits) > 1:
            raise ConvLoomError(f"{name}: give one of clipvalue, clipnorm and global_clipnorm")
        for argument, least in (("gradient_accumulation_steps", 2), ("ema_overwrite_frequency", 1)):
            if getattr(self, argument) is not None:
                whole(getattr(self, argument), f"{name}: {argument}", least)

    def exclude_from_weight_decay(
        self, var_list: Iterable[torch.Tensor] | None = None, var_names: Sequence[str] | None = None
    ) -> None:
        """Leave weights out of the decay, as Keras's method of that name: to be called before training.

        var_list: parameters themselves. var_names: regular expressions, searched in the weight's own name
        ("bias", "gamma"); one with a slash, in the layer's name and the weight's ("head/kernel").
        """
        chosen = (*(var_list or ()), *(var_names or ()))
        object.__setattr__(self, "_undecayed", chosen)  # frozen, but for what Keras sets by a method

    def __call__(self, parameters: Parameters) -> torch.optim.Optimizer:
        """The optimizer of parameters, of pairs of a name and a parameter, or of groups as torch has them."""
        groups = grouped(parameters, self._own)
        schedule = as_schedule(self.learning_rate)
        first = float(self.learning_rate if schedule is None else schedule(0))  # type: ignore[arg-type]
        made = self._make(groups, first)
        common = {f.name: getattr(self, f.name) for f in fields(Recipe) if f.kw_only and f.name != "name"}
        common["steps"] = 0
        made.schedule = schedule
        made.defaults.update(common)
        for group in made.param_groups:
            group.update({**common, **group})
        return made

    def _make(self, groups: list[Group], learning_rate: float) -> KerasOptimizer:
        """The optimizer, but for what all have in common: by default the class's formula."""
        own = {f.name: getattr(self, f.name) for f in fields(self) if f.init and not f.kw_only}
        del own["learning_rate"]
        own["weight_decay"] = own["weight_decay"] or 0.0
        return ByFormula(groups, {"lr": learning_rate, **own}, type(self).formula, type(self).__name__)

    @staticmethod
    def formula(now: Move) -> None:
        """Move the weights of a group, in place."""
        raise NotImplementedError

    def _own(self, name: str | None, parameter: torch.Tensor) -> Group:
        """The options of one parameter's group, beside those of all."""
        return {"weight_decay": 0.0} if self._is_undecayed(name, parameter) else {}

    def _is_undecayed(self, name: str | None, parameter: torch.Tensor) -> bool:
        words = [chosen for chosen in self._undecayed if isinstance(chosen, str)]
        if any(chosen is parameter for chosen in self._undecayed):
            return True
        return bool(words) and any(matches(word, self._named(name)) for word in words)

    def _named(self, name: str | None) -> str:
        if name is None:
            raise ConvLoomError(
                f"{type(self).__name__} tells weights apart by name, and these have none; give "
                f"net.named_parameters()"
            )
        return name


def matches(expression: str, name: str) -> bool:
    """Whether it is found in the weight's own name or, with a slash, in the layer's and the weight's."""
    return re.search(expression, name if "/" in expression else name.rpartition("/")[2]) is not None


def as_schedule(rate: Any) -> Rate | None:
    """A rate that is no number as a function of the steps done; Keras calls one without arguments."""
    if not callable(rate):
        return None
    try:
        inspect.signature(rate).bind()
    except (TypeError, ValueError):
        return rate  # type: ignore[no-any-return]
    return _Constant(rate)


@dataclass(frozen=True)
class _Constant:
    """A function of no arguments, called at every step."""

    rate: Callable[[], float]

    def __call__(self, step: int) -> float:
        return self.rate()
