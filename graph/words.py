"""Messages in the words of who asked: a call in Python, or the command line, which sets `AT_THE_SHELL`."""

from __future__ import annotations

from contextvars import ContextVar

AT_THE_SHELL: ContextVar[bool] = ContextVar("at the shell", default=False)
"""Whether what runs now was asked for on the command line, where no argument of a function can be given."""


def words(python: str, shell: str = "") -> str:
    """A part of a message: what to write in Python, or which option of the command line does the same.

    shell: nothing where the command line has no such way.
    """
    return shell if AT_THE_SHELL.get() else python
