"""A region as instructions: calls of operators over values by their names.

The members become instructions in the order the graph gives them, several members one where one call computes
them together. An instruction writes into its operand where that is a value of the region's own that nobody
needs afterwards.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch

from ...graph.ir import Graph, Node
from ...graph.op import Kind
from ...graph.ops import KNOWN, Add, Conv2D, Dense, Parameter
from ...graph.types import HALF
from ...graph.values import laid_out
from ...planning.regions import Region

# Imported for their rows in the table of forms.
from . import (  # noqa: F401
    contraction,
    contraction_gradients,
    look_up,
    pointwise,
    pooling,
    reduction,
    resize,
    warp,
)
from .forms import Form, form_of, has_form, inplace_form_of, makes_memory
from .joint import JOINT, Operation
from .layout import Lay, contiguous
from .pointwise import MIXED


def lower(region: Region, inference: bool, lay: Lay = laid_out) -> list[Operation]:
    """The region as instructions that take the values of `region.inputs` to those of `region.outputs`.

    Tensors are contiguous, in the IR's layouts and of any batch size; so are the results. What has no batch
    axis, weights and their gradients, lies as `lay` has it. Dtypes may be float64, float32, bfloat16 and
    float16; the device may be any. To be run with gradients off.
    inference: weights stay the same over many calls, so packed copies of them are kept. In training
    only frozen ones do. A weight that is written to, or another tensor in its place, is packed anew.
    """
    operations = _in_place(region, _operations(region, inference))
    leaving = {node.name for node in region.outputs}
    for operation in operations:
        if leaving.intersection(operation.writes) and not operation.packed:
            types = [region.members[name].type for name in operation.writes]
            ways = [torch.Tensor.contiguous if kind.batched else lay for kind in types]
            operation.run = contiguous(operation.run, ways)
    return operations


def runner(region: Region, inference: bool) -> Callable[..., Any]:
    """The region as one function of the tensors of `region.inputs`: what takes a kernel's place."""
    operations = lower(region, inference, torch.Tensor.contiguous)
    names = [node.name for node in region.inputs]
    results = [node.name for node in region.outputs]

    def run(*inputs: torch.Tensor) -> Any:
        values = dict(zip(names, inputs, strict=True))
        for operation in operations:
            found = operation.run(*(values[name] for name in operation.reads))
            several = found if len(operation.writes) > 1 else (found,)
            values.update(zip(operation.writes, several, strict=True))
        return values[results[0]] if len(results) == 1 else tuple(values[name] for name in results)

    return run


# -- choosing them ----------
def _operations(region: Region, inference: bool) -> list[Operation]:
    covered: dict[str, Operation] = {}
    for node in region.nodes:
        if node.name in covered:
            continue
        matcher = JOINT.get(type(node.op))
        remember = inference or _is_fixed(region.graph, node)
        found = matcher(region, node, remember) if matcher else None
        if found is None or any(name in covered for name in found.covers):
            names = (node.name,)
            found = Operation(_form(region.graph, node), node.inputs, names, node.name, names, node)
        covered.update(dict.fromkeys(found.covers, found))
    # An operation runs at the turn of the member it names: by then all it reads is there.
    return [covered[node.name] for node in region.nodes if covered[node.name].at == node.name]


def _form(graph: Graph, node: Node) -> Form:
    """The form of a node by itself. Where none is written for its op, or none for operands of several dtypes,
    half precision is computed with in float32, as kernels do."""
    dtypes = {graph[name].type.dtype for name in node.inputs if graph[name].type.is_floating}
    known = has_form(node.op) and (len(dtypes) < 2 or isinstance(node.op, MIXED))
    as_it_is = known or not makes_memory(node.op) or not dtypes.intersection(HALF)
    return form_of(node.op) if as_it_is else node.evaluate


def _is_fixed(graph: Graph, node: Node) -> bool:
    """Whether a contraction's weight follows from frozen parameters alone: it stays while others train."""
    behind = [node.inputs[1]] if isinstance(node.op, Conv2D | Dense) else []
    fixed = bool(behind)
    while behind and fixed:
        value = graph[behind.pop()]
        frozen = isinstance(value.op, Parameter) and not value.op.trainable
        fixed = bool(value.inputs) or frozen or isinstance(value.op, KNOWN)
        behind += value.inputs
    return fixed


def _in_place(region: Region, operations: list[Operation]) -> list[Operation]:
    """Give each pointwise operation its overwriting form where its first operand may be overwritten."""
    last = _last_needs(region, operations)
    owned: set[str] = set()
    for index, operation in enumerate(operations):
        for operands in _orders(operation):
            target = operands[0]
            free = target in owned and last[target] == index and operands.count(target) == 1
            if operation.node is not None and free and _same_memory(region.graph[target], operation.node):
                overwrite = inplace_form_of(operation.node.op)
                if overwrite is not None:
                    operation.run, operation.reads, operation.overwrites = overwrite, operands, True
                    break
        owned.update(name for name in operation.writes if makes_memory(region.members[name].op))
    return operations


def _last_needs(region: Region, operations: list[Operation]) -> dict[str, int]:
    """The last operation that needs each value's memory, itself or through what may be a view of it.

    The region's outputs are needed after the last.
    """
    last = {node.name: len(operations) for node in region.outputs}
    for index, operation in reversed(list(enumerate(operations))):
        views = [name for name in operation.writes if not makes_memory(region.members[name].op)]
        needed = max([index, *(last.get(name, index) for name in views)])
        for name in operation.reads:
            last[name] = max(last.get(name, 0), needed)
    return last


def _orders(operation: Operation) -> list[tuple[str, ...]]:
    """The operands, and for an addition also the other way round."""
    if operation.node is not None and isinstance(operation.node.op, Add):
        return [operation.reads, operation.reads[::-1]]
    return [operation.reads]


def _same_memory(operand: Node, node: Node) -> bool:
    return node.op.kind is Kind.POINTWISE and operand.type == node.type
