"""The main loop of a compiled product: what one step of it issues.

The static measure of a product's kernel is its *issue ratio*: the cycles that a processor's four schedulers
need to issue a step's instructions, over those that its matrix units need for the step. Below 1 the matrix
units can be kept busy.
"""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Mapping

from ...planning.schedules import Schedule

SCHEDULERS = 4
"""Of a processor, each of which issues one instruction of a warp in a cycle (NVIDIA's and AMD's guides)."""

# "        /*0120*/              @!P0 BRA 0x50 ;"
_SASS = re.compile(r"^\s+/\*([0-9a-f]{4,})\*/\s+(?:@!?U?P\w+\s+)?([A-Z][\w.]*)([^;]*);", re.MULTILINE)
_MATRIX = re.compile(r"[HIQDO]G?MMA|UTC\w*MMA")
_AMD_MATRIX = re.compile(r"v_s?w?mfma|v_s?wmma")


def sass_loop(sass: str) -> Counter[str]:
    """The instructions of the main loop, empty where there is none: the shortest with matrix instructions in
    it, or else the longest."""
    lines = [(int(at, 16), name, rest) for at, name, rest in _SASS.findall(sass)]
    places = {at: index for index, (at, _, _) in enumerate(lines)}
    spans = []
    for index, (at, name, rest) in enumerate(lines):
        target = re.search(r"0x([0-9a-f]+)", rest) if name.startswith("BRA") else None
        if target and int(target[1], 16) < at and int(target[1], 16) in places:
            spans.append((places[int(target[1], 16)], index + 1))
    return _main([name for _, name, _ in lines], spans, _MATRIX)


def amdgcn_loop(assembly: str) -> Counter[str]:
    """The same of AMD's assembly text."""
    names: list[str] = []
    labels: dict[str, int] = {}
    spans = []
    for line in assembly.splitlines():
        if label := re.match(r"^(\.?LBB\w+):", line):
            labels[label[1]] = len(names)
        elif found := re.match(r"^\t([a-z]+_[a-z0-9_]+)(.*)", line):
            names.append(found[1])
            target = re.search(r"(\.?LBB\w+)", found[2]) if "branch" in found[1] else None
            if target and target[1] in labels:
                spans.append((labels[target[1]], len(names)))
    return _main(names, spans, _AMD_MATRIX)


def _main(names: list[str], spans: list[tuple[int, int]], matrix: re.Pattern[str]) -> Counter[str]:
    bodies = [names[begin:end] for begin, end in spans]
    multiplying = [body for body in bodies if any(matrix.match(name) for name in body)]
    longest: list[str] = max(bodies, key=len, default=[])
    shortest: list[str] = min(multiplying, key=len, default=longest)
    return Counter(shortest)


def issue_ratio(instructions: int, schedule: Schedule, products_per_cycle: int) -> float:
    """Cycles of issuing a step's instructions over those of its products.

    products_per_cycle: multiplications and additions that a processor's matrix units do in one.
    """
    issue = instructions * schedule.warps / SCHEDULERS
    return issue / (schedule.block_m * schedule.block_n * schedule.block_k / products_per_cycle)


# -- what matrix instructions compute ------------------------------------------------------------------------
# HGMMA.64x128x16.F32.BF16, of four warps; HMMA.16816.F32.BF16, of one: rows, columns and depth.
_GROUP = re.compile(r"[HIQ]GMMA\.(\d+)x(\d+)x(\d+)")
_WARP = re.compile(r"[HIQ]MMA\.(16)(8)(\d+)")
_AMD = re.compile(r"v_s?mfma_f\d+_(\d+)x(\d+)x(\d+)_")


def multiplied(loop: Mapping[str, int], warps: int) -> int:
    """Products that the matrix instructions of a block's loop compute; 0 where they do not say it themselves.

    Compilers write several steps out as one, so that a schedule's tile does not tell what a loop multiplies.
    """
    return sum(count * _products(name, warps) for name, count in loop.items())


def _products(name: str, warps: int) -> int:
    for pattern, at_once in ((_GROUP, max(1, warps // 4)), (_WARP, warps), (_AMD, warps)):
        if found := pattern.match(name):
            return int(found[1]) * int(found[2]) * int(found[3]) * at_once
    return 0
