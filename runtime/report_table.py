"""The tables of a profile in a terminal."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence

from rich import box
from rich.markup import escape
from rich.table import Table

from ..codegen.machine.resources import Resources
from .findings import PHASES, Findings, Row, total


def comparison(found: Findings) -> Table:
    s = found.setup
    step = "" if not s.training else f" training step ({s.training}),"
    title = f"{s.model}: fused | unfused,{step} batch {s.batch_size}, {s.dtype}"
    table = Table(
        title=escape(title),
        title_justify="left",
        title_style="bold",
        show_footer=True,
        box=box.SIMPLE_HEAD,
        pad_edge=False,
    )
    fused, unfused = found.fused, found.unfused
    ratios = found.ratios()
    least = fused.roofline_seconds
    table.add_column("kernel, from the layers", "total", overflow="fold", ratio=1)
    for header, footer in (
        ("launches", f"{fused.launches} | {unfused.launches}"),
        ("MFLOP", f"{fused.flops / 1e6:.2f}"),
        ("MB moved", f"{fused.bytes / 1e6:.2f} | {unfused.bytes / 1e6:.2f}"),
        ("FLOP/B", f"{_intensity(fused.rows):.1f} | {_intensity(unfused.rows):.1f}"),
        ("ms measured", f"{1e3 * fused.seconds:.3f} | {1e3 * unfused.seconds:.3f}"),
        ("faster", f"{ratios.get('seconds', 0):.2f}x"),
        (f"{s.gpu or 'roofline'} µs", microseconds(least)),
    ):
        table.add_column(header, footer, justify="right", no_wrap=True)
    for phase in PHASES:
        own, before = fused.in_phase(phase), unfused.in_phase(phase)
        if s.training and (own.rows or before.rows):
            table.add_row(f"[bold]{phase}[/bold]", *_sums(own.rows, before.rows), style="bold")
        for row in own.rows:
            table.add_row(*_cells(row, unfused.of(row.name)))
        if rest := before.of(""):
            table.add_row("[dim](only unfused)[/dim]", *_cells(None, rest)[1:])
    table.caption = (
        f"a whole {'step' if s.training else 'call'}: "
        f"{1e3 * fused.call_seconds:.3f} | {1e3 * unfused.call_seconds:.3f} ms, "
        f"{ratios.get('call_seconds', 0):.2f}x; {ratios.get('launches', 0):.1f}x fewer launches, "
        f"{ratios.get('bytes', 0):.1f}x fewer bytes"
    )
    table.caption_justify = "left"
    return table


def _cells(row: Row | None, parts: Sequence[Row]) -> list[str]:
    name = f"{row.name}\n[dim]{escape(', '.join(row.layers))}[/dim]" if row and row.layers else ""
    return [name or (row.name if row else ""), *_sums([row] if row else [], parts)]


def _sums(own: Sequence[Row], parts: Sequence[Row]) -> list[str]:
    """Cells of some fused kernels beside the unfused ones that do the same."""
    seconds, before = sum(r.seconds for r in own), sum(r.seconds for r in parts)
    least = total(row.roofline_seconds for row in own) if own else None
    return [
        _pair(own, parts, lambda rows: f"{sum(r.launches for r in rows)}"),
        f"{sum(r.flops for r in own or parts) / 1e6:.2f}",
        _pair(own, parts, lambda rows: f"{sum(r.bytes for r in rows) / 1e6:.2f}"),
        _pair(own, parts, lambda rows: f"{_intensity(rows):.1f}"),
        _pair(own, parts, lambda rows: f"{1e3 * sum(r.seconds for r in rows):.3f}"),
        f"{before / seconds:.2f}x" if seconds and before else "",
        microseconds(least),
    ]


def _pair(fused: Sequence[Row], unfused: Sequence[Row], show: Callable[[Sequence[Row]], str]) -> str:
    return f"{show(fused) if fused else '-'} | {show(unfused) if unfused else '-'}"


def _intensity(rows: Iterable[Row]) -> float:
    rows = list(rows)
    moved = sum(row.bytes for row in rows)
    return sum(row.flops for row in rows) / moved if moved else 0.0


def microseconds(seconds: float | None) -> str:
    """Seconds as microseconds, "" for None."""
    return "" if seconds is None else f"{1e6 * seconds:.3g}"


def resource_table(found: Findings) -> Table:
    table = Table(
        title=f"compiled for {found.setup.target}",
        title_justify="left",
        title_style="bold",
        box=box.SIMPLE_HEAD,
        pad_edge=False,
    )
    table.add_column("kernel: function", overflow="fold", ratio=1)
    for header in ("registers", "spilled B", "shared KiB", "matrix unit", "occupancy"):
        table.add_column(header, justify="right", no_wrap=True)
    for name, functions in found.resources.items():
        for used in functions:
            table.add_row(*resource_cells(name, used))
    return table


def resource_cells(name: str, used: Resources) -> list[str]:
    """A kernel's resources as the cells of a table, in plain text."""
    label = name if used.kernel == name else f"{name}: {used.kernel}"
    if used.error:
        return [f"{label}: {used.error}", "", "", "", "", ""]
    units = ", ".join(f"{unit} x{count}" for unit, count in used.matrix_instructions.items()) or "none"
    occupancy = f"{100 * used.occupancy:.0f}%"
    shared = f"{used.shared_bytes / 1024:.1f}"
    return [label, str(used.registers), str(used.spills_bytes), shared, units, occupancy]
