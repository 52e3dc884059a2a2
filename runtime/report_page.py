"""A profile as one HTML page that needs nothing beside itself: no script, font or picture from elsewhere."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from html import escape

from ..planning.memory import readable
from .arena import arena_picture
from .findings import PHASES, Findings, Row, Side
from .report_style import STYLE
from .report_table import microseconds, resource_cells

KINDS = {
    "contraction": "convolutions, matrix products",
    "window": "pooling windows",
    "pointwise": "pointwise",
    "reduction": "reductions",
    "movement": "movement",
}
"""Kind of op -> what the legend calls it; also the names of the colours."""


def page(report: Findings) -> str:
    """The whole page as text. Every name in it is escaped."""
    s = report.setup
    versions = " · ".join(f"{name} {version}" for name, version in s.versions.items())
    about = f"{s.what} · batch {s.batch_size} · {s.dtype} · {s.backend} on {s.machine} · {versions}"
    parts = [
        f"<h1>{escape(s.model)}</h1>",
        '<div class="soft">fused and unfused, kernel by kernel</div>',
        f'<div class="soft small">{escape(about)}</div>',
        _cards(report),
        *([_phases(report)] if s.training else []),
        "<h2>Kernel by kernel</h2>",
        _legend(report),
        *_kernels(report),
        "<h2>All numbers</h2>",
        f'<div class="sides">{_table("Fused", report.fused)}{_table("Unfused", report.unfused)}</div>',
    ]
    if planned := report.memory():
        parts.append("<h2>Memory, planned</h2>")
    for sentence, arena in planned:
        parts.append(f'<p class="small">{escape(sentence[0].upper() + sentence[1:])}</p>')
        parts += [arena_picture(arena)] if arena and arena.runs else []
    if report.resources:
        parts += [f"<h2>Compiled for {escape(s.target)}</h2>", _resources(report)]
    parts += ["<h2>What these numbers are</h2>", _list(report.about_numbers())]
    body = "\n".join(parts)
    return (
        f'<!doctype html>\n<html lang="en"><head><meta charset="utf-8">\n'
        f'<meta name="viewport" content="width=device-width, initial-scale=1">\n'
        f"<title>{escape(s.model)}: fused and unfused</title>\n<style>{STYLE}</style></head>\n"
        f"<body><main>\n{body}\n</main></body></html>\n"
    )


# -- the totals --------------------------------------------------------------------------------------------
def _cards(report: Findings) -> str:
    fused, unfused = report.fused, report.unfused
    whole = f"whole {'step' if report.setup.training else 'call'}, measured"
    cards = [
        _card("kernel launches", ("fewer", "more"), fused.launches, unfused.launches, lambda v: f"{v:.0f}"),
        _card("memory traffic, derived", ("less", "more"), fused.bytes, unfused.bytes, _size),
        _card("in kernels, measured", ("faster", "slower"), fused.seconds, unfused.seconds, duration),
        _card(whole, ("faster", "slower"), fused.call_seconds, unfused.call_seconds, duration),
    ]
    least, before = fused.roofline_seconds, unfused.roofline_seconds
    if least is not None and before is not None:
        cards.append(
            _card(f"{report.setup.gpu} roofline, derived", ("faster", "slower"), least, before, duration)
        )
    return f'<div class="cards">{"".join(cards)}</div>'


def _card(
    title: str, words: tuple[str, str], fused: float, unfused: float, show: Callable[[float], str]
) -> str:
    most = max(fused, unfused) or 1.0
    less = fused <= unfused
    ratio = (
        f"{most / min(fused, unfused):.2f}&times; {words[0] if less else words[1]}"
        if fused and unfused
        else "&ndash;"
    )
    rows = "".join(
        f'<span class="soft">{label}</span><span class="bar">{_segment(colour, value / most, "")}</span>'
        f"<span>{escape(show(value))}</span>"
        for label, colour, value in (("fused", "fused", fused), ("unfused", "plain", unfused))
    )
    head = f'<span class="soft">{escape(title)}</span><strong>{ratio}</strong>'
    return f'<div class="card">{head}<div class="pair">{rows}</div></div>'


def _segment(colour: str, share: float, title: str) -> str:
    name = f' title="{escape(title)}"' if title else ""
    return f'<i class="{colour}" style="width:{100 * share:.2f}%"{name}></i>'


# -- kernel by kernel --------------------------------------------------------------------------------------
def _legend(report: Findings) -> str:
    present = {row.kind for row in report.unfused.rows}
    items = ['<span><i class="fused"></i>the fused kernel</span>']
    items += [f'<span><i class="{kind}"></i>{text}</span>' for kind, text in KINDS.items() if kind in present]
    return f'<div class="legend">{"".join(items)}<span class="soft">unfused: one segment an op</span></div>'


def _kernels(report: Findings) -> Iterable[str]:
    groups: list[tuple[Row | None, list[Row]]] = [
        (row, report.unfused.of(row.name)) for row in report.fused.rows
    ]
    if rest := report.unfused.of(""):
        groups.append((None, rest))
    named = ""
    longest = _longest(groups, lambda row: row.seconds)
    largest = _longest(groups, lambda row: float(row.bytes))
    for row, parts in groups:
        if report.setup.training and row and row.phase != named:
            named = row.phase
            yield f"<h3>{named.capitalize()}</h3>"
        time = _bars("time, measured", row, parts, lambda r: r.seconds, longest, duration)
        moved = _bars("memory traffic, derived", row, parts, lambda r: float(r.bytes), largest, _size)
        yield f'<section class="kernel">{_head(row, parts)}<div class="bars">{time}{moved}</div></section>'


def _head(row: Row | None, parts: Sequence[Row]) -> str:
    if row is None:
        return "<header><span>only in the unfused network</span></header>"
    layers = escape(", ".join(row.layers))
    counts = f"{row.launches} instead of {sum(part.launches for part in parts)} launches" if parts else ""
    least = f" · roofline {duration(row.roofline_seconds)}" if row.roofline_seconds is not None else ""
    numbers = f"{row.flops / 1e6:.2f} MFLOP · {row.intensity:.1f} FLOP/B{least}"
    return (
        f'<header><span><code>{escape(row.name)}</code> <span class="soft small">{layers}</span></span>'
        f'<span class="small">{counts}</span><span class="soft small">{escape(numbers)}</span></header>'
    )


def _longest(groups: Sequence[tuple[Row | None, list[Row]]], measure: Callable[[Row], float]) -> float:
    """The longest bar, to which all others are drawn."""
    sums = [sum(map(measure, parts)) for _, parts in groups] + [measure(row) for row, _ in groups if row]
    return max(sums, default=0.0) or 1.0


def _bars(
    title: str,
    row: Row | None,
    parts: Sequence[Row],
    measure: Callable[[Row], float],
    longest: float,
    show: Callable[[float], str],
) -> str:
    value = measure(row) if row else 0.0
    fused = _segment("fused", value / longest, f"{row.name}: {show(value)}") if row else ""
    plain = "".join(
        _segment(
            part.kind if part.kind in KINDS else "plain",
            measure(part) / longest,
            _tip(part, show(measure(part))),
        )
        for part in parts
    )
    total = show(sum(map(measure, parts))) if parts else "&ndash;"
    own = show(value) if row else "&ndash;"
    return (
        f'<div class="pair"><span class="soft" style="grid-column:1/-1">{title}</span>'
        f'<span class="soft">fused</span><span class="bar">{fused}</span><span>{own}</span>'
        f'<span class="soft">unfused</span><span class="bar">{plain}</span><span>{total}</span></div>'
    )


def _tip(row: Row, value: str) -> str:
    return f"{row.name} ({', '.join(row.layers)}): {value}" if row.layers else f"{row.name}: {value}"


def _phases(report: Findings) -> str:
    """Forward, loss, backward and optimizer: what each takes, fused and unfused."""
    heads = ("", "kernels", "traffic, derived", "time in kernels, measured", "")
    rows = []
    for phase in PHASES:
        own, before = report.fused.in_phase(phase), report.unfused.in_phase(phase)
        ratio = f"{before.seconds / own.seconds:.2f}&times;" if own.seconds and before.seconds else ""
        pairs = (
            (own.launches, before.launches),
            (_size(own.bytes), _size(before.bytes)),
            (duration(own.seconds), duration(before.seconds)),
        )
        rows.append((phase, *(f"{a} | {b}" for a, b in pairs), ratio))
    return f"<h2>Phases</h2>{_html_table('fused | unfused', heads, rows)}"


# -- tables ------------------------------------------------------------------------------------------------
def _table(title: str, side: Side) -> str:
    heads = ("kernel", "launches", "MFLOP", "kB", "FLOP/B", "µs measured", "µs roofline")
    rows = [
        (
            f'<code>{escape(row.name)}</code><br><span class="soft">{escape(", ".join(row.layers))}</span>',
            *_numbers(row.launches, row.flops, row.bytes, row.seconds, row.roofline_seconds),
        )
        for row in side.rows
    ]
    totals = ("total", *_numbers(side.launches, side.flops, side.bytes, side.seconds, side.roofline_seconds))
    return _html_table(title, heads, rows, totals)


def _numbers(launches: int, flops: int, moved: int, seconds: float, least: float | None) -> tuple[str, ...]:
    intensity = f"{flops / moved:.1f}" if moved else ""
    cells = (
        f"{flops / 1e6:.3f}",
        f"{moved / 1e3:,.1f}",
        intensity,
        f"{1e6 * seconds:.1f}",
        microseconds(least),
    )
    return (str(launches), *cells)


def _resources(report: Findings) -> str:
    heads = ("kernel", "registers", "spilled bytes", "shared KiB", "matrix unit", "occupancy")
    rows = [
        tuple(escape(cell) for cell in resource_cells(name, used))
        for name, found in report.resources.items()
        for used in found
    ]
    return _html_table("", heads, rows)


def _html_table(
    title: str, heads: Sequence[str], rows: Sequence[Sequence[str]], foot: Sequence[str] = ()
) -> str:
    """A table whose cells are HTML already."""

    def line(cells: Sequence[str], tag: str = "td") -> str:
        return "<tr>" + "".join(f"<{tag}>{cell}</{tag}>" for cell in cells) + "</tr>"

    caption = f"<caption>{escape(title)}</caption>" if title else ""
    body = "\n".join(map(line, rows))
    footer = f"<tfoot>{line(foot)}</tfoot>" if foot else ""
    return (
        f'<div class="scroll"><table>{caption}<thead>{line(heads, "th")}</thead>'
        f"<tbody>\n{body}\n</tbody>{footer}</table></div>"
    )


def _list(notes: Iterable[str]) -> str:
    return '<ul class="small">' + "".join(f"<li>{escape(note)}</li>" for note in notes) + "</ul>"


# -- units -------------------------------------------------------------------------------------------------
def duration(seconds: float) -> str:
    """Seconds in the unit that reads best: 1.25 ms, 840 µs, 35 ns."""
    units = ((1.0, "s"), (1e-3, "ms"), (1e-6, "µs"), (1e-9, "ns"))
    scale, unit = next(((s, u) for s, u in units if seconds >= s), units[-1])
    value = seconds / scale
    return f"{value:.3g} {unit}" if value < 1000 else f"{value:.0f} {unit}"


def _size(count: float) -> str:
    return readable(round(count))
