"""The table `Model.summary` prints."""

from __future__ import annotations

import io

from rich.console import Console
from rich.markup import escape
from rich.table import Table

from .layers.base import Layer
from .lowering import Block
from .network import Network
from .symbolic import Call


def summary_text(model: Network, width: int | None = None) -> str:
    """One row a layer, and the totals. width: of the table in characters, by default 100."""
    table = Table(title=f'Model: "{escape(model.name)}"', title_justify="left", title_style="bold")
    table.add_column("Layer (type)", overflow="fold")
    table.add_column("Output shape", overflow="fold")
    table.add_column("Parameters", justify="right")
    table.add_column("Connected to", overflow="fold")
    for block, calls in _rows(model).items():
        shapes = dict.fromkeys(str(tensor.shape) for call in calls for tensor in call.outputs)
        sources = dict.fromkeys(model.name_of(tensor.node.block) for call in calls for tensor in call.inputs)
        table.add_row(
            escape(f"{model.name_of(block)} ({type(block).__name__})"),
            escape("\n".join(shapes)),
            f"{_size(block):,}",
            escape(", ".join(sources)),
        )
    total = model.count_params()
    trainable = sum(slot.size for slot in model.slots() if slot.trainable)
    console = Console(file=io.StringIO(), width=width or 100, highlight=False, color_system=None)
    console.print(table)
    console.print(f"Total parameters: {total:,} ({bytes_text(4 * total)} in float32)")
    console.print(f"Trainable: {trainable:,}")
    console.print(f"Non-trainable: {total - trainable:,}")
    assert isinstance(console.file, io.StringIO)
    return console.file.getvalue().rstrip("\n")


def bytes_text(count: int) -> str:
    """900 bytes, 1.5 KiB, 241.03 MiB: in the unit that suits it."""
    if count < 1024:
        return f"{count} bytes"
    size, units = count / 1024, ["KiB", "MiB", "GiB"]
    while size >= 1024 and len(units) > 1:
        size, units = size / 1024, units[1:]
    return f"{size:.2f} {units[0]}"


def _rows(model: Network) -> dict[Block, list[Call]]:
    """The layers with their calls, in the order data flows through them, the inputs included."""
    rows: dict[Block, list[Call]] = {}
    for call in model.network:
        rows.setdefault(call.block, []).append(call)
    return rows


def _size(block: Block) -> int:
    return block.count_params() if isinstance(block, Layer | Network) else 0
