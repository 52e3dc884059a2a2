"""Make fusion.svg: LeNet-5 with one kernel an op and fused, and the lines of one emitted kernel.

    python docs/pictures/make_fusion.py

Nothing in it is drawn by hand: regions, bytes and code come from the compiler.
"""

from __future__ import annotations

import re
import sys
from html import escape
from pathlib import Path

from convloom.planning.regions import Region
from convloom.runtime.profile import owners

import convloom as cl

HERE = Path(__file__).resolve().parent
sys.path.insert(0, str(HERE.parents[1] / "examples"))

from lenet5 import lenet5  # noqa: E402

BATCH = 32
WIDTH, LEFT, MIDDLE, ROW, TOP = 1000, 36, 596, 66, 108
"""Pixels: of the picture, where the unfused and the fused column begin, of a row, above the first row."""

BOX, GAP, HIGH = 104, 66, 32
"""Width of an op's box, of the gap for the value between two, and the height of both."""

SCALE = 440 / 2.8e6
"""Pixels a byte in the bars."""

PAPER, INK, SOFT, LINE, MEMORY = "#fbfaf6", "#23262b", "#7b7f87", "#dedbd2", "#c94c15"
KINDS = {
    "conv2d": ("#d9e6f5", "#2166ac"),
    "dense": ("#d9e6f5", "#2166ac"),
    "relu": ("#dcefe0", "#2e7d4f"),
    "max_pool2d": ("#ebe0f5", "#7a3ea8"),
    "softmax": ("#f9e9c8", "#9a6700"),
}
"""Fill and outline of an op's box, and the outline's colour of its lines of code."""

EXCERPT = (
    ("acc = tl.dot", "conv2d"),
    ("acc += bias", "conv2d"),
    ("activated =", "relu"),
    ("windows = tl.reshape", "max_pool2d"),
    ("largest =", "max_pool2d"),
    ("tl.store", ""),
)
"""Beginnings of the lines to show, and the op each belongs to."""


def main() -> None:
    model = lenet5()
    net = cl.compile(model)
    fused, unfused = net.program, cl.compile(model, fuse=False).program
    owner = owners(fused, unfused)
    parts = [[r for r in unfused.regions if owner[r.name] == region.name] for region in fused.regions]
    lines = [head(len(unfused.regions), len(fused.regions))]
    for index, (region, before) in enumerate(zip(fused.regions, parts, strict=True)):
        lines.append(row(TOP + index * ROW, region, before))
    bottom = TOP + len(parts) * ROW
    lines.append(totals(bottom, moved(fused.regions), moved(unfused.regions)))
    kernel = net.kernels[0]
    code, bottom = listing(bottom + 62, kernel.name, kernel.source)
    lines.append(code)
    (HERE / "fusion.svg").write_text(page(bottom + 28, lines), encoding="utf-8")


def moved(regions: list[Region]) -> int:
    """Bytes that the kernels read and write for one batch."""
    return sum(region.cost(BATCH).bytes for region in regions)


def size(count: int) -> str:
    return f"{count / 1e6:.2f} MB" if count >= 1e6 else f"{count / 1e3:.0f} kB"


# -- the rows ------------------------------------------------------------------------------------------------
def head(before: int, after: int) -> str:
    legend = "Orange: values written to memory and read back."
    return "\n".join(
        (
            text(LEFT, 44, f"One kernel an op: {before} kernels", 20, weight=600),
            text(MIDDLE, 44, f"ConvLoom: {after} kernels", 20, weight=600),
            text(LEFT, 68, f"LeNet-5, batch of {BATCH}. {legend}", 13, SOFT),
            text(MIDDLE, 68, "The same layers. Bars: bytes moved, to one scale.", 13, SOFT),
        )
    )


def row(y: float, region: Region, before: list[Region]) -> str:
    drawn = [f'<line x1="{LEFT}" y1="{y - 13}" x2="{WIDTH - LEFT}" y2="{y - 13}" stroke="{LINE}"/>']
    x: float = LEFT
    for index, part in enumerate(before):
        if index:
            drawn.append(memory(x, y, size(part.inputs[0].type.nbytes(BATCH))))
            x += GAP
        drawn.append(box(x, y, BOX, part.anchor.op.op_name()))
        x += BOX
    names = [node.op.op_name() for node in region.nodes]
    drawn.append(fused_box(MIDDLE, y, names))
    drawn.append(text(WIDTH - LEFT, y + 21, ", ".join(region.layers), 13, SOFT, "end"))
    drawn.append(bar(LEFT, y + HIGH + 7, moved(before), MEMORY))
    drawn.append(bar(MIDDLE, y + HIGH + 7, moved([region]), INK))
    return "\n".join(drawn)


def box(x: float, y: float, width: float, name: str, radius: float = 6) -> str:
    fill, edge = KINDS[name]
    return (
        f'<rect x="{x}" y="{y}" width="{width}" height="{HIGH}" rx="{radius}" fill="{fill}" stroke="{edge}"/>'
        + text(x + width / 2, y + 21, name, 13, edge, "middle", mono=True)
    )


