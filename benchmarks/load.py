"""How much of the machine others use, from what Linux counts of processor time."""

from __future__ import annotations

import os
import time
from dataclasses import dataclass
from pathlib import Path

TICKS = os.sysconf("SC_CLK_TCK")
CORES = os.cpu_count() or 1


@dataclass(frozen=True)
class Moment:
    """Seconds: on the clock, of processor time by all, and by one process with its threads."""

    clock: float
    busy: float
    own: float

    @classmethod
    def now(cls, process: int | None = None) -> Moment:
        # user nice system idle iowait irq softirq steal
        counted = [int(x) for x in Path("/proc/stat").read_text().split("\n", 1)[0].split()[1:9]]
        busy = sum(counted) - counted[3] - counted[4]
        own = 0
        if process:
            fields = Path(f"/proc/{process}/stat").read_text().rpartition(")")[2].split()
            own = int(fields[11]) + int(fields[12])
        return cls(time.perf_counter(), busy / TICKS, own / TICKS)

    def foreign(self, since: Moment) -> float:
        """The part of the machine that others have used since then, from 0 to 1."""
        used = (self.busy - since.busy) - (self.own - since.own)
        return max(0.0, used / ((self.clock - since.clock) * CORES))


def wait_until_idle(seconds: float, over: float = 0.1, share: float = 0.1) -> None:
    """Return when others have used less than this share for a moment, at the latest after `seconds`."""
    end = time.perf_counter() + seconds
    while time.perf_counter() < end:
        before = Moment.now()
        time.sleep(over)
        if Moment.now().foreign(before) < share:
            return
