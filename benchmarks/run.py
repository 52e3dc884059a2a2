"""ConvLoom fused and unfused, against PyTorch eager and torch.compile, side by side.

    python benchmarks/run.py [--quick] [--output results.json] [--networks resnet18 ...] [--device cpu]

All variants of a case live in one process and are timed in turn, in a new random order each round, so that
what else the machine does falls on all alike. A value is the median over the rounds. Before it is timed, each
variant's output (in training: loss and every gradient) must agree with PyTorch eager's.
"""

from __future__ import annotations

import argparse
import datetime
import gc
import json
import math
import platform
import random
import statistics
import sys
import time
import warnings
from collections.abc import Callable
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

import torch
from rich.console import Console
from rich.table import Table
from torch import nn
from twins import NETWORKS, Network, gradients_of, twins

import convloom

METHOD = (
    "one process; every variant checked against eager first; variants timed in random order each round, a "
    "slice of several calls each; the value is the median over rounds of a slice's mean; inputs lie ready in "
    "each variant's own layout; on a GPU a slice ends with a synchronisation; float32 products are IEEE"
)
TOLERANCE = {"float32": 2e-4, "bfloat16": 6e-2, "float16": 1e-2}
"""Norm of the difference over the norm of the value, allowed after some twenty layers."""
GRADIENT_TOLERANCE = {"float32": 3e-2, "bfloat16": 0.5, "float16": 0.2}
"""The same for gradients. Rounding moves values near zero across a ReLU's corner, and each that crosses adds
or drops a whole term: eager's own two layouts differ by up to 7e-3 on ResNet-18 in float32.
"""
BASELINE = "eager channels_last"


@dataclass
class Variant:
    """call: one batch, or one training step. check: what must agree with eager's, computed once."""

    name: str
    call: Callable[[], Any]
    check: Callable[[], dict[str, torch.Tensor]]


@dataclass
class Result:
    """milliseconds: median over the rounds. error: largest relative difference from eager."""

    network: str
    batch: int
    mode: str
    variant: str
    milliseconds: float | None = None
    fastest: float | None = None
    rounds: list[float] = field(default_factory=list)
    error: float | None = None
    kernels: int | None = None
    skipped: str = ""


@dataclass(frozen=True)
class Setting:
    """What all cases share."""

    device: torch.device
    dtype: str
    rounds: int
    slice_seconds: float
    with_compile: bool

    @property
    def torch_dtype(self) -> torch.dtype:
        found: torch.dtype = getattr(torch, self.dtype)
        return found

    def synchronize(self) -> None:
        if self.device.type == "cuda":
            torch.cuda.synchronize()


@dataclass(frozen=True)
class Case:
    """One network at one batch size, its weights and its data. images: (N, H, W, C); targets: one-hot."""

    network: Network
    batch: int
    model: convloom.Model
    module: nn.Module
    images: torch.Tensor
    targets: torch.Tensor

    @classmethod
    def draw(cls, network: Network, batch: int, device: torch.device) -> Case:
        model, module = twins(network)
        images = torch.randn(batch, *network.image, generator=torch.Generator().manual_seed(1))
        (result,) = model.outputs
        *place, classes = result.shape[1:]
        labels = torch.arange(batch * math.prod(place)).reshape(batch, *place) % classes
        targets = nn.functional.one_hot(labels, classes).float()
        return cls(network, batch, model, module.to(device), images.to(device), targets.to(device))


# -- variants: inference ----------
def torch_inference(case: Case, setting: Setting, form: str) -> Variant:
    _, module = twins(case.network)
    module = module.to(setting.device, setting.torch_dtype).eval()
    images = case.images.permute(0, 3, 1, 2).to(setting.torch_dtype)
    run: Callable[[torch.Tensor], torch.Tensor] = module
    if form == "eager NCHW":
        images = images.contiguous()
    else:
        module.to(memory_format=torch.channels_last)
        images = images.contiguous(memory_format=torch.channels_last)
    if form.startswith("torch.compile"):
        run = _compiled(module, setting)

    def call() -> torch.Tensor:
        with torch.no_grad():
            return torch.softmax(run(images), 1)

    return Variant(form, call, lambda: {"output": call()})


