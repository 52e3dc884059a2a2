"""Sums over a whole batch, and the losses of rows: one number, in two steps, and the gradients of rows.

Each program leaves its part of a sum; where there are several, a second kernel adds them up in one fixed
order.
"""

from __future__ import annotations

from collections.abc import Sequence

from ...graph.formula import Name, evaluate
from ...graph.functions import softmax
from ...graph.ir import Node
from ...graph.ops import Reduce, RowLoss, RowLossGrad, Softmax
from ...planning.forms.rows import loss_of
from ...planning.forms.sums import sums as sums_of
from ...planning.regions import Region
from ...planning.schedules import Schedule
from ..text.formulas import Values, compose, known
from ..text.jit_function import JitFunction
from ..text.names import Names
from ..text.printers import mathematics, triton_rows
from ..text.source import KernelFile, image_size
from ..text.titles import title
from ..text.writer import Writer
from .general_reduction import in_brackets
from .pointwise import FlatTile
from .row_tiles import RowTile
from .tile import Tile, rounded

BLOCK = 1024
"""Parts the second kernel adds at a time, behind a loss of rows."""

IN_PARTS = [
    "each program of the first kernel leaves its part of a sum; where there are several, one program of a",
    "second kernel adds them up, always in the same order.",
]


def emit_total(region: Region, schedule: Schedule) -> KernelFile:
    """A region of sums over a whole batch, element by element."""
    names, sums = Names(region), sums_of(region)
    source = region.graph[sums[0].inputs[0]]
    size = image_size(source)
    tile = FlatTile(names, source.type.shape)
    kept = [node for node in region.outputs if node not in sums]
    parts = _Parts(names, sums, [*region.inputs, *kept], schedule.block_m)
    constants: dict[str, object] = {"IMAGE": size, "BLOCK": schedule.block_m}
    jit = JitFunction(
        f"{region.name}_kernel",
        parts.tensors,
        ["batch"],
        constants,
        doc="Each program takes BLOCK neighbouring elements.",
        warps=schedule.warps,
    )
    tile.start(jit.body)
    tile.emit(jit.body, [node for node in region.nodes if node not in sums])
    for node in sums:
        value = tile.load(jit.body, region.graph[node.inputs[0]])
        total = f"tl.sum(tl.where(inside, {value}, 0.0), axis=0)"
        parts.leave(jit.body, node, total, "batch.to(tl.int64) * IMAGE")
    return KernelFile(
        region,
        names,
        summary=f"{title(region)}, in one number.",
        formula=parts.formula(compose),
        plan=IN_PARTS,
        constants={
            "IMAGE": (size, "elements of one image"),
            "BLOCK": (schedule.block_m, "elements a program takes"),
        },
        functions=[jit, parts.finish],
        launch=parts.launch(jit, "triton.cdiv(batch * IMAGE, BLOCK)"),
        schedule=schedule,
        sum_length=size * 64,
    )


def emit_loss(region: Region, schedule: Schedule) -> KernelFile:
    """A region of a loss of rows, the softmax beside it, what is made of each row and the sums of that."""
    names, sums = Names(region), [node for node in region.nodes if isinstance(node.op, Reduce)]
    kept = [node for node in region.outputs if node not in sums]
    rows, jit, tensors = _RowTiles.of(region, names, schedule), None, [*region.inputs, *kept]
    parts = _Parts(names, sums, tensors, BLOCK)
    jit = rows.function("Each program takes BLOCK_R rows.", parts.tensors)
    rows.emit(jit.body, [node for node in region.nodes if node not in sums])
    for node in sums:
        value = rows.narrow.load(jit.body, region.graph[node.inputs[0]])
        total = f"tl.sum(tl.sum(tl.where(row_ok, {value}, 0.0), axis=1), axis=0)"
        parts.leave(jit.body, node, total, rows.rows.rows)
    launch = parts.launch(jit, f"triton.cdiv({rows.rows.rows}, BLOCK_R)")
    return rows.file(schedule, parts, jit, launch)


