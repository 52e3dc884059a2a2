"""A callback that was written for Keras, in a run of ours."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from .callback import Callback


class OfKeras(Callback):
    """Hands every hook on. `self.model` of that callback is what was asked to train."""

    def __init__(self, callback: Any) -> None:
        self.callback = callback
        self.handles_nan = type(callback).__name__ == "TerminateOnNaN"
        for name in _OF_BATCHES:  # nobody waits for the device for hooks that do nothing
            older = name.replace("_train", "")
            if all(getattr(getattr(callback, hook, None), "_is_default", False) for hook in (name, older)):
                setattr(self, name, getattr(Callback, name))

    def set_params(self, params: Mapping[str, Any]) -> None:
        super().set_params(params)
        self.callback.set_params(dict(params))

    def set_model(self, model: Any) -> None:
        super().set_model(model)
        self.callback.set_model(model)


def looks_like_kerass(callback: Any) -> bool:
    return all(callable(getattr(callback, name, None)) for name in ("set_params", "set_model", *HOOKS))


def _handed_on(name: str) -> Any:
    def hook(self: OfKeras, *given: Any) -> None:
        getattr(self.callback, name)(*given)

    return hook


_OLDER = ("on_batch_begin", "on_batch_end")
HOOKS = [name for name in vars(Callback) if name.startswith("on_") and name not in _OLDER]
_OF_BATCHES = [name for name in HOOKS if "batch" in name]
for _name in HOOKS:
    setattr(OfKeras, _name, _handed_on(_name))
