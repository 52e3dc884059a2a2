"""Small graphs around one contraction, and the check of their kernels against float64."""

from __future__ import annotations

from typing import Any

import torch
from convloom.codegen.dispatch import emit
from convloom.codegen.kernel import Kernel
from convloom.graph.ir import Graph
from convloom.graph.ops import (
    KNOWN,
    Conv2D,
    Conv2DDataGrad,
    Conv2DWeightGrad,
    Drawn,
    Input,
    Parameter,
    Reduce,
)
from convloom.graph.types import TensorType
from convloom.graph.windows import NO_PADDING, Padding, Pair, window_output
from convloom.planning.fusion import fuse
from convloom.planning.regions import Region
from convloom.planning.schedules import Schedule
from helpers import evaluate

CPU = torch.device("cpu")
EPS = {torch.float32: 2.0**-23, torch.float16: 2.0**-10, torch.bfloat16: 2.0**-7}
SMALL = Schedule(16, 16, 16, group_m=2, chunk=32, programs=1000)
"""Tiles so small that the test shapes take several on every axis."""


def identity(shape: tuple[Any, ...]) -> str:
    """A geometry as the name of a test."""
    size, c, k, kernel, *rest = shape
    return f"{size[0]}x{size[1]}x{c}-{kernel[0]}x{kernel[1]}x{k}" + "".join(f"-{r}" for r in rest).replace(
        " ", ""
    )


def convolution(
    size: Pair,
    c: int,
    k: int,
    kernel: Pair,
    strides: Pair = (1, 1),
    padding: Padding = NO_PADDING,
    dilation: Pair = (1, 1),
    groups: int = 1,
    *,
    dtype: str = "float32",
    bias: bool = True,
) -> tuple[Graph, str]:
    """A graph with one convolution, and the convolution's name; add what follows and name the outputs."""
    graph = Graph()
    operands = [
        graph.add(Input(("N", *size, c), dtype), name="image"),
        graph.add(Parameter((*kernel, c // groups, k), dtype), name="kernel"),
    ]
    operands += [graph.add(Parameter((k,), dtype), name="offset")] if bias else []
    return graph, graph.add(Conv2D(strides, padding, dilation, groups), operands, layer="conv")


def data_gradient(
    size: Pair,
    c: int,
    k: int,
    kernel: Pair,
    strides: Pair = (1, 1),
    padding: Padding = NO_PADDING,
    dilation: Pair = (1, 1),
    groups: int = 1,
    *,
    dtype: str = "float32",
) -> tuple[Graph, str]:
    """A graph with the gradient of a convolution with respect to its input of `size`."""
    graph = Graph()
    rows = window_output("test", size, kernel, strides, padding, dilation)
    dy = graph.add(Input(("N", *rows, k), dtype), name="gradient")
    w = graph.add(Parameter((*kernel, c // groups, k), dtype), name="kernel")
    return graph, graph.add(Conv2DDataGrad(strides, padding, dilation, groups, size), [dy, w], layer="conv")


def weight_gradient(
    size: Pair,
    c: int,
    k: int,
    kernel: Pair,
    strides: Pair = (1, 1),
    padding: Padding = NO_PADDING,
    dilation: Pair = (1, 1),
    groups: int = 1,
    *,
    dtype: str = "float32",
    bias: bool = True,
) -> Region:
    """A region with the gradient of a convolution's kernel and, where asked, of its bias."""
    graph = Graph()
    rows = window_output("test", size, kernel, strides, padding, dilation)
    x = graph.add(Input(("N", *size, c), dtype), name="image")
    dy = graph.add(Input(("N", *rows, k), dtype), name="gradient")
    names = [graph.add(Conv2DWeightGrad(strides, padding, dilation, groups, kernel), [x, dy], layer="conv")]
    names += [graph.add(Reduce((0, 1, 2)), [dy])] if bias else []
    graph.outputs = {name: name for name in names}
    return Region(graph, graph[names[0]], [graph[name] for name in names], "weight_gradient")


def only_region(graph: Graph, **outputs: str) -> Region:
    """Name the graph's outputs and fuse it; all of it must become one region."""
    graph.outputs = dict(outputs)
    kernels = fuse(graph).kernels
    assert len(kernels) == 1, [str(region) for region in kernels]
    return kernels[0]


def random_value(type: TensorType, batch: int, generator: torch.Generator) -> torch.Tensor:
    """Multiples of 1/4 of small size: sums of their products are exact in float32, so equal ones are equal.
    """
    if type.dtype == "uint8":
        return torch.randint(0, 4, type.size(batch), generator=generator).to(torch.uint8)
    return (torch.randint(-4, 5, type.size(batch), generator=generator) / 4).to(type.torch_dtype)


def check(
    region: Region,
    schedule: Schedule | None = None,
    *,
    batch: int = 2,
    terms: int = 1,
    seed: int = 0,
    **options: Any,
) -> Kernel:
    """Run the region's kernel in the interpreter, on poisoned outputs, against the graph in float64.

    terms: length of the longest sum, from which the tolerance follows. Returns the kernel.
    """
    kernel = emit(region, schedule=schedule, **options)
    run_and_compare(kernel, batch, terms, seed)
    return kernel


def run_and_compare(
    kernel: Kernel, batch: int, terms: int, seed: int = 0, device: torch.device = CPU
) -> list[torch.Tensor]:
    """Run it, on a GPU or in the interpreter, on poisoned outputs, and compare these with float64."""
    region, generator = kernel.region, torch.Generator().manual_seed(seed)
    sources = (Input, Parameter, Drawn)
    given = {
        node.name: random_value(node.type, batch, generator)
        for node in region.graph.nodes()
        if isinstance(node.op, sources)
    }
    given |= {node.name: node.op.reference() for node in region.graph.nodes() if isinstance(node.op, KNOWN)}
    whole = region.graph.copy()
    whole.outputs = {node.name: node.name for node in kernel.outputs}
    wanted = evaluate(whole, given, given, torch.float64)
    inputs = [given[node.name].to(device) for node in kernel.inputs]
    outputs = [poisoned(node.type, batch).to(device) for node in kernel.outputs]
    kernel.load(interpreted=device.type == "cpu").launch(*inputs, *outputs)
    for node, found in zip(kernel.outputs, outputs, strict=True):
        compare(node.name, found.cpu(), wanted[node.name], terms)
    return outputs


def poisoned(type: TensorType, batch: int) -> torch.Tensor:
    return torch.full(type.size(batch), float("nan") if type.is_floating else 255, dtype=type.torch_dtype)


def compare(name: str, found: torch.Tensor, wanted: torch.Tensor, terms: int) -> None:
    """Within the rounding of the result and the drift of a float32 sum of `terms`, relative to the largest
    value.
    """
    assert found.shape == wanted.shape, name
    if not found.dtype.is_floating_point:
        assert torch.equal(found.long(), wanted.long()), name
        return
    assert torch.isfinite(found).all(), (
        f"{name}: {int((~torch.isfinite(found)).sum())} elements were never written"
    )
    tolerance = EPS[found.dtype] + (4 + terms**0.5) * EPS[torch.float32]
    largest = float(wanted.abs().max())
    error = float((found.double() - wanted).abs().max())
    assert error <= tolerance * max(largest, 1e-3), f"{name}: off by {error:.3g} of {largest:.3g}"