def emit_loss_grad(region: Region, schedule: Schedule) -> KernelFile:
    """A region of the gradient of a loss of rows, and what the gradient of each row's number is made of."""
    names = Names(region)
    rows = _RowTiles.of(region, names, schedule)
    parts = _Parts(names, [], [*region.inputs, *region.outputs], BLOCK)
    jit = rows.function("Each program computes BLOCK_R rows.", parts.tensors)
    rows.emit(jit.body, region.nodes)
    return rows.file(schedule, parts, jit, parts.launch(jit, f"triton.cdiv({rows.rows.rows}, BLOCK_R)"))


class _Narrow(Tile):
    """One number for each row of the tile."""

    def offset_in_a_run(self, writer: Writer) -> str:
        return self.pixel


class _RowTiles:
    """A tile of whole rows, and beside it one of a number for each row."""

    def __init__(self, region: Region, names: Names, schedule: Schedule, wide: Node) -> None:
        self.region, self.names, self.rows = region, names, RowTile(names, wide, schedule)
        self.tile = self.rows.tile()
        self.narrow = _Narrow(
            names, (*wide.type.shape[:-1], 1), column_ok="", note="[BLOCK_R, 1]", values=self.tile.values
        )

    @classmethod
    def of(cls, region: Region, names: Names, schedule: Schedule) -> _RowTiles:
        loss = loss_of(region)
        assert loss is not None
        return cls(region, names, schedule, region.graph[loss.inputs[0]])

    def function(self, doc: str, tensors: Sequence[tuple[str, str]]) -> JitFunction:
        return self.rows.function(f"{self.region.name}_kernel", doc, list(tensors))

    def emit(self, body: Writer, nodes: Sequence[Node]) -> None:
        fresh = self.names.fresh
        for node in nodes:
            if not isinstance(node.op, RowLoss | RowLossGrad | Softmax):
                self.narrow.emit(body, [node])
                continue
            tile = self.narrow if isinstance(node.op, RowLoss) else self.tile
            loaded = [self.tile.load(body, self.region.graph[name]) for name in node.inputs]
            tree = softmax(Name("x")) if isinstance(node.op, Softmax) else node.op.of_operands()
            named = {key: Name(text) for key, text in zip(("x", "t", "dy"), loaded, strict=False)}
            value = self.names.value(node)
            text = triton_rows(evaluate(tree, named), body, fresh, self.rows.column_ok)
            body.line(f"{value} = {text}", tile.note)
            tile.values[node.name] = value
            tile.store_if_output(body, node)

    def file(self, schedule: Schedule, parts: _Parts, jit: JitFunction, launch: Writer) -> KernelFile:
        constants = self.rows.constants()
        if parts.sums:
            constants["BLOCK"] = (BLOCK, "parts added at a time")
        return KernelFile(
            self.region,
            self.names,
            summary=f"{title(self.region)}, of whole rows.",
            formula=parts.formula(_compose_rows),
            plan=self.rows.plan() + (IN_PARTS if parts.sums else []),
            constants=constants,
            functions=[jit, *([parts.finish] if parts.sums else [])],
            launch=launch,
            schedule=schedule,
            sum_length=image_size(self.rows.node) * 64 if parts.sums else self.rows.node.type.channels,
        )


def _compose_rows(names: Names, nodes: Sequence[Node], values: Values) -> list[str]:
    """Equations in which a loss of rows is written out."""
    lines = []
    for node in nodes:
        if not isinstance(node.op, RowLoss | RowLossGrad | Softmax):
            lines += compose(names, [node], values)
            continue
        role = names.role.get(node.name, names.value(node))
        operands = [known(names, values, name) for name in node.inputs]
        given = dict(zip(("x", "t", "dy"), operands, strict=False))
        if isinstance(node.op, RowLossGrad):
            text = f"{mathematics(given['dy'])} * d/dx {node.op.loss.words()} of {mathematics(given['x'])}"
        else:
            tree = softmax(Name("x")) if isinstance(node.op, Softmax) else node.op.of_operands()
            text = mathematics(evaluate(tree, given))
        lines.append(f"{role} = {text}")
        values[node.name] = Name(role)
    return lines


