"""A formula as text: in Triton for kernels, in PyTorch for references, as mathematics for headers.

Brackets stand where they change the meaning, and nowhere else.
"""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Callable

from ...graph.errors import CompileError
from ...graph.formula import (
    COMPARISONS,
    Binary,
    Call,
    Choice,
    Conversion,
    Formula,
    Name,
    Negative,
    Number,
    formula,
    parts_of,
)
from ...graph.functions import exp, log, one_hot, row_max, row_sum
from ...graph.slopes import is_narrow
from ...graph.types import DTYPES
from .helpers import HELPERS
from .writer import Uses, Writer, number

_TIGHT = 9
"""How tightly a name or a call holds together; below it, Python's own order of operators."""

_BINDS = {"*": 7, "/": 7, "+": 6, "-": 6, "&": 5, "^": 4, "|": 3, **dict.fromkeys(COMPARISONS, 2)}
_SIGN = 8

_IN_TRITON = {name: f"tl.{name}" for name in ("exp", "log", "sqrt", "abs", "floor")} | {"erf": "tl.math.erf"}
"""The functions that Triton has, as graph/functions.py names them."""


class _Python:
    """What the two languages share, which are Python both."""

    def text(self, tree: Formula, least: int = 0) -> str:
        """least: how tightly the text must hold together, or be put in brackets."""
        text, binds = self._parts(tree)
        return text if binds >= least else f"({text})"

    def _parts(self, tree: Formula) -> tuple[str, int]:
        match tree:
            case Name(text):
                return text, _TIGHT
            case Number(value):
                return self.number(value), _SIGN if value < 0 else _TIGHT
            case Negative(of):
                return f"-{self.text(of, _SIGN)}", _SIGN
            case Binary(symbol, left, right):
                binds = _BINDS[symbol]
                first = binds + 1 if symbol in COMPARISONS else binds
                return f"{self.text(left, first)} {symbol} {self.text(right, binds + 1)}", binds
            case Choice():
                return self.choice(tree), _TIGHT
            case Conversion(of, dtype):
                return self.conversion(of, dtype)
            case Call():
                return self.call(tree)
        raise CompileError(f"{tree!r} is no formula")

    def number(self, value: float) -> str:
        return repr(value) if isinstance(value, int) else number(value)

    def arguments(self, tree: Call) -> str:
        return ", ".join(map(self.text, tree.arguments))

    def defined(self, tree: Call) -> tuple[str, int]:
        """A call as what its function is defined to be."""
        function = tree.function
        if function.definition is None:
            raise CompileError(
                f"no kernel computes {function.name}; give its row in graph/functions.py a definition, "
                f"or add it to codegen/text/helpers.py"
            )
        return self._parts(formula(function.definition(*tree.arguments)))

    def choice(self, tree: Choice) -> str:
        raise NotImplementedError

    def conversion(self, of: Formula, dtype: str) -> tuple[str, int]:
        raise NotImplementedError

    def call(self, tree: Call) -> tuple[str, int]:
        raise NotImplementedError


class _Triton(_Python):
    """uses: takes a note of the helpers that the text calls."""

    def __init__(self, uses: Uses) -> None:
        self.uses = uses

    def choice(self, tree: Choice) -> str:
        return f"tl.where({', '.join(map(self.text, (tree.condition, tree.x1, tree.x2)))})"

    def conversion(self, of: Formula, dtype: str) -> tuple[str, int]:
        """What a floating-point number rounds to is rounded where it is stored."""
        if dtype == "bool":
            return self._parts(of != 0)
        wide = "float32" if DTYPES[dtype].is_floating_point else dtype
        return f"{self.text(of, _TIGHT)}.to(tl.{wide})", _TIGHT

    def call(self, tree: Call) -> tuple[str, int]:
        name = tree.function.name
        if name in HELPERS:
            return f"{self.uses[name]}({self.arguments(tree)})", _TIGHT
        if name in _IN_TRITON:
            return f"{_IN_TRITON[name]}({self.arguments(tree)})", _TIGHT
        return self.defined(tree)


