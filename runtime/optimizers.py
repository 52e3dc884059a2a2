"""Keras's optimizers: its names, arguments and formulas, as torch.optim.Optimizer.

`SGD`, `Adam`, `AdamW` and `RMSprop` are recipes: called with parameters, as `fit` does, they make an
optimizer. Where Keras and torch differ, Keras is followed: Adam's epsilon is added to the root of the second
moment before its bias is corrected, RMSprop's stands inside the root, SGD's momentum is a sum of steps and
not of gradients (which matters once the learning rate changes), and weight decay shrinks the weights
themselves everywhere.
"""

from __future__ import annotations

import abc
import math
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field, replace
from typing import Any, ClassVar, overload

import torch

from ..graph.errors import ConvLoomError, unknown
from ..graph.words import words
from .checks import number

Parameters = Iterable[torch.nn.Parameter]


# -- clipping ------------------------------------------------------------------------------------------------
@torch.no_grad()
def _clip(groups: list[dict[str, Any]]) -> None:
    """Clip gradients as their groups say: what an optimizer is copied, pickled and saved by is its groups."""
    for group in groups:
        slopes = _slopes(group)
        if not slopes:
            continue
        if group.get("clipvalue") is not None:
            torch._foreach_clamp_min_(slopes, -group["clipvalue"])
            torch._foreach_clamp_max_(slopes, group["clipvalue"])
        elif group.get("clipnorm") is not None:
            limit, norms = group["clipnorm"], torch._foreach_norm(slopes)
            torch._foreach_mul_(slopes, [limit / norm.clamp(min=limit) for norm in norms])
    clipped = [group for group in groups if group.get("global_clipnorm") is not None]
    if slopes := [slope for group in clipped for slope in _slopes(group)]:
        limit = clipped[0]["global_clipnorm"]
        norm = torch.linalg.vector_norm(torch.stack(torch._foreach_norm(slopes)))
        torch._foreach_mul_(slopes, limit / norm.clamp(min=limit))


def _slopes(group: dict[str, Any]) -> list[torch.Tensor]:
    return [p.grad for p in group["params"] if p.grad is not None]


def _evaluated(closure: Callable[[], float] | None) -> float | None:
    if closure is None:
        return None
    with torch.enable_grad():
        return closure()


# -- the steps -----------------------------------------------------------------------------------------------
class _Stepper(torch.optim.Optimizer, abc.ABC):
    """Weight decay, then the step of the class over all tensors of a group at once."""

    @abc.abstractmethod
    def _update(self, group: dict[str, Any], weights: list[torch.Tensor], slopes: list[torch.Tensor]) -> None:
        """Move the weights, in place."""

    def _state(self, weights: list[torch.Tensor], name: str) -> list[torch.Tensor]:
        """A value beside each weight, 0 at first."""
        for weight in weights:
            if name not in self.state[weight]:
                self.state[weight][name] = torch.zeros_like(weight)
        return [self.state[weight][name] for weight in weights]

    @overload
    def step(self, closure: None = None) -> None: ...

    @overload
    def step(self, closure: Callable[[], float]) -> float: ...

    @torch.no_grad()
    def step(self, closure: Callable[[], float] | None = None) -> float | None:
        loss = _evaluated(closure)
        _clip(self.param_groups)
        for group in self.param_groups:
            weights = [p for p in group["params"] if p.grad is not None]
            if not weights:
                continue
            if group["weight_decay"]:
                torch._foreach_mul_(weights, 1 - group["lr"] * group["weight_decay"])
            self._update(group, weights, _slopes(group))
        return loss


class _SGD(_Stepper):
    """w += m, where m = momentum * m - lr * g; Nesterov: w += momentum * m - lr * g with the new m."""

    def _update(self, group: dict[str, Any], weights: list[torch.Tensor], slopes: list[torch.Tensor]) -> None:
        momentum, rate = group["momentum"], group["lr"]
        if not momentum:
            torch._foreach_add_(weights, slopes, alpha=-rate)
            return
        steps = self._state(weights, "momentum")
        torch._foreach_mul_(steps, momentum)
        torch._foreach_add_(steps, slopes, alpha=-rate)
        if group["nesterov"]:
            torch._foreach_add_(weights, slopes, alpha=-rate)
            torch._foreach_add_(weights, steps, alpha=momentum)
        else:
            torch._foreach_add_(weights, steps)


