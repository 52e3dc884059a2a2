"""The one place that reads the environment.

`CONVLOOM_DEBUG=1..5` prints to stderr what happens inside; each level says all that the lower ones say:

    1  passes     what each pass and fusion matched, and what they refused and why
    2  kernels    each kernel: the layers it came from, its FLOPs and bytes
    3  sources    the emitted source of each kernel, whichever backend runs the network
    4  schedules  tile sizes, warps and stages: which were considered, which was taken
    5  launches   each call of a kernel, or of an operator of PyTorch's, with the shapes of its tensors

From level 1 on, the command line shows the whole traceback of an error instead of its one line.

`CONVLOOM_DUMP=folder` keeps there what becomes of each network, in a folder for each time one is planned,
`lenet5-inference` or `lenet5-training-with-gradients-2`, so that nothing is written over:

    passes/03-fold-batch-norm.before.txt, .after.txt    the graph before and after each pass
    explain.txt                                         what was rewritten and fused, what not, and why
    program.txt, program.json                           the steps, in the order they run
    kernels/                                            each kernel, a file that runs by itself
    resources.txt                                       registers, spills, shared memory, occupancy of each,
                                                        compiled for the network's target in another process
                                                        beside this one, which waits for it at its end

`CONVLOOM_CACHE=folder` is where measurements are kept; by default `~/.cache/convloom`.
`CONVLOOM_KEEP_MEMORY=0` gives memory back to the system after each operator of a network on a CPU; by default
the process keeps what the next call needs, until `convloom.release_memory()`.
`CONVLOOM_JOBS=n` is how many processes compile kernels before a network's first call on a GPU of each class
of batches; by default one a core, at most 16. With 1 no other is started: each kernel is compiled at its
first launch.
`CONVLOOM_PROGRESS=0` hides the bar that they show where stderr is a terminal.
"""

from __future__ import annotations

import os
import sys
from collections.abc import Callable
from functools import cached_property
from pathlib import Path

from .errors import ConvLoomError

PASSES, KERNELS, SOURCES, SCHEDULES, LAUNCHES = range(1, 6)
"""The levels of CONVLOOM_DEBUG."""

MOST_JOBS = 16
"""Processes that compile, unless CONVLOOM_JOBS says otherwise: each takes half a gigabyte."""


class Settings:
    """The settings of this process: each read from the environment when first asked for, or assigned."""

    @cached_property
    def debug(self) -> int:
        """The debug level, 0 (quiet) to 5; raises ConvLoomError where CONVLOOM_DEBUG is no such number."""
        text = os.environ.get("CONVLOOM_DEBUG", "").strip() or "0"
        if text not in ("0", "1", "2", "3", "4", "5"):
            raise ConvLoomError(
                f"CONVLOOM_DEBUG is {text!r}; it takes 0 (quiet), 1 (passes), 2 (kernels), 3 (sources), "
                f"4 (schedules) or 5 (launches)"
            )
        return int(text)

    @cached_property
    def dump(self) -> Path | None:
        """Folder for the dump, or None where there is to be none."""
        text = os.environ.get("CONVLOOM_DUMP", "").strip()
        return Path(text).expanduser() if text else None

    @cached_property
    def cache(self) -> Path:
        """Folder where measurements are kept; it may not exist yet."""
        text = os.environ.get("CONVLOOM_CACHE", "").strip()
        if text:
            return Path(text).expanduser()
        home = os.environ.get("XDG_CACHE_HOME", "").strip()
        return Path(home or "~/.cache").expanduser() / "convloom"

    @cached_property
    def keep_memory(self) -> bool:
        """Whether freed memory is kept for the next call; raises ConvLoomError unless told 0 or 1."""
        return self._switch("CONVLOOM_KEEP_MEMORY", "1 (keep, the default) or 0")

    @cached_property
    def jobs(self) -> int:
        """Processes that compile kernels before they are launched; raises ConvLoomError unless a number."""
        text = os.environ.get("CONVLOOM_JOBS", "").strip()
        if not text:
            return min(len(os.sched_getaffinity(0)), MOST_JOBS)
        if not text.isdecimal() or int(text) < 1:
            raise ConvLoomError(f"CONVLOOM_JOBS is {text!r}; it takes a number of processes, 1 or more")
        return int(text)

    @cached_property
    def progress(self) -> bool:
        """Whether compiling shows a bar in a terminal; raises ConvLoomError unless told 0 or 1."""
        return self._switch("CONVLOOM_PROGRESS", "1 (show, the default) or 0")

    def _switch(self, name: str, takes: str) -> bool:
        text = os.environ.get(name, "").strip() or "1"
        if text not in ("0", "1"):
            raise ConvLoomError(f"{name} is {text!r}; it takes {takes}")
        return text == "1"

    def reset(self) -> None:
        """Forget what was read or assigned, so that the environment is read anew."""
        self.__dict__.clear()

    def say(self, level: int, text: str | Callable[[], str]) -> None:
        """Print to stderr where the debug level is at least `level`. text: or what makes it, where asked."""
        if self.debug >= level:
            print(text if isinstance(text, str) else text(), file=sys.stderr)

    @property
    def wants_sources(self) -> bool:
        """Whether the kernels of a network are to be seen, also where they do not run."""
        return self.debug >= SOURCES or self.dump is not None


settings = Settings()
