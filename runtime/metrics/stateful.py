"""What Keras's metrics have in common: a state of sums, which torchmetrics keeps, moves and adds up."""

from __future__ import annotations

from typing import Any

import torch
import torchmetrics

from ...graph.errors import ConvLoomError, ShapeError
from .directory import direction_of, snake

EPSILON = 1e-7
"""What Keras adds below a fraction, and clips at."""


class Metric(torchmetrics.Metric):
    """Base of Keras's metrics. Derive from it: `sums` in the constructor, `count` and `compute`.

    It is called as Keras's are (`update_state(y_true, y_pred, sample_weight)`, `result()`, `reset_state()`,
    and `metric(y_true, y_pred)` for both), and as torchmetrics' are, whose class it has
    (`update(prediction, target, sample_weight)`, `compute()`, `reset()`). Sums are kept in float64, on the
    device of the predictions; nothing but `result` has to wait for it.

    name: in the logs. dtype: what predictions and targets are compared in, float32 where it is not said.
    """

    full_state_update = False

    def __init__(self, name: str | None = None, dtype: Any = None) -> None:
        super().__init__(sync_on_compute=False, compute_with_cache=False)
        self.name = name or snake(type(self).__name__)
        self.computes_in = _dtype(dtype, self.name)

    @property
    def higher_is_better(self) -> bool | None:  # type: ignore[override]
        direction = direction_of(snake(type(self).__name__))
        return None if direction is None else direction == "max"

    def sums(self, **shapes: tuple[int, ...]) -> None:
        """Add states of these shapes, which start at 0 and are added up over processes."""
        for name, shape in shapes.items():
            start = torch.zeros(shape, dtype=torch.float64, device=self.device)
            self.add_state(name, start, dist_reduce_fx="sum", persistent=True)

    def count(self, target: torch.Tensor, prediction: torch.Tensor, weight: torch.Tensor | None) -> None:
        """Take in a batch; all three lie on one device."""
        raise NotImplementedError

    def update(self, prediction: Any, target: Any, sample_weight: Any = None) -> None:
        """Take in a batch, in torchmetrics' order."""
        prediction = to_tensor(prediction).detach()
        self.follow(prediction)
        target = to_tensor(target).detach().to(prediction.device)
        if target.dtype == torch.bool:  # which has no largest element
            target = target.to(torch.uint8)
        if sample_weight is not None:
            sample_weight = to_tensor(sample_weight).detach().to(prediction.device)
        self.count(target, prediction.to(self.computes_in), sample_weight)

    def follow(self, values: torch.Tensor) -> None:
        """Keep the state on the device of these."""
        if values.device != self.device:
            self.to(values.device)

    def compute(self) -> torch.Tensor:
        """The value over all that was taken in."""
        raise NotImplementedError

    # -- as Keras's are ----------------------------------------------------------------------------------
    def update_state(self, y_true: Any, y_pred: Any, sample_weight: Any = None) -> None:
        self.update(y_pred, y_true, sample_weight)

    def result(self) -> torch.Tensor:
        if not self.update_called:  # of which torchmetrics would warn; Keras gives what no batch comes to
            self._update_count = 1
            value: torch.Tensor = self.compute()
            self._update_count = 0
            return value
        return self.compute()

    @property
    def variables(self) -> list[torch.Tensor]:
        """The sums that it keeps."""
        return [value for value in self.metric_state.values() if isinstance(value, torch.Tensor)]

    def reset_state(self) -> None:
        self.reset()

    def __call__(self, *args: Any, **kwargs: Any) -> torch.Tensor:
        self.update_state(*args, **kwargs)
        return self.result()

    def as_wide_as(self, state: torch.Tensor, prediction: torch.Tensor) -> None:
        """Raises ShapeError where an output has another number of columns than those before."""
        columns = prediction.shape[-1]
        if state.ndim and state.shape[-1] not in (1, columns):
            raise ShapeError(f"{self.name}: the network has {columns} outputs, expected {state.shape[-1]}")

    def shapes_differ(self, target: torch.Tensor, prediction: torch.Tensor) -> ShapeError:
        """The error for a target and a prediction that do not fit."""
        return ShapeError(
            f"{self.name}: targets have shape {tuple(target.shape)}, "
            f"the network's output {tuple(prediction.shape)}"
        )


def same_rank(
    first: torch.Tensor, second: torch.Tensor, expand_rank_1: bool = True
) -> tuple[torch.Tensor, torch.Tensor]:
    """Both with equally many axes, where a last axis of size 1 is all that one has more, as Keras does.

    expand_rank_1: to a vector the axis is added; else it is taken from the other.
    """
    if first.ndim == second.ndim + 1 and first.shape[-1] == 1:
        if second.ndim == 1 and expand_rank_1:
            return first, second[:, None]
        return first.squeeze(-1), second
    if second.ndim == first.ndim + 1 and second.shape[-1] == 1:
        if first.ndim == 1 and expand_rank_1:
            return first[:, None], second
        return first, second.squeeze(-1)
    return first, second


def ratio(part: torch.Tensor, whole: torch.Tensor) -> torch.Tensor:
    """part / whole, 0 where the whole is 0."""
    safe = torch.where(whole == 0, torch.ones_like(whole), whole)
    return torch.where(whole == 0, torch.zeros_like(whole), part / safe)


def in_unit(value: Any, name: str) -> float:
    """A number from 0 to 1; raises ConvLoomError."""
    if isinstance(value, bool) or not isinstance(value, int | float) or not 0.0 <= value <= 1.0:
        raise ConvLoomError(f"{name} is {value!r}; it is a number from 0 to 1")
    return float(value)


def one_of(value: Any, name: str, known: tuple[Any, ...]) -> Any:
    """`value`, which is one of those; raises ConvLoomError."""
    if value not in known:
        raise ConvLoomError(f"{name} is {value!r}; it takes {', '.join(map(repr, known))}")
    return value


def to_tensor(value: Any) -> torch.Tensor:
    return value if isinstance(value, torch.Tensor) else torch.as_tensor(value)


def _dtype(dtype: Any, name: str) -> torch.dtype:
    if dtype is None:
        return torch.float32
    found = dtype if isinstance(dtype, torch.dtype) else getattr(torch, str(dtype), None)
    if not isinstance(found, torch.dtype) or not found.is_floating_point:
        raise ConvLoomError(f"{name}: dtype is {dtype!r}; it takes a floating point type, such as 'float32'")
    return found
