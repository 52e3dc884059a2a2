"""Losses of pairs, and their gradients: a program holds some examples and walks all others, tile by tile.

No matrix of all pairs reaches memory. Of each example two sums of powers are kept, those of its like and of
its unlike, beside the largest exponent so far. The gradient computes them first, since it needs those of both
examples of a pair.
"""

from __future__ import annotations

from ...graph.ops import CircleLoss, CircleLossGrad
from ...planning.regions import Region
from ...planning.schedules import Schedule
from ..text.jit_function import JitFunction
from ..text.names import Names
from ..text.source import KernelFile
from ..text.titles import title
from ..text.writer import Writer, number
from .tile import rounded

ROW, OTHER, PAIRS, WIDE = "[BLOCK_M, 1]", "[1, BLOCK_N]", "[BLOCK_M, BLOCK_N]", "[BLOCK_M, BLOCK_C]"


def emit_pairs(region: Region, schedule: Schedule) -> KernelFile:
    """A region of one loss of pairs, or its gradient."""
    names, node = Names(region), region.anchor
    op = node.op.loss if isinstance(node.op, CircleLossGrad) else node.op
    assert isinstance(op, CircleLoss)
    x, labels, *_ = (region.graph[name] for name in node.inputs)
    constants: dict[str, tuple[object, str]] = {
        "C": (x.type.channels, "features of an embedding"),
        "BLOCK_M": (schedule.block_m, "examples of a program"),
        "BLOCK_N": (schedule.block_n, "others at a time"),
        "BLOCK_C": (schedule.block_k, "features of a tile, all of them"),
    }
    at_compile_time = {name: value for name, (value, _) in constants.items()}
    roles, result = [names.role[n.name] for n in region.inputs], names.role[node.name]
    launch, functions, grid = Writer(), [], "(triton.cdiv(batch, BLOCK_M),)"
    launch.line(f"batch = {names.role[x.name]}.shape[0]")
    operands = [(names.pointer(n), n.type.dtype) for n in (x, labels)]

    def function(stem: str, tensors: list[tuple[str, str]], doc: str) -> JitFunction:
        functions.append(
            JitFunction(
                f"{region.name}_{stem}", tensors, ["batch"], at_compile_time, doc=doc, warps=schedule.warps
            )
        )
        return functions[-1]

    pairs = _Pairs(names, op, x.name, labels.name)
    if isinstance(node.op, CircleLoss):
        jit = function("kernel", [*operands, (names.pointer(node), node.type.dtype)], "Of BLOCK_M examples.")
        pairs.sums(jit.body)
        value = f"tl.where(both, {jit.body.uses.softplus}(like_log + unlike_log), 0.0)"
        jit.body.line(f"{result} = {value}", ROW)
        jit.body.line(f"tl.store({result}_ptr + row, {rounded(result, node)}, mask=row_ok)")
        launch.line(jit.call(grid, [*roles, result]))
    else:
        dy = region.graph[node.inputs[2]]
        kept = [(f"{name}_ptr", "float32") for name in KEPT]
        taken = [*operands, (names.pointer(dy), dy.type.dtype), *kept]
        first = function("sums", taken, "Of BLOCK_M examples.")
        pairs.sums(first.body)
        pairs.keep(first.body, names.role[dy.name])
        jit = function(
            "kernel", [*operands, *kept, (names.pointer(node), node.type.dtype)], "Of BLOCK_M examples."
        )
        pairs.slopes(jit.body, result, rounded(result, node))
        for name in KEPT:
            launch.line(f"{name} = torch.empty(batch, dtype=torch.float32, device={roles[0]}.device)")
        launch.line(first.call(grid, [*(names.role[n.name] for n in (x, labels, dy)), *KEPT]))
        launch.line(jit.call(grid, [*(names.role[n.name] for n in (x, labels)), *KEPT, result]))
    return KernelFile(
        region,
        names,
        summary=f"{title(region)}.",
        formula=_formula(op, names.role[x.name], names.role[labels.name], result),
        plan=[
            f"each program holds {schedule.block_m} examples and walks all others, {schedule.block_n} at a "
            f"time, so that no matrix of all pairs reaches memory."
        ],
        constants=constants,
        functions=functions,
        launch=launch,
        schedule=schedule,
        sum_length=int(4096 * (1 + op.gamma) ** 2),  # gamma times what rounding changes is in the exponents
    )