def memory(x: float, y: float, label: str) -> str:
    """A value between two kernels: out to memory and back in."""
    middle = y + HIGH / 2
    line = f'd="M{x + 3} {middle} H{x + GAP - 8}" stroke="{MEMORY}" stroke-width="1.5"'
    return f'<path {line} marker-end="url(#tip)"/>' + text(
        x + GAP / 2, middle - 5, label, 11, MEMORY, "middle"
    )


def fused_box(x: float, y: float, names: list[str]) -> str:
    """The ops of one kernel side by side inside one outline."""
    widths = [max(56, 8 * len(name) + 18) for name in names]
    drawn = []
    at = x
    for name, width in zip(names, widths, strict=True):
        fill, edge = KINDS[name]
        drawn.append(f'<rect x="{at}" y="{y}" width="{width}" height="{HIGH}" fill="{fill}"/>')
        drawn.append(text(at + width / 2, y + 21, name, 13, edge, "middle", mono=True))
        at += width
    around = f'<rect x="{x}" y="{y}" width="{at - x}" height="{HIGH}" rx="6"'
    clip = f'<clipPath id="c{y}">{around}/></clipPath>'
    edge = f'{around} fill="none" stroke="{INK}" stroke-width="1.6"/>'
    return f'{clip}<g clip-path="url(#c{y})">{"".join(drawn)}</g>{edge}'


def bar(x: float, y: float, count: int, colour: str) -> str:
    width = max(2, count * SCALE)
    return f'<rect x="{x}" y="{y}" width="{width:.1f}" height="5" rx="2" fill="{colour}"/>' + text(
        x + width + 7, y + 7, size(count), 11, SOFT
    )


def totals(y: float, fused: int, unfused: int) -> str:
    less = unfused / fused
    return "\n".join(
        (
            f'<line x1="{LEFT}" y1="{y - 13}" x2="{WIDTH - LEFT}" y2="{y - 13}" stroke="{INK}"/>',
            text(LEFT, y + 14, f"{size(unfused)} moved", 17, MEMORY, weight=600),
            text(MIDDLE, y + 14, f"{fused / 1e6:.2f} MB moved, {less:.1f} times less", 17, weight=600),
        )
    )


# -- the code ------------------------------------------------------------------------------------------------
def listing(y: float, name: str, source: str) -> tuple[str, float]:
    """The lines of EXCERPT in a panel, each with its op beside it; and where the panel ends."""
    step, code = 23, [line for line in source.splitlines() if line.strip()]
    high = 56 + step * len(EXCERPT) + 14
    width = WIDTH - 2 * LEFT
    drawn = [
        f'<rect x="{LEFT}" y="{y}" width="{width}" height="{high}" rx="8" fill="#ffffff" stroke="{LINE}"/>',
        text(LEFT + 20, y + 30, f"kernels/{name}.py", 14, mono=True, weight=600),
        text(WIDTH - LEFT - 20, y + 30, "six lines of it, as emitted", 13, SOFT, "end"),
    ]
    for index, (start, op) in enumerate(EXCERPT):
        line = next((line.strip() for line in code if line.strip().startswith(start)), None)
        if line is None:
            raise SystemExit(f"{name}.py has no line that begins with {start!r}: choose EXCERPT anew")
        at = y + 68 + index * step
        colour = KINDS[op][1] if op else SOFT
        drawn.append(f'<rect x="{LEFT + 20}" y="{at - 15}" width="4" height="{step - 3}" fill="{colour}"/>')
        drawn.append(text(LEFT + 36, at, re.sub(r"\s+#.*", "", line), 14, mono=True))
        repeated = index > 0 and EXCERPT[index - 1][1] == op
        label = "" if repeated else op or "only this reaches memory"
        drawn.append(text(WIDTH - LEFT - 20, at, label, 13, colour, "end"))
    return "\n".join(drawn), y + high


# -- SVG -----------------------------------------------------------------------------------------------------
def text(
    x: float, y: float, words: str, size: int, colour: str = INK, anchor: str = "start",
    mono: bool = False, weight: int = 400,
) -> str:  # fmt: skip
    family = ' class="m"' if mono else ""
    return (
        f'<text x="{x:g}" y="{y:g}" font-size="{size}" fill="{colour}" text-anchor="{anchor}" '
        f'font-weight="{weight}"{family} xml:space="preserve">{escape(words)}</text>'
    )


def page(height: float, drawn: list[str]) -> str:
    return "\n".join(
        (
            f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {WIDTH} {height:g}" '
            f'width="{WIDTH}" height="{height:g}" role="img">',
            "<title>LeNet-5: one kernel an op, and fused by ConvLoom</title>",
            "<style>text{font-family:Inter,'Segoe UI',Helvetica,Arial,sans-serif}"
            ".m{font-family:ui-monospace,'SF Mono',Menlo,Consolas,'DejaVu Sans Mono',monospace}</style>",
            f'<defs><marker id="tip" viewBox="0 0 8 8" refX="4" refY="4" markerWidth="6" markerHeight="6" '
            f'orient="auto"><path d="M0 0L8 4L0 8z" fill="{MEMORY}"/></marker></defs>',
            f'<rect x="0.5" y="0.5" width="{WIDTH - 1}" height="{height - 1:g}" rx="14" '
            f'fill="{PAPER}" stroke="{LINE}"/>',
            *drawn,
            "</svg>\n",
        )
    )


if __name__ == "__main__":
    main()
