"""The result of `profile`: its findings as a table, a page and JSON."""

from __future__ import annotations

import io
import json
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any

from rich.console import Console
from rich.markup import escape

from ..graph.errors import ConvLoomError
from .findings import Findings
from .report_page import page
from .report_table import comparison, resource_table

TABLE_WIDTH = 116


class Report(Findings):
    """The result of `profile`. print() it, or save() it as .html or .json."""

    def save(self, path: str | Path) -> Path:
        """Write the report: .html is one page that needs nothing else, .json is `to_dict`, .txt is the table.

        Raises ConvLoomError for another ending, or where the file cannot be written.
        """
        path = Path(path)
        writers: dict[str, Callable[[], str]] = {
            ".html": self.to_html,
            ".json": lambda: json.dumps(self.to_dict(), indent=1) + "\n",
            ".txt": lambda: f"{self}\n",
        }
        if path.suffix.lower() not in writers:
            raise ConvLoomError(
                f"a report is saved as {', '.join(writers)}, not as {path.suffix or path.name!r}"
            )
        text = writers[path.suffix.lower()]()
        try:
            path.write_text(text, encoding="utf-8")
        except OSError as error:
            raise ConvLoomError(f"cannot write the report to {path}: {error.strerror}") from None
        return path

    def to_html(self) -> str:
        """One HTML page with everything in it."""
        return page(self)

    def __str__(self) -> str:
        console = Console(file=io.StringIO(), width=TABLE_WIDTH, highlight=False, color_system=None)
        self._print(console)
        assert isinstance(console.file, io.StringIO)
        return "\n".join(line.rstrip() for line in console.file.getvalue().rstrip().splitlines())

    def __rich_console__(self, console: Console, options: Any) -> Iterable[Any]:
        yield from self._parts()

    def _print(self, console: Console) -> None:
        for part in self._parts():
            console.print(part)

    def _parts(self) -> Iterable[Any]:
        yield comparison(self)
        if self.resources:
            yield resource_table(self)
        for note in self.notes():
            yield escape(note)
