"""Pointwise members on a tile of values: loading their operands, computing and storing them.

A tile is [rows, columns]: rows are pixels of the result (all leading axes flattened), columns are channels.
An emitter says how its kernel calls them; `Tile` then writes any prologue or epilogue.
"""

from __future__ import annotations

from collections.abc import Iterable
from math import prod

from ...graph.errors import CompileError
from ...graph.ir import Node
from ...graph.ops import BatchNormGrad, BroadcastTo
from ...planning.geometry import broadcast_kind
from ..text.expressions import expression
from ..text.names import Names
from ..text.source import TRITON_TYPES
from ..text.writer import Writer


class Tile:
    """Where a tile of a kernel lies.

    names: identifiers of the file.
    shape: the result's shape, e.g. ("N", 28, 28, 6); every member on the tile has it.
    pixel: text of the rows' pixel numbers [rows, 1]; column: text of the channels [1, columns].
    row_ok, column_ok: text of their masks, "" where every row or column exists.
    note: comment for values of the tile, e.g. "[BLOCK_M, BLOCK_N]"; row_note, column_note: broadcast ones.
    values: node name -> text of its value, a float32 one if it is no integer or truth value; members and
        loaded operands are added as they are written.
    offset: name of the elements' offsets where the kernel has them already.
    """

    def __init__(
        self,
        names: Names,
        shape: tuple[int | str, ...],
        *,
        pixel: str = "pixel",
        column: str = "column",
        row_ok: str = "row_ok",
        column_ok: str = "column_ok",
        note: str = "[BLOCK_M, BLOCK_N]",
        row_note: str = "[BLOCK_M, 1]",
        column_note: str = "[1, BLOCK_N]",
        values: dict[str, str] | None = None,
        offset: str = "",
    ) -> None:
        self.names = names
        self.region = names.region
        self.shape = shape
        self.pixel, self.column = pixel, column
        self.row_ok, self.column_ok = row_ok, column_ok
        self.note, self.row_note, self.column_note = note, row_note, column_note
        self.values: dict[str, str] = {} if values is None else values
        self._offset = offset

    # -- facts ------------------------------------------------------------------------------------------
    @property
    def channels(self) -> int:
        return int(self.shape[-1])

    @property
    def pixels_per_image(self) -> int:
        """Rows of one image; of the whole value where it has no batch axis."""
        return prod(int(d) for d in self.shape[:-1] if d != "N")

    @property
    def ok(self) -> str:
        """Mask of the whole tile, "" where all of it exists."""
        return " & ".join(part for part in (self.row_ok, self.column_ok) if part)

    def _count(self, writer: Writer, node: Node) -> str:
        """Text of what a formula divides by: values per channel, or how often one is repeated."""
        if isinstance(node.op, BroadcastTo):
            if not node.op.mean:
                return "1"
            each, of_images = node.op.repeats(self.region.graph[node.inputs[0]].type)
        elif isinstance(node.op, BatchNormGrad):
            each, of_images = self.pixels_per_image, self.shape[0] == "N"
        else:
            return ""
        if not of_images:
            return str(each)
        batch = writer.uses.batch
        return f"({batch} * {each})" if each > 1 else batch

    # -- writing ----------------------------------------------------------------------------------------
    def emit(self, writer: Writer, nodes: Iterable[Node]) -> None:
        """Compute members in order, one line each, and store those that leave the region."""
        for node in nodes:
            # Of BroadcastTo's second operand only the shape counts.
            read = node.inputs[:1] if isinstance(node.op, BroadcastTo) else node.inputs
            operands = [self.load(writer, self.region.graph[name]) for name in read]
            value = self.names.value(node)
            text = expression(node.op, operands, writer.uses, count=self._count(writer, node))
            writer.line(f"{value} = {text}", self.note)
            self.values[node.name] = value
            self.store_if_output(writer, node)

    def load(self, writer: Writer, node: Node) -> str:
        """Text of a value, in float32 unless it is an integer or a truth value; an operand from outside the
        region is loaded the first time.
        """
        if node.name not in self.values:
            if node.name in self.region.members:
                raise CompileError(f"{node.name} is needed on a tile before it is computed")
            self.values[node.name] = self._load_operand(writer, node)
        return self.values[node.name]

    def _load_operand(self, writer: Writer, node: Node) -> str:
        narrow = node.type.is_floating and node.type.dtype != "float32"
        cast = ".to(tl.float32)" if narrow else ""
        offset, ok, note = self.address(writer, node)
        name = self.names.role[node.name]
        address = f"{name}_ptr" + (f" + {offset}" if offset else "")
        writer.line(f"{name} = tl.load({address}{masked(ok)}){cast}", note)
        return name

    def address(self, writer: Writer, node: Node) -> tuple[str, str, str]:
        """(offset, mask, shape comment) of an operand that lies against the tile."""
        kind = broadcast_kind(node.type.shape, self.shape)
        image = self.pixel if self.pixels_per_image == 1 else f"({self.pixel} // {self.pixels_per_image})"
        match kind:
            case "full":
                return self.offset(writer, node), self.ok, self.note
            case "channel":
                return self.column, self.column_ok, self.column_note
            case "image":
                return f"{image}.to(tl.int64) * {self.channels} + {self.column}", self.ok, self.note
            case "pixel":
                return self.pixel, self.row_ok, self.row_note
            case "scalar":
                return "", "", "one number"
            case "repeated":
                rows = prod(int(d) for d in node.type.shape[:-1])
                return f"{self.pixel} % {rows} * {self.channels} + {self.column}", self.ok, self.note
        raise CompileError(
            f"{node.name} of {node.type} broadcasts against {self.shape} along an axis that no tile of "
            f"pixels and channels handles; add it in a layer of its own"
        )

    def offset(self, writer: Writer, node: Node) -> str:
        """Text of where the elements of a value of the tile's shape lie. 64 bits: a batch may be large."""
        if pitch := self.region.pitches.get(node.name):
            return self.offset_in_rows(writer, pitch)
        return self.offset_in_a_run(writer)

    def offset_in_a_run(self, writer: Writer) -> str:
        """The offsets in a value of its own, under a name that is written the first time."""
        if not self._offset:
            self._offset = self.names.fresh("spot")
            writer.line(
                f"{self._offset} = {self.pixel}.to(tl.int64) * {self.channels} + {self.column}", self.note
            )
        return self._offset

    def offset_in_rows(self, writer: Writer, pitch: int) -> str:
        """The offsets where each row of channels is part of a row of `pitch`."""
        return f"({self.pixel}.to(tl.int64) * {pitch} + {self.column})"

    def store_if_output(self, writer: Writer, node: Node) -> None:
        """Store a member's value if it is an output of the region."""
        if any(node.name == output.name for output in self.region.outputs):
            self.store(writer, node)

    def store(self, writer: Writer, node: Node) -> None:
        """Store a member's value, rounded to its element type."""
        value = rounded(self.values[node.name], node)
        offset = self.offset(writer, node)
        writer.line(f"tl.store({self.names.pointer(node)} + {offset}, {value}{masked(self.ok, None)})")


def rounded(value: str, node: Node) -> str:
    """Text of a float32 value as the element type of `node`."""
    return value if node.type.dtype == "float32" else f"{value}.to({TRITON_TYPES[node.type.dtype]})"


def masked(ok: str, other: str | None = "0.0") -> str:
    """Mask arguments of a load (with `other`) or of a store, nothing where all elements exist."""
    if not ok:
        return ""
    return f", mask={ok}" + (f", other={other}" if other is not None else "")
