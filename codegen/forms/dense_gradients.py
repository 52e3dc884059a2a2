"""Both gradients of a matrix product, of its input and of its weights, as one kernel.

Its first programs compute tiles of dx, all others tiles of dw, and with them the gradient of the bias: two
functions that the kernel calls, each with tiles of its own.
"""

from __future__ import annotations

from ...graph.ir import Node
from ...planning.forms.dense_gradients import weight_gradient_of
from ...planning.geometry import ceil_div
from ...planning.regions import Region
from ...planning.schedules import Schedule
from ..text.equations import equations
from ..text.jit_function import JitFunction
from ..text.names import Names
from ..text.source import KernelFile
from ..text.titles import title
from ..text.writer import Writer
from .contraction import Constants
from .epilogue import Epilogue
from .gather import emit_multiply
from .tile import masked, rounded


def emit_dense_gradients(region: Region, schedule: Schedule, precision: str) -> KernelFile:
    """The kernel of a region of a DenseDataGrad with members after it, a DenseWeightGrad and sums of dy."""
    return _DenseGradients(region, schedule, precision).file()


class _DenseGradients:
    def __init__(self, region: Region, schedule: Schedule, precision: str) -> None:
        weights = weight_gradient_of(region)
        assert weights is not None
        assert schedule.beside is not None
        self.region, self.schedule, self.beside = region, schedule, schedule.beside
        self.names = Names(region)
        self.dx, self.dw = region.anchor, weights
        self.dy, self.w = (region.graph[name] for name in self.dx.inputs)
        self.x = region.graph[weights.inputs[0]]
        self.sums = [node for node in region.siblings if node is not weights]
        self.channels, self.units = self.dx.type.channels, self.dy.type.channels
        self.upcast = self.dy.type.dtype == "bfloat16"
        float32 = self.dy.type.dtype == "float32"
        self.options = f', input_precision="{precision}"' if float32 else ""
        self.eps = 2.0**-10 if float32 and precision == "tf32" else 0.0
        self.data_columns = ceil_div(self.channels, schedule.block_n)
        self.weight_columns = ceil_div(self.units, schedule.beside.block_n)
        self.constants = self._constants()

    def _constants(self) -> Constants:
        own, other = self.schedule, self.beside
        down = ceil_div(self.channels, other.block_m)
        return {
            "C": (self.channels, "channels of x and dx"),
            "K": (self.units, "channels of dy"),
            "DATA_M": (own.block_m, "rows of a tile of dx"),
            "DATA_N": (own.block_n, "columns of it"),
            "DATA_K": (own.block_k, "elements of its sum a step takes"),
            "WEIGHT_M": (other.block_m, "rows of a tile of dw"),
            "WEIGHT_N": (other.block_n, "columns of it"),
            "WEIGHT_K": (other.block_k, "rows of the batch a step takes"),
            "WEIGHT_TILES": (down * self.weight_columns, "tiles of dw"),
        }

    # -- the file --------------------------------------------------------------------------------------------
    def file(self) -> KernelFile:
        data, weights = self._data(), self._weights()
        kernel = self._kernel(data, weights)
        own, other = self.schedule, self.beside
        x, dy, dw = (self.names.role[node.name] for node in (self.x, self.dy, self.dw))
        formula = equations(self.region, self.names, f"sum over k of {dy}[n,k] * w[c,k]", "[n,c]")
        formula.append(f"{dw}[c,k] = sum over n of {x}[n,c] * {dy}[n,k]")
        formula += [f"{self.names.role[node.name]}[k] = sum over n of {dy}[n,k]" for node in self.sums]
        return KernelFile(
            region=self.region,
            names=self.names,
            summary=f"{title(self.region)}: one kernel.",
            formula=formula,
            plan=[
                f"The first programs compute tiles of dx, {own.block_m} rows by {own.block_n} columns in "
                f"steps of {own.block_k}; all others tiles of dw, {other.block_m} by {other.block_n}, which "
                f"walk the batch {other.block_k} rows a step, with {own.many_warps} and {own.stages} stages."
            ],
            constants=self.constants,
            functions=[kernel],
            launch=self._launch(kernel),
            schedule=self.schedule,
            sum_length=max(self.units, 2),
            product_eps=self.eps,
        )

    def _launch(self, kernel: JitFunction) -> Writer:
        w = Writer()
        dy = self.names.role[self.dy.name]
        w.line(f"batch = {dy}.shape[0]")
        tiles = self.data_columns
        w.line(f"data_tiles = triton.cdiv(batch, DATA_M){f' * {tiles}' if tiles > 1 else ''}", "of dx")
        if self.upcast:
            w.line(f'UPCAST = {dy}.device.type == "cpu"', "the interpreter cannot multiply bfloat16")
        operands = [*self.region.inputs, *self.region.outputs]
        w.line(kernel.call("(data_tiles + WEIGHT_TILES,)", [self.names.role[node.name] for node in operands]))
        return w

    # -- the functions ---------------------------------------------------------------------------------------
    def _kernel(self, data: JitFunction, weights: JitFunction) -> JitFunction:
        body = Writer()
        body.line("program = tl.program_id(0)")
        with body.block("if program < data_tiles:"):
            body.line(self._call(data, "program", "DATA"))
        with body.block("else:"):
            body.line(self._call(weights, "program - data_tiles", "WEIGHT"))
        constants: dict[str, object] = {
            name: value for name, (value, _) in self.constants.items() if name != "WEIGHT_TILES"
        }
        if self.upcast:
            constants["UPCAST"] = False
        return JitFunction(
            self.region.name,
            self._pointers([*self.region.inputs, *self.region.outputs]),
            ["batch", "data_tiles"],
            constants,
            body,
            "The first programs compute tiles of dx, the others tiles of dw.",
            self.schedule.warps,
            self.schedule.stages,
            parts=[data, weights],
        )

    @staticmethod
    def _call(function: JitFunction, tile: str, kind: str) -> str:
        """The statement that calls it: its own tile constants are the kernel's of this kind."""
        own = [name.replace("BLOCK", kind) for name in function.constants]
        pointers = [name for name, _ in function.pointers]
        return f"{function.name}({', '.join([*pointers, tile, *function.numbers[1:], *own])})"

    def _function(self, name: str, nodes: list[Node], body: Writer, doc: str) -> JitFunction:
        constants: dict[str, object] = dict.fromkeys(("C", "K", "BLOCK_M", "BLOCK_N", "BLOCK_K"), 0)
        if self.upcast:
            constants["UPCAST"] = False
        pointers = self._pointers(nodes)
        return JitFunction(name, pointers, ["tile", "batch"], constants, body, doc, launched=False)

    def _pointers(self, nodes: list[Node]) -> list[tuple[str, str]]:
        return [(self.names.pointer(node), node.type.dtype) for node in nodes]

    def _tile(self, w: Writer, tiles: int, row: tuple[str, str, str], col: tuple[str, str]) -> None:
        """Which tile the program computes, of so many beside each other, and its rows and columns.

        row: their name, how many there are, what they are; col: the same of the columns, whose name is col.
        """
        w.line(f"tile_m = tile // {tiles}" if tiles > 1 else "tile_m = tile")
        w.line(f"tile_n = tile % {tiles}" if tiles > 1 else "tile_n = 0")
        for (name, extent, what), axis in ((row, "m"), (("col", *col), "n")):
            block = f"BLOCK_{axis.upper()}"
            w.line(f"{name} = tile_{axis} * {block} + tl.arange(0, {block})", f"[{block}] {what}")
            w.line(f"{name}_ok = {name} < {extent}")

    @staticmethod
    def _load(w: Writer, name: str, place: str, rows: str, columns: str) -> None:
        mask = masked(f"{rows}[:, None] & {columns}[None, :]")
        w.line(f"{name} = tl.load({place}{mask})")

    def _data(self) -> JitFunction:
        w, dy = Writer(), self.names.role[self.dy.name]
        self._tile(w, self.data_columns, ("row", "batch", "of the batch"), ("C", "channel of dx"))
        w.line("k = tl.arange(0, BLOCK_K)", "[BLOCK_K]")
        w.line(f"a_tile = {dy}_ptr + row.to(tl.int64)[:, None] * K + k[None, :]", "[BLOCK_M, BLOCK_K]")
        w.line(f"b_tile = {self.names.pointer(self.w)} + col[None, :] * K + k[:, None]", "[BLOCK_K, BLOCK_N]")
        w.line("acc = tl.zeros((BLOCK_M, BLOCK_N), tl.float32)")
        with w.block("for k0 in range(0, K, BLOCK_K):"):
            w.line("k_ok = k0 + k < K")
            self._load(w, "a", "a_tile + k0", "row_ok", "k_ok")
            self._load(w, "b", "b_tile + k0", "k_ok", "col_ok")
            emit_multiply(w, self.upcast, self.options)
        w.line()
        w.note("What happens to the sums before they are stored")
        Epilogue(self.region, self.names, "row", "col_ok").emit(w)
        beside = {self.dw.name, *(node.name for node in self.sums)}
        read = {name for node in (self.dx, *self.region.epilogue) for name in node.inputs}
        inputs = [node for node in self.region.inputs if node.name in read]
        outputs = [node for node in self.region.outputs if node.name not in beside]
        return self._function("data_tile", [*inputs, *outputs], w, "One tile of dx and what follows it.")

    def _weights(self) -> JitFunction:
        w = Writer()
        x, dy, dw = (self.names.pointer(node) for node in (self.x, self.dy, self.dw))
        self._tile(w, self.weight_columns, ("c", "C", "channel of x"), ("K", "channel of dy"))
        w.line("lane = tl.arange(0, BLOCK_K)", "[BLOCK_K] row of the batch")
        w.line(f"a_tile = {x} + lane[:, None] * C + c[None, :]", "[BLOCK_K, BLOCK_M]")
        w.line(f"b_tile = {dy} + lane[:, None] * K + col[None, :]", "[BLOCK_K, BLOCK_N]")
        w.line("acc = tl.zeros((BLOCK_M, BLOCK_N), tl.float32)")
        if self.sums:
            w.line("sums = tl.zeros((BLOCK_N,), tl.float32)", "the bias gradient")
        with w.block("for first in range(0, batch, BLOCK_K):"):
            w.line("inside = first + lane < batch")
            self._load(w, "a", "a_tile", "inside", "c_ok")
            self._load(w, "b", "b_tile", "inside", "col_ok")
            if self.sums:
                w.line("sums += tl.sum(b.to(tl.float32), axis=0)")
            emit_multiply(w, self.upcast, self.options, "tl.trans(a)")
            w.lines("a_tile += BLOCK_K * C", "b_tile += BLOCK_K * K")
        place = f"{dw} + c[:, None] * K + col[None, :]"
        mask = masked("c_ok[:, None] & col_ok[None, :]", None)
        w.line(f"tl.store({place}, {rounded('acc', self.dw)}{mask})")
        if self.sums:
            with w.block("if tile_m == 0:"):
                for node in self.sums:
                    value = rounded("sums", node)
                    w.line(f"tl.store({self.names.pointer(node)} + col, {value}{masked('col_ok', None)})")
        doc = "One tile of dw, over the whole batch, and the gradient of the bias."
        nodes = [self.x, self.dy, self.dw, *self.sums]
        return self._function("weight_tile", nodes, w, doc)
