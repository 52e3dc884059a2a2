"""The main loop of a forward convolution, a matrix product or a data gradient, as text.

Rows of operand A are gathered from a feature map, operand B is the weight as it lies. Three forms:

- rows: one tap that reads the map as it is (a matrix product, a 1x1 convolution): A is a plain matrix;
- taps: a loop over the kernel's taps and blocks of channels; each row's address is computed once, and a step
  adds one number to all of them;
- flattened: few channels; the index over (tap, channel) is taken apart for every element.

Addresses have 64 bits once for a tile and 32 bits inside it: a tile spans only a few images.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

from ...planning.geometry import Axis
from ...planning.products import Product
from ...planning.schedules import Schedule
from ..text.indices import checks
from ..text.writer import Uses, Writer

Hook = Callable[[Writer, str, str, str], None]
"""A prologue: (writer, pixel of the source, channel, condition "inside") -> lines that change `a`."""


@dataclass(frozen=True)
class Gather:
    """What the loop multiplies. Names are those of the kernel's constants and values.

    source: operand A. extent: its height and width. channels: of its map; run: of one group. lane: letter
    of the channel index. first: makes the text of the tile's first image. rows_are_pixels: whether row m is
    pixel m, and not ordered by pooling windows. transposed: whether B's rows are its contiguous axis (a data
    gradient).
    """

    work: Product
    axes: tuple[Axis, Axis]
    source: str
    extent: tuple[str, str]
    channels: str
    run: str
    lane: str
    first: Callable[[Uses], str] = lambda c: ""
    rows_are_pixels: bool = True
    transposed: bool = False
    dot_options: str = ""
    upcast: bool = False
    prologue: Hook | None = None

    @property
    def is_rows(self) -> bool:
        return self.rows_are_pixels and all(axis.is_identity for axis in self.axes)

    @property
    def sign(self) -> str:
        """Whether later taps lie further on in the source or further back."""
        return "-" if self.axes[0].step < 0 or self.axes[1].step < 0 else "+"


def emit_tile_order(w: Writer, work: Product, schedule: Schedule) -> None:
    """Which tile this program computes: tile_m, tile_n."""
    c = w.uses
    tiles = -(-work.columns // schedule.block_n)
    if tiles == 1:
        w.line("tile_m = tl.program_id(0)")
        return
    w.note("Which tile: bands of GROUP_M row tiles share the column tiles while they are in the L2 cache")
    w.lines(
        "tile = tl.program_id(0)",
        f"band = tile // ({c.GROUP_M} * {c.TILES_N}) * {c.GROUP_M}",
        f"band_size = tl.minimum(tl.cdiv(rows, BLOCK_M) - band, {c.GROUP_M})",
        f"tile_m = band + tile % ({c.GROUP_M} * {c.TILES_N}) % band_size",
        f"tile_n = tile % ({c.GROUP_M} * {c.TILES_N}) // band_size",
    )


def emit_columns(w: Writer, work: Product, schedule: Schedule, run: str, name: str) -> str:
    """col: this tile's columns among all channels. Returns the name of their mask, "" where all exist."""
    if work.groups > 1:
        w.line("group = tl.program_id(1)")
    return _columns(w, work, schedule, run, name, "", "BLOCK_N")


def emit_half_columns(w: Writer, work: Product, schedule: Schedule, run: str) -> str:
    """The same of one half of the tile, number `half`."""
    return _columns(w, work, schedule, run, "", f"half * {w.uses.HALF_N} + ", w.uses.HALF_N)


def _columns(
    w: Writer, work: Product, schedule: Schedule, run: str, name: str, first: str, size: str
) -> str:
    c = w.uses
    tiled = work.columns > schedule.block_n
    lanes = f"{'tile_n * BLOCK_N + ' if tiled else ''}{first}tl.arange(0, {size})"
    note = f"[{size}] {name}".strip()
    if work.groups > 1:
        w.line(f"col_in_group = {lanes}", f"[{size}]")
        w.line(f"col = group * {c[run]} + col_in_group", note)
    else:
        w.line(f"col = {lanes}", note)
    if work.columns % schedule.block_n == 0:
        return ""
    w.line(f"col_ok = {'col_in_group' if work.groups > 1 else 'col'} < {c[run]}", f"[{size}]")
    return "col_ok"


def emit_loop(w: Writer, gather: Gather, schedule: Schedule, col_ok: str) -> None:
    """acc = A times B; expects row, row_ok, col, and (but for the form of plain rows) top, left, image."""
    form = _rows if gather.is_rows else _flattened if gather.work.flattened else _taps
    w.line("acc = tl.zeros((BLOCK_M, BLOCK_N), tl.float32)")
    form(w, gather, schedule, col_ok)


