"""One writer a folder: a lock of the system's, which goes with the process that holds it, however it ends."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from ...graph.errors import ConvLoomError

LOCK = ".lock"


@contextmanager
def locked(folder: Path) -> Iterator[None]:
    """Hold the folder. Raises ConvLoomError where another run holds it.

    A system without such locks, or a file system without them, goes unlocked.
    """
    try:
        import fcntl
    except ImportError:  # no POSIX system
        yield
        return
    try:
        stream = (folder / LOCK).open("w")
    except OSError as error:
        raise ConvLoomError(f"cannot write a checkpoint to {folder}: {error.strerror or error}") from None
    with stream:
        try:
            fcntl.flock(stream, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            raise ConvLoomError(
                f"another training run writes its checkpoints to {folder}; wait for it, or "
                f"name another folder"
            ) from None
        except OSError:
            pass
        try:
            yield
        finally:
            with suppress(OSError):
                (folder / LOCK).unlink()
