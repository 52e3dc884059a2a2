"""The one place that reads the environment.

`CONVLOOM_DEBUG=1..5` prints to stderr what happens inside; each level says all that the lower ones say:

    1  passes     what each pass matched, and what it refused and why
    2  kernels    each kernel: the layers it came from, its FLOPs and bytes
    3  sources    the emitted source of each kernel
    4  schedules  tile sizes, warps and stages: which were considered, which was taken
    5  launches   each launch, with the shapes of its tensors

From level 1 on, the command line shows the whole traceback of an error instead of its one line.

`CONVLOOM_DUMP=folder` writes the graph before and after every pass, the kernels and their resources there.
`CONVLOOM_CACHE=folder` is where measurements are kept; by default `~/.cache/convloom`.
`CONVLOOM_KEEP_MEMORY=0` gives memory back to the system after each operator of a network on a CPU; by default
the process keeps what the next call needs, until `convloom.release_memory()`.
"""

from __future__ import annotations

import os
import sys
from functools import cached_property
from pathlib import Path

from .errors import ConvLoomError

PASSES, KERNELS, SOURCES, SCHEDULES, LAUNCHES = range(1, 6)
"""The levels of CONVLOOM_DEBUG."""


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
        text = os.environ.get("CONVLOOM_KEEP_MEMORY", "").strip() or "1"
        if text not in ("0", "1"):
            raise ConvLoomError(f"CONVLOOM_KEEP_MEMORY is {text!r}; it takes 1 (keep, the default) or 0")
        return text == "1"

    def reset(self) -> None:
        """Forget what was read or assigned, so that the environment is read anew."""
        self.__dict__.clear()

    def say(self, level: int, text: str) -> None:
        """Print to stderr where the debug level is at least `level`."""
        if self.debug >= level:
            print(text, file=sys.stderr)

    def write(self, name: str, text: str) -> Path | None:
        """Write `text` to the file `name` in the dump folder; None where there is no dump.

        Raises ConvLoomError where the folder cannot be written.
        """
        if self.dump is None:
            return None
        path = self.dump / name
        try:
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_text(text, encoding="utf-8")
        except OSError as error:
            raise ConvLoomError(f"CONVLOOM_DUMP: cannot write {path}: {error.strerror}") from None
        return path


settings = Settings()
