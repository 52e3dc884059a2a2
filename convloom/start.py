"""Where the command `convloom` starts: `--version` is answered before anything heavy is imported."""

from __future__ import annotations

import sys
from collections.abc import Sequence

from . import __version__


def main(argv: Sequence[str] | None = None) -> int:
    """The whole command line; see `cli`."""
    arguments = sys.argv[1:] if argv is None else argv
    if list(arguments) == ["--version"]:
        print(f"convloom {__version__}")
        return 0
    from .cli import main as run

    return run(arguments)
