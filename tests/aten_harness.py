"""Graphs, and the check of their regions through PyTorch's operators against float64."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from math import prod, sqrt

import torch
from convloom.graph import ops
from convloom.graph.gradients import differentiate
from convloom.graph.ir import Graph
from convloom.graph.op import Kind
from convloom.graph.passes import BACKWARD, TRAINING, run_pipeline
from convloom.planning.regions import Partition, Region
from convloom.runtime.aten import runner

Values = dict[str, torch.Tensor]


# -- the harness ----------
def draw_sources(graph: Graph, batch: int, seed: int = 0) -> Values:
    """float64 values for every source: variances positive, targets and probabilities sensible."""
    generator = torch.Generator().manual_seed(seed)
    values: Values = {}
    for node in graph.nodes():
        if node.op.kind is not Kind.SOURCE:
            continue
        if isinstance(node.op, ops.KNOWN):
            values[node.name] = node.op.reference().double()
            continue
        drawn = torch.randn(node.type.size(batch), generator=generator, dtype=torch.float64)
        if isinstance(node.op, ops.Parameter) and drawn.dim() in (2, 4):
            drawn /= sqrt(prod(drawn.shape[:-1]))
        if "variance" in node.name or "gamma" in node.name or "probabilit" in node.name:
            drawn = 0.1 + 0.8 * torch.sigmoid(drawn)
        if "target" in node.name:
            drawn = torch.softmax(drawn, -1)
        values[node.name] = drawn
    return values


def evaluate_all(graph: Graph, sources: Values) -> Values:
    """Every value of the graph by the ops' own references, in float64."""
    values = dict(sources)
    for node in graph.nodes():
        if node.name not in values:
            value = node.op.reference(*(values[name] for name in node.inputs))
            values[node.name] = value.double() if value.is_floating_point() else value
    return values


