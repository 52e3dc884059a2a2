"""Rows normalised by their own statistics, and the gradient: a program holds whole rows in its registers.

Mean and variance are taken one after the other from the registers, so that a mean far beyond the deviation
costs no precision. Where sums over all rows stand beside, the gradients of gamma and beta, a program goes
through its part of the rows and leaves its sums; a second kernel adds the parts in one fixed order.
"""

from __future__ import annotations

from dataclasses import dataclass

from ...graph.formula import Name
from ...graph.ir import Node
from ...graph.ops import RowNorm, RowNormGrad
from ...planning.forms.row_norms import NORMS, normalized_of, row_split, row_sums
from ...planning.geometry import broadcast_kind
from ...planning.regions import Region
from ...planning.schedules import Schedule
from ..text.formulas import Values, compose, known
from ..text.jit_function import JitFunction
from ..text.names import Names
from ..text.printers import mathematics
from ..text.source import KernelFile
from ..text.titles import title
from ..text.writer import Writer, number
from .moments import Total
from .parts import emit_add_parts, parts_told
from .row_tiles import RowTile
from .tile import Tile, masked

NOTE, ROW = "[BLOCK_R, BLOCK_C]", "[BLOCK_R, 1]"


def emit_row_norm(region: Region, schedule: Schedule) -> KernelFile:
    """A region of one norm, or its gradient, and pointwise members."""
    made = _RowNorm(region, schedule)
    rows, names, operands = made.rows, made.names, [*region.inputs, *region.outputs]
    jit = rows.function(
        f"{region.name}_kernel",
        "Each program holds BLOCK_R whole rows.",
        [(names.pointer(node), node.type.dtype) for node in operands],
    )
    made.members(jit.body, rows.tile())
    launch = Writer()
    launch.line(f"batch = {names.role[operands[-1].name]}.shape[0]")
    launch.line(jit.call(f"(triton.cdiv({rows.rows}, BLOCK_R),)", [names.role[n.name] for n in operands]))
    return KernelFile(
        region,
        names,
        summary=f"{title(region)}, row by row.",
        formula=made.formula(),
        plan=rows.plan(),
        constants=rows.constants(),
        functions=[jit],
        launch=launch,
        schedule=schedule,
        sum_length=made.channels,
    )


def emit_row_norm_gradient(region: Region, schedule: Schedule) -> KernelFile:
    """A region of a norm's gradient and sums over all rows."""
    made = _RowNorm(region, schedule)
    rows, split = made.rows, row_split(region, schedule)
    functions = [made.part(), made.finish()]
    constants = rows.constants() | {
        "CHANNELS": (made.channels, "sums side by side"),
        "CHUNK": (schedule.chunk, "rows of a part at least"),
        "MOST_SPLITS": (split.most, "parts, enough to fill the GPU"),
        "TOGETHER": (split.together, "parts that the second kernel adds at a time"),
        "BESIDE": (split.beside, "sums of a program of it"),
    }
    return KernelFile(
        region,
        made.names,
        summary=f"{title(region)}, row by row.",
        formula=made.formula(),
        plan=[
            *rows.plan(),
            f"A program goes through a part of the rows, {schedule.block_m} at a time, and leaves its sums; "
            f"a second kernel adds the parts, {split.most} at most, always in the same order.",
        ],
        constants=constants,
        functions=functions,
        launch=made.launch(*functions),
        schedule=schedule,
        sum_length=max(made.channels, 16 * rows.rows_per_image),
        parts=parts_told(split, made.channels * len(made.sums)),
    )


@dataclass
class _Rows:
    """The values of a normalised row as the kernel has them: names of tiles."""

    normalized: str
    rstd: str


