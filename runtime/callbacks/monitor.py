"""What callbacks that follow one reported value have in common: its direction, and what is an improvement."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np

from ...graph.errors import ConvLoomError, nearest
from ...graph.words import words
from ..checks import number
from ..metrics import direction_of
from .callback import Callback, Logs


class Monitor(Callback):
    """Base of those. monitor: a name in the logs. min_delta: the least change that is an improvement.

    mode: "min", "max", or "auto": as the metric says of itself, or as Keras's metric of that name does.
    """

    needs_direction: bool = True

    def __init__(self, monitor: str, mode: str, min_delta: float = 0.0, best: float | None = None) -> None:
        kind = type(self).__name__
        if mode not in ("auto", "min", "max"):
            raise ConvLoomError(f"{kind}: mode is {mode!r}; it takes 'auto', 'min' or 'max'")
        self.monitor, self.mode = monitor, mode
        self.min_delta = abs(number(min_delta, f"{kind}: min_delta"))
        self.best = None if best is None else number(best, f"{kind}: the value to begin with")
        self.direction = mode

    def begin(self) -> None:
        """When training begins. Raises ConvLoomError where nothing of the monitored name will be reported,
        and where mode "auto" would have to guess."""
        if self.reported is not None and self.monitor not in self.reported:
            raise self._not_reported(self.reported)
        self.direction = self._direction() if self.needs_direction else self.mode

    def value(self, logs: Logs) -> float | None:
        """The monitored value; None where this epoch reports none, as without validation in it.

        Raises ConvLoomError where it is several numbers, or where no epoch reports it.
        """
        if self.monitor not in logs:
            if self.reported is not None and self.monitor in self.reported:
                return None
            raise self._not_reported(logs)
        found = logs[self.monitor]
        if np.size(found) != 1:
            raise ConvLoomError(
                f"{type(self).__name__} monitors {self.monitor!r}, which is {np.size(found)} numbers; ask "
                f"the metric for an average"
            )
        return float(found)

    def improves(self, value: float, than: float | None) -> bool:
        if than is None:
            return True
        if self.direction == "max":
            return value - self.min_delta > than
        return value + self.min_delta < than

    def _direction(self) -> str:
        if self.mode != "auto":
            return self.mode
        found = (self.reported or {}).get(self.monitor) or direction_of(self.monitor.removeprefix("val_"))
        if found is None:
            raise ConvLoomError(
                f"{type(self).__name__} cannot tell whether a better {self.monitor!r} is larger or smaller; "
                f"give mode='max' or mode='min'"
            )
        return found

    def _not_reported(self, names: Mapping[str, Any]) -> ConvLoomError:
        lacks = self.monitor.startswith("val_") and not any(name.startswith("val_") for name in names)
        data = words("give fit validation_data", "give --validation-split, or x_val and y_val in the data")
        hint = f"; {data}" if lacks else nearest(self.monitor, names)
        waits = words(f"{type(self).__name__} monitors", "--patience waits for")
        return ConvLoomError(f"{waits} {self.monitor!r}, but an epoch reports {', '.join(names)}{hint}")