def reduction_length(region: Region) -> int:
    """Terms in the longest sum a member takes, for the tolerance."""
    longest = 1
    for node in region.nodes:
        operands = [region.graph[name].type.elements(3) for name in node.inputs]
        outputs = node.type.elements(3)
        if isinstance(node.op, ops.Warp | ops.WarpGrad):  # of a place, which weights hang on
            longest = max(longest, *(int(size) ** 2 for size in node.type.shape[1:3]))
        elif node.op.kind is Kind.CONTRACTION:
            first, second = operands[:2]
            longest = max(longest, int(sqrt(first * second / max(outputs, 1))) + 1)
        elif node.op.kind is not Kind.POINTWISE and operands:
            longest = max(longest, max(operands) // max(outputs, 1) + 1)
    return longest


def lowered(region: Region, inference: bool) -> Callable[[Sequence[torch.Tensor]], Sequence[torch.Tensor]]:
    """The region as a function from the tensors of its inputs to those of its outputs."""
    run = runner(region, inference)
    return lambda given: run(*given) if len(region.outputs) > 1 else (run(*given),)


def check_region(region: Region, exact: Values, inference: bool, dtype: torch.dtype | None = None) -> None:
    """The region alone, on the exact values of its inputs, gives the exact values of its outputs."""
    feeds = [exact[node.name] for node in region.inputs]
    types = [node.type.torch_dtype for node in region.inputs]
    if dtype is not None:
        types = [dtype if t.is_floating_point else t for t in types]
    given = [value.to(t).contiguous() for value, t in zip(feeds, types, strict=True)]
    kept = [value.clone() for value in given]
    with torch.no_grad():
        results = lowered(region, inference)(given)
    for before, after in zip(kept, given, strict=True):
        assert torch.equal(before, after), f"{region}: wrote into an input"
    widest = max(
        (t for t in types if t.is_floating_point), key=lambda t: torch.finfo(t).eps, default=torch.float64
    )
    unit = torch.finfo(widest).eps
    assert len(results) == len(region.outputs)
    for node, result in zip(region.outputs, results, strict=True):
        expected = exact[node.name]
        assert result.shape == expected.shape, f"{region}: {node.name} has shape {tuple(result.shape)}"
        assert result.is_contiguous(), f"{region}: {node.name} is not contiguous"
        if not expected.is_floating_point():
            assert result.dtype == expected.dtype
            # Rounded to few bits, values of one window meet, and another of them is the first.
            allowed = 0.0 if unit < 1e-6 else 0.05
            differing = float((result != expected).double().mean())
            assert differing <= allowed, f"{region}: {differing:.1%} of {node.name} differ"
            continue
        if dtype is None:
            assert result.dtype == node.type.torch_dtype, f"{region}: {node.name} is {result.dtype}"
        scale = max(1.0, float(expected.abs().max()))
        # Rounding errors of a sum add up like a random walk; a handful of pointwise members round once each.
        tolerance = unit * scale * (8 + 2 * sqrt(reduction_length(region)))
        error = float((result.double() - expected).abs().max())
        assert error <= tolerance, f"{region}: {node.name} is off by {error:.3g} > {tolerance:.3g}"


def check_partition(
    partition: Partition, batch: int, inference: bool, dtype: torch.dtype | None = None
) -> None:
    exact = evaluate_all(partition.graph, draw_sources(partition.graph, batch))
    for region in partition:
        check_region(region, exact, inference, dtype)


# -- graphs ----------
@dataclass
class Sketch:
    """A graph being drawn, with names for what it is made of."""

    graph: Graph

    @classmethod
    def empty(cls) -> Sketch:
        return cls(Graph("test"))

    def image(self, *shape: int, name: str = "x") -> str:
        return self.graph.add(ops.Input(("N", *shape)), name=name)

    def weight(self, *shape: int, name: str = "w") -> str:
        return self.graph.add(ops.Parameter(shape), name=name)

    def conv(
        self, x: str, size: tuple[int, int], k: int, bias: bool = True, groups: int = 1, **geometry: object
    ) -> str:
        c = self.graph[x].type.channels
        w = self.weight(*size, c // groups, k)
        operands = [x, w, self.weight(k, name="b")] if bias else [x, w]
        return self.graph.add(ops.Conv2D(groups=groups, **geometry), operands)  # type: ignore[arg-type]

    def dense(self, x: str, k: int) -> str:
        c = self.graph[x].type.channels
        return self.graph.add(ops.Dense(), [x, self.weight(c, k), self.weight(k, name="b")])

    def norm(self, x: str) -> str:
        c = self.graph[x].type.channels
        vectors = [self.weight(c, name=name) for name in ("gamma", "beta")]
        moving = [self.graph.add(ops.Parameter((c,), trainable=False), name=n) for n in ("mean", "variance")]
        return self.graph.add(ops.BatchNorm(), [x, *vectors, *moving])

    def then(self, op: object, *operands: str) -> str:
        return self.graph.add(op, operands)  # type: ignore[arg-type]

    def done(self, *outputs: str) -> Graph:
        self.graph.outputs = {f"out{i}": name for i, name in enumerate(outputs)}
        return self.graph


def training(graph: Graph) -> Graph:
    run_pipeline(graph, TRAINING)
    differentiated = differentiate(graph, wrt_inputs=True)
    graph.outputs.update({f"d/{name}": gradient for name, gradient in differentiated.gradients.items()})
    run_pipeline(graph, BACKWARD)
    return graph


def block_net() -> Graph:
    """Convolution, norm, activation, pooling, a residual and a head."""
    s = Sketch.empty()
    h = s.conv(s.image(12, 10, 3), (3, 3), 17, bias=False, padding=((1, 1), (1, 1)))
    h = s.then(ops.Relu(), s.norm(h))
    h = s.then(ops.MaxPool2D(), h)
    inner = s.then(ops.Relu(), s.norm(s.conv(h, (3, 3), 17, padding=((1, 1), (1, 1)))))
    inner = s.norm(s.conv(inner, (1, 1), 17))
    h = s.then(ops.Relu(), s.then(ops.Add(), inner, h))
    h = s.then(ops.Relu(), s.conv(h, (3, 3), 9, strides=(2, 2), padding=((0, 1), (0, 1))))
    h = s.then(ops.Reshape((3 * 2 * 9,)), h)
    h = s.dense(h, 10)
    return s.done(s.then(ops.Softmax(), h))


def lenet() -> Graph:
    s = Sketch.empty()
    h = s.then(ops.Relu(), s.conv(s.image(14, 14, 1), (5, 5), 6, padding=((2, 2), (2, 2))))
    h = s.then(ops.MaxPool2D(), h)
    h = s.then(ops.Tanh(), s.conv(h, (3, 3), 16))
    h = s.then(ops.AveragePool2D((2, 2), (2, 2)), h)
    h = s.then(ops.Relu(), s.dense(s.then(ops.Reshape((64,)), h), 33))
    target = s.image(10, name="target")
    logits = s.dense(h, 10)
    return s.done(s.then(ops.CategoricalCrossEntropy(), s.then(ops.Softmax(), logits), target))


def movements() -> Graph:
    s = Sketch.empty()
    x = s.image(7, 9, 5)
    a = s.conv(s.then(ops.Pad(((1, 2), (0, 3), (0, 0)), 0.5), x), (2, 3), 4, dilation=(2, 1))
    b = s.then(ops.Slice((0, 1, 1), (7, 9, 5)), x)
    b = s.then(ops.Slice((0, 0, 0), (6, 8, 4)), b)
    a = s.then(ops.Slice((0, 0, 0), (6, 8, 4)), a)
    h = s.then(ops.Concat(-1), a, b)
    h = s.then(ops.Flip((1, 3)), s.then(ops.Transpose((0, 2, 1, 3)), h))
    h = s.then(ops.Multiply(), h, s.then(ops.Step(), h))
    h = s.then(ops.Swish(), s.then(ops.Scale(0.5, -0.25), h))
    return s.done(s.then(ops.AveragePool2D((8, 6), (8, 6)), h))


NETWORKS: dict[str, Callable[[], Graph]] = {"blocks": block_net, "lenet": lenet, "movements": movements}
