"""Ctrl-C and SIGTERM end a training run after the step that is under way; a second one ends it at once."""

from __future__ import annotations

import contextlib
import os
import signal
import sys
import threading
from types import FrameType
from typing import Any

SIGNALS = (signal.SIGINT, signal.SIGTERM)


class Interrupts:
    """Inside `with`, the first signal only sets `name`; what handled signals before is put back afterwards.

    name: of the signal that has come, "" for none. In a thread that is not the main one, which Python lets
    handle no signals, and for a signal that the program ignores, all stays as it is.
    """

    def __init__(self, told: bool = True) -> None:
        self.name = ""
        self.told = told
        self._before: dict[signal.Signals, Any] = {}

    def __enter__(self) -> Interrupts:
        if threading.current_thread() is threading.main_thread():
            for number in SIGNALS:
                before = signal.getsignal(number)
                if before not in (signal.SIG_IGN, None):  # None: handled outside Python
                    self._before[number] = signal.signal(number, self._handle)
        return self

    def __exit__(self, *error: object) -> None:
        self._put_back()

    def _put_back(self) -> None:
        for number, handler in self._before.items():
            signal.signal(number, handler)
        self._before.clear()

    def _handle(self, number: int, frame: FrameType | None) -> None:
        if self.name:  # the second one: as if nobody had waited for the first
            self._put_back()
            os.kill(os.getpid(), number)
            return
        self.name = signal.Signals(number).name
        if self.told:  # os.write: a signal may come in the middle of a print
            with contextlib.suppress(OSError, ValueError):
                how = (
                    "Ctrl-C again ends it at once" if number == signal.SIGINT else "once more ends it at once"
                )
                text = f"\n{self.name}: training ends after this step; {how}\n"
                os.write(sys.stderr.fileno(), text.encode())
