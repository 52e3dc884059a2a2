"""Static gates: every kernel of whole networks compiled for cards that are not here, and what that shows.

    PYTHONPATH=benchmarks python tests/gates.py [--seconds 400] [--missing] [NETWORK | MODE | DTYPE | TARGET]*

`make gates` runs all; words restrict it to rows that have them, --missing to rows that are not whole yet.
What is compiled is kept under its key in .gates.jsonl, line by line: a run that is cut off goes on where it
ended, and only what changed is compiled anew. The rows lie in data/gates.json; docs/gates.md shows them, and
test_gates.py holds them to their limits.
"""

from __future__ import annotations

import importlib.metadata
import json
import statistics
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import asdict, dataclass
from functools import cache
from pathlib import Path
from typing import Any

import networks
import plan_table
from convloom.codegen import Kernel
from convloom.codegen import kernels as emitted
from convloom.codegen.machine.aot import Request, compile_request
from convloom.codegen.machine.loops import SCHEDULERS, multiplied
from convloom.codegen.machine.resources import Resources
from convloom.graph.losses import add_loss
from convloom.graph.op import Kind
from convloom.graph.ops import Conv2D, Conv2DDataGrad, Conv2DWeightGrad, Relu, Relu6
from convloom.graph.passes.precision import with_dtype
from convloom.planning.cost import CostModel
from convloom.planning.forms import FORMS
from convloom.planning.geometry import broadcast_kind
from convloom.planning.modes import Mode
from convloom.planning.product_time import FIRST_SECONDS, SECOND_LAUNCH_SECONDS
from convloom.planning.products import NARROW, Product
from convloom.planning.program import Program, Step, plan
from convloom.planning.targets import DEVICES, target

import convloom as cl

ROOT = Path(__file__).resolve().parent.parent
TABLE = ROOT / "tests" / "data" / "gates.json"
FACTS = ROOT / ".gates.jsonl"

NETWORKS: dict[str, Callable[[], cl.Model]] = {
    **{name: plan_table.NETWORKS[name] for name in ("ResNet-50", "MobileNetV2", "U-Net", "VGG-16")},
    "LeNet-5": networks.lenet5,
    "ResNet-18": networks.resnet18,
    **{
        name: plan_table.NETWORKS[name]
        for name in ("EfficientNetB0", "DenseNet121", "ConvNeXtTiny", "InceptionV3")
    },
}
MODES = ("inference", "training")
DTYPES = ("bfloat16", "float32", "tf32")
TARGETS = ("sm_90", "sm_80", "sm_100", "gfx942")
BOTH_OTHER_DTYPES = ("ResNet-50", "MobileNetV2")
"""The networks that are compiled in float32 and tf32 too."""

DEPTHWISE = ("direct convolution", "direct data gradient")
WIDE = 16
"""Bytes of the widest load of a thread."""

Row = dict[str, Any]


def every() -> Iterator[tuple[str, str, str, str]]:
    """Network, mode, dtype and target of each row, the most telling first."""
    for dtype in DTYPES:
        for card in TARGETS:
            for mode in MODES:
                for name in NETWORKS if dtype == "bfloat16" else BOTH_OTHER_DTYPES:
                    yield name, mode, dtype, card


# -- what is compiled ----------------------------------------------------------------------------------------
@dataclass(frozen=True)
class Function:
    """One jitted function of a program on a target, and the first step that calls it.

    work: the product that it computes; None for all other functions, those that finish sums among them.
    """

    key: str
    request: Request
    step: Step
    first: bool
    work: Product | None

    @property
    def called(self) -> str:
        layers = self.step.region.layers
        return f"`{self.step.region.stem}`" + (f" of {layers[-1]}" if layers else "")


@cache
def program_of(name: str, mode: str, dtype: str, card: str) -> Program:
    graph = _typed(name, dtype)
    loss = None
    if mode == "training":
        graph, loss = graph.copy(), ["loss"]
        graph.outputs["loss"] = add_loss(graph, "categorical_crossentropy")
    precision = "tf32" if dtype == "tf32" else "ieee"
    how = Mode(training=bool(loss), backward=bool(loss))
    return plan(graph, how, target=card, precision=precision, loss=loss)


@cache
def _typed(name: str, dtype: str) -> Any:
    graph = NETWORKS[name]().to_graph()
    return graph if dtype in ("float32", "tf32") else with_dtype(graph, dtype)


def functions(program: Program) -> dict[str, Function]:
    """The distinct ones, by their keys: equal where one compiled function serves."""
    found: dict[str, Function] = {}
    steps = [step for step in program.steps if step.region.launches]
    for step, kernel in zip(steps, emitted(program), strict=True):
        if isinstance(kernel, Kernel):
            form = next(form for form in FORMS if form.name == step.form)
            requests = kernel.requests(program.target)
            for place, (key, request) in enumerate(zip(kernel.functions.values(), requests, strict=True)):
                work = form.product(step.region) if "tl.dot(" in _text(request) else None
                found.setdefault(key, Function(key, request, step, not place, work))
    return found