# -- addresses -----------------------------------------------------------------------------------------------
def emit_source(w: Writer, g: Gather) -> None:
    """The 64-bit base of the tile in the source, `<source>_tile`."""
    c = w.uses
    if g.is_rows:
        w.line(
            f"{g.source}_tile = {g.source}_ptr + "
            f"(tile_m * BLOCK_M).to(tl.int64) * {c[g.channels]}{_group(g, c)}"
        )
        return
    w.line(f"first = {g.first(c)}", "the tile's first image; addresses within the tile fit into 32 bits")
    size = f"({c[g.extent[0]]} * {c[g.extent[1]]} * {c[g.channels]})"
    w.line(f"{g.source}_tile = {g.source}_ptr + first.to(tl.int64) * {size}{_group(g, c)}")


def _group(g: Gather, c: Uses) -> str:
    return f" + group * {c[g.run]}" if g.work.groups > 1 else ""


def start_text(g: Gather, c: Uses) -> str:
    """Where in the source tile a row's first tap lies."""
    height, width = g.extent
    return f"(((image - first) * {c[height]} + top) * {c[width]} + left) * {c[g.channels]}"


def emit_weight(w: Writer, g: Gather) -> None:
    """w_tile: this tile's columns of the weight, for the first elements of the inner axis."""
    c = w.uses
    column = "col_in_group" if g.work.groups > 1 else "col"
    if not g.transposed:
        w.line(f"w_tile = w_ptr + {g.lane}[:, None] * {c.K} + col[None, :]", "[BLOCK_K, BLOCK_N]")
    elif g.work.groups > 1:
        w.line(
            f"w_tile = w_ptr + group * {c.KG} + {column}[None, :] * {c.K} + {g.lane}[:, None]",
            "[BLOCK_K, BLOCK_N]",
        )
    else:
        w.line(f"w_tile = w_ptr + col[None, :] * {c.K} + {g.lane}[:, None]", "[BLOCK_K, BLOCK_N]")


def _masked(pointer: str, *masks: str) -> str:
    present = [mask for mask in masks if mask]
    return f"tl.load({pointer}, mask={' & '.join(present)}, other=0.0)" if present else f"tl.load({pointer})"


def _across(mask: str) -> str:
    return f"{mask}[None, :]" if mask else ""


def _down(mask: str) -> str:
    return f"{mask}[:, None]" if mask else ""


def emit_multiply(w: Writer, upcast: bool, options: str, a: str = "a") -> None:
    """acc += a times b. upcast: whether the operands are bfloat16; options: of the product."""
    if upcast:
        with w.block(f"if {w.uses.UPCAST}:", "Triton's interpreter cannot multiply bfloat16"):
            w.lines("a = a.to(tl.float32)", "b = b.to(tl.float32)")
    w.line(f"acc = tl.dot({a}, b, acc{options})")


def emit_share(w: Writer, schedule: Schedule, steps: str) -> str:
    """The steps that this program takes, as the arguments of `range`; all where sums are not split."""
    if schedule.splits == 1:
        return steps
    c = w.uses
    of_all = f"({steps})" if "*" in steps else steps
    w.line(f"begin = split * {of_all} // {c.SPLITS}", "this part of the steps")
    w.line(f"end = (split + 1) * {of_all} // {c.SPLITS}")
    return "begin, end"


def emit_blocks(w: Writer, schedule: Schedule, run: str, blocks: int) -> str:
    """The same of a walk along `run` elements, BLOCK_K a step."""
    if schedule.splits == 1:
        return f"0, {w.uses[run]}, BLOCK_K"
    emit_share(w, schedule, str(blocks))
    return "begin * BLOCK_K, end * BLOCK_K, BLOCK_K"


