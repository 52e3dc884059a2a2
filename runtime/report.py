"""What profiling found: a network fused and unfused, kernel by kernel; as numbers, a table and a page."""

from __future__ import annotations

import io
import json
from collections.abc import Callable, Iterable, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

from rich import box
from rich.console import Console
from rich.markup import escape
from rich.table import Table

from ..codegen.machine.resources import Resources
from ..graph.errors import ConvLoomError

FORMAT = "convloom-profile-1"
TABLE_WIDTH = 116


@dataclass(frozen=True)
class Row:
    """One kernel. seconds: median of the measured times. roofline_seconds: the least on the named GPU.

    flops, bytes: for one batch, bytes being what the kernel reads and writes. launches: of its Triton kernel.
    replaced_by: in the unfused network, the fused kernel that does this one's work ("" where none does).
    note: why there is no Triton kernel, where there is none.
    """

    name: str
    layers: tuple[str, ...]
    ops: tuple[str, ...]
    kind: str
    launches: int
    flops: int
    bytes: int
    seconds: float
    roofline_seconds: float | None
    replaced_by: str = ""
    note: str = ""

    @property
    def intensity(self) -> float:
        """FLOPs a byte."""
        return self.flops / self.bytes if self.bytes else 0.0


@dataclass(frozen=True)
class Side:
    """The network in one form. call_seconds: of a whole call, with all that lies between the kernels."""

    rows: tuple[Row, ...]
    call_seconds: float

    @property
    def launches(self) -> int:
        return sum(row.launches for row in self.rows)

    @property
    def flops(self) -> int:
        return sum(row.flops for row in self.rows)

    @property
    def bytes(self) -> int:
        return sum(row.bytes for row in self.rows)

    @property
    def seconds(self) -> float:
        """Sum of the kernels' medians."""
        return sum(row.seconds for row in self.rows)

    @property
    def roofline_seconds(self) -> float | None:
        return total(row.roofline_seconds for row in self.rows)

    def of(self, fused: str) -> list[Row]:
        """The unfused rows whose work the kernel `fused` does."""
        return [row for row in self.rows if row.replaced_by == fused]


@dataclass(frozen=True)
class Setup:
    """How it was measured. machine, backend: of the measured times. target, gpu: of the others."""

    model: str
    batch_size: int
    dtype: str
    backend: str
    machine: str
    repeats: int
    target: str
    gpu: str | None
    versions: dict[str, str] = field(default_factory=dict)

    def notes(self, with_resources: bool) -> list[str]:
        """What is measured, what is derived, and on what machine: one sentence each."""
        through = "the emitted Triton kernels" if self.backend == "triton" else "PyTorch's operators (aten)"
        lines = [
            f"Measured: times, through {through} on {self.machine}; median of {self.repeats} runs, "
            f"fused and unfused in turn.",
            "Derived from the graph: FLOPs, and bytes, as every kernel reads its operands and writes its "
            "results once. Launches are those of the Triton kernels.",
        ]
        if self.gpu:
            lines.append(
                f"Derived for {self.gpu}, not measured: roofline = max(FLOPs / peak {self.dtype} rate, "
                f"bytes / bandwidth)."
            )
        if with_resources:
            lines.append(
                f"Static: registers, spills, shared memory, of code compiled for {self.target} and not run."
            )
        return lines