class Facts:
    """What was compiled, by target and key, in a file that grows by a line for each."""

    def __init__(self, path: Path = FACTS) -> None:
        self.path, self.known = path, dict[tuple[str, str], Resources]()
        for line in path.read_text().splitlines() if path.exists() else ():
            key, compiler, said = json.loads(line)
            if compiler == triton():
                said["loads"] = {int(size): count for size, count in said["loads"].items()}
                self.known[said["target"], key] = Resources(**said)

    def get(self, card: str, key: str) -> Resources | None:
        return self.known.get((card, key))

    def compile(self, function: Function) -> None:
        card = function.request.target
        if (card, function.key) not in self.known:
            found = self.known[card, function.key] = compile_request(function.request)
            with self.path.open("a") as file:
                file.write(json.dumps([function.key, triton(), asdict(found)]) + "\n")


@cache
def triton() -> str:
    return importlib.metadata.version("triton")


# -- what it shows -------------------------------------------------------------------------------------------
def row(name: str, mode: str, dtype: str, card: str, facts: Facts) -> Row:
    """What is known of one network's kernels on one target."""
    program = program_of(name, mode, dtype, card)
    wanted = functions(program)
    known = [(f, used) for f in wanted.values() if (used := facts.get(card, f.key)) is not None]
    good = [(f, used) for f, used in known if used.error is None]
    products = [(f, used) for f, used in good if _needs_units(f, program)]
    regions = [step for step in program.steps if step.region.launches]
    return {
        "kernels": len(regions),
        "functions": len(wanted),
        "compiled": len(known),
        "without kernel": [f"{step.region.name}: {step.reason}" for step in regions if step.form is None],
        "failures": [f"{f.called}: {used.error}" for f, used in known if used.error is not None],
        "spills": {f.called: used.spills_bytes for f, used in good if used.spills_bytes},
        "registers": max((used.registers for _, used in good), default=0),
        "shared": max((used.shared_bytes for _, used in good), default=0),
        "lines": max(_lines(function.request) for function in wanted.values()),
        "products": len(products),
        "without units": [f.called for f, used in products if not used.matrix_instructions],
        "issue": _of_many([(_issue_ratio(f, used, program), f) for f, used in products]),
        "narrow": _of_many([(_narrow_loads(f, used), f) for f, used in good]),
        "depthwise": _of_many([(_each_output_and_tap(f, used), f) for f, used in good]),
        "depthwise 3x3": _of_many([(_each_output_and_tap(f, used), f) for f, used in good if _is_plain(f)]),
        "programs": _fewest_programs(program) if mode == "inference" else None,
        "seconds": round(sum(used.compile_seconds for _, used in known), 1),
    }


def _lines(request: Request) -> int:
    """Of a function's text: a person is to read it on two screens."""
    return _text(request).count("\n") + 1


def _text(request: Request) -> str:
    begin = request.source.index(f"def {request.function}(")
    return request.source[begin : request.source.index("\n\n\n", begin)]


def _of_many(found: list[tuple[float | None, Function]]) -> Row | None:
    """Largest and middle of what some functions have."""
    there = [(value, function) for value, function in found if value is not None]
    if not there:
        return None
    largest, function = max(there, key=lambda pair: pair[0])
    middle = statistics.median(value for value, _ in there)
    return {"of": len(there), "most": round(largest, 2), "median": round(middle, 2), "where": function.called}


def _needs_units(function: Function, program: Program) -> bool:
    """Whether it is a product of 16 channels and more whose numbers matrix instructions multiply."""
    work = function.work
    if work is None or (function.step.form or "").startswith("direct"):
        return False
    units = CostModel.of(program.target, program.precision).on_matrix_units(work.dtype)
    return units and min(work.columns, _channels(work)) >= NARROW


def _channels(work: Product) -> int:
    if work.sums_over_batch:
        return work.row_channels or work.rows
    return work.channels


def _issue_ratio(function: Function, used: Resources, program: Program) -> float | None:
    """Cycles of issuing the main loop over those of its matrix instructions, as `machine.loops` has it."""
    schedule = function.step.schedule
    assert schedule is not None
    if function.work is None or (done := multiplied(used.loop, schedule.warps)) == 0:
        return None
    dtype = CostModel.of(program.target, program.precision).compute_dtype(function.work.dtype)
    cycles = done / target(program.target).products_a_cycle(dtype)
    return used.loop_instructions * schedule.warps / SCHEDULERS / cycles