# -- the three forms -----------------------------------------------------------------------------------------
def _rows(w: Writer, g: Gather, schedule: Schedule, col_ok: str) -> None:
    c = w.uses
    lane, partial = g.lane, g.work.channels % schedule.block_k != 0
    emit_source(w, g)
    w.line(f"start = tl.arange(0, BLOCK_M) * {c[g.channels]}")
    single = g.work.channels <= schedule.block_k
    w.line(f"{lane} = tl.arange(0, BLOCK_K)", "[BLOCK_K] position on the inner axis")
    emit_weight(w, g)
    if single:
        _rows_step(w, g, "", partial, col_ok)
        return
    blocks = -(-g.work.channels // schedule.block_k)
    with w.block(f"for {lane}0 in range({emit_blocks(w, schedule, g.run, blocks)}):"):
        _rows_step(w, g, f"{lane}0", partial, col_ok)


def _rows_step(w: Writer, g: Gather, block: str, partial: bool, col_ok: str) -> None:
    c = w.uses
    lane = g.lane
    lane_ok = f"{lane}_ok" if partial else ""
    if partial:
        w.line(f"{lane}_ok = {block + ' + ' if block else ''}{lane} < {c[g.run]}")
    offset = (
        f"start[:, None] + {lane}[None, :]" if not block else f"{block} + start[:, None] + {lane}[None, :]"
    )
    w.line(
        f"a = {_masked(f'{g.source}_tile + {offset}', 'row_ok[:, None]', _across(lane_ok))}",
        "[BLOCK_M, BLOCK_K]",
    )
    if g.prologue:
        channel = (f"group * {c[g.run]} + " if g.work.groups > 1 else "") + (
            f"{block} + {lane}" if block else lane
        )
        inside = "row_ok[:, None]" + (f" & {_across(lane_ok)}" if lane_ok else "")
        g.prologue(w, "row", channel, inside)
    stride = (block if g.transposed else f"{block} * {c.K}") if block else ""
    pointer = f"w_tile + {stride}" if stride else "w_tile"
    w.line(f"b = {_masked(pointer, _down(lane_ok), _across(col_ok))}", "[BLOCK_K, BLOCK_N]")
    emit_multiply(w, g.upcast, g.dot_options)


def _taps(w: Writer, g: Gather, schedule: Schedule, col_ok: str) -> None:
    c = w.uses
    emit_source(w, g)
    w.line(f"start = {start_text(g, c)}", "[BLOCK_M] where each row's first tap lies in it")
    w.line(f"{g.lane} = tl.arange(0, BLOCK_K)", "[BLOCK_K] channels of one step")
    emit_weight(w, g)
    emit_tap_loop(w, g, schedule, col_ok, ("R", "S") if g.work.taps > 1 else None)


def emit_tap_loop(
    w: Writer,
    g: Gather,
    schedule: Schedule,
    col_ok: str,
    counts: tuple[str, str] | None,
    weight_tap: str = "",
) -> None:
    """The loop over taps and channel blocks. counts: names of the numbers of taps, None for a single tap;
    weight_tap: text of the tap's position in the kernel, where it is not `tap`.
    """
    c = w.uses
    blocks = -(-g.work.channels // schedule.block_k)
    partial = g.work.channels % schedule.block_k != 0
    lane, many = g.lane, counts is not None
    rows, columns = counts or ("", "")
    if many and blocks > 1:
        head = f"for step in range({emit_share(w, schedule, f'{c[rows]} * {c[columns]} * {c.BLOCKS}')}):"
    elif many:
        head = f"for tap in range({emit_share(w, schedule, f'{c[rows]} * {c[columns]}')}):"
    else:
        head = f"for {lane}0 in range({emit_blocks(w, schedule, g.run, blocks)}):"
    with w.block(head):
        if many and blocks > 1:
            w.lines(f"tap = step // {c.BLOCKS}", f"{lane}0 = step % {c.BLOCKS} * BLOCK_K")
        if many:
            for name, axis, text in (
                ("r", g.axes[0], f"tap // {c[columns]}"),
                ("s", g.axes[1], f"tap % {c[columns]}"),
            ):
                w.line(f"{name} = {text}" + (f" * {abs(axis.step)}" if abs(axis.step) != 1 else ""))
        if weight_tap:
            w.line(f"w_tap = {weight_tap}")
        inside = _emit_inside(w, g, many)
        block = f"{lane}0" if blocks > 1 or not many else ""
        _load_taps(w, g, inside, block, partial, many)
        weight = _weight_offset(
            g, c, block, ("w_tap" if weight_tap else "tap") if many else "", blocks, partial
        )
        lane_ok = f"{lane}_ok" if partial else ""
        w.line(f"b = {_masked('w_tile' + weight, _down(lane_ok), _across(col_ok))}", "[BLOCK_K, BLOCK_N]")
        emit_multiply(w, g.upcast, g.dot_options)


def _emit_inside(w: Writer, g: Gather, many: bool) -> str:
    """Lines that decide which rows read inside the map at this tap; returns the name of the mask."""
    c = w.uses
    tests: list[str] = []
    for name, origin, tap, axis, extent in (
        ("i", "top", "r", g.axes[0], g.extent[0]),
        ("j", "left", "s", g.axes[1], g.extent[1]),
    ):
        if found := checks(axis, name if many else origin, c, extent):
            if many:
                w.line(f"{name} = {origin} {g.sign} {tap}")
            tests += found
    if not tests:
        return "row_ok"
    w.line(f"inside = {' & '.join(['row_ok', *tests])}", "[BLOCK_M]")
    return "inside"


def _load_taps(w: Writer, g: Gather, inside: str, block: str, partial: bool, many: bool) -> None:
    c = w.uses
    lane = g.lane
    if partial:
        w.line(f"{lane}_ok = {block + ' + ' if block else ''}{lane} < {c[g.run]}")
    tap = f"(r * {c[g.extent[1]]} + s) * {c[g.channels]}" if many else ""
    if g.sign == "-" and tap:
        shift = f" + ({block} - {tap})" if block else f" - {tap}"
    else:
        shift = f" + ({tap} + {block})" if tap and block else f" + {tap or block}" if tap or block else ""
    if shift:
        w.line(f"offset = start{shift}", "[BLOCK_M]")
    pointer = f"{g.source}_tile + {'offset' if shift else 'start'}[:, None] + {lane}[None, :]"
    lane_ok = f"{lane}_ok[None, :]" if partial else ""
    w.line(f"a = {_masked(pointer, f'{inside}[:, None]', lane_ok)}", "[BLOCK_M, BLOCK_K]")
    if g.prologue:
        channel = (f"group * {c[g.run]} + " if g.work.groups > 1 else "") + (
            f"{block} + {lane}" if block else lane
        )
        pixel = f"(image * {c[g.extent[0]]} + top) * {c[g.extent[1]]} + left"
        g.prologue(w, pixel, channel, f"{inside}[:, None]" + (f" & {lane_ok}" if lane_ok else ""))


def _weight_offset(g: Gather, c: Uses, block: str, tap: str, blocks: int, partial: bool) -> str:
    """What to add to w_tile for this step."""
    if g.transposed:
        columns = "CG" if g.work.groups > 1 else "C"
        parts = [f"{tap} * ({c[columns]} * {c.K})"] if tap else []
        return "".join(f" + {part}" for part in [*parts, *([block] if block else [])])
    if not tap:
        return f" + {block} * {c.K}" if block else ""
    if blocks == 1:
        return f" + {tap} * ({c[g.run]} * {c.K})"
    return f" + ({tap} * {c[g.run]} + {block}) * {c.K}" if partial else f" + step * (BLOCK_K * {c.K})"


def _flattened(w: Writer, g: Gather, schedule: Schedule, col_ok: str) -> None:
    c = w.uses
    emit_source(w, g)
    w.line(f"start = {start_text(g, c)}", "[BLOCK_M] where each row's first tap lies in it")
    w.line("lane = tl.arange(0, BLOCK_K)")
    steps = -(-g.work.inner // schedule.block_k)
    with w.block(f"for step in range({emit_share(w, schedule, str(steps))}):"):
        w.line("e = step * BLOCK_K + lane", f"[BLOCK_K] index over (r, s, {g.lane})")
        r_step, s_step = (abs(axis.step) for axis in g.axes)
        w.line(f"r = e // ({c.S} * {c[g.run]})" + (f" * {r_step}" if r_step != 1 else ""))
        w.line(f"s = e // {c[g.run]} % {c.S}" + (f" * {s_step}" if s_step != 1 else ""))
        w.line(f"{g.lane} = e % {c[g.run]}")
        tests = ["row_ok[:, None]"]
        partial = g.work.inner % schedule.block_k != 0
        if partial:
            w.line(f"e_ok = e < {c.R} * {c.S} * {c[g.run]}")
            tests.append("e_ok[None, :]")
        for name, origin, tap, axis, extent in (
            ("i", "top", "r", g.axes[0], g.extent[0]),
            ("j", "left", "s", g.axes[1], g.extent[1]),
        ):
            if found := checks(axis, name, c, extent):
                w.line(f"{name} = {origin}[:, None] {g.sign} {tap}[None, :]", "[BLOCK_M, BLOCK_K]")
                tests += found
        tap_offset = f"(r * {c[g.extent[1]]} + s) * {c[g.channels]}"
        offset = f"({tap_offset} + {g.lane})" if g.sign == "+" else f"({g.lane} - {tap_offset})"
        pointer = f"{g.source}_tile + start[:, None] + {offset}[None, :]"
        w.line(f"inside = {' & '.join(tests)}")
        w.line(f"a = {_masked(pointer, 'inside')}", "[BLOCK_M, BLOCK_K]")
        if g.prologue:  # of the loaded values alone: no operand of its own is addressed
            g.prologue(w, "row", g.lane, "inside")
        e_ok = "e_ok[:, None]" if partial else ""
        w.line(f"b = {_masked(_flat_weight(g, c), e_ok, _across(col_ok))}", "[BLOCK_K, BLOCK_N]")
        emit_multiply(w, g.upcast, g.dot_options)


def _flat_weight(g: Gather, c: Uses) -> str:
    if not g.transposed:
        return f"w_ptr + e[:, None] * {c.K} + col[None, :]"
    grouped = g.work.groups > 1
    columns, column = ("CG", "col_in_group") if grouped else ("C", "col")
    extra = f"group * {c.KG} + " if grouped else ""
    tap = f"(e // {c[g.run]} * ({c[columns]} * {c.K}) + {g.lane})"
    return f"w_ptr + {extra}{tap}[:, None] + {column}[None, :] * {c.K}"
