"""torch's learning rate schedulers in `fit`: when they step, and what they are told."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import torch
from torch.optim import lr_scheduler

from ..graph.errors import ConvLoomError
from .schedules import EachStep, LearningRateSchedule

EACH_STEP = (lr_scheduler.OneCycleLR, lr_scheduler.CyclicLR)
"""Those that count batches; all others count epochs."""


class Scheduler:
    """A scheduler of torch's and when it steps."""

    def __init__(self, inner: Any, each_step: bool) -> None:
        self.inner, self.each_step = inner, each_step

    def after_step(self) -> None:
        if self.each_step:
            self.inner.step()

    def after_epoch(self, logs: Mapping[str, float]) -> None:
        """logs: of the epoch; ReduceLROnPlateau looks at val_loss, or at loss where there is none."""
        if self.each_step:
            return
        if isinstance(self.inner, lr_scheduler.ReduceLROnPlateau):
            self.inner.step(logs["val_loss"] if "val_loss" in logs else logs["loss"])
        else:
            self.inner.step()

    def state_dict(self) -> dict[str, Any]:
        return dict(self.inner.state_dict())

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        self.inner.load_state_dict(dict(state))


def find_scheduler(scheduler: Any, optimizer: torch.optim.Optimizer) -> Scheduler | None:
    """What `fit(scheduler=)` means: None; a scheduler of this optimizer, or a function that makes it one.

    Raises ConvLoomError for anything else, and for an optimizer that has a schedule of its own.
    """
    each_step = isinstance(scheduler, EachStep)
    made = scheduler.scheduler if isinstance(scheduler, EachStep) else scheduler
    if made is None:
        return None
    if getattr(optimizer, "schedule", None) is not None:
        raise ConvLoomError("the optimizer's learning rate is a schedule already; leave the scheduler out")
    if not isinstance(made, LearningRateSchedule) and not _is_scheduler(made) and callable(made):
        made = made(optimizer)
    if not _is_scheduler(made):
        raise ConvLoomError(
            f"scheduler {made!r:.60} is neither one of torch.optim.lr_scheduler nor makes one of an "
            f"optimizer; a schedule of cl.schedules goes into the optimizer, as its learning_rate"
        )
    if made.optimizer is not optimizer:
        raise ConvLoomError(
            f"the scheduler {type(made).__name__} belongs to another optimizer than the one that trains; "
            f"give that optimizer too, or a function that makes the scheduler of it"
        )
    return Scheduler(made, each_step or isinstance(made, EACH_STEP))


def _is_scheduler(found: Any) -> bool:
    return isinstance(found, lr_scheduler.LRScheduler | lr_scheduler.ReduceLROnPlateau)