def _narrow_loads(function: Function, used: Resources) -> float | None:
    """Loads narrower than 16 bytes in a pointwise kernel that reads what belongs to channels."""
    region = function.step.region
    if region.anchor.op.kind is not Kind.POINTWISE or not region.nodes[-1].type.rank > 1:
        return None
    shape = region.nodes[-1].type.shape
    kinds = {broadcast_kind(node.type.shape, shape) for node in region.inputs if node.type.rank}
    if "channel" not in kinds:
        return None
    return float(sum(count for size, count in used.loads.items() if size < WIDE))


def _each_output_and_tap(function: Function, used: Resources) -> float | None:
    """Instructions of a depthwise kernel's loop for each output and tap that a thread computes in it."""
    step = function.step
    if step.form not in DEPTHWISE or not function.first or not used.loop:
        return None
    adds = sum(
        count * (2 if name.startswith(("HFMA2", "FFMA2", "v_pk_fma")) else 1)
        for name, count in used.loop.items()
        if name.startswith(("FFMA", "HFMA2", "v_fma", "v_pk_fma", "v_fmac", "v_mac"))
    )
    return used.loop_instructions / adds if adds else None


def _is_plain(function: Function) -> bool:
    """Whether its taps are 3x3, one step apart, and nothing but an activation of few instructions follows."""
    region = function.step.region
    op: Any = region.anchor.op
    if not isinstance(op, Conv2D | Conv2DDataGrad) or tuple(op.strides) != (1, 1):
        return False
    others = [type(node.op) for node in region.nodes if node is not region.anchor]
    kernel = region.graph[region.anchor.inputs[1]].type.size(1)[:2]
    return kernel == (3, 3) and all(other in (Relu, Relu6) for other in others)


def _fewest_programs(program: Program) -> Row | None:
    """Of a convolution at batch 1, and of how many processors the card has. worth: the same of those that
    take longer than the second kernel that shared sums need: others more programs would slow down."""
    card = next(card for card in DEVICES.values() if card.target == program.target)
    model = CostModel.of(program.target, program.precision, batch=1)
    counts: list[tuple[int, str, bool]] = []
    for step in program.steps:
        if isinstance(step.region.anchor.op, Conv2D | Conv2DDataGrad | Conv2DWeightGrad):
            form_name, schedule, _ = step.at(1)
            form = next((form for form in FORMS if form.name == form_name), None)
            if form is None or schedule is None or form.name.startswith("direct"):
                continue
            work = form.product(step.region)
            assert work is not None
            time = model.product(work, schedule, step.region.cost(1).bytes)
            worth = max(time.parts.values()) > SECOND_LAUNCH_SECONDS + FIRST_SECONDS
            called = f"`{step.region.stem}` of {(step.region.layers or ['?'])[-1]}"
            counts.append((time.programs, called, worth))
    if not counts:
        return None
    fewest, where, _ = min(counts, key=lambda found: found[0])
    worth_it = min((found[:2] for found in counts if found[2]), key=lambda found: found[0], default=None)
    return {"fewest": fewest, "where": where, "worth": worth_it, "processors": card.processors}


# -- the table -----------------------------------------------------------------------------------------------
def read() -> dict[str, Any]:
    return json.loads(TABLE.read_text()) if TABLE.exists() else {}


def write(part: str, name: str, value: Any) -> None:
    """One entry; others may have been written meanwhile."""
    table = {"triton": triton(), "rows": {}, "estimates": {}} | read()
    table[part][name] = value
    TABLE.write_text(json.dumps(table, indent=1) + "\n")


def main(arguments: Sequence[str]) -> int:
    given = list(arguments)
    seconds = float("inf")
    if "--seconds" in given:
        place = given.index("--seconds")
        seconds = float(given[place + 1])
        del given[place : place + 2]
    end, facts = time.monotonic() + seconds, Facts()
    kept = read().get("rows", {}) if "--missing" in given else {}
    for way in every():
        before = kept.get(" ".join(way))
        if before is not None and before["compiled"] == before["functions"]:
            continue
        groups = (NETWORKS, MODES, DTYPES, TARGETS)
        asked = [[word for word in given if word in group] for group in groups]
        if any(words and part not in words for part, words in zip(way, asked, strict=True)):
            continue
        if time.monotonic() > end:
            break
        missing = [f for f in functions(program_of(*way)).values() if facts.get(way[3], f.key) is None]
        for function in missing:
            if time.monotonic() < end:
                facts.compile(function)
        found = row(*way, facts)
        write("rows", " ".join(way), found)
        told = {word: found[word] for word in ("functions", "compiled", "failures", "spills")}
        print(" ".join(way), told, flush=True)
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