class _RowNorm:
    """A region's members on tiles of whole rows."""

    def __init__(self, region: Region, schedule: Schedule) -> None:
        self.region, self.schedule = region, schedule
        self.names = Names(region)
        self.rows = RowTile(self.names, region.anchor, schedule)
        self.channels = region.anchor.type.channels
        self.sums = row_sums(region)
        self.totals = {
            node.name: Total(node, str(place) if place > 1 else "") for place, node in enumerate(self.sums, 1)
        }
        self.stored = [node for node in region.outputs if node not in self.sums]
        self._found: _Rows | None = None

    # -- the members ---------------------------------------------------------------------------------------
    def members(self, w: Writer, tile: Tile) -> None:
        """All of them, in order, on one tile of rows."""
        self._found = None
        for node in self.region.nodes:
            if isinstance(node.op, RowNorm):
                self._give(w, tile, node, self._normalized_text(w, tile, node))
            elif isinstance(node.op, RowNormGrad):
                self._give(w, tile, node, self._gradient_text(w, tile, node))
            elif node.name in self.totals:
                value = tile.load(w, self.region.graph[node.inputs[0]])
                # What is computed of masked elements need not have become 0.
                anything = node.inputs[0] in self.region.members
                self.totals[node.name].add(w, value, tile.ok if anything else "", NOTE)
            else:
                tile.emit(w, [node])

    def _give(self, w: Writer, tile: Tile, node: Node, text: str) -> None:
        """The value of a member, under its name, stored where it leaves the region."""
        if text.isidentifier() and node not in self.stored:  # it has a name already
            tile.values[node.name] = text
            return
        tile.values[node.name] = self.names.value(node)
        w.line(f"{tile.values[node.name]} = {text}", NOTE)
        tile.store_if_output(w, node)

    def _whole(self, w: Writer, tile: Tile, name: str) -> str:
        """A value whose columns beyond the row are 0, as a sum along it needs them."""
        value = tile.load(w, self.region.graph[name])
        if name not in self.region.members or not tile.column_ok:
            return value
        return f"tl.where({tile.column_ok}, {value}, 0.0)"

    def _rows_of(self, w: Writer, tile: Tile, node: Node) -> _Rows:
        """The rows that a member normalises, computed for the first that asks."""
        if self._found is None:
            self._found = self._statistics(w, self._whole(w, tile, normalized_of(node)), node, tile)
        return self._found

    def _statistics(self, w: Writer, x: str, node: Node, tile: Tile) -> _Rows:
        assert isinstance(node.op, NORMS)
        fresh, size = self.names.fresh, self.channels
        if node.op.centred:
            mean, centred = fresh("mean"), fresh("centred")
            w.line(f"{mean} = tl.sum({x}, axis=1)[:, None] / {size}", ROW)
            apart = f"{x} - {mean}"
            if tile.column_ok:
                apart = f"tl.where({tile.column_ok}, {apart}, 0.0)"
            w.line(f"{centred} = {apart}", NOTE)
        else:
            centred = x
        rstd, normalized = fresh("rstd"), fresh("normal")
        square = f"tl.sum({centred} * {centred}, axis=1)[:, None] / {size}"
        w.line(f"{rstd} = 1.0 / tl.sqrt({square} + {number(node.op.epsilon)})", ROW)
        w.line(f"{normalized} = {centred} * {rstd}", NOTE)
        return _Rows(normalized, rstd)

    def _normalized_text(self, w: Writer, tile: Tile, node: Node) -> str:
        text = self._rows_of(w, tile, node).normalized
        for operator, name in zip(("*", "+"), node.inputs[1:], strict=False):
            text += f" {operator} {tile.load(w, self.region.graph[name])}"
        return text

    def _gradient_text(self, w: Writer, tile: Tile, node: Node) -> str:
        assert isinstance(node.op, RowNormGrad)
        rows, size = self._rows_of(w, tile, node), self.channels
        slope = self._whole(w, tile, node.inputs[0])
        for name in node.inputs[2:]:
            slope += f" * {tile.load(w, self.region.graph[name])}"
        if slope != tile.values[node.inputs[0]]:
            weighted = self.names.fresh("weighted")
            w.line(f"{weighted} = {slope}", NOTE)
            slope = weighted
        along = self.names.fresh("along")
        w.line(f"{along} = tl.sum({slope} * {rows.normalized}, axis=1)[:, None] / {size}", ROW)
        text = f"{slope} - {rows.normalized} * {along}"
        if node.op.centred:
            level = self.names.fresh("level")
            w.line(f"{level} = tl.sum({slope}, axis=1)[:, None] / {size}", ROW)
            text += f" - {level}"
        return f"{rows.rstd} * ({text})"

    # -- with sums -----------------------------------------------------------------------------------------
    def part(self) -> JitFunction:
        """The kernel whose programs go through a part of the rows each."""
        whole = [*self.region.inputs, *self.stored]
        pointers = [(self.names.pointer(node), node.type.dtype) for node in whole]
        pointers += [(f"{self._role(node)}_parts_ptr", "float32") for node in self.sums]
        jit = JitFunction(
            f"{self.region.name}_kernel",
            pointers,
            ["batch", "steps"],
            {"BLOCK_R": self.schedule.block_m, "BLOCK_C": self.schedule.block_n},
            doc="Each program goes through `steps` times BLOCK_R whole rows.",
            warps=self.schedule.warps,
        )
        w, tile = jit.body, self.rows.tile()
        w.line("part = tl.program_id(0)")
        self.rows.columns(w)
        for total in self.totals.values():
            total.begin(w, "[BLOCK_R, BLOCK_C]")
        for node in self.region.inputs:  # once for all rows
            if broadcast_kind(node.type.shape, tile.shape) == "channel":
                tile.load(w, node)
        with w.block("for step in range(steps):"):
            self.rows.rows_from(w, "(part * steps + step)")
            self.members(w, tile)
        for node in self.sums:
            (folded,) = self.totals[node.name].fold(w)
            at = f"{self._role(node)}_parts_ptr + part * {self.channels} + column"
            w.line(f"tl.store({at}, {folded}{masked(tile.column_ok, None)})")
        return jit

    def finish(self) -> JitFunction:
        """The kernel that adds the parts."""
        w, pointers, split = Writer(), [], row_split(self.region, self.schedule)
        for node in self.sums:
            role = self._role(node)
            pointers += [(f"{role}_parts_ptr", "float32"), (f"{role}_ptr", node.type.dtype)]
        emit_add_parts(w, [(node, self._role(node), "CHANNELS") for node in self.sums])
        constants = {"CHANNELS": self.channels, "TOGETHER": split.together, "BESIDE": split.beside}
        doc = "Add the parts of BESIDE sums."
        return JitFunction("add_parts", pointers, ["splits"], dict(constants), w, doc)

    def launch(self, part: JitFunction, finish: JitFunction) -> Writer:
        w, roles = Writer(), [self._role(node) for node in self.sums]
        given = [self._role(node) for node in [*self.region.inputs, *self.stored]]
        batched = next(node for node in [*self.stored, *self.region.inputs] if node.type.batched)
        w.line(f"batch = {self._role(batched)}.shape[0]")
        w.line(f"splits = max(1, min(triton.cdiv({self.rows.rows}, CHUNK), MOST_SPLITS))")
        w.line(f"steps = max(1, triton.cdiv(triton.cdiv({self.rows.rows}, BLOCK_R), splits))", "of each")
        w.line(f"splits = max(1, triton.cdiv({self.rows.rows}, steps * BLOCK_R))")
        parts = [f"{role}_parts" for role in roles]
        for name, role in zip(parts, roles, strict=True):
            w.line(f"{name} = torch.empty((splits, CHANNELS), dtype=torch.float32, device={role}.device)")
        w.line(part.call("(splits,)", [*given, *parts]))
        both = [name for pair in zip(parts, roles, strict=True) for name in pair]
        w.line(finish.call("(triton.cdiv(CHANNELS, BESIDE),)", both))
        return w

    def _role(self, node: Node) -> str:
        return self.names.role[node.name]

    # -- mathematics ---------------------------------------------------------------------------------------
    def formula(self) -> list[str]:
        """What rows are normalised to, called `normal`, and then each member in order."""
        region, names, values = self.region, self.names, Values()
        first = next(node for node in region.nodes if isinstance(node.op, NORMS))
        lines: list[str] = []
        for node in region.nodes:
            if isinstance(node.op, NORMS):
                if node is first:
                    lines.append(f"normal = {self._normal(node, values)}")
                lines += self._norm_formula(node, values)
            elif node.name in self.totals:
                value = mathematics(known(names, values, node.inputs[0]))
                lines.append(f"{self._role(node)}[c] = sum over the rows of {value}")
            else:
                lines += compose(names, [node], values)
        return lines

    def _normal(self, node: Node, values: Values) -> str:
        assert isinstance(node.op, NORMS)
        x = mathematics(known(self.names, values, normalized_of(node)))
        if node.op.centred:
            return f"({x} - mean) / sqrt(variance + {number(node.op.epsilon)}), both of each row"
        return f"{x} / sqrt(mean of its squares + {number(node.op.epsilon)}), of each row"

    def _norm_formula(self, node: Node, values: Values) -> list[str]:
        """A norm's value, and its equation where it is stored."""
        assert isinstance(node.op, NORMS)
        lines, text = [], "normal"
        if isinstance(node.op, RowNorm):
            for operator, name in zip(("*", "+"), node.inputs[1:], strict=False):
                text += f" {operator} {self.names.role[name]}"
        else:
            slope = mathematics(known(self.names, values, node.inputs[0]))
            slope += "".join(f" * {self.names.role[name]}" for name in node.inputs[2:])
            level = " - mean of g" if node.op.centred else ""
            root = "sqrt(variance" if node.op.centred else "sqrt(mean of squares"
            lines.append(f"g = {slope}, whose means are those of each row")
            text = f"(g - normal * mean of (g * normal){level}) / {root} + {number(node.op.epsilon)})"
        values[node.name] = Name(text, loose=" " in text)
        if node in self.region.outputs:
            values[node.name] = Name(self._role(node))
            lines.append(f"{self._role(node)} = {text}")
        return lines