def _compiled(module: nn.Module, setting: Setting) -> Callable[[torch.Tensor], torch.Tensor]:
    torch._dynamo.reset()
    mode = "reduce-overhead" if setting.device.type == "cuda" else "default"
    compiled: Callable[[torch.Tensor], torch.Tensor] = torch.compile(module, mode=mode)
    return compiled


def convloom_inference(case: Case, setting: Setting, fuse: bool) -> tuple[Variant, int]:
    net = convloom.compile(case.model, device=str(setting.device), dtype=setting.dtype, fuse=fuse).eval()
    images = case.images.to(setting.torch_dtype)

    def call() -> torch.Tensor:
        with torch.no_grad():
            result: torch.Tensor = net(images)
            return result

    return Variant(_own_name(fuse), call, lambda: {"output": call()}), len(net.program.regions)


def _own_name(fuse: bool) -> str:
    return "ConvLoom fused" if fuse else "ConvLoom unfused"


# -- variants: a training step, SGD with momentum ----------
def torch_training(case: Case, setting: Setting, form: str) -> Variant:
    _, module = twins(case.network)
    module = module.to(setting.device).train()
    images = case.images.permute(0, 3, 1, 2)
    if form == "eager NCHW":
        images = images.contiguous()
    else:
        module = module.to(memory_format=torch.channels_last)
    run = _compiled(module, setting) if form.startswith("torch.compile") else module
    optimizer = _optimizer(module)

    def step() -> torch.Tensor:
        optimizer.zero_grad(set_to_none=True)
        with torch.autocast(setting.device.type, setting.torch_dtype, enabled=setting.dtype != "float32"):
            logits = run(images)
        loss = nn.functional.cross_entropy(logits.float(), case.targets)
        loss.backward()
        return loss.detach()

    def check() -> dict[str, torch.Tensor]:
        return {"loss": step(), **gradients_of(module)}

    return Variant(form, lambda: (step(), optimizer.step()), check)


def convloom_training(case: Case, setting: Setting, fuse: bool) -> tuple[Variant, int]:
    net = convloom.compile(case.model, device=str(setting.device), dtype=setting.dtype, fuse=fuse).train()
    compiled = net.with_loss("categorical_crossentropy")
    optimizer = _optimizer(net)
    images = case.images.to(setting.torch_dtype)
    targets = case.targets.to(setting.torch_dtype)

    def step() -> torch.Tensor:
        optimizer.zero_grad(set_to_none=True)
        loss, _ = compiled(images, targets)
        loss.backward()
        return loss.detach()

    def check() -> dict[str, torch.Tensor]:
        loss = step()
        gradients = {name: p.grad for name, p in net.named_parameters() if p.grad is not None}
        return {"loss": loss, **gradients}

    return Variant(_own_name(fuse), lambda: (step(), optimizer.step()), check), len(
        compiled.compiled.program.regions
    )


def _optimizer(module: nn.Module) -> torch.optim.Optimizer:
    # A rate so small that thousands of steps on one batch leave the weights where they are.
    return torch.optim.SGD(module.parameters(), lr=1e-6, momentum=0.9)


