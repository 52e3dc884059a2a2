"""Metrics of several kinds under one interface: torchmetrics' and ours, Keras's objects, functions."""

from __future__ import annotations

import inspect
from collections.abc import Callable, Mapping
from typing import Any

import torch

from ...graph.errors import ConvLoomError
from ..measures import in_order, takes_the_truth_first


class OfTorchmetrics:
    """An object of torchmetrics' kind: `update(prediction, target)`, `compute`, `reset`; ours among them."""

    def __init__(self, metric: Any, name: str, direction: str | None) -> None:
        self.metric, self.name = metric, name
        self.weight_argument = _weight_argument(metric.update)
        self.directions: Mapping[str, str | None] = {name: direction}
        if hasattr(metric, "items") and hasattr(metric, "keys"):  # a MetricCollection
            self.directions = {
                str(key): {True: "max", False: "min"}.get(getattr(part, "higher_is_better", None))  # type: ignore[arg-type]
                for key, part in metric.items()
            }

    def reset(self) -> None:
        self.metric.reset()

    def update(
        self, prediction: torch.Tensor, target: torch.Tensor, weight: torch.Tensor | None = None
    ) -> None:
        if isinstance(self.metric, torch.nn.Module):
            own = getattr(self.metric, "device", None)
            if own is not None and own != prediction.device:
                self.metric.to(prediction.device)
        if weight is None:
            self.metric.update(prediction, target)
        elif self.weight_argument:
            self.metric.update(prediction, target, **{self.weight_argument: weight})
        else:
            raise ConvLoomError(
                f"metric {self.name} takes no weights of examples; give it in metrics= rather than in "
                f"weighted_metrics="
            )

    def read(self, reduced: bool) -> Mapping[str, Any]:
        parts = self._parts()
        before = [(part._to_sync, part.compute_with_cache, part._computed) for part in parts]
        for part in parts:  # a value of this process must not wait for the others, nor be kept for both
            part._to_sync, part.compute_with_cache, part._computed = reduced, False, None
        try:
            value = self.metric.compute()
        finally:
            for part, (sync, cache, computed) in zip(parts, before, strict=True):
                part._to_sync, part.compute_with_cache, part._computed = sync, cache, computed
        return value if isinstance(value, Mapping) else {self.name: value}

    def _parts(self) -> list[Any]:
        """The objects of torchmetrics' own class in it; another's may only look like one."""
        if not isinstance(self.metric, torch.nn.Module):
            return []
        return [part for part in self.metric.modules() if hasattr(part, "_to_sync")]

    def state_dict(self) -> dict[str, Any]:
        """Whether or not they were declared persistent: what is saved here is a run, not a model."""
        found: dict[str, Any] = {}
        for place, part in enumerate(self._parts()):
            states = {name: _copied(value) for name, value in part.metric_state.items()}
            found[str(place)] = {"states": states, "updates": part.update_count}
        return found

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        for place, part in enumerate(self._parts()):
            saved = state[str(place)]
            for name, value in saved["states"].items():
                setattr(part, name, _moved(value, part.device))
            part._update_count, part._computed = int(saved["updates"]), None


def _weight_argument(update: Callable[..., Any]) -> str:
    """The name of its argument for the weights of examples; "" where it takes none."""
    names = list(inspect.signature(update).parameters)[2:]
    return next((name for name in names if "weight" in name), "")


def _copied(value: Any) -> Any:
    return [v.detach().clone() for v in value] if isinstance(value, list) else value.detach().clone()


def _moved(value: Any, device: torch.device) -> Any:
    return [v.to(device) for v in value] if isinstance(value, list | tuple) else value.to(device)


