"""Small callbacks: functions in the place of hooks, and the end of a training whose loss is NaN."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

from ...graph.errors import ConvLoomError, unknown
from .callback import Callback, Logs, say

HOOKS = tuple(name for name in vars(Callback) if name.startswith("on_"))


class LambdaCallback(Callback):
    """Functions by the names of hooks: `LambdaCallback(on_epoch_end=lambda epoch, logs: ...)`.

    Further arguments become attributes, as in Keras.
    """

    def __init__(self, **functions: Callable[..., Any] | Any) -> None:
        for name, function in functions.items():
            if name.startswith("on_"):
                if name not in HOOKS:
                    raise ConvLoomError(unknown("hook", name, HOOKS))
                if function is None:
                    continue
                if not callable(function):
                    raise ConvLoomError(f"LambdaCallback: {name} is {function!r:.60}; give a function")
            setattr(self, name, function)


class TerminateOnNaN(Callback):
    """End the training after the first batch at which the loss is NaN or infinite, and keep what there is.

    raise_error: raise ConvLoomError instead. The loss is read after every batch, for which a GPU is waited
    for. With this callback, `fit` raises nothing of its own for such a loss.
    """

    handles_nan = True

    def __init__(self, raise_error: bool = False) -> None:
        self.raise_error = raise_error

    def on_train_batch_end(self, batch: int, logs: Logs) -> None:
        loss = logs.get("loss")
        if loss is None or math.isfinite(loss):
            return
        if self.raise_error:
            raise ConvLoomError(f"batch {batch}: the loss is {loss}; training was stopped")
        say(f"batch {batch}: the loss is {loss}; training ends")
        self.stop = True
