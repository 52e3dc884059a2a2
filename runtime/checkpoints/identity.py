"""What a run is: by this a checkpoint of another one is told from one that can be gone on from."""

from __future__ import annotations

import hashlib
from collections.abc import Iterator, Mapping
from dataclasses import fields, is_dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch

from ...graph.errors import ConvLoomError
from ...graph.words import words

if TYPE_CHECKING:
    from ..schedulers import Scheduler
    from ..training import Training

SHOWN = 4
"""Differences that an error tells."""

_OF_ITS_COURSE = frozenset(["params", "steps", "initial_lr", "epsilon"])
"""Of an optimizer's group: what it writes there itself."""

_OF_A_COURSE = frozenset(["best", "num_bad_epochs", "cooldown_counter", "last_epoch", "T_cur", "T_i"])
"""Of a scheduler's state, beside what begins with an underscore."""


def identity(training: Training, said: Mapping[str, Any]) -> dict[str, Any]:
    """What a run that is to be gone on from must agree in, taken before its first step.

    said: by whoever called for it: batch size, seed, losses and their like, as numbers and text.
    """
    stepper, optimizer = training.stepper, training.stepper.optimizer
    return {
        "layers": [_graph(network.source) for network in training.stepper.networks],
        "weights": {name: _kind(value) for name, value in training.net.state_dict().items()},
        "optimizer": type(optimizer).__name__,
        "optimizer's group": {
            str(place): {k: _plain(v) for k, v in group.items() if k not in _OF_ITS_COURSE}
            for place, group in enumerate(optimizer.param_groups)
        },
        "schedule": _plain(getattr(optimizer, "schedule", None)),
        "scheduler": None if stepper.scheduler is None else _scheduler(stepper.scheduler),
        "trained weights": [name for name, p in training.net.named_parameters() if p.requires_grad],
        "metrics": list(training.metrics.directions),
        "data": training.data.source.form,
        "batches an epoch": training.data.size,
        "callbacks": [type(callback).__name__ for callback in training.callbacks if _is_kept(callback)],
        **{name: _plain(value) for name, value in said.items()},
    }


def _scheduler(scheduler: Scheduler) -> dict[str, Any]:
    """What a scheduler of torch's was made with: its state but for what it writes there itself."""
    state = scheduler.state_dict().items()
    own = {key: _plain(value) for key, value in state if key not in _OF_A_COURSE and key[0] != "_"}
    return {"kind": type(scheduler.inner).__name__, "each step": scheduler.each_step, **own}


def _graph(source: Any) -> str:
    """A digest of the network before any pass."""
    return hashlib.sha256(str(source).encode()).hexdigest()[:16]


def _kind(value: torch.Tensor) -> str:
    return f"{str(value.dtype).removeprefix('torch.')}{list(value.shape)}"


def _plain(value: Any) -> Any:
    """A value as JSON would give it back."""
    if is_dataclass(value) and not isinstance(value, type):
        own = {field.name: _plain(getattr(value, field.name)) for field in fields(value)}
        return {"kind": type(value).__name__, **own}
    if value is None or isinstance(value, bool | int | float | str):
        return value
    if isinstance(value, torch.Tensor):
        return value.tolist()
    if isinstance(value, list | tuple):
        return [_plain(part) for part in value]
    if isinstance(value, Mapping):
        return {str(key): _plain(part) for key, part in value.items()}
    return getattr(value, "__name__", None) or type(value).__name__


def check_same(now: Mapping[str, Any], then: Any, path: Path) -> None:
    """Raise ConvLoomError where a checkpoint is of another run, with what differs and what to do."""
    found = list(_differences("", now, then))
    if not found:
        return
    more = f", and {len(found) - SHOWN} more" if len(found) > SHOWN else ""
    other = words("another folder as checkpoint=", "another folder to --checkpoint")
    raise ConvLoomError(
        f"checkpoint {path} is of another run: {'; '.join(found[:SHOWN])}{more}. Ask for what it was trained "
        f"with to go on from it, or give {other} to begin anew"
    )


def _differences(name: str, now: Any, then: Any) -> Iterator[str]:
    if isinstance(now, Mapping) and isinstance(then, Mapping):
        for key in dict.fromkeys([*now, *then]):
            within = f"{name} {key}" if name else key
            if key not in now or key not in then:
                yield f"{within} is only {'here' if key in now else 'in the checkpoint'}"
            else:
                yield from _differences(within, now[key], then[key])
    elif now != then:
        if name == "layers":
            yield "the network has other layers"
        else:
            yield f"{name} is {_shown(now)} here and {_shown(then)} there"


def _shown(value: Any) -> str:
    return "not set" if value is None else f"{value!r:.60}"


def _is_kept(callback: Any) -> bool:
    """Whether a callback is part of a run, and not of how it is looked at."""
    return not callback.only_shows
