"""What CONVLOOM_DUMP keeps of one network, planned once: a folder of texts."""

from __future__ import annotations

import itertools
import re
from pathlib import Path

from .errors import ConvLoomError
from .ir import Graph
from .settings import settings


class Dump:
    """A folder of its own for each time a network is planned, so that nothing is ever written over."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self._passed = 0

    @classmethod
    def open(cls, network: str, mode: str) -> Dump | None:
        """A new folder `<network>-<mode>` in that of CONVLOOM_DUMP, numbered where there is one; None where
        nothing is to be dumped. Raises ConvLoomError where it cannot be made."""
        if settings.dump is None:
            return None
        stem = f"{_plain(network)}-{_plain(mode)}"
        for number in itertools.count(1):
            folder = settings.dump / (stem if number == 1 else f"{stem}-{number}")
            try:
                folder.mkdir(parents=True)
            except FileExistsError:
                if folder.is_dir():
                    continue
                raise ConvLoomError(f"CONVLOOM_DUMP: {folder} is in the way") from None
            except OSError as error:
                raise ConvLoomError(f"CONVLOOM_DUMP: cannot make {folder}: {error.strerror}") from None
            break
        return cls(folder)

    def write(self, name: str, text: str) -> None:
        """Write a file of the folder; raises ConvLoomError where that is refused."""
        path = self.folder / name
        try:
            path.parent.mkdir(exist_ok=True)
            path.write_text(f"{text.rstrip()}\n", encoding="utf-8")
        except OSError as error:
            raise ConvLoomError(f"CONVLOOM_DUMP: cannot write {path}: {error.strerror}") from None

    def around_pass(self, moment: str, graph: Graph) -> None:
        """The graph at "before fold batch norm": passes/03-fold-batch-norm.before.txt."""
        when, _, name = moment.partition(" ")
        self._passed += when == "before"
        self.write(f"passes/{self._passed:02}-{_plain(name)}.{when}.txt", str(graph))


def _plain(name: str) -> str:
    """A name of letters, digits and dashes, which means nothing to a file system."""
    return re.sub(r"[^A-Za-z0-9_]+", "-", name).strip("-")[:80] or "unnamed"