# -- checking and timing ----------
def build_variants(case: Case, setting: Setting, mode: str) -> tuple[list[Variant], list[Result]]:
    """The variants that run and agree with eager, and a result for each (those skipped with the reason)."""
    own = convloom_inference if mode == "inference" else convloom_training
    rival = torch_inference if mode == "inference" else torch_training
    makers: list[tuple[str, Callable[[], Variant | tuple[Variant, int]]]] = [
        (name, lambda name=name: rival(case, setting, name)) for name in ("eager NCHW", BASELINE)
    ]
    makers += [(_own_name(fuse), lambda fuse=fuse: own(case, setting, fuse)) for fuse in (True, False)]
    if setting.with_compile:
        name = "torch.compile channels_last"
        makers.append((name, lambda: rival(case, setting, name)))
    variants: list[Variant] = []
    results: list[Result] = []
    exact: dict[str, torch.Tensor] | None = None
    for name, make in makers:
        result = Result(case.network.name, case.batch, mode, name)
        results.append(result)
        try:
            made = make()
            variant, result.kernels = made if isinstance(made, tuple) else (made, None)
            found = variant.check()
        except Exception as error:
            result.skipped = f"{type(error).__name__}: {str(error).strip().splitlines()[0][:200]}"
            continue
        if exact is None:
            exact = {key: value.float().clone() for key, value in found.items()}
        result.error = largest_difference(exact, found)
        if result.error > (TOLERANCE if mode == "inference" else GRADIENT_TOLERANCE)[setting.dtype]:
            result.skipped = f"differs from eager by {result.error:.2g}"
        else:
            variants.append(variant)
    return variants, results


def largest_difference(exact: dict[str, torch.Tensor], found: dict[str, torch.Tensor]) -> float:
    """Over all values: the largest norm of a difference, relative to the norm of the value."""
    if exact.keys() != found.keys():
        raise RuntimeError(f"values differ by name: {sorted(exact.keys() ^ found.keys())[:4]}")
    worst = 0.0
    for name, value in exact.items():
        difference = float((found[name].float().reshape(value.shape) - value).norm())
        worst = max(worst, difference / max(float(value.norm()), 1e-12))
    return worst


def time_case(variants: list[Variant], setting: Setting, order: random.Random) -> dict[str, list[float]]:
    """Milliseconds a call, for each round, by variant."""
    calls = {variant.name: _calls_in_a_slice(variant, setting) for variant in variants}
    times: dict[str, list[float]] = {variant.name: [] for variant in variants}
    for _ in range(setting.rounds):
        for variant in order.sample(variants, len(variants)):
            times[variant.name].append(1e3 * _slice(variant, calls[variant.name], setting))
    return times


def _slice(variant: Variant, calls: int, setting: Setting) -> float:
    variant.call()  # the caches belong to the variant before: one call to settle
    setting.synchronize()
    start = time.perf_counter()
    for _ in range(calls):
        variant.call()
    setting.synchronize()
    return (time.perf_counter() - start) / calls


def _calls_in_a_slice(variant: Variant, setting: Setting) -> int:
    for _ in range(3):
        variant.call()
    return max(1, round(setting.slice_seconds / _slice(variant, 2, setting)))


# -- the report ----------
def environment(setting: Setting, arguments: argparse.Namespace) -> dict[str, Any]:
    import triton

    gpu = setting.device.type == "cuda"
    return {
        "date": datetime.datetime.now(datetime.UTC).isoformat(timespec="seconds"),
        "method": METHOD,
        "device": torch.cuda.get_device_name(setting.device)
        if gpu
        else platform.processor() or platform.machine(),
        "capability": torch.backends.cpu.get_cpu_capability(),
        "threads": torch.get_num_threads(),
        "dtype": setting.dtype,
        "rounds": setting.rounds,
        "python": platform.python_version(),
        "torch": torch.__version__,
        "triton": triton.__version__,
        "convloom": convloom.__version__,
        "arguments": {key: str(value) for key, value in vars(arguments).items() if key != "output"},
    }