class _RMSprop(_Stepper):
    """w -= lr * g / sqrt(v + epsilon), where v = rho * v + (1 - rho) * g^2.

    centered: v less the square of the gradient's own average. momentum: of the steps.
    """

    def _update(self, group: dict[str, Any], weights: list[torch.Tensor], slopes: list[torch.Tensor]) -> None:
        rho = group["rho"]
        squares = self._state(weights, "square")
        torch._foreach_mul_(squares, rho)
        torch._foreach_addcmul_(squares, slopes, slopes, value=1 - rho)
        roots = torch._foreach_add(squares, group["epsilon"])
        if group["centered"]:
            means = self._state(weights, "mean")
            torch._foreach_mul_(means, rho)
            torch._foreach_add_(means, slopes, alpha=1 - rho)
            torch._foreach_addcmul_(roots, means, means, value=-1)
        torch._foreach_sqrt_(roots)
        if not group["momentum"]:
            torch._foreach_addcdiv_(weights, slopes, roots, value=-group["lr"])
            return
        steps = self._state(weights, "momentum")
        torch._foreach_mul_(steps, group["momentum"])
        torch._foreach_addcdiv_(steps, slopes, roots, value=-group["lr"])
        torch._foreach_add_(weights, steps)


class _Adam(torch.optim.AdamW):
    """torch's AdamW, whose epsilon follows the step so that it means Keras's.

    torch divides by sqrt(v) / c + eps, Keras by (sqrt(v) + epsilon) / c, c = sqrt(1 - beta_2^t): they agree
    where eps = epsilon / c. Each group counts its own steps: torch's counters may lie on a GPU.
    """

    def step(self, closure: Any = None) -> Any:
        loss = _evaluated(closure)
        _clip(self.param_groups)
        for group in self.param_groups:
            group["steps"] = group.get("steps", 0) + 1
            group["epsilon"] = group.get("epsilon", group["eps"])
            group["eps"] = group["epsilon"] / math.sqrt(1 - group["betas"][1] ** group["steps"])
        super().step()
        return loss


# -- the recipes ---------------------------------------------------------------------------------------------
@dataclass(frozen=True)
class Recipe(abc.ABC):
    """Base of Keras's optimizers by name. Raises ConvLoomError for arguments out of their ranges.

    One of these may clip the gradients before each step. clipvalue: each number of them. clipnorm: the norm
    of each weight's. global_clipnorm: the norm of all together.
    """

    learning_rate: float
    clipvalue: float | None = field(default=None, kw_only=True)
    clipnorm: float | None = field(default=None, kw_only=True)
    global_clipnorm: float | None = field(default=None, kw_only=True)

    _ranges: ClassVar[dict[str, dict[str, float]]] = {
        "learning_rate": {"above": 0},
        "clipvalue": {"above": 0},
        "clipnorm": {"above": 0},
        "global_clipnorm": {"above": 0},
        "momentum": {"least": 0},
        "rho": {"least": 0},
        "beta_1": {"least": 0, "below": 1},
        "beta_2": {"least": 0, "below": 1},
        "epsilon": {"least": 0},
        "weight_decay": {"least": 0},
    }

    def __post_init__(self) -> None:
        name = type(self).__name__
        for argument, bounds in self._ranges.items():
            value = getattr(self, argument, None)
            if value is not None:
                number(value, f"{name}: {argument}", **bounds)
        if sum(limit is not None for limit in self._limits.values()) > 1:
            raise ConvLoomError(f"{name}: give one of clipvalue, clipnorm and global_clipnorm")

    @property
    def _limits(self) -> dict[str, float | None]:
        names = "clipvalue", "clipnorm", "global_clipnorm"
        return {name: getattr(self, name) for name in names}

    def __call__(self, parameters: Parameters) -> torch.optim.Optimizer:
        """The optimizer of these parameters."""
        made = self._make(parameters)
        made.defaults.update(self._limits)
        for group in made.param_groups:
            group.update(self._limits)
        return made

    @abc.abstractmethod
    def _make(self, parameters: Parameters) -> torch.optim.Optimizer:
        """The optimizer without clipping."""


@dataclass(frozen=True)
class SGD(Recipe):
    """Gradient descent, with momentum where it is not 0; nesterov: looks a step ahead."""

    learning_rate: float = 0.01
    momentum: float = 0.0
    nesterov: bool = False
    weight_decay: float | None = None

    def _make(self, parameters: Parameters) -> torch.optim.Optimizer:
        options = {"momentum": self.momentum, "nesterov": self.nesterov}
        return _SGD(
            parameters, {"lr": self.learning_rate, "weight_decay": self.weight_decay or 0.0, **options}
        )


