"""An emitted kernel, interpreted, against the references of its ops in float64.

Outputs start as NaN (or 255), so an element that no program writes is seen.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from convloom.codegen import Kernel, emit
from convloom.graph import ops
from convloom.graph.ir import Graph
from convloom.graph.op import Op
from convloom.planning.regions import Region
from convloom.planning.schedules import Schedule

EPS = {"float32": 2.0**-23, "float16": 2.0**-10, "bfloat16": 2.0**-7}


def region(
    nodes: Sequence[tuple[str, Op, Sequence[str]]],
    outputs: Sequence[str] = (),
    anchor: str = "",
    phase: str = "forward",
) -> Region:
    """A region of the computing nodes of a list of (name, op, operands); the last is an output."""
    graph = Graph()
    members = []
    for name, op, operands in nodes:
        graph.add(op, operands, name, phase=phase)
        if operands:
            members.append(graph[name])
    for name in outputs or [members[-1].name]:
        graph.outputs[name] = name
    return Region(graph, graph[anchor] if anchor else members[-1], members, "kernel_under_test")


def expected(kernel: Kernel, inputs: Sequence[torch.Tensor]) -> list[torch.Tensor]:
    """The outputs by the ops' references, in float64."""
    values = {
        node.name: value.double() if value.is_floating_point() else value
        for node, value in zip(kernel.inputs, inputs, strict=True)
    }
    for node in kernel.region.nodes:
        values[node.name] = node.op.reference(*(values[name] for name in node.inputs))
    return [values[node.name] for node in kernel.outputs]


def difference(found: torch.Tensor, wanted: torch.Tensor) -> float:
    """Largest difference as a part of the largest value; infinite where either is NaN."""
    assert found.shape == wanted.shape
    scale = max(float(wanted.double().abs().max()), 1e-6)
    return float((found.double() - wanted.double()).abs().nan_to_num(float("inf")).max()) / scale


def check(
    given: Region,
    *,
    length: int = 1,
    batches: Sequence[int] = (1, 3),
    form: str | None = None,
    schedule: Schedule | None = None,
) -> Kernel:
    """Run a region's kernel for several batches and compare; length: terms of one image's longest sum.

    form, schedule: of the kernel, where they are not to be the ones that planning chooses."""
    kernel = emit(given, form=form, schedule=schedule)
    module = kernel.load(interpreted=True)
    stored = max((EPS[n.type.dtype] for n in kernel.outputs if n.type.is_floating), default=0.0)
    for batch in batches:
        inputs, outputs = module.example(batch, seed=batch), module.results(batch)
        module.launch(*inputs, *outputs)
        steps = 16 + 6 * len(given.nodes) + 4 * (length * batch) ** 0.5
        wanted = expected(kernel, inputs)
        for node, found, right, text in zip(
            kernel.outputs, outputs, wanted, module.reference(*inputs), strict=True
        ):
            assert found.dtype == node.type.torch_dtype
            assert difference(text, right) < 1e-12, f"{node}: the file's own reference is wrong"
            allowed = stored + steps * EPS["float32"] if node.type.is_floating else 0.0
            assert difference(found, right) <= allowed, f"{node} at batch {batch}"
            assert difference(found, right) <= module.TOLERANCE
    return kernel


def image(name: str, *shape: int, dtype: str = "float32") -> tuple[str, Op, tuple[()]]:
    return name, ops.Input(("N", *shape), dtype), ()


def vector(name: str, *shape: int, dtype: str = "float32") -> tuple[str, Op, tuple[()]]:
    return name, ops.Parameter(shape, dtype), ()
