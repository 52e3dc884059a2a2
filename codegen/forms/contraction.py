"""What all products but weight gradients share: the kernel around their main loops."""

from __future__ import annotations

from typing import Any, ClassVar

from ...graph.ir import Node
from ...planning.geometry import Axis
from ...planning.products import Product, product, source_operand
from ...planning.regions import Region
from ...planning.schedules import Schedule
from ..text.equations import equations
from ..text.jit_function import JitFunction
from ..text.names import Names
from ..text.source import TRITON_TYPES, KernelFile
from ..text.titles import title
from ..text.writer import Uses, Writer
from .epilogue import Epilogue
from .gather import emit_half_columns, emit_multiply
from .split_sums import SplitSums
from .tile import Tile

Constants = dict[str, tuple[object, str]]
"""Name -> (value, comment) of the numbers at the top of a file."""

OF_A_TILE = ("BLOCK_M", "BLOCK_N", "BLOCK_K")
"""The constants that every product's kernel takes; it takes others where its lines ask for them."""

IDENTITY = Axis(1, 1, 1)


def spatial(node: Node, first: int = 1) -> tuple[int, int]:
    """Height and width of an image; of a kernel with first=0."""
    return int(node.type.shape[first]), int(node.type.shape[first + 1])


class Contraction:
    """The frame of a kernel around the loop of a product."""

    run_time: ClassVar[tuple[str, ...]] = ("rows",)
    """Numbers that every such kernel takes at run time."""

    channels: ClassVar[str] = "K"
    """The constant that is the length of a row of the result."""

    pixel = "row"
    """What each row of a tile is called among all rows of the result, and how many there are of these."""
    all_rows = "rows"

    def __init__(self, region: Region, schedule: Schedule, precision: str) -> None:
        self.region, self.schedule, self.precision = region, schedule, precision
        self.graph, self.anchor = region.graph, region.anchor
        self.op: Any = region.anchor.op
        self.work: Product = product(region)
        self.names = Names(region)
        self.source = self.graph[self.anchor.inputs[0]]
        self.weight = self.graph[self.anchor.inputs[1]]
        self.constants: Constants = {}
        self.at_launch = Uses()

    def tile_constants(self) -> Constants:
        """Constants of the schedule."""
        s = self.schedule
        tiles = -(-self.work.columns // s.block_n)
        blocks = -(-self.work.channels // s.block_k)
        return {
            "BLOCK_M": (s.block_m, "rows of a tile"),
            "BLOCK_N": (s.block_n, "columns of a tile"),
            "BLOCK_K": (s.block_k, "elements of the sum a step takes"),
            "BLOCKS": (blocks, "steps that the channels of one tap take"),
            "GROUP_M": (s.group_m, "row tiles in a band"),
            **({"HALF_N": (s.block_n // 2, "columns of half a tile")} if s.pieces > 1 else {}),
            **(self.parts.constants() if s.splits > 1 else {}),
            "TILES_N": (tiles, "column tiles" + (" of a group" if self.work.groups > 1 else "")),
        }

    def row(self, channels: str) -> str:
        """The constant that leads from one pixel of what is gathered to the next: `channels`, its own number
        of them, where it is no part of wider rows."""
        pitch = self.region.pitches.get(self.source_operand.name)
        if pitch is None:
            return channels
        self.constants["PITCH"] = (pitch, "channels of the rows that the operand is a part of")
        return "PITCH"

    def dot_options(self) -> str:
        return f', input_precision="{self.precision}"' if self.work.dtype == "float32" else ""

    @property
    def upcast(self) -> bool:
        return self.work.dtype == "bfloat16"

    @property
    def run(self) -> str:
        """The constant that is the number of columns of a product."""
        return self.channels + ("G" if self.work.groups > 1 else "")

    # -- the functions ---------------------------------------------------------------------------------------
    @property
    def parts(self) -> SplitSums:
        """Where the parts of the sums lie, of a schedule that splits them."""
        width = self.anchor.type.channels
        return SplitSums(self.work, self.schedule, self.all_rows, self.part_row, self.channels, width)

    @property
    def part_row(self) -> str:
        return self.pixel

    def emit_split(self, w: Writer, axis: int) -> None:
        """Which part of the sums this program computes, where they are split. axis: of the grid."""
        if self.schedule.splits > 1:
            w.line(f"split = tl.program_id({axis})", "which part of the steps")

    def end(self, w: Writer, col_ok: str, ragged: bool = False) -> None:
        """What becomes of a program's sums."""
        if self.schedule.splits > 1:
            self.parts.store(w, col_ok)
            return
        self._finish(w, col_ok, ragged)

    def _finish(self, w: Writer, col_ok: str, ragged: bool) -> None:
        w.note("What happens to the sums before they are stored")
        self.scale(w)
        if self.schedule.pieces == 1:
            Epilogue(self.region, self.names, self.pixel, col_ok, ragged).emit(w)
            return
        c = w.uses
        w.note("One half of the columns after the other: both would need more registers than there are")
        w.line(f"halves = tl.reshape(acc, (BLOCK_M, 2, {c.HALF_N}))")
        w.line("halves = tl.split(tl.permute(halves, (0, 2, 1)))", "twice [BLOCK_M, HALF_N]")
        with w.block("for half in tl.static_range(2):"):
            w.line("acc = halves[half]")
            col_ok = emit_half_columns(w, self.work, self.schedule, self.run)
            Epilogue(self.region, self.names, self.pixel, col_ok, ragged, c.HALF_N).emit(w)

    def scale(self, w: Writer) -> None:
        """A factor of the sums themselves."""

    def functions(self, body: Writer, ragged: bool = False) -> list[JitFunction]:
        """The kernel, and where its sums are split the one that adds up their parts."""
        if self.schedule.splits == 1:
            return [self.function(body, f"One tile of: {self.summary()}.")]
        multiplied, after = self._operands()
        product = self.function(body, f"One part of the sums of one tile of: {self.summary()}.", multiplied)
        product.pointers.append(("parts_ptr", "float32"))
        if self.all_rows not in product.numbers:
            product.numbers.insert(0, self.all_rows)
        w = Writer()
        w.line("tile_m = tl.program_id(0)")
        self.finish_rows(w)
        col_ok = self.parts.columns(w)
        w.line()
        self.parts.add(w, self.part_row, col_ok)
        w.line()
        self._finish(w, col_ok, ragged)
        numbers = ["batch"] if "batch" in w.uses else []
        pointers = [(self.names.pointer(node), node.type.dtype) for node in [*after, *self.region.outputs]]
        return [product, self.parts.function(w, pointers, self._values, numbers)]

    def finish_rows(self, w: Writer) -> None:
        """row, row_ok: the rows of a tile of the second kernel."""
        w.line(f"{self.pixel} = tile_m * BLOCK_M + tl.arange(0, BLOCK_M)", "[BLOCK_M] row of the result")
        w.line(f"row_ok = {self.pixel} < {self.all_rows}")

    def _operands(self) -> tuple[list[Node], list[Node]]:
        """Those of the region's inputs that are multiplied, and those that what follows reads."""
        before = {*self.anchor.inputs[:2], *(name for node in self.region.prologue for name in node.inputs)}
        after = {*self.anchor.inputs[2:], *(name for node in self.region.epilogue for name in node.inputs)}
        inputs = self.region.inputs
        return [n for n in inputs if n.name in before], [n for n in inputs if n.name in after]

    def _values(self, uses: Uses) -> dict[str, object]:
        """Those of the constants that lines asked for."""
        return {name: value for name, (value, _) in self.constants.items() if name in uses}

    def tensors(self) -> list[tuple[str, str]]:
        """What the kernel reads and writes: name and element type."""
        return self._named([*self.region.inputs, *self.region.outputs])

    def _named(self, nodes: list[Node]) -> list[tuple[str, str]]:
        return [(self.names.role[node.name], node.type.dtype) for node in nodes]

    def function(self, body: Writer, doc: str, operands: list[Node] | None = None) -> JitFunction:
        """The kernel, with those of the constants as arguments that its lines asked for. operands: what it
        takes beside the parts of its sums; None: all that the region reads and writes."""
        taken = self.tensors() if operands is None else self._named(operands)
        pointers = [(f"{name}_ptr", dtype) for name, dtype in taken]
        body.uses.note(*OF_A_TILE)
        constants = self._values(body.uses)
        if self.upcast:
            constants["UPCAST"] = False
        numbers = [*self.run_time, *(["batch"] if "batch" in body.uses else [])]
        s = self.schedule
        return JitFunction(self.region.name, pointers, numbers, constants, body, doc, s.warps, s.stages)

    def used_constants(self, functions: list[JitFunction]) -> Constants:
        """Those that the kernels or their launch asked for."""
        used = {name for function in functions for name in function.body.uses} | {*self.at_launch}
        return {name: value for name, value in self.constants.items() if name in used}

    def launch(self, functions: list[JitFunction], rows: str | None, grid: list[str]) -> Writer:
        """The body of `launch`: rows of the product where the kernel asks for them, the grid, the call."""
        w = Writer()
        first = self.names.role[self.source_operand.name]
        w.line(f"batch = {first}.shape[0]")
        self.prepare(w)
        if rows is not None:
            w.line(f"rows = {rows}")
        split = len(functions) > 1
        if split:
            self._take_parts(w, first)
            grid = [*grid, self.at_launch.SPLITS]
        w.line(f"grid = ({', '.join(grid)}{',' if len(grid) == 1 else ''})")
        if self.upcast:
            w.line(f'UPCAST = {first}.device.type == "cpu"', "the interpreter cannot multiply bfloat16")
        if not split:
            w.line(functions[0].call("grid", [name for name, _ in self.tensors()]))
            return w
        multiplied, after = self._operands()
        w.line(functions[0].call("grid", [*self._roles(multiplied), "parts"]))
        w.line(f"grid = {self.parts.grid(self.at_launch)}")
        w.line(functions[1].call("grid", ["parts", *self._roles([*after, *self.region.outputs])]))
        return w

    def prepare(self, w: Writer) -> None:
        """Lines of `launch` that make what the kernel reads beside the operands; `batch` is known."""

    def _roles(self, nodes: list[Node]) -> list[str]:
        return [self.names.role[node.name] for node in nodes]

    def _take_parts(self, w: Writer, first: str) -> None:
        """Memory for the parts of the sums."""
        c = self.at_launch
        c.note("FINISH_N")
        if self.all_rows == "pixels":
            w.line(f"pixels = {self.pixels_text(c)}", "rows of the result")
        shape = f"({c.SPLITS}, {self.all_rows}, {c[self.channels]})"
        w.line(f"parts = torch.empty({shape}, dtype=torch.float32, device={first}.device)")

    def pixels_text(self, c: Uses) -> str:
        """The number of the result's rows, where the kernel's own are others."""
        return "rows"

    # -- the product -----------------------------------------------------------------------------------------
    def multiply(self, w: Writer) -> None:
        """acc += a times b."""
        emit_multiply(w, self.upcast, self.dot_options())

    @property
    def source_operand(self) -> Node:
        """The operand the main loop gathers from: the anchor's first, or what a prologue makes it from."""
        return source_operand(self.region)

    def prologue(self, w: Writer, pixel: str, channel: str, inside: str) -> None:
        """Compute the anchor's operand from the loaded `a`, with zeros where it lies outside the map."""
        rows, _, columns = inside.partition(" & ")
        tile = Tile(
            self.names,
            self.source.type.shape,
            pixel=f"({pixel})[:, None]",
            column=f"({channel})[None, :]",
            row_ok=rows,
            column_ok=columns,
            note="[BLOCK_M, BLOCK_K]",
            column_note="[1, BLOCK_K]",
        )
        operand = self.source_operand
        tile.values[operand.name] = "a" if operand.type.dtype == "float32" else "a.to(tl.float32)"
        tile.emit(w, self.region.prologue)
        value = tile.values[self.source.name]
        w.line(f"a = tl.where({inside}, {value}, 0.0).to({TRITON_TYPES[self.weight.type.dtype]})")

    def plan(self) -> list[str]:
        """The schedule in sentences."""
        s, work = self.schedule, self.work
        tiles = -(-work.columns // s.block_n)
        each = (
            f"Each program computes a tile of {s.block_m} rows by {s.block_n} columns in steps of {s.block_k}"
        )
        parts = [f"{each}, {work.steps(s.block_k)} in all, with {s.many_warps} and {s.stages} stages."]
        if work.columns % s.block_n:
            parts.append(f"{tiles * s.block_n - work.columns} columns of padding are masked.")
        if tiles > 1 and not work.matrices:
            parts.append(f"Bands of {s.group_m} row tiles share {tiles} column tiles in the L2 cache.")
        if s.pieces > 1:
            parts.append("What follows the sums takes one half of a tile's columns after the other.")
        if work.window > 1:
            parts.append(
                f"{work.window} neighbouring rows are one pooling window, so only pooled values are stored."
            )
        return [*parts, self.parts.plan()] if s.splits > 1 else parts

    def product_eps(self) -> float:
        return 2.0**-10 if self.work.dtype == "float32" and self.precision == "tf32" else 0.0

    def summary(self) -> str:
        return title(self.region)

    def equations(self, product_text: str, index: str) -> list[str]:
        """The header's mathematics: product_text, and what becomes of it. index: such as "[n,p,q,k]"."""
        return equations(self.region, self.names, product_text, index)

    def grid(self) -> list[str]:
        """Programs: tiles of rows and columns, and groups."""
        c = self.at_launch
        tiles = f" * {c.TILES_N}" if self.work.columns > self.schedule.block_n else ""
        return [f"triton.cdiv(rows, BLOCK_M){tiles}", *([c.GROUPS] if self.work.groups > 1 else [])]

    def frame(self, functions: list[JitFunction], launch: Writer, formula: list[str]) -> KernelFile:
        """The file around a finished kernel."""
        return KernelFile(
            region=self.region,
            names=self.names,
            summary=f"{self.summary()}: {'one kernel' if len(functions) == 1 else 'in two steps'}.",
            formula=formula,
            plan=self.plan(),
            constants=self.used_constants(functions),
            functions=functions,
            launch=launch,
            schedule=self.schedule,
            sum_length=self.work.inner,
            product_eps=self.product_eps(),
        )
