"""Rows that are too long to be normalised as a whole: in steps, whose sums are kernels of their own."""

from __future__ import annotations

from ..op import Op
from ..ops import Add, Constant, Multiply, Normalize, Reduce, RowNorm, Square, Subtract
from ..rewrite import Match, Rule, pattern

LONGEST = 16384
"""Numbers of a row, of a map's group of channels say, up to which one program holds it."""


def _refusal(m: Match) -> str | None:
    size = m["x"].type.channels
    return f"rows of {size} are no longer than {LONGEST}" if size <= LONGEST else None


def _in_steps(m: Match) -> str:
    norm, x, op = m["norm"], m["x"].name, m.op("norm", RowNorm)
    over = Reduce((norm.type.rank - 1,), mean=True, keepdims=True)

    def add(made: Op, *inputs: str, role: str) -> str:
        return m.graph.add(made, inputs, f"{norm.name}/{role}", norm.layer, norm.phase)

    if op.centred:
        mean = add(over, x, role="mean")
        centred = add(Subtract(), x, mean, role="centred")
    else:
        mean, centred = add(Constant((1,), 0.0), role="zero"), x
    power = add(over, add(Square(), centred, role="squared"), role="variance")
    last: tuple[Op, tuple[str, ...]] = Normalize(op.epsilon), (x, mean, power)
    for step, vector in ((Multiply(), "gamma"), (Add(), "beta")):
        if vector in m:
            made = add(last[0], *last[1], role=last[0].op_name())
            last = step, (made, m[vector].name)
    return m.add(*last, like=norm)


LONG_ROWS: tuple[Rule, ...] = (
    Rule(
        "row_norm(x) of long rows -> normalize(x, mean(x), mean((x - mean)^2)) * gamma + beta",
        pattern("norm", RowNorm, "x", "gamma?", "beta?"),
        _in_steps,
        _refusal,
    ),
)