@dataclass(frozen=True)
class RMSprop(Recipe):
    """Steps divided by the root of the gradients' mean square (Hinton's lecture 6e, 2012)."""

    learning_rate: float = 0.001
    rho: float = 0.9
    momentum: float = 0.0
    epsilon: float = 1e-7
    centered: bool = False
    weight_decay: float | None = None

    def _make(self, parameters: Parameters) -> torch.optim.Optimizer:
        options = {
            "lr": self.learning_rate,
            "rho": self.rho,
            "momentum": self.momentum,
            "epsilon": self.epsilon,
            "centered": self.centered,
            "weight_decay": self.weight_decay or 0.0,
        }
        return _RMSprop(parameters, options)


@dataclass(frozen=True)
class Adam(Recipe):
    """Adaptive moments (Kingma & Ba 2015, the form with epsilon-hat before section 2.1)."""

    learning_rate: float = 0.001
    beta_1: float = 0.9
    beta_2: float = 0.999
    epsilon: float = 1e-7
    amsgrad: bool = False
    weight_decay: float | None = None

    def _make(self, parameters: Parameters) -> torch.optim.Optimizer:
        return _Adam(
            parameters,
            lr=self.learning_rate,
            betas=(self.beta_1, self.beta_2),
            eps=self.epsilon,
            weight_decay=self.weight_decay or 0.0,
            amsgrad=self.amsgrad,
            fused=True,
        )


@dataclass(frozen=True)
class AdamW(Recipe):
    """Adam with weight decay (Loshchilov & Hutter 2019)."""

    learning_rate: float = 0.001
    weight_decay: float = 0.004
    beta_1: float = 0.9
    beta_2: float = 0.999
    epsilon: float = 1e-7
    amsgrad: bool = False

    def _make(self, parameters: Parameters) -> torch.optim.Optimizer:
        plain = Adam(self.learning_rate, self.beta_1, self.beta_2, self.epsilon, self.amsgrad)
        return replace(plain, weight_decay=self.weight_decay)._make(parameters)


OPTIMIZERS: dict[str, type[Recipe]] = {"sgd": SGD, "adam": Adam, "adamw": AdamW, "rmsprop": RMSprop}


def make_optimizer(
    optimizer: Any, parameters: Parameters, learning_rate: float | None = None
) -> torch.optim.Optimizer:
    """An optimizer over `parameters`.

    optimizer: Keras's name or a recipe of this module; a class or function that takes the parameters, or an
    optimizer of torch's that is ready: torch's own stay torch's.
    learning_rate: instead of the default. Raises ConvLoomError where the two do not go together.
    """
    trained = [p for p in parameters if p.requires_grad]
    if not trained:
        raise ConvLoomError("the network has no trainable parameters")
    if learning_rate is not None:
        learning_rate = number(learning_rate, "learning_rate", above=0)
    if isinstance(optimizer, torch.optim.Optimizer):
        return _ready(optimizer, trained, learning_rate)
    if isinstance(optimizer, str):
        if optimizer.lower() not in OPTIMIZERS:
            more = words(", or a torch.optim.Optimizer")
            raise ConvLoomError(unknown("optimizer", optimizer, OPTIMIZERS, more))
        optimizer = OPTIMIZERS[optimizer.lower()]
    if isinstance(optimizer, type) and issubclass(optimizer, Recipe):
        recipe: Recipe = optimizer()  # type: ignore[call-arg]
        return (recipe if learning_rate is None else replace(recipe, learning_rate=learning_rate))(trained)
    if isinstance(optimizer, Recipe):
        _no_second_rate(learning_rate)
        return optimizer(trained)
    if type(optimizer).__module__.partition(".")[0] in ("keras", "tensorflow", "tf_keras"):
        name = type(optimizer).__name__
        here = name if name.lower() in OPTIMIZERS else "Adam"
        raise ConvLoomError(
            f"optimizer {name} is Keras's own, which moves Keras's variables only; "
            f"give cl.optimizers.{here}(...)"
        )
    if callable(optimizer):
        product = optimizer(trained) if learning_rate is None else optimizer(trained, lr=learning_rate)
        if isinstance(product, torch.optim.Optimizer):
            return product
    raise ConvLoomError(
        f"optimizer {optimizer!r} is neither a name nor a torch.optim.Optimizer nor makes one"
    )


def _ready(
    optimizer: torch.optim.Optimizer, trained: list[torch.nn.Parameter], learning_rate: float | None
) -> torch.optim.Optimizer:
    _no_second_rate(learning_rate)
    held = {id(p) for group in optimizer.param_groups for p in group["params"]}
    if not any(id(p) in held for p in trained):
        raise ConvLoomError(
            "the optimizer holds none of this network's parameters; make it from net.parameters()"
        )
    return optimizer


def _no_second_rate(learning_rate: float | None) -> None:
    if learning_rate is not None:
        raise ConvLoomError("learning_rate goes with an optimizer given by name; this one has its own")
