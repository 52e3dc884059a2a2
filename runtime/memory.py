"""Freed memory that the process keeps for the next call, where PyTorch's operators run a network on a CPU.

Each operator takes fresh memory for its result. Large pieces the C library asks of the system and gives back
as soon as they are freed, and the system clears every page anew at each call: 0.4 of the time of MobileNetV2
at 32 images. So before a network runs, the C library is told to serve pieces as large as its largest value
from the heap, and to leave twice as much free memory on top of it as the network's values take at their most.

Both are limits of the whole process, other code's memory included, and so they are raised only as far as a
network needs, never beyond a quarter of the machine's memory, and lowered again by `release_memory`. Only
glibc has them.
"""

from __future__ import annotations

import ctypes
import os
from functools import cache
from typing import Any

from ..graph.settings import settings
from ..planning.program import Program

M_TRIM_THRESHOLD, M_MMAP_THRESHOLD = -1, -3  # of malloc.h
MMAP_AT, TRIM_AT = 32 << 20, 64 << 20
"""What glibc itself raises its two limits to, at most, as large pieces are freed."""
LARGEST = (1 << 31) - 1
"""mallopt takes an int."""
SPARE = 2
"""Times what the values take at one time: pieces lie between them, and once the limit is passed glibc gives
back all. With 1.25 one call in four took fresh memory."""
PIECE = 4096
"""Bytes that the C library asks for over those of the value."""
WORTH = 8 << 20
"""Bytes to keep below which glibc keeps them by itself."""


class Keeper:
    """The C library's two limits, and how far they have been raised."""

    def __init__(self) -> None:
        self.mmap_at = self.trim_at = 0

    def keep(self, largest: int, together: int) -> None:
        """From now on keep memory for values of which the largest takes `largest` bytes and all that are
        needed at one time `together`; what is kept already stays so."""
        if together <= self.trim_at and largest <= self.mmap_at:
            return
        if together < WORTH or not settings.keep_memory or why_not():
            return
        self._set(max(self.mmap_at, MMAP_AT, largest), max(self.trim_at, TRIM_AT, together))

    def release(self) -> None:
        """Lower the limits again to the most that glibc comes to by itself."""
        if self.trim_at:
            self._set(MMAP_AT, TRIM_AT)
            self.mmap_at = self.trim_at = 0

    def _set(self, mmap_at: int, trim_at: int) -> None:
        most = min(LARGEST, _memory() // 4)
        library = _library()
        if not library.mallopt(M_MMAP_THRESHOLD, min(mmap_at, most)):  # glibc before 2.35 goes no further
            library.mallopt(M_MMAP_THRESHOLD, MMAP_AT)
        library.mallopt(M_TRIM_THRESHOLD, min(trim_at, most))
        self.mmap_at, self.trim_at = mmap_at, trim_at


keeper = Keeper()


def release_memory() -> int:
    """Give freed memory back to the system; the number of bytes by which the process became smaller.

    The next call of a network keeps memory again: with CONVLOOM_KEEP_MEMORY=0 none does. Weights and what is
    prepared of them stay. Without glibc it does nothing. On a GPU, `torch.cuda.empty_cache()` is its like.
    """
    if why_not():
        return 0
    before = _resident()
    keeper.release()
    _library().malloc_trim(0)
    return max(0, before - _resident())


@cache
def why_not() -> str:
    """Why freed memory cannot be kept here, or ""."""
    library = _library()
    if not all(hasattr(library, name) for name in ("gnu_get_libc_version", "mallopt", "malloc_trim")):
        return "this C library has no mallopt"
    return "" if _serves() else "malloc is not the C library's own"


def status() -> str:
    """Whether freed memory is kept, in words."""
    if reason := why_not():
        return f"no: {reason}"
    return "yes" if settings.keep_memory else "no: CONVLOOM_KEEP_MEMORY=0"


def needs(program: Program, batch: int) -> tuple[int, int]:
    """Bytes that a program's largest value asks for, and that are to be kept for those needed at one time."""
    memory = program.memory_apart
    largest = max((buffer.nbytes(batch) for buffer in memory.buffers), default=0)
    return largest + PIECE, max(memory.live(batch), default=0) * SPARE


# -- the C library ----------
@cache
def _library() -> Any:
    """The process's own symbols, the C library's among them; None where there is no such thing."""
    try:
        return ctypes.CDLL(None)
    except (OSError, TypeError):  # Windows has no handle of this kind
        return None


@cache
def _serves() -> bool:
    """Whether malloc is the C library's: another allocator may stand in front of it."""
    try:
        own = ctypes.CDLL("libc.so.6")
    except OSError:
        return False
    addresses = [ctypes.cast(library.malloc, ctypes.c_void_p).value for library in (_library(), own)]
    return addresses[0] == addresses[1]


@cache
def _memory() -> int:
    """Bytes of the machine's memory, or of what a container may take of it."""
    machine = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")
    try:
        with open("/sys/fs/cgroup/memory.max", encoding="ascii") as file:
            return min(machine, int(file.read()))
    except (OSError, ValueError):  # no such limit, or "max"
        return machine


def _resident() -> int:
    """Bytes of the process that lie in memory; 0 where the system does not tell."""
    try:
        with open("/proc/self/statm", encoding="ascii") as file:
            return int(file.read().split()[1]) * os.sysconf("SC_PAGE_SIZE")
    except OSError:
        return 0