KEPT = ("like_logs", "unlike_logs", "shares")


def _formula(op: CircleLoss, x: str, labels: str, result: str) -> list[str]:
    g, m = f"{op.gamma:g}", f"{op.margin:g}"
    others = ", j != i" if op.alone else ""
    return [
        f"d[i,j] = max(1 - sum over c of {x}[i,c] * {x}[j,c], 0)",
        f"like[i] = log of the sum of exp(-{g} * max({m} + d[i,j], 0) * ({m} - d[i,j])) over j with "
        f"{labels}[j] = {labels}[i]{others}",
        f"unlike[i] = log of the sum of exp({g} * max(1 + {m} - d[i,j], 0) * (1 - {m} - d[i,j])) over those "
        f"of other labels",
        "loss[i] = log(1 + exp(like[i] + unlike[i]))",
        f"{result} is the loss or its gradient",
    ]


class _Pairs:
    """The lines that kernels of pairs share."""

    def __init__(self, names: Names, op: CircleLoss, x: str, labels: str) -> None:
        self.op, self.x, self.labels = op, names.role[x], names.role[labels]

    def start(self, body: Writer) -> None:
        body.line("row = tl.program_id(0) * BLOCK_M + tl.arange(0, BLOCK_M)[:, None]", ROW)
        body.line("row_ok = row < batch", ROW)
        body.line("c = tl.arange(0, BLOCK_C)[None, :]", "[1, BLOCK_C]")
        mine = f"{self.x}_ptr + row.to(tl.int64) * C + c"
        body.line(f"mine = tl.load({mine}, mask=row_ok & (c < C), other=0.0).to(tl.float32)", WIDE)
        body.line(f"label = tl.load({self.labels}_ptr + row, mask=row_ok, other=0)", ROW)

    def tile(self, body: Writer) -> None:
        """The pairs with the examples from `first` on: their distance, exponents, and which are which."""
        op = self.op
        gamma, margin = number(op.gamma), number(op.margin)
        body.line("other = first + tl.arange(0, BLOCK_N)", "[BLOCK_N]")
        body.line("other_ok = other < batch", "[BLOCK_N]")
        theirs = f"{self.x}_ptr + other[:, None].to(tl.int64) * C + c"
        mask = "other_ok[:, None] & (c < C)"
        body.line(f"theirs = tl.load({theirs}, mask={mask}, other=0.0).to(tl.float32)", "[BLOCK_N, BLOCK_C]")
        body.line(f"their_label = tl.load({self.labels}_ptr + other, mask=other_ok, other=0)[None, :]", OTHER)
        body.line('near = tl.dot(mine, tl.trans(theirs), input_precision="ieee")', PAIRS)
        body.line("d = tl.where(near > 1.0, 0.0, 1.0 - near)", PAIRS)
        body.line("there = row_ok & other_ok[None, :]", PAIRS)
        alone = " & (row != other[None, :])" if op.alone else ""
        body.line(f"like = there & (label == their_label){alone}", PAIRS)
        body.line("unlike = there & (label != their_label)", PAIRS)
        body.line(f"reach = {margin} + d", PAIRS)
        body.line(f"a = -{gamma} * tl.where(reach < 0, 0.0, reach) * ({margin} - d)", PAIRS)
        body.line('a = tl.where(like, a, float("-inf"))', PAIRS)
        body.line(f"rest = {number(1 + op.margin)} - d", PAIRS)
        body.line(f"b = {gamma} * tl.where(rest < 0, 0.0, rest) * ({number(1 - op.margin)} - d)", PAIRS)
        body.line('b = tl.where(unlike, b, float("-inf"))', PAIRS)

    def sums(self, body: Writer) -> None:
        """Lines for the logarithms of both sums of powers, and whether there are both."""
        self.start(body)
        kinds = (("like", "a"), ("unlike", "b"))
        for kind, _ in kinds:
            body.line(f'{kind}_most = tl.full((BLOCK_M, 1), float("-inf"), tl.float32)')
            body.line(f"{kind}_sum = tl.zeros((BLOCK_M, 1), tl.float32)")
        with body.block("for first in range(0, batch, BLOCK_N):"):
            self.tile(body)
            for kind, power in kinds:
                body.line(f"most = tl.maximum({kind}_most, tl.max({power}, axis=1)[:, None])", ROW)
                body.line('origin = tl.where(most == float("-inf"), 0.0, most)', ROW)
                body.line(f"powers = tl.exp({power} - origin)", PAIRS)
                before = f"{kind}_sum * tl.exp({kind}_most - origin)"
                body.line(f"{kind}_sum = {before} + tl.sum(powers, axis=1)[:, None]", ROW)
                body.line(f"{kind}_most = most")
        body.line("both = (like_sum != 0) & (unlike_sum != 0)", "NaN too, which is to be seen")
        for kind, _ in kinds:
            body.line(f"{kind}_log = tl.where({kind}_sum != 0, {kind}_most + tl.log({kind}_sum), 0.0)", ROW)

    def keep(self, body: Writer, dy: str) -> None:
        body.line(f"{dy} = tl.load({dy}_ptr + row, mask=row_ok, other=0.0).to(tl.float32)", ROW)
        share = f"tl.where(both, {dy} * {body.uses.sigmoid}(like_log + unlike_log), 0.0)"
        for name, value in zip(KEPT, ("like_log", "unlike_log", share), strict=True):
            body.line(f"tl.store({name}_ptr + row, {value}, mask=row_ok)")

    def slopes(self, body: Writer, result: str, stored: str) -> None:
        """With w[i,j] the derivative of row i's loss by the product, the sum of (w[i,j] + w[j,i]) * x[j]."""
        self.start(body)
        for name in KEPT:
            body.line(f"{name[:-1]} = tl.load({name}_ptr + row, mask=row_ok, other=0.0)", ROW)
        body.line(f"{result} = tl.zeros((BLOCK_M, BLOCK_C), tl.float32)")
        gamma = number(2 * self.op.gamma)
        with body.block("for first in range(0, batch, BLOCK_N):"):
            self.tile(body)
            for name in KEPT:
                there = f"tl.load({name}_ptr + other, mask=other_ok, other=0.0)[None, :]"
                body.line(f"their_{name[:-1]} = {there}", OTHER)
            for kind, power in (("like", "a"), ("unlike", "b")):
                mine = f"share * tl.exp({power} - {kind}_log)"
                theirs = f"their_share * tl.exp({power} - their_{kind}_log)"
                body.line(f"{kind}_shares = {mine} + {theirs}", PAIRS)
            body.line(f"slopes = like_shares * tl.where(reach > 0, {gamma} * d, 0.0)", PAIRS)
            body.line(f"slopes -= unlike_shares * tl.where(rest > 0, {gamma} * (1.0 - d), 0.0)", PAIRS)
            body.line("slopes *= tl.where(near < 1.0, -1.0, tl.where(near == 1.0, -0.5, 0.0))", PAIRS)
            body.line(f'{result} += tl.dot(slopes, theirs, input_precision="ieee")', WIDE)
        at = f"{result}_ptr + row.to(tl.int64) * C + c"
        body.line(f"tl.store({at}, {stored}, mask=row_ok & (c < C))")
