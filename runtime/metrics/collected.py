"""All metrics of a run: which output each looks at, what the logs call it, and one reading of all."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Protocol

import numpy as np
import torch

from ...graph.errors import ConvLoomError

Value = float | np.ndarray[Any, Any]
"""Of a metric: a number, or several where it has one for each class or threshold."""


class Measure(Protocol):
    """A metric of whatever kind, over an epoch."""

    @property
    def directions(self) -> Mapping[str, str | None]:
        """The names of its values -> "max" or "min", None where nothing says which is better."""
        ...

    def reset(self) -> None: ...

    def update(
        self, prediction: torch.Tensor, target: torch.Tensor, weight: torch.Tensor | None = None
    ) -> None: ...

    def read(self, reduced: bool) -> Mapping[str, Any]:
        """Its values so far, still on their device. reduced: of all processes together."""
        ...

    def state_dict(self) -> dict[str, Any]: ...

    def load_state_dict(self, state: Mapping[str, Any]) -> None: ...


@dataclass
class Entry:
    """A metric of one output. names: what it calls its values -> what the logs call them."""

    measure: Measure
    output: int
    weighted: bool
    names: Mapping[str, str]


class Metrics:
    """The metrics that `find_metrics` found, over an epoch.

    `update` takes a batch and waits for nothing; `read` waits once, for all of them.
    """

    def __init__(self, entries: Iterable[Entry] = ()) -> None:
        self.entries = list(entries)

    @property
    def directions(self) -> dict[str, str | None]:
        """Names in the logs -> "max" or "min", None where nothing says which is better."""
        return {
            entry.names[name]: direction
            for entry in self.entries
            for name, direction in entry.measure.directions.items()
        }

    def reset(self) -> None:
        """Begin an epoch."""
        for entry in self.entries:
            entry.measure.reset()

    @torch.no_grad()
    def update(
        self,
        predictions: Sequence[torch.Tensor],
        targets: Sequence[torch.Tensor | None],
        weights: Sequence[torch.Tensor | None] | None = None,
    ) -> None:
        """Take in a batch: for each output its prediction, its target and the examples' weights, if any.

        Metrics that are not weighted leave the weights out.
        """
        for entry in self.entries:
            target = targets[entry.output]
            if target is None:
                raise ConvLoomError(
                    f"metric {next(iter(entry.names.values()))} looks at output {entry.output}, which has no "
                    f"targets"
                )
            weight = weights[entry.output] if weights is not None and entry.weighted else None
            entry.measure.update(predictions[entry.output].detach(), target, weight)

    def read(self, reduced: bool = False) -> dict[str, Value]:
        """The values so far, by their names in the logs. reduced: as for `values`."""
        return on_the_host(self.values(reduced))

    def values(self, reduced: bool = False) -> dict[str, Any]:
        """The values so far, still on their device.

        reduced: of all of torch.distributed's processes together, each of which must call it; what is kept
        stays each process's own.
        """
        found: dict[str, Any] = {}
        for entry in self.entries:
            values = entry.measure.read(reduced)
            found |= {entry.names.get(name, name): value for name, value in values.items()}
        return found

    def state_dict(self) -> dict[str, Any]:
        """What is needed to go on in the middle of an epoch; tensors by metric and name."""
        return {str(place): entry.measure.state_dict() for place, entry in enumerate(self.entries)}

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        if len(state) != len(self.entries):
            raise ConvLoomError(
                f"the state is of {len(state)} metrics, and there are {len(self.entries)}; compile with the "
                f"metrics it was saved with"
            )
        for place, entry in enumerate(self.entries):
            entry.measure.load_state_dict(state[str(place)])


def on_the_host(values: Mapping[str, Any]) -> dict[str, Value]:
    """Numbers of several tensors with one copy for each device, so that it is waited for once."""
    tensors = {name: value.detach() for name, value in values.items() if isinstance(value, torch.Tensor)}
    found: dict[str, Value] = {}
    for device in {tensor.device for tensor in tensors.values()}:
        here = [(name, tensor) for name, tensor in tensors.items() if tensor.device == device]
        flat = torch.cat([tensor.reshape(-1).to(torch.float64) for _, tensor in here]).cpu().numpy()
        for name, tensor in here:
            part, flat = flat[: tensor.numel()], flat[tensor.numel() :]
            found[name] = float(part[0]) if tensor.numel() == 1 else part.reshape(tensor.shape).copy()
    return {name: found[name] if name in found else _number(name, values[name]) for name in values}


def _number(name: str, value: Any) -> Value:
    try:
        array = np.asarray(value, np.float64)
    except (TypeError, ValueError, RuntimeError):
        raise ConvLoomError(f"metric {name} gave {value!r:.60}, which is no number") from None
    return float(array.reshape(())) if array.size == 1 else array
