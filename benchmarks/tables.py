"""Results as Markdown, for README.md and results/README.md: `docs/make_pages.py` writes them there."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from reports import Report
from twins import BY_NAME as NETWORKS
from twins import NETWORKS as ALL_NETWORKS
from variants import BASELINE, VARIANTS

Case = dict[str, Any]
Figures = dict[str, Any]

MODES = {"inference": "Inference", "training": "A training step (forward, backward, SGD with momentum)"}


def summary(report: Report) -> str:
    """How many times faster than eager each variant is, a line a case."""
    parts = [_origin(report)]
    for mode, title in MODES.items():
        cases = _cases(report, mode)
        if cases:
            parts.append(_ratios(f"{title}, images a batch", cases))
    return "\n".join(parts)


def details(report: Report) -> str:
    """Every figure of every variant."""
    parts = [_origin(report)]
    for mode in MODES:
        for case in _cases(report, mode):
            heading = f"### {_network(case)}, batch {case['batch']}, {mode}"
            measured = f"{case['date'][:10]}, commit {case['commit']}, {case['rounds']} rounds"
            parts.append(f"{heading}\n\n{measured}\n\n{_figures(case)}")
    return "\n".join(parts)


def ratio(case: Case, variant: Figures) -> str:
    """To the baseline of the same run."""
    base = next((v["milliseconds"] for v in case["variants"] if v["variant"] == BASELINE), None)
    return f"{base / variant['milliseconds']:.2f}x" if base and variant["milliseconds"] else "-"


def _origin(report: Report) -> str:
    around = report["environment"]
    versions = ", ".join(f"{name} {found}" for name, found in around["versions"].items() if found)
    dates = sorted(case["date"][:10] for case in report["cases"])
    when = dates[0] if dates[0] == dates[-1] else f"{dates[0]} to {dates[-1]}"
    where = f"{around['machine']}, {around['threads']} threads, {around['dtype']}, Python {around['python']}"
    return f"{where}, {versions}; measured {when}.\n"


def _cases(report: Report, mode: str) -> list[Case]:
    place = {network.name: position for position, network in enumerate(ALL_NETWORKS)}
    found = [case for case in report["cases"] if case["mode"] == mode]
    return sorted(found, key=lambda case: (place[case["network"]], case["batch"]))


def _network(case: Case) -> str:
    network = NETWORKS[case["network"]]
    return f"{network.title} ({network.image[0]}x{network.image[1]})"


def _ratios(title: str, cases: Sequence[Case]) -> str:
    measured = {v["variant"] for case in cases for v in case["variants"] if v["milliseconds"]}
    shown = [v for v in VARIANTS if v.name in measured and v.name != BASELINE]
    rows = []
    for case in cases:
        found = {v["variant"]: v for v in case["variants"]}
        base = found[BASELINE]["milliseconds"]
        cells = [ratio(case, found[v.name]) if v.name in found else "-" for v in shown]
        rows.append([f"{_network(case)}, {case['batch']}", _milliseconds(base), *cells])
    return markdown([title, "eager channels_last, ms", *(v.title for v in shown)], rows)


def _figures(case: Case) -> str:
    rows = []
    titles = {variant.name: variant.title for variant in VARIANTS}
    for v in case["variants"]:
        title = titles.get(v["variant"], v["variant"])
        if v["milliseconds"] is None:
            rows.append([title, v["skipped"]])
            continue
        spread = " to ".join(_milliseconds(x) for x in v["quartiles"] or [])
        rows.append(
            [
                *(title, _milliseconds(v["milliseconds"]), spread, ratio(case, v)),
                *(f"{v['peak_megabytes']:.0f}", f"{v['compile_seconds']:.2f}"),
                *("" if v["kernels"] is None else str(v["kernels"]), f"{v['error']:.0e}"),
                f"{100 * v['foreign']:.0f} %",
            ]
        )
    heads = [
        "ms",
        "quartiles",
        "against eager",
        "peak MB",
        "ready after s",
        "kernels",
        "error",
        "others' load",
    ]
    return markdown(["variant", *heads], rows)


def _milliseconds(value: float | None) -> str:
    return "-" if value is None else f"{value:.3g}" if value < 100 else f"{value:.0f}"


def markdown(heads: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    """A table: the first column to the left, all others to the right; short rows are filled up."""
    lines = [list(heads), ["---", *["--:"] * (len(heads) - 1)]]
    lines += [[*row, *[""] * (len(heads) - len(row))] for row in rows]
    return "".join(f"| {' | '.join(line)} |\n" for line in lines)