class OfKeras:
    """An object of Keras's kind: `update_state(y_true, y_pred)`, `result`, `reset_state`."""

    def __init__(self, metric: Any, name: str, direction: str | None) -> None:
        self.metric, self.name = metric, name
        self.directions: Mapping[str, str | None] = {name: direction}

    def reset(self) -> None:
        self.metric.reset_state()

    def update(
        self, prediction: torch.Tensor, target: torch.Tensor, weight: torch.Tensor | None = None
    ) -> None:
        options = {} if weight is None else {"sample_weight": weight}
        self.metric.update_state(target, prediction, **options)

    def read(self, reduced: bool) -> Mapping[str, Any]:
        if not (reduced and torch.distributed.is_available() and torch.distributed.is_initialized()):
            return {self.name: self.metric.result()}
        own = [variable.numpy().copy() for variable in self.metric.variables]
        try:
            for variable in self.metric.variables:  # Keras declares them as sums over replicas
                total = torch.as_tensor(variable.numpy().copy())
                torch.distributed.all_reduce(total)
                variable.assign(total)
            return {self.name: self.metric.result()}
        finally:
            for variable, value in zip(self.metric.variables, own, strict=True):
                variable.assign(value)

    def state_dict(self) -> dict[str, Any]:
        variables = getattr(self.metric, "variables", ())
        return {str(place): variable.numpy().copy() for place, variable in enumerate(variables)}

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        for place, variable in enumerate(getattr(self.metric, "variables", ())):
            variable.assign(state[str(place)])


class OfFunction:
    """The mean over the examples of what a function gives: one number a batch, or one an example.

    A batch's number counts for as many examples as the batch has, so that it is a mean over the epoch.
    """

    def __init__(self, function: Callable[..., Any], name: str, direction: str | None) -> None:
        self.name = name
        self.directions: Mapping[str, str | None] = {name: direction}
        self.by_example = takes_the_truth_first(function) and inspect.isroutine(function)
        self.function = function if self.by_example else in_order(function)
        self.reset()

    def reset(self) -> None:
        self.total: torch.Tensor | None = None
        self.weights: torch.Tensor | float = 0.0

    def update(
        self, prediction: torch.Tensor, target: torch.Tensor, weight: torch.Tensor | None = None
    ) -> None:
        if self.by_example:
            value = torch.as_tensor(self.function(target, prediction), device=prediction.device)
        else:
            value = torch.as_tensor(self.function(prediction, target), device=prediction.device)
        value = value.detach().to(torch.float64)
        if value.ndim and self.by_example:
            from .means import by_example

            value, weight = by_example(value, weight, self.name, torch.mean)
            self._add(value.sum(), len(value) if weight is None else weight.sum(dtype=torch.float64))
            return
        if value.numel() != 1:
            raise ConvLoomError(
                f"metric {self.name} gave a tensor of shape {tuple(value.shape)}; it must give one number, "
                f"such as the mean over the batch"
            )
        if weight is not None:
            raise ConvLoomError(
                f"metric {self.name} gives one number a batch, which weights of examples cannot reach; give "
                f"it in metrics=, or let it take (y_true, y_pred) and give one number an example"
            )
        self._add(value.reshape(()) * len(target), len(target))

    def _add(self, total: torch.Tensor, weights: torch.Tensor | float) -> None:
        self.total = total if self.total is None else self.total + total
        self.weights = self.weights + weights

    def read(self, reduced: bool) -> Mapping[str, Any]:
        if self.total is None:
            return {self.name: float("nan")}
        both = torch.stack([self.total, torch.as_tensor(self.weights).to(self.total)])
        if reduced and torch.distributed.is_available() and torch.distributed.is_initialized():
            torch.distributed.all_reduce(both)
        return {self.name: both[0] / both[1]}

    def state_dict(self) -> dict[str, Any]:
        return {} if self.total is None else {"total": self.total.clone(), "weights": _held(self.weights)}

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        self.reset()
        if "total" in state:
            self.total, self.weights = state["total"], state["weights"]


def _held(weights: torch.Tensor | float) -> torch.Tensor | float:
    return weights.clone() if isinstance(weights, torch.Tensor) else weights
