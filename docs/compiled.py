"""The tables of docs/gates.md, from what `make gates` wrote to tests/data/gates.json."""

from __future__ import annotations

import json
from functools import cache
from pathlib import Path
from typing import Any

DATA = Path(__file__).resolve().parent.parent / "tests" / "data" / "gates.json"
HEADS = (
    *("kernels", "functions", "lines", "failures", "spills", "registers", "shared, KiB", "products"),
    *("no matrix unit", "issue ratio, middle and most", "narrow loads", "depthwise", "programs, batch 1"),
    "compiling, s",
)


@cache
def data() -> dict[str, Any]:
    return json.loads(DATA.read_text(encoding="utf-8"))  # type: ignore[no-any-return]


def compiled_rows() -> str:
    """A table for each dtype and target."""
    groups: dict[str, list[str]] = {}
    for name, row in sorted(data()["rows"].items(), key=lambda pair: _order(pair[0])):
        network, mode, dtype, target = name.rsplit(" ", 3)
        groups.setdefault(f"{dtype}, {target}", []).append(_row(f"{network}, {mode}", row))
    ruler = f"|---|{'--:|' * len(HEADS)}"
    return "\n".join(
        "\n".join([f"### {title}\n", f"| network | {' | '.join(HEADS)} |", ruler, *rows, ""])
        for title, rows in groups.items()
    )


def _order(name: str) -> tuple[int, int, str]:
    *_, dtype, target = name.rsplit(" ", 3)
    return (
        ("bfloat16", "float32", "tf32").index(dtype),
        ("sm_90", "sm_80", "sm_100", "gfx942").index(target),
        name,
    )


def _row(title: str, row: dict[str, Any]) -> str:
    whole = row["compiled"] == row["functions"]
    functions = f"{row['functions']}" if whole else f"{row['compiled']} of {row['functions']}"
    issue = row["issue"]
    cells = (
        row["kernels"],
        functions,
        row.get("lines", ""),
        len(row["failures"]) + len(row["without kernel"]),
        len(row["spills"]),
        row["registers"],
        f"{row['shared'] / 1024:.0f}",
        row["products"],
        len(row["without units"]),
        f"{issue['median']:.2f}, {issue['most']:.2f}" if issue else "",
        _most(row["narrow"]),
        ", ".join(filter(None, (_most(row["depthwise"]), _most(row.get("depthwise 3x3"))))),
        _programs(row["programs"]),
        f"{row['seconds']:.0f}",
    )
    return f"| {title} | {' | '.join(map(str, cells))} |"


def _programs(found: dict[str, Any] | None) -> str:
    """Fewest of all, fewest of those that more could speed up, processors."""
    if not found:
        return ""
    worth = f", {found['worth'][0]}" if found.get("worth") else ""
    return f"{found['fewest']}{worth} for {found['processors']}"


def _most(found: dict[str, Any] | None) -> str:
    return f"{found['most']:g}" if found else ""


def compiled_named() -> str:
    """What is not as it should be, by name."""
    lines = []
    for name, row in sorted(data()["rows"].items(), key=lambda pair: _order(pair[0])):
        lines += [f"- {name}: does not compile: {text}" for text in row["failures"]]
        lines += [f"- {name}: has no kernel: {text}" for text in row["without kernel"]]
        lines += [f"- {name}: {where} spills {count} bytes" for where, count in row["spills"].items()]
        lines += [f"- {name}: {where} uses no matrix unit" for where in row["without units"]]
    return "\n".join(lines or ["Nothing."]) + "\n"


def compiled_missing() -> str:
    """Rows that were not compiled, or not to the end."""
    import gates

    rows = data()["rows"]
    parts = {name: row for name, row in rows.items() if row["compiled"] < row["functions"]}
    lines = [f"- {name}: {row['compiled']} of {row['functions']} functions" for name, row in parts.items()]
    ways: dict[tuple[str, str], dict[str, list[str]]] = {}
    for network, mode, dtype, target in gates.every():
        absent = ways.setdefault((dtype, target), {})
        missing = " ".join((network, mode, dtype, target)) not in rows
        absent.setdefault(network, []).extend([mode] if missing else [])
    for (dtype, target), absent in ways.items():
        if all(len(modes) == len(gates.MODES) for modes in absent.values()):
            lines.append(f"- {dtype}, {target}: nothing was compiled")
        elif any(absent.values()):
            told = (f"{network} ({', '.join(modes)})" for network, modes in absent.items() if modes)
            lines.append(f"- {dtype}, {target}: not {', '.join(told)}")
    return "\n".join(lines or ["Everything was compiled."]) + "\n"


def compiled_with() -> str:
    return f"Compiled with Triton {data()['triton']}.\n"


# -- estimates ---------------------------------------------------------------------------------------------
def estimated_plans() -> str:
    """What the model says, whole networks."""
    lines = [
        "| network | batch | kernels | estimate, ms | roofline of the plan, ms | times | kernels above 1.5 |",
        "|---|--:|--:|--:|--:|--:|--:|",
    ]
    for name, found in data()["estimates"].items():
        network, mode, batch = name.rsplit(" ", 2)
        times = found["us"] / found["roofline us"]
        lines.append(
            f"| {network}, {mode} | {batch} | {found['kernels']} | {found['us'] / 1e3:.3f} | "
            f"{found['roofline us'] / 1e3:.3f} | {_marked(times)} | {len(found['far'])} |"
        )
    return "\n".join(lines) + "\n"


def _marked(times: float) -> str:
    import estimates

    return f"**{times:.2f}**" if times > estimates.WANTED else f"{times:.2f}"


def estimated_far() -> str:
    """Kernels above 1.5 times their roofline, those that lose most first."""
    parts = []
    for name, found in data()["estimates"].items():
        if found["far"]:
            lines = [
                f"<details><summary>{name}: {len(found['far'])} of {found['kernels']} kernels</summary>\n",
                "| kernel | last layer | estimate, us | roofline, us | schedule | believed to wait for |",
                "|---|---|--:|--:|---|---|",
            ]
            lines += [
                f"| `{far['region']}` | {far['layer']} | {far['us']:.1f} | {far['roofline us']:.1f} | "
                f"{far['form']} {far['schedule']} | {far['reason']} |"
                for far in found["far"]
            ]
            parts.append("\n".join([*lines, "\n</details>\n"]))
    return "\n".join(parts) or "None.\n"


BLOCKS = (
    *(compiled_rows, compiled_named, compiled_missing, compiled_with),
    *(estimated_plans, estimated_far),
)