@dataclass(frozen=True)
class Report:
    """The result of `profile`. print() it, or save() it as .html or .json.

    resources: kernel name -> what each of its functions takes on the target; empty where not asked for.
    """

    setup: Setup
    fused: Side
    unfused: Side
    resources: dict[str, tuple[Resources, ...]] = field(default_factory=dict)

    def ratios(self) -> dict[str, float]:
        """Unfused over fused: how many times less the fused network launches, moves and takes."""
        pairs: dict[str, tuple[float | None, float | None]] = {
            "launches": (self.unfused.launches, self.fused.launches),
            "bytes": (self.unfused.bytes, self.fused.bytes),
            "seconds": (self.unfused.seconds, self.fused.seconds),
            "call_seconds": (self.unfused.call_seconds, self.fused.call_seconds),
            "roofline_seconds": (self.unfused.roofline_seconds, self.fused.roofline_seconds),
        }
        return {name: above / below for name, (above, below) in pairs.items() if above and below}

    def notes(self) -> list[str]:
        """What the numbers are, and what stands in the way of some of them."""
        missing = [f"{row.name}: {row.note}" for row in self.fused.rows if row.note]
        return [*self.setup.notes(bool(self.resources)), *missing]

    def to_dict(self) -> dict[str, Any]:
        """All of it as plain values: seconds, bytes, FLOPs."""
        return {
            "format": FORMAT,
            "setup": asdict(self.setup),
            "notes": self.notes(),
            "fused": _side_dict(self.fused),
            "unfused": _side_dict(self.unfused),
            "ratios": self.ratios(),
            "resources": {name: [asdict(r) for r in found] for name, found in self.resources.items()},
        }

    def save(self, path: str | Path) -> Path:
        """Write the report: .html is one page that needs nothing else, .json is `to_dict`, .txt is the table.

        Raises ConvLoomError for another ending, or where the file cannot be written.
        """
        path = Path(path)
        writers: dict[str, Callable[[], str]] = {
            ".html": self.to_html,
            ".json": lambda: json.dumps(self.to_dict(), indent=1) + "\n",
            ".txt": lambda: f"{self}\n",
        }
        if path.suffix.lower() not in writers:
            raise ConvLoomError(
                f"a report is saved as {', '.join(writers)}, not as {path.suffix or path.name!r}"
            )
        text = writers[path.suffix.lower()]()
        try:
            path.write_text(text, encoding="utf-8")
        except OSError as error:
            raise ConvLoomError(f"cannot write the report to {path}: {error.strerror}") from None
        return path

    def to_html(self) -> str:
        """One HTML page with everything in it."""
        from .report_page import page

        return page(self)

    def __str__(self) -> str:
        console = Console(file=io.StringIO(), width=TABLE_WIDTH, highlight=False, color_system=None)
        self._print(console)
        assert isinstance(console.file, io.StringIO)
        return "\n".join(line.rstrip() for line in console.file.getvalue().rstrip().splitlines())

    def __rich_console__(self, console: Console, options: Any) -> Iterable[Any]:
        yield from self._parts()

    def _print(self, console: Console) -> None:
        for part in self._parts():
            console.print(part)

    def _parts(self) -> Iterable[Any]:
        yield _comparison(self)
        if self.resources:
            yield _resource_table(self)
        for note in self.notes():
            yield escape(note)


def total(values: Iterable[float | None]) -> float | None:
    """The sum, or None where a value is not known."""
    known = list(values)
    return None if None in known else sum(value for value in known if value is not None)


def _side_dict(side: Side) -> dict[str, Any]:
    rows = [{**asdict(row), "intensity": row.intensity} for row in side.rows]
    totals = {
        "launches": side.launches,
        "flops": side.flops,
        "bytes": side.bytes,
        "seconds": side.seconds,
        "call_seconds": side.call_seconds,
        "roofline_seconds": side.roofline_seconds,
    }
    return {"rows": rows, "totals": totals}


# -- the tables --------------------------------------------------------------------------------------------
def _comparison(report: Report) -> Table:
    s = report.setup
    title = f"{s.model}: fused | unfused, batch {s.batch_size}, {s.dtype}"
    table = Table(
        title=escape(title),
        title_justify="left",
        title_style="bold",
        show_footer=True,
        box=box.SIMPLE_HEAD,
        pad_edge=False,
    )
    fused, unfused = report.fused, report.unfused
    ratios = report.ratios()
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
    for row in fused.rows:
        table.add_row(*_cells(row, unfused.of(row.name)))
    rest = unfused.of("")
    if rest:
        table.add_row("[dim](only unfused)[/dim]", *_cells(None, rest)[1:])
    table.caption = (
        f"a whole call: {1e3 * fused.call_seconds:.3f} | {1e3 * unfused.call_seconds:.3f} ms, "
        f"{ratios.get('call_seconds', 0):.2f}x; {ratios.get('launches', 0):.1f}x fewer launches, "
        f"{ratios.get('bytes', 0):.1f}x fewer bytes"
    )
    table.caption_justify = "left"
    return table


def _cells(row: Row | None, parts: Sequence[Row]) -> list[str]:
    own = [row] if row else []
    seconds, before = sum(r.seconds for r in own), sum(r.seconds for r in parts)
    name = f"{row.name}\n[dim]{escape(', '.join(row.layers))}[/dim]" if row else ""
    return [
        name,
        _pair(own, parts, lambda rows: f"{sum(r.launches for r in rows)}"),
        f"{sum(r.flops for r in own or parts) / 1e6:.2f}",
        _pair(own, parts, lambda rows: f"{sum(r.bytes for r in rows) / 1e6:.2f}"),
        _pair(own, parts, lambda rows: f"{_intensity(rows):.1f}"),
        _pair(own, parts, lambda rows: f"{1e3 * sum(r.seconds for r in rows):.3f}"),
        f"{before / seconds:.2f}x" if seconds and before else "",
        microseconds(row.roofline_seconds if row else None),
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


def _resource_table(report: Report) -> Table:
    table = Table(
        title=f"compiled for {report.setup.target}",
        title_justify="left",
        title_style="bold",
        box=box.SIMPLE_HEAD,
        pad_edge=False,
    )
    table.add_column("kernel: function", overflow="fold", ratio=1)
    for header in ("registers", "spilled B", "shared KiB", "matrix unit", "occupancy"):
        table.add_column(header, justify="right", no_wrap=True)
    for name, found in report.resources.items():
        for used in found:
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
