"""What compiling kernels shows of itself in a terminal: a bar, and nothing anywhere else."""

from __future__ import annotations

import sys
from typing import Any

from ..graph.settings import settings


class CompileBar:
    """A bar on stderr from the first word of something to compile on; it is gone when all is compiled."""

    def __init__(self, network: str) -> None:
        self.network = network
        self._progress: Any = None

    def __enter__(self) -> CompileBar:
        return self

    def __exit__(self, *error: object) -> None:
        if self._progress is not None:
            self._progress.stop()

    def told(self, done: int, of: int) -> None:
        """How many are compiled, of how many."""
        if self._progress is None and settings.progress and sys.stderr.isatty():
            self._progress = _bar(self.network, of)
            self._progress.start()
        if self._progress is not None:
            self._progress.update(self._progress.task_ids[0], completed=done)


def _bar(network: str, of: int) -> Any:
    from rich.console import Console
    from rich.markup import escape
    from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn

    label = TextColumn(f"compiling {escape(network)}")
    columns = (label, BarColumn(bar_width=24), MofNCompleteColumn(), TimeElapsedColumn())
    bar = Progress(*columns, console=Console(stderr=True), transient=True)
    bar.add_task("", total=of)
    return bar
