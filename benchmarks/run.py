"""ConvLoom against PyTorch, ONNX Runtime and OpenVINO, side by side: `make bench`.

    python benchmarks/run.py [--quick] [--networks resnet50 ...] [--output benchmarks/results/cpu.json]

Each variant of a case has a process of its own; all are visited in a new random order each round, so that
what else the machine does falls on all alike. A case that the output file holds already is measured anew and
takes the old one's place, so that a long run may be cut into several. `python docs/make_pages.py` then writes
the tables of README.md and results/README.md.
"""

from __future__ import annotations

import argparse
import importlib.util
import os
import random
import sys
import time
from pathlib import Path

import torch
from reports import environment, opened, put, write
from rich.console import Console
from rich.table import Table
from rounds import ROUNDS, Asked, Measured, as_json, run_case
from tables import ratio
from twins import NETWORKS
from variants import BASELINE, VARIANTS, Variant
from variants import BY_NAME as VARIANTS_BY_NAME

MODES = ("inference", "training")


def parse(argv: list[str] | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    names = [network.name for network in NETWORKS]
    parser.add_argument("--networks", nargs="+", choices=names, default=names)
    parser.add_argument("--modes", nargs="+", choices=MODES, default=MODES)
    parser.add_argument("--batches", nargs="+", type=int, help="default: each network's own")
    parser.add_argument(
        "--variants",
        nargs="+",
        choices=[variant.name for variant in VARIANTS],
        default=[variant.name for variant in VARIANTS if variant.usual],
        help=f"beside {BASELINE}, which is always there",
    )
    parser.add_argument("--device", default="cuda" if torch.cuda.is_available() else "cpu")
    parser.add_argument("--dtype", choices=["float32", "bfloat16", "float16"], default="float32")
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--slice", type=float, default=0.5, help="seconds that a variant is timed each round")
    parser.add_argument(
        "--patience", type=float, default=5.0, help="seconds to wait for an idle machine; or 0"
    )
    parser.add_argument("--threads", type=int, default=os.cpu_count() or 1)
    parser.add_argument("--quick", action="store_true", help="under a minute: LeNet-5 alone")
    parser.add_argument("--seconds", type=float, help="start no further case after this long")
    parser.add_argument("--output", type=Path, help="write the results into this JSON file")
    arguments = parser.parse_args(argv)
    if arguments.quick:
        arguments.networks, arguments.slice = ["lenet5"], 0.1
    return arguments


def cases_of(arguments: argparse.Namespace) -> list[Asked]:
    variants = [v for v in VARIANTS if v.name == BASELINE or v.name in arguments.variants]
    return [
        asked(network.name, batch, mode, variants, arguments)
        for mode in arguments.modes
        for network in NETWORKS
        if network.name in arguments.networks
        for batch in arguments.batches or network.batches(mode)
    ]


def asked(
    network: str, batch: int, mode: str, variants: list[Variant], arguments: argparse.Namespace
) -> Asked:
    able = [v for v in variants if mode in v.make and (v.dtype is None or arguments.dtype == "float32")]
    return Asked(
        *(network, batch, mode, [v.name for v in able]),
        *(arguments.device, arguments.dtype, arguments.threads, arguments.rounds, arguments.slice),
        patience=arguments.patience,
        onnx=any(v.needs and importlib.util.find_spec(v.needs) for v in able),
    )


def show(console: Console, case: Asked, results: list[Measured], seconds: float) -> None:
    titles = {variant.name: variant.title for variant in VARIANTS}
    title = f"{case.network}, batch {case.batch}, {case.mode} ({seconds:.0f} s)"
    table = Table(title=title, title_justify="left")
    for heading in ("variant", "ms", "against eager", "peak MB", "ready after s", "kernels", "error", "load"):
        table.add_column(heading, justify="left" if heading == "variant" else "right")
    written = as_json(case, results)
    for result, figures in zip(results, written["variants"], strict=True):
        if result.milliseconds is None:
            table.add_row(titles[result.variant], "-", result.skipped)
            continue
        table.add_row(
            *(titles[result.variant], f"{result.milliseconds:.3f}", ratio(written, figures)),
            *(f"{result.peak_megabytes:.0f}", f"{result.compile_seconds:.2f}"),
            *(str(result.kernels or ""), f"{result.error:.0e}", f"{100 * result.foreign:.0f} %"),
        )
    console.print(table)


def main(argv: list[str] | None = None) -> int:
    arguments = parse(argv)
    console, order = Console(), random.Random(0)
    console.width = max(console.width, 120)
    around = environment(arguments.device, arguments.dtype, arguments.threads, ROUNDS)
    report = opened(arguments.output, around)
    begun, wrong = time.monotonic(), False
    for case in cases_of(arguments):
        start = time.monotonic()
        if arguments.seconds and start - begun > arguments.seconds:
            console.print(f"out of time: {case.network}, batch {case.batch}, {case.mode} left out")
            continue
        results = run_case(case, order)
        show(console, case, results, time.monotonic() - start)
        own = [r for r in results if VARIANTS_BY_NAME[r.variant].title.startswith("ConvLoom")]
        wrong |= any(r.skipped and not r.skipped.startswith("this CPU") for r in own)
        put(report, as_json(case, results))
        if arguments.output:
            write(arguments.output, report)
    return int(wrong)


if __name__ == "__main__":
    sys.exit(main())
