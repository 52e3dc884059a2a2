"""All callbacks of a run as one, which the loop calls."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping
from typing import Any

import torch

from ..graph.errors import ConvLoomError
from .callbacks import Callback, Logs
from .callbacks.of_keras import OfKeras, looks_like_kerass
from .stepping import Stepper

Read = Callable[[], Logs]
"""Gives the values so far, which waits for the device."""


class CallbackList:
    """Callbacks in their order. Raises ConvLoomError for what is none."""

    def __init__(
        self,
        callbacks: Iterable[Callback] = (),
        *,
        model: Any,
        net: torch.nn.Module,
        params: Mapping[str, Any],
        stepper: Stepper | None = None,
        reported: Mapping[str, str | None] | None = None,
    ) -> None:
        self.model = model
        self.callbacks = checked(callbacks)
        if reported is not None:
            reported = {name: None for callback in self.callbacks for name in callback.adds} | dict(reported)
        self.params = params
        for callback in self.callbacks:
            callback.net, callback.stepper, callback.reported = net, stepper, reported
            callback.set_params(params)
            callback.set_model(model)

    def __iter__(self) -> Iterator[Callback]:
        return iter(self.callbacks)

    @property
    def stopping(self) -> bool:
        """Whether one of them, or somebody through the model, wants the training to end."""
        asked = bool(getattr(self.model, "stop_training", False))
        return asked or any(callback.stop for callback in self.callbacks)

    # -- training ----------
    def on_train_begin(self) -> None:
        self.model.stop_training = False
        for callback in self.callbacks:
            callback.stop = False
        for callback in self.callbacks:
            callback.on_train_begin({})

    def on_train_end(self, logs: Logs) -> None:
        for callback in self.callbacks:
            callback.on_train_end(logs)

    def on_epoch_begin(self, epoch: int) -> None:
        for callback in self.callbacks:
            callback.on_epoch_begin(epoch, {})

    def on_epoch_end(self, epoch: int, logs: Logs) -> None:
        for callback in self.callbacks:
            callback.on_epoch_end(epoch, logs)

    # -- batches: kind is "train", "test" or "predict" ----------
    def on_batch_begin(self, kind: str, batch: int) -> None:
        for callback in self._listening(f"on_{kind}_batch_begin"):
            getattr(callback, f"on_{kind}_batch_begin")(batch, {})

    def on_batch_end(self, kind: str, batch: int, read: Read, examples: int = 0) -> None:
        """read: is called where somebody listens, and once. examples: that the pass has seen, this batch
        among them."""
        listening = self._listening(f"on_{kind}_batch_end")
        for callback in listening:
            callback.examples = examples
        logs = read() if any(not callback.reads_seldom for callback in listening) else None
        for callback in listening:
            given = read if callback.reads_seldom else logs
            getattr(callback, f"on_{kind}_batch_end")(batch, given)

    def _listening(self, hook: str) -> list[Callback]:
        """Those that do something there; a batch of training has hooks of an older name, too."""
        hooks = (hook, hook.replace("_train", "")) if "_train" in hook else (hook,)
        return [c for c in self.callbacks if any(_overrides(c, name) for name in hooks)]

    # -- evaluation and prediction ----------
    def on_test_begin(self) -> None:
        for callback in self.callbacks:
            callback.on_test_begin({})

    def on_test_end(self, logs: Logs) -> None:
        for callback in self.callbacks:
            callback.on_test_end(logs)

    def on_predict_begin(self) -> None:
        for callback in self.callbacks:
            callback.on_predict_begin({})

    def on_predict_end(self) -> None:
        for callback in self.callbacks:
            callback.on_predict_end({})

    def close(self) -> None:
        for callback in self.callbacks:
            callback.close()

    # -- resuming ----------
    def kept(self) -> list[Callback]:
        """Those that are part of a run, and not of how it is shown."""
        return [callback for callback in self.callbacks if not callback.only_shows]

    def state_dict(self) -> list[dict[str, Any]]:
        return [callback.state_dict() for callback in self.kept()]

    def load_state_dict(self, states: list[dict[str, Any]]) -> None:
        for callback, state in zip(self.kept(), states, strict=True):
            callback.load_state_dict(state)


def _overrides(callback: Callback, hook: str) -> bool:
    """Whether its class, or the object itself, has a function of its own there."""
    own = getattr(callback, hook)
    return getattr(own, "__func__", own) is not getattr(Callback, hook)


def checked(callbacks: Any) -> list[Callback]:
    if callbacks is None:
        return []
    found = list(callbacks) if isinstance(callbacks, Iterable) else [callbacks]
    return [callback if isinstance(callback, Callback) else _of_keras(callback) for callback in found]


def _of_keras(callback: Any) -> Callback:
    if looks_like_kerass(callback) and not isinstance(callback, type):
        return OfKeras(callback)
    raise ConvLoomError(f"callback {callback!r:.60} is no cl.Callback; derive its class from cl.Callback")