class _TritonRows(_Triton):
    """On a tile of whole rows: what a row shares, and what is read more than once, gets a line of its own.

    writer: for those lines. names: of new values. column_ok: mask of the columns that exist, "" for all.
    """

    def __init__(self, writer: Writer, fresh: Callable[[str], str], column_ok: str) -> None:
        super().__init__(writer.uses)
        self.writer, self.fresh, self.column_ok = writer, fresh, column_ok
        self.lines: dict[str, str] = {}
        self.known: dict[int, tuple[Formula, str]] = {}
        self.readers: Counter[int] = Counter()

    def count(self, tree: Formula) -> None:
        """Note how many read each part of the tree."""
        for part in parts_of(tree):
            self.readers[id(part)] += 1
            if self.readers[id(part)] == 1:
                self.count(part)

    def _parts(self, tree: Formula) -> tuple[str, int]:
        if self.readers[id(tree)] < 2 or isinstance(tree, Name | Number):
            return super()._parts(tree)
        if id(tree) not in self.known:  # the tree is kept, and with it its id
            self.known[id(tree)] = tree, self.term(tree, super()._parts(tree)[0])
        return self.known[id(tree)][1], _TIGHT

    def term(self, tree: Formula, text: str) -> str:
        """The name of the value of a part of the tree."""
        return text if text.isidentifier() else self.line(text, "term", is_narrow(tree))

    def line(self, text: str, stem: str, narrow: bool) -> str:
        """The name of a value; one text is written once."""
        if text not in self.lines:
            self.lines[text] = self.fresh(stem)
            self.writer.line(f"{self.lines[text]} = {text}", "[BLOCK_R, 1]" if narrow else TILE_OF_ROWS)
        return self.lines[text]

    def call(self, tree: Call) -> tuple[str, int]:
        name, (x, *_) = tree.function.name, tree.arguments
        if name == "row_sum":
            return self.line(f"tl.sum({self.masked(x, '0.0')}, axis=1)[:, None]", "total", True), _TIGHT
        if name == "row_max":
            least = 'float("-inf")'
            return self.line(f"tl.max({self.masked(x, least)}, axis=1)[:, None]", "largest", True), _TIGHT
        if name in ("softmax", "log_softmax"):
            shifted = Name(self.line(self.text(x - row_max(x)), "shifted", False))
            powers = Name(self.line(self.text(exp(shifted)), "powers", False))
            total = row_sum(powers)
            return self._parts(powers / total if name == "softmax" else shifted - log(total))
        if name == "one_hot":
            return f"tl.where(column == {self.text(x, 3)}, 1.0, 0.0)", _TIGHT
        if name in HELPERS or name in _IN_TRITON:
            return super().call(tree)
        given = [x if isinstance(x, Number) else self.term(x, self.text(x)) for x in tree.arguments]
        names = [
            Name(of, narrow=is_narrow(x)) if isinstance(of, str) else of
            for of, x in zip(given, tree.arguments, strict=True)
        ]
        return self.defined(Call(tree.function, tuple(names)))

    def masked(self, x: Formula, other: str) -> str:
        return f"tl.where({self.column_ok}, {self.text(x)}, {other})" if self.column_ok else self.text(x)


TILE_OF_ROWS = "[BLOCK_R, BLOCK_C]"


class _Torch(_Python):
    def choice(self, tree: Choice) -> str:
        text = f"torch.where({', '.join(map(self.text, (tree.condition, tree.x1, tree.x2)))})"
        return text if tree.like is None else f"{text}.to({self.text(tree.like, _TIGHT)}.dtype)"

    def conversion(self, of: Formula, dtype: str) -> tuple[str, int]:
        """Floating-point numbers stay in float64."""
        to = "double()" if DTYPES[dtype].is_floating_point else f"to(torch.{dtype})"
        return f"{self.text(of, _TIGHT)}.{to}", _TIGHT

    def call(self, tree: Call) -> tuple[str, int]:
        if tree.function is one_hot:
            number, x = (self.text(argument, _TIGHT) for argument in tree.arguments)
            return f"(torch.arange({x}.shape[-1], device={x}.device) == {number})", _TIGHT
        if not tree.function.torch:
            return self.defined(tree)
        options = "".join(
            f", {name}={json.dumps(value) if isinstance(value, str) else value}"
            for name, value in tree.function.options
        )
        return f"{tree.function.torch}({self.arguments(tree)}{options})", _TIGHT


_WORDS = {"&": "and", "|": "or", "^": "xor"}


class _Mathematics(_Python):
    """Sums and products need no brackets about their likes, and a square is written as one."""

    def _parts(self, tree: Formula) -> tuple[str, int]:
        match tree:
            case Name(text, loose=True):
                return text, 1
            case Binary("+", left, Number(value)) if value < 0:
                return self._parts(left - -value)
            case Binary("*", left, right) if self.text(left) == self.text(right):
                return f"{self.text(left, _TIGHT)}^2", _TIGHT
            case Binary("+" | "*" as symbol, left, right):
                binds = _BINDS[symbol]
                return f"{self.text(left, binds)} {symbol} {self.text(right, binds)}", binds
            case Binary(symbol) if symbol in (*COMPARISONS, *_WORDS):
                return f"({self.condition(tree)})", _TIGHT
            case Call(function) if function.name == "rsqrt":
                return self.defined(tree)
            case Call(function) if function.name == "not":
                return f"(not {self.arguments(tree)})", _TIGHT
        return super()._parts(tree)

    def condition(self, tree: Formula) -> str:
        """Without the brackets that a truth value has among numbers."""
        if not isinstance(tree, Binary):
            return self.text(tree)
        symbol = _WORDS.get(tree.symbol, tree.symbol)
        return f"{self.text(tree.left)} {symbol} {self.text(tree.right)}"

    def number(self, value: float) -> str:
        return f"{value:g}"

    def choice(self, tree: Choice) -> str:
        return f"({self.text(tree.x1)} where {self.condition(tree.condition)}, else {self.text(tree.x2)})"

    def conversion(self, of: Formula, dtype: str) -> tuple[str, int]:
        return self._parts(of)

    def call(self, tree: Call) -> tuple[str, int]:
        return f"{tree.function.name}({self.arguments(tree)})", _TIGHT


def triton(tree: Formula, uses: Uses) -> str:
    """For a kernel, in float32. Raises CompileError for a function that no kernel computes."""
    return _Triton(uses).text(tree)


def triton_rows(tree: Formula, writer: Writer, fresh: Callable[[str], str], column_ok: str) -> str:
    """For a tile of whole rows: writes the lines that stand before, and returns the text of the value."""
    printer = _TritonRows(writer, fresh, column_ok)
    printer.count(tree)
    return printer.text(tree)


def in_torch(tree: Formula) -> str:
    """For a reference, in float64."""
    return _Torch().text(tree)


def mathematics(tree: Formula) -> str:
    return _Mathematics().text(tree)