class _Parts:
    """Sums over a whole batch, in the parts that programs leave of them."""

    def __init__(self, names: Names, sums: Sequence[Node], others: Sequence[Node], block: int) -> None:
        self.names, self.sums, self.others, self.block = names, sums, others, block
        self.part = {n.name: "part" if i == 0 else f"part{i + 1}" for i, n in enumerate(sums)}

    @property
    def tensors(self) -> list[tuple[str, str]]:
        """What the first kernel takes."""
        taken = [(self.names.pointer(n), n.type.dtype) for n in self.others]
        return taken + [(f"{part}_ptr", "float32") for part in self.part.values()]

    def leave(self, body: Writer, node: Node, total: str, count: str) -> None:
        """Lines that store a program's part. count: text of what a mean divides by."""
        part, mean = self.part[node.name], isinstance(node.op, Reduce) and node.op.mean
        text = f"{total} / {in_brackets(count)}" if mean else total
        body.line(f"{part} = {text}", "of the mean" if mean else "of the sum")
        body.line(f"tl.store({part}_ptr + tl.program_id(0), {part})")

    @property
    def finish(self) -> JitFunction:
        roles = {node.name: self.names.role[node.name] for node in self.sums}
        tensors = [(f"{part}_ptr", "float32") for part in self.part.values()]
        tensors += [(f"{roles[node.name]}_ptr", node.type.dtype) for node in self.sums]
        doc = "One program adds up the parts of the others."
        name = f"{self.names.region.name}_finish"
        jit = JitFunction(name, tensors, ["programs"], {"BLOCK": self.block}, doc=doc)
        body = jit.body
        body.line("lane = tl.arange(0, BLOCK)", "[BLOCK]")
        added = {n.name: "sums" if i == 0 else f"sums{i + 1}" for i, n in enumerate(self.sums)}
        for value in added.values():
            body.line(f"{value} = tl.zeros([BLOCK], tl.float32)")
        body.line("first = 0")
        with body.block("while first < programs:"):
            body.line("inside = first + lane < programs", "[BLOCK]")
            for name, value in added.items():
                part = f"{self.part[name]}_ptr + first + lane"
                body.line(f"{value} += tl.load({part}, mask=inside, other=0.0)", "[BLOCK]")
            body.line("first += BLOCK")
        for node in self.sums:
            role = roles[node.name]
            body.line(f"{role} = tl.sum({added[node.name]}, axis=0)", "one number")
            body.line(f"tl.store({role}_ptr, {rounded(role, node)})")
        return jit

    def launch(self, jit: JitFunction, programs: str) -> Writer:
        """Lines of the launch. programs: text of how many there are of the first kernel."""
        launch, role = Writer(), self.names.role
        others = [role[node.name] for node in self.others]
        first = next(role[node.name] for node in self.others if node.type.batched)
        launch.line(f"batch = {first}.shape[0]")
        if not self.sums:
            launch.line(jit.call(f"({programs},)", others))
            return launch
        parts, results = list(self.part.values()), [role[node.name] for node in self.sums]
        launch.line(f"programs = {programs}")
        for i, (part, result) in enumerate(zip(parts, results, strict=True)):
            launch.line(f"{part} = {result}", "" if i else "where there is one program, its part is all")
        with launch.block("if programs > 1:"):
            for part in parts:
                launch.line(f"{part} = torch.empty(programs, dtype=torch.float32, device={first}.device)")
        launch.line(jit.call("(programs,)", [*others, *parts]))
        with launch.block("if programs > 1:"):
            launch.line(self.finish.call("(1,)", [*parts, *results]))
        return launch

    def formula(self, equations: object) -> list[str]:
        values: Values = {}
        before = [node for node in self.names.region.nodes if node not in self.sums]
        lines: list[str] = equations(self.names, before, values)  # type: ignore[operator]
        for node in self.sums:
            word = "mean" if isinstance(node.op, Reduce) and node.op.mean else "sum"
            value = mathematics(known(self.names, values, node.inputs[0]))
            lines.append(f"{self.names.role[node.name]} = {word} over the batch of {value}")
        return lines
