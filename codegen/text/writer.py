"""Writing Python that a person likes to read: short lines, and comments in one column."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

WIDTH = 100
"""Longest line of an emitted file."""

_SHORT = 24
"""Comments up to this length, such as shapes, stay behind their statement; longer ones may go above it."""

_INDENT = "    "
_OPEN, _CLOSE = "([{", ")]}"
_OPERATORS = (" + ", " - ", " | ", " & ", " * ", " // ", " / ")


class Uses:
    """Names that a text may use, each noted when it is asked for: `uses.BLOCK_M`, `uses["BLOCK_M"]`.

    What a kernel takes for arguments, and which helpers stand above it, follows from these notes.
    """

    def __init__(self) -> None:
        self._noted: dict[str, None] = {}

    def __getitem__(self, name: str) -> str:
        self._noted[name] = None
        return name

    def note(self, *names: str) -> None:
        self._noted.update(dict.fromkeys(names))

    def __getattr__(self, name: str) -> str:
        if name.startswith("_"):
            raise AttributeError(name)
        return self[name]

    def __contains__(self, name: str) -> bool:
        return name in self._noted

    def __iter__(self) -> Iterator[str]:
        return iter(self._noted)


@dataclass(frozen=True)
class _Line:
    depth: int
    code: str
    comment: str


class Writer:
    """Collects lines: `writer.line(code, comment)` adds one, `with writer.block("for ..."):` indents.

    uses: the constants, run-time numbers and helpers that the lines name.
    """

    def __init__(self, depth: int = 0) -> None:
        self.uses = Uses()
        self._lines: list[_Line] = []
        self._depth = depth

    def line(self, code: str = "", comment: str = "") -> None:
        """One statement, or an empty line. The comment is written without its '#'."""
        self._lines.append(_Line(self._depth, code, comment))

    def lines(self, *codes: str) -> None:
        for code in codes:
            self.line(code)

    def note(self, comment: str) -> None:
        """A comment on lines of its own, filled to the width."""
        room = WIDTH - len(_INDENT) * self._depth - 2
        for part in fill(comment, room):
            self._lines.append(_Line(self._depth, f"# {part}", ""))

    @contextlib.contextmanager
    def block(self, head: str, comment: str = "") -> Iterator[None]:
        """`head` (with its colon) and an indented block under it."""
        self.line(head, comment)
        self._depth += 1
        try:
            yield
        finally:
            self._depth -= 1

    def extend(self, other: Writer) -> None:
        """Append another writer's lines at this depth."""
        self._lines += [_Line(line.depth + self._depth, line.code, line.comment) for line in other._lines]
        self.uses.note(*other.uses)

    @property
    def text(self) -> str:
        """All lines; comments of neighbouring lines stand in one column."""
        out: list[str] = []
        run: list[tuple[str, str]] = []
        for line in self._lines:
            codes, comment = _placed(line)
            if len(codes) == 1 and comment:
                run.append((codes[0], comment))
                continue
            out += _aligned(run)
            run = []
            out += [*codes[:-1], f"{codes[-1]}  # {comment}" if comment else codes[-1]]
        return "\n".join(out + _aligned(run)) + "\n" if self._lines else ""


def fill(text: str, width: int) -> list[str]:
    """Text cut into lines of at most `width` characters, between words where there is a space."""
    lines: list[str] = []
    for word in text.split():
        while len(word) > width:
            lines.append(word[:width])
            word = word[width:]
        if lines and len(lines[-1]) + 1 + len(word) <= width:
            lines[-1] += " " + word
        else:
            lines.append(word)
    return lines or [""]


def tuple_text(items: Sequence[object]) -> str:
    """A tuple as Python writes it, from texts or numbers."""
    inner = ", ".join(map(str, items))
    return f"({inner},)" if len(items) == 1 else f"({inner})"


def number(value: float) -> str:
    """A Python float as source text that is always a float."""
    value = float(value)
    if value != value or value in (float("inf"), float("-inf")):
        return f'float("{value}")'
    return repr(value)


def _aligned(run: list[tuple[str, str]]) -> list[str]:
    """Lines of (code, comment) with all comments in one column, or where a line is long, close behind it."""
    longest = max((len(comment) for _, comment in run), default=0)
    column = min(max((len(code) for code, _ in run), default=0), WIDTH - 4 - longest)
    return [f"{code:<{column}}  # {comment}" for code, comment in run]


def _placed(line: _Line) -> tuple[list[str], str]:
    """A statement broken so that its comment fits behind it; a long comment goes above it."""
    if not line.code:
        return [""], ""
    pad = _INDENT * line.depth
    room = WIDTH - len(line.comment) - 4
    if not line.comment or len(pad) + len(line.code) <= room:
        return wrap(line.code, line.depth), line.comment
    if len(line.comment) <= _SHORT:
        return wrap(line.code, line.depth, room), line.comment
    return [f"{pad}# {line.comment}", *wrap(line.code, line.depth)], ""


def wrap(code: str, depth: int = 0, width: int = WIDTH) -> list[str]:
    """One statement as lines of at most `width` characters, broken inside brackets or before an operator."""
    pad = _INDENT * depth
    if len(pad) + len(code) <= width or code.startswith("#"):
        return [pad + code]
    span = _widest_brackets(code)
    if span is not None:
        start, stop = span
        parts = _split(code[start + 1 : stop], ",")
        if len(parts) > 1:
            body = _packed([part.strip() + "," for part in parts], depth + 1, width)
            return [pad + code[: start + 1], *body, pad + code[stop:]]
    name, equals, value = code.partition(" = ")
    if equals and "(" not in name:
        terms = _terms(value)
        if len(terms) > 1:
            return [pad + name + " = (", *_packed(terms, depth + 1, width), pad + ")"]
    if span is not None:
        inner = wrap(code[span[0] + 1 : span[1]], depth + 1, width)
        return [pad + code[: span[0] + 1], *inner, pad + code[span[1] :]]
    return [pad + code]


def _packed(parts: list[str], depth: int, width: int) -> list[str]:
    """Parts filled into lines; a part that is too long by itself is wrapped."""
    pad, lines = _INDENT * depth, [""]
    for part in parts:
        if lines[-1] and len(pad) + len(lines[-1]) + 1 + len(part) > width:
            lines.append("")
        lines[-1] = f"{lines[-1]} {part}".strip()
    return [text for line in lines for text in wrap(line, depth, width)]


def _widest_brackets(code: str) -> tuple[int, int] | None:
    """The top-level pair of brackets with most between them: (open, close)."""
    depth, start = 0, 0
    found: tuple[int, int] | None = None
    for index, char in enumerate(code):
        if char in _OPEN:
            start = index if depth == 0 else start
            depth += 1
        elif char in _CLOSE:
            depth -= 1
            if depth == 0 and (found is None or index - start > found[1] - found[0]):
                found = (start, index)
    return found


def _split(text: str, separator: str) -> list[str]:
    """Split at separators outside all brackets."""
    parts, depth, last = [], 0, 0
    for index, char in enumerate(text):
        if char in _OPEN:
            depth += 1
        elif char in _CLOSE:
            depth -= 1
        elif depth == 0 and text.startswith(separator, index):
            parts.append(text[last:index])
            last = index + len(separator)
    parts.append(text[last:])
    return [part for part in parts if part.strip()]


def _terms(value: str) -> list[str]:
    """An expression cut before its loosest operators."""
    for operator in _OPERATORS:
        parts = _split(value, operator)
        if len(parts) > 1:
            return [parts[0], *(operator.strip() + " " + part for part in parts[1:])]
    return [value]