def print_case(console: Console, results: list[Result]) -> None:
    base = next((r.milliseconds for r in results if r.variant == BASELINE), None)
    first = results[0]
    table = Table(title=f"{first.network}, batch {first.batch}, {first.mode}", title_justify="left")
    for heading in ("variant", "ms", "fastest", f"against {BASELINE}", "kernels", "difference"):
        table.add_column(heading, justify="left" if heading == "variant" else "right")
    for r in results:
        if r.milliseconds is None or r.fastest is None:
            table.add_row(r.variant, "-", "-", r.skipped, "", "")
            continue
        ratio = f"{base / r.milliseconds:.2f}x" if base else "-"
        kernels = "" if r.kernels is None else str(r.kernels)
        table.add_row(
            r.variant, f"{r.milliseconds:.3f}", f"{r.fastest:.3f}", ratio, kernels, f"{r.error:.1e}"
        )
    console.print(table)


def run_case(case: Case, setting: Setting, mode: str, order: random.Random) -> list[Result]:
    variants, results = build_variants(case, setting, mode)
    times = time_case(variants, setting, order)
    for result in results:
        rounds = times.get(result.variant)
        if rounds:
            result.rounds = rounds
            result.milliseconds, result.fastest = statistics.median(rounds), min(rounds)
    return results


def parse(argv: list[str] | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    names = [network.name for network in NETWORKS]
    parser.add_argument("--networks", nargs="+", choices=names, default=names)
    parser.add_argument(
        "--modes", nargs="+", choices=["inference", "training"], default=["inference", "training"]
    )
    parser.add_argument("--batches", nargs="+", type=int, help="default: each network's own")
    parser.add_argument("--device", default="cuda" if torch.cuda.is_available() else "cpu")
    parser.add_argument("--dtype", choices=sorted(TOLERANCE), default="float32")
    parser.add_argument("--rounds", type=int, help="default: 15, or 5 with --quick")
    parser.add_argument("--threads", type=int, help="of PyTorch on the CPU; default: its own choice")
    parser.add_argument("--no-compile", action="store_true", help="leave torch.compile out")
    parser.add_argument("--quick", action="store_true", help="about a minute: fewer cases and rounds")
    parser.add_argument("--seconds", type=float, help="start no further case after this long")
    parser.add_argument("--output", type=Path, help="write the results to this JSON file")
    return parser.parse_args(argv)


def cases_of(arguments: argparse.Namespace) -> list[tuple[Network, int, str]]:
    chosen = [network for network in NETWORKS if network.name in arguments.networks]
    cases = []
    for network in chosen:
        for mode in arguments.modes:
            for batch in arguments.batches or network.batches(mode):
                cases.append((network, batch, mode))
    if arguments.quick:
        cases = [c for c in cases if (c[0].name, c[2]) == ("lenet5", "training") or c[1:] == (1, "inference")]
    return cases


def main(argv: list[str] | None = None) -> int:
    arguments = parse(argv)
    if arguments.threads:
        torch.set_num_threads(arguments.threads)
    torch.backends.cudnn.benchmark = True
    torch.backends.cudnn.allow_tf32 = False
    rounds = arguments.rounds or (5 if arguments.quick else 15)
    slice_seconds = 0.05 if arguments.quick else 0.2
    compiles = not (arguments.no_compile or arguments.quick)
    setting = Setting(torch.device(arguments.device), arguments.dtype, rounds, slice_seconds, compiles)
    console, order = Console(), random.Random(0)
    report: dict[str, Any] = {"environment": environment(setting, arguments), "results": []}
    start = time.monotonic()
    for network, batch, mode in cases_of(arguments):
        if arguments.seconds and time.monotonic() - start > arguments.seconds:
            console.print(f"out of time: {network.name}, batch {batch}, {mode} left out")
            continue
        results = run_case(Case.draw(network, batch, setting.device), setting, mode, order)
        print_case(console, results)
        report["results"] += [asdict(result) for result in results]
        if arguments.output:
            arguments.output.write_text(json.dumps(report, indent=1) + "\n")
        gc.collect()
    wrong = [r for r in report["results"] if r["variant"].startswith("ConvLoom") and r["skipped"]]
    return 1 if wrong else 0


if __name__ == "__main__":
    warnings.filterwarnings("default", category=UserWarning, module="convloom")
    sys.exit(main())
