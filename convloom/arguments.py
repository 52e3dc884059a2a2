"""How the command line reads its words: errors on one line and in ours, numbers within their bounds."""

from __future__ import annotations

import argparse
import re
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, NoReturn

from .graph.errors import ConvLoomError, nearest, unknown
from .runtime.checks import number, whole


class Parser(argparse.ArgumentParser):
    """Raises ConvLoomError where argparse would print its usage and leave."""

    def error(self, message: str) -> NoReturn:
        message = message.removeprefix("argument ")
        if found := re.fullmatch(r"unrecognized arguments: (.*)", message):
            word = found[1].split()[0]
            message = f"{self.prog} takes no {word!r}{nearest(word, self._options())}"
        elif found := re.fullmatch(r"the following arguments are required: (.*)", message):
            message = f"{self.prog} also needs {found[1]}"
        raise ConvLoomError(f"{message}; see {self.prog} --help")

    def parse_known_args(self, args: Any = None, namespace: Any = None) -> Any:
        """As argparse has it; but what a command does not know, the command says, which knows its options."""
        found, rest = super().parse_known_args(args, namespace)
        if rest:
            self.error(f"unrecognized arguments: {' '.join(rest)}")
        return found, rest

    def _options(self) -> list[str]:
        return [name for action in self._actions for name in action.option_strings if name.startswith("--")]


def choice(option: str, known: Sequence[str]) -> Callable[[str], str]:
    """The type of an option that takes one of these names."""

    def read(text: str) -> str:
        if text not in known:
            raise ConvLoomError(unknown(option, text, known))
        return text

    return read


def integer(option: str, least: int, most: int | None = None) -> Callable[[str], int]:
    """The type of an option that takes a whole number within bounds."""

    def read(text: str) -> int:
        if not re.fullmatch(r"\s*[+-]?\d{1,30}\s*", text):
            raise ConvLoomError(
                f"{option} is {text!r:.60}; it must be a whole number"
                + (f", at least {least}" if abs(least) < 2**62 else "")
            )
        return whole(int(text), option, least, most)

    return read


def real(option: str, **bounds: float) -> Callable[[str], float]:
    """The type of an option that takes a finite number, or a fraction such as 1/255, within bounds."""

    def read(text: str) -> float:
        above, _, below = text.partition("/")
        try:
            value = float(above) / float(below or 1)
        except (ValueError, ZeroDivisionError):
            raise ConvLoomError(f"{option} is {text!r:.60}; it must be a number") from None
        return number(value, option, **bounds)

    return read


def tolerance(text: str) -> float:
    """A number from 0 on, or infinity."""
    return float("inf") if text.strip().lower() in ("inf", "infinity") else real("--tolerance", least=0)(text)


def output(option: str, what: str, endings: Sequence[str]) -> Callable[[str], Path]:
    """The type of an option that names a file to write, which must have one of these endings."""

    def read(text: str) -> Path:
        path = Path(text)
        if not path.name.endswith(tuple(endings)):
            *some, last = endings
            listed = f"{', '.join(some)} or {last}" if some else last
            raise ConvLoomError(f"{option}: {what} as {listed}, not as {path.name!r}")
        if not path.parent.is_dir():
            raise ConvLoomError(f"{option}: cannot write {path}: there is no folder {path.parent}")
        return path

    return read


def report(text: str) -> Path:
    """The type of --html: a page, unless the ending says .json or .txt."""
    path = Path(text)
    read = output("--html", "a report is saved", (".html", ".json", ".txt"))
    return read(str(path if path.suffix else path.with_suffix(".html")))


def input_shape(given: Sequence[str] | None) -> Any:
    """--input-shape, once or several times: one shape, or shapes by name; None where it was not given."""
    if not given:
        return None
    named = {}
    for text in given:
        name, _, sizes = text.rpartition("=")
        parts = sizes.replace("x", ",").split(",")
        if not all(part.strip().isdecimal() and len(part) < 12 for part in parts):
            raise ConvLoomError(
                f"--input-shape takes sizes such as 224,224,3, or NAME=224,224,3, got {text!r:.80}"
            )
        named[name] = tuple(map(int, parts))
    if "" not in named:
        return named
    if len(given) > 1:
        raise ConvLoomError("--input-shape is given several times; say which input each is: NAME=224,224,3")
    return named[""]
