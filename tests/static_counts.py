"""What one step of a product's main loop takes, as compiled: instructions, registers, spills.

    PYTHONPATH=tests python tests/static_counts.py          # compiles anew and writes data/static_counts.json

The cost model's orders are held to these figures by test_cost.py.
"""

from __future__ import annotations

import json
from collections.abc import Iterator
from dataclasses import asdict, dataclass
from pathlib import Path

from contraction_graphs import convolution, data_gradient, only_region
from convloom.codegen.dispatch import emit
from convloom.codegen.machine.aot import compile_many
from convloom.graph.ops import Relu
from convloom.planning.regions import Region
from convloom.planning.schedules import Schedule

PATH = Path(__file__).parent / "data" / "static_counts.json"
CASES = ("3x3", "1x1", "data gradient")
DTYPES = ("bfloat16", "tf32")
TARGETS = ("sm_80", "sm_90", "gfx942")
TILES = (
    *((64, 32, 64, 4), (64, 64, 32, 4), (64, 64, 64, 4), (64, 128, 64, 4), (64, 256, 64, 4)),
    *((128, 32, 64, 4), (128, 64, 32, 4), (128, 64, 64, 4), (128, 128, 32, 8), (128, 128, 64, 8)),
    *((128, 128, 128, 8), (128, 256, 64, 8), (256, 64, 64, 8), (256, 128, 64, 8)),
)
"""Rows, columns, depth, warps."""


@dataclass(frozen=True)
class Count:
    case: str
    dtype: str
    target: str
    schedule: Schedule
    instructions: int
    registers: int
    spills_bytes: int


def region(case: str, dtype: str) -> Region:
    """A product whose loop is long enough that the compiler does not write it out."""
    kept = "float32" if dtype == "tf32" else dtype
    border = ((1, 1), (1, 1))
    if case == "data gradient":
        graph, name = data_gradient((28, 28), 512, 512, (3, 3), (1, 1), border, dtype=kept)
        return only_region(graph, y=name)
    kernel, padding = ((3, 3), border) if case == "3x3" else ((1, 1), ((0, 0), (0, 0)))
    graph, name = convolution((28, 28), 2048, 512, kernel, (1, 1), padding, dtype=kept)
    return only_region(graph, y=graph.add(Relu(), [name]))


def schedules(dtype: str, target: str) -> Iterator[Schedule]:
    for block_m, block_n, block_k, warps in TILES:
        stages = 2 if target == "gfx942" or block_k == 128 else 3
        depth = block_k // 2 if dtype == "tf32" else block_k
        yield Schedule(block_m, block_n, depth, warps=warps, stages=stages)


def counted() -> list[Count]:
    """Compile them all."""
    wanted = [(c, d, t, s) for c in CASES for d in DTYPES for t in TARGETS for s in schedules(d, t)]
    requests = []
    for case, dtype, target, schedule in wanted:
        precision = "tf32" if dtype == "tf32" else "ieee"
        requests += emit(region(case, dtype), schedule=schedule, precision=precision).requests(target)[:1]
    found = compile_many(requests, jobs=1)
    return [
        Count(*of, made.loop_instructions, made.registers, made.spills_bytes)
        for of, made in zip(wanted, found, strict=True)
        if made.error is None
    ]


def read() -> list[Count]:
    rows = json.loads(PATH.read_text())
    return [Count(**{**row, "schedule": Schedule(**row["schedule"])}) for row in rows]


if __name__ == "__main__":
    lines = ",\n".join(json.dumps(asdict(count)) for count in counted())
    PATH.write_text(f"[\n{lines}\n]\n")
