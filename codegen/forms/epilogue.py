"""What happens to a contraction's sums before they leave the kernel: members, a pooling window, a softmax."""

from __future__ import annotations

from dataclasses import dataclass
from itertools import takewhile
from typing import Any

from ...graph.ir import Node
from ...graph.ops import AveragePool2D, MaxPoolIndex2D, MaxUnpool2D, Softmax
from ...planning.products import POOLS, UNPOOLS
from ...planning.regions import Region
from ..text.names import Names
from ..text.writer import Writer
from .row_tiles import softmax_of
from .tile import Tile


@dataclass
class Epilogue:
    """How the tile of sums `acc` lies on the result of the anchor.

    pixel: text of the rows' pixel numbers [BLOCK_M]. column_ok: name of the columns' mask, "" for no mask.
    ragged: whether a window may have rows outside the map, because of the pooling's padding.
    columns: the constant that is the number of columns.
    """

    region: Region
    names: Names
    pixel: str = "row"
    column_ok: str = ""
    ragged: bool = False
    columns: str = "BLOCK_N"

    def tile(self, node: Node, pixel: str, row_ok: str, rows: str) -> Tile:
        return Tile(
            self.names,
            node.type.shape,
            pixel=f"{pixel}[:, None]",
            column="col[None, :]",
            row_ok=f"{row_ok}[:, None]",
            column_ok=f"{self.column_ok}[None, :]" if self.column_ok else "",
            note=f"[{rows}, {self.columns}]",
            row_note=f"[{rows}, 1]",
            column_note=f"[1, {self.columns}]",
        )

    def emit(self, w: Writer) -> None:
        """Everything after the main loop."""
        anchor = self.region.anchor
        tile = self.tile(anchor, self.pixel, "row_ok", "BLOCK_M")
        if len(anchor.inputs) > 2:
            w.line(f"acc += {tile.load(w, self.region.graph[anchor.inputs[2]])}")
        tile.values[anchor.name] = "acc"
        tile.store_if_output(w, anchor)
        members = self.region.epilogue
        before = list(takewhile(lambda node: not isinstance(node.op, (*POOLS, *UNPOOLS, Softmax)), members))
        tile.emit(w, before)
        rest = members[len(before) :]
        if not rest:
            return
        if isinstance(rest[0].op, POOLS):
            self._pool(w, tile, rest)
        elif isinstance(rest[0].op, UNPOOLS):
            self._unpool(w, tile, rest)
        else:
            self._softmax(w, tile, rest)

    # -- pooling ---------------------------------------------------------------------------------------------
    def _pool(self, w: Writer, tile: Tile, nodes: list[Node]) -> None:
        """Each window is WINDOW neighbouring rows: regroup them as an axis of its own and reduce it."""
        c = w.uses
        pools = [node for node in nodes if isinstance(node.op, POOLS)]
        value = tile.load(w, self.region.graph[pools[0].inputs[0]])
        pooled = self.tile(pools[0], "pooled", "pooled_ok", f"BLOCK_M // {c.WINDOW}")
        w.line()
        w.note("Pool: the WINDOW rows of each window become an axis of their own")
        w.line(
            f"pooled = tile_m * (BLOCK_M // {c.WINDOW}) + tl.arange(0, BLOCK_M // {c.WINDOW})", "pooled pixel"
        )
        w.line(f"pooled_ok = pooled < rows // {c.WINDOW}")
        if all(isinstance(node.op, AveragePool2D) for node in pools):
            self._average(w, pooled, pools, value)
        else:
            self._maximum(w, pooled, pools, value)
        pooled.emit(w, [node for node in nodes if node not in pools])

    def _maximum(self, w: Writer, tile: Tile, pools: list[Node], value: str) -> None:
        c = w.uses
        shape = f"(BLOCK_M // {c.WINDOW}, {c.WINDOW}, {self.columns})"
        present = f'tl.where(row_ok[:, None], {value}, float("-inf"))' if self.ragged else value
        w.line(f"windows = tl.reshape({present}, {shape})", f"[BLOCK_M // WINDOW, WINDOW, {self.columns}]")
        w.line(f"place = tl.arange(0, {c.WINDOW})[None, :, None]")
        w.line("broken = tl.max(tl.where(windows != windows, place, -1), axis=1)", "tl.max passes over NaN")
        w.line('largest = tl.where(broken >= 0, float("nan"), tl.max(windows, axis=1))', tile.note)
        hit = "windows == largest[:, None, :]"
        if self.ragged and any(isinstance(node.op, MaxPoolIndex2D) for node in pools):
            w.line(f"real = tl.reshape(row_ok.to(tl.int32), (BLOCK_M // {c.WINDOW}, {c.WINDOW}))[:, :, None]")
            hit = f"({hit}) & (real > 0)"
        for node in pools:
            if isinstance(node.op, MaxPoolIndex2D):
                hits = f"tl.where({hit}, place, {c.WINDOW})"
                value = tile.values[node.name] = self.names.value(node)
                w.line(f"{value} = tl.min({hits}, axis=1)", "the first of equal ones")
                w.line(f"{value} = tl.where(broken >= 0, broken, {value})", "or the last NaN")
            else:
                tile.values[node.name] = "largest"
            tile.store_if_output(w, node)

    def _average(self, w: Writer, tile: Tile, pools: list[Node], value: str) -> None:
        c = w.uses
        shape = f"(BLOCK_M // {c.WINDOW}, {c.WINDOW}, {self.columns})"
        present = f"tl.where(row_ok[:, None], {value}, 0.0)" if self.ragged else value
        w.line(f"windows = tl.reshape({present}, {shape})", f"[BLOCK_M // WINDOW, WINDOW, {self.columns}]")
        count = "WINDOW"
        if self.ragged:
            w.line(f"real = tl.reshape(row_ok.to(tl.float32), (BLOCK_M // {c.WINDOW}, {c.WINDOW}))")
            w.line(
                "real = tl.maximum(tl.sum(real, axis=1), 1.0)[:, None]", "elements of each window on the map"
            )
            count = "real"
        w.line(f"average = tl.sum(windows, axis=1) / {count}", tile.note)
        for node in pools:
            tile.values[node.name] = "average"
            tile.store_if_output(w, node)

    # -- gradients of pooling --------------------------------------------------------------------------------
    def _unpool(self, w: Writer, tile: Tile, nodes: list[Node]) -> None:
        """Each row spreads over the pixels of its window; what follows happens at every one of them."""
        c = w.uses
        op: Any = nodes[0].op
        dy = tile.load(w, self.region.graph[nodes[0].inputs[0]])
        pooled_width, (height, width) = int(tile.shape[2]), op.size
        rows, step = f"{self.pixel} // {pooled_width} * {height}", f"{self.pixel} % {pooled_width} * {width}"
        w.line()
        w.note("Unpool: spread each row over the pixels of its window, one after another: side by side they")
        w.note("would need more registers than there are")
        w.line(f"corner = {rows} * {pooled_width * width} + {step}", "the window's first pixel")
        with w.block(f"for t in range({c.WINDOW}):"):
            w.line(f"position = corner + (t // {width} * {pooled_width * width} + t % {width})", "pixel")
            if isinstance(op, MaxUnpool2D):
                chosen = tile.load(w, self.region.graph[nodes[0].inputs[1]])
                text = f"tl.where({chosen} == t, {dy}, 0.0)"
            else:
                text = f"{dy} / {c.WINDOW}"
            full = self.tile(nodes[0], "position", "row_ok", "BLOCK_M")
            value = self.names.value(nodes[0])
            w.line(f"{value} = {text}", full.note)
            full.values[nodes[0].name] = value
            full.store_if_output(w, nodes[0])
            full.emit(w, nodes[1:])

    # -- softmax ---------------------------------------------------------------------------------------------
    def _softmax(self, w: Writer, tile: Tile, nodes: list[Node]) -> None:
        node = nodes[0]
        value = tile.load(w, self.region.graph[node.inputs[0]])
        w.line()
        w.note("Softmax: the tile holds whole rows")
        text = softmax_of(w, value, "power", tile.column_ok, tile.note)
        tile.values[node.name] = self.names.value(node)
        w.line(f"{tile.values[node.name]} = {text}", tile.note)
        tile.store_if_output(w, node)
        tile.emit(w, nodes[1:])
