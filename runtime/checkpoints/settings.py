"""Where a run keeps its checkpoints, and how often."""

from __future__ import annotations

import os
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from ...graph.errors import ConvLoomError
from ..checks import number, whole


@dataclass(frozen=True)
class Checkpoints:
    """Where `fit` keeps a run, and goes on from by itself: `fit(..., checkpoint=cl.Checkpoints("run/"))`.

    One is written every `epochs` epochs, every `steps` steps and every `minutes` minutes, whichever comes
    first (None: not by that), and always when the run ends or is told to end. keep: how many stay, of which
    the newest is gone on from; at least 2 outlive a disk that lost one.
    Raises ConvLoomError for what is no folder's name and for numbers out of range.
    """

    folder: str | os.PathLike[str]
    epochs: int | None = 1
    steps: int | None = None
    minutes: float | None = 10.0
    keep: int = 2

    def __post_init__(self) -> None:
        if not isinstance(self.folder, str | os.PathLike) or not os.fspath(self.folder):
            raise ConvLoomError(f"checkpoint is {self.folder!r:.60}; give the name of a folder")
        for name in ("epochs", "steps"):
            if getattr(self, name) is not None:
                whole(getattr(self, name), f"Checkpoints: {name}", 1)
        if self.minutes is not None:
            number(self.minutes, "Checkpoints: minutes", least=0)
        whole(self.keep, "Checkpoints: keep", 1)

    @property
    def path(self) -> Path:
        return Path(self.folder)


def find_checkpoints(checkpoint: Any) -> Checkpoints | None:
    """What `fit(checkpoint=)` means: nothing, a folder's name, or how often too."""
    if checkpoint is None or isinstance(checkpoint, Checkpoints):
        return checkpoint
    return Checkpoints(checkpoint)
