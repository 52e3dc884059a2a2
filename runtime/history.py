"""What training reported."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

import torch


@dataclass
class History:
    """What training reported. epoch: the epochs that ran, from 0. history: name -> one value an epoch.

    The names are Keras's: loss, accuracy, val_loss, val_accuracy. seconds: of each epoch with its validation.
    net: the network that was trained, in eval() mode: `history.net(x)` predicts. interrupted: the signal that
    ended the run, "" where none did.
    """

    epoch: list[int] = field(default_factory=list)
    history: dict[str, list[float]] = field(default_factory=dict)
    seconds: list[float] = field(default_factory=list)
    net: torch.nn.Module | None = field(default=None, repr=False, compare=False)
    interrupted: str = ""

    def add(self, epoch: int, logs: Mapping[str, float], seconds: float) -> None:
        self.epoch.append(epoch)
        self.seconds.append(seconds)
        for name, value in logs.items():
            self.history.setdefault(name, []).append(value)

    def state_dict(self) -> dict[str, Any]:
        history = {name: list(values) for name, values in self.history.items()}
        return {"epoch": list(self.epoch), "history": history, "seconds": list(self.seconds)}

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        self.epoch, self.seconds = list(state["epoch"]), list(state["seconds"])
        self.history = {name: list(values) for name, values in state["history"].items()}
