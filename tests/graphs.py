"""Small networks written straight in the IR, and values for them."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any

import torch
from convloom.graph import ops
from convloom.graph.gradients import Derivatives, differentiate
from convloom.graph.ir import Graph
from convloom.graph.losses import add_loss
from convloom.graph.op import Kind, Op
from convloom.graph.types import BATCH
from convloom.graph.windows import Padding, Pair, axis_padding
from helpers import evaluate
from hypothesis import strategies as st

Values = dict[str, torch.Tensor]


class Builder:
    """Adds layers with their weights to a graph; every method returns the name of its value."""

    def __init__(self, name: str = "network") -> None:
        self.graph = Graph(name)

    def spatial(self, x: str) -> Pair:
        shape = self.graph[x].type.shape
        return int(shape[1]), int(shape[2])

    def channels(self, x: str) -> int:
        return self.graph[x].type.channels

    def input(self, *shape: int, name: str = "image") -> str:
        return self.graph.add(ops.Input((BATCH, *shape)), name=name)

    def weight(self, *shape: int, name: str, trainable: bool = True) -> str:
        return self.graph.add(ops.Parameter(shape, trainable=trainable), name=name)

    def op(self, op: Op, *inputs: str, name: str | None = None) -> str:
        return self.graph.add(op, inputs, name, layer=name or "")

    def conv(
        self,
        x: str,
        filters: int,
        size: Pair = (3, 3),
        strides: Pair = (1, 1),
        padding: str | Padding = "same",
        groups: int = 1,
        bias: bool = True,
        name: str = "conv",
    ) -> str:
        name = self.graph.unique_name(name)
        channels = self.channels(x) // groups
        weights = [self.weight(*size, channels, filters, name=f"{name}/kernel")]
        if bias:
            weights.append(self.weight(filters, name=f"{name}/bias"))
        along = zip(self.spatial(x), size, strides, strict=True)
        rows, columns = (axis_padding(padding, *a) for a in along) if isinstance(padding, str) else padding
        return self.op(ops.Conv2D(strides, (rows, columns), groups=groups), x, *weights, name=name)

    def dense(self, x: str, units: int, bias: bool = True, name: str = "dense") -> str:
        name = self.graph.unique_name(name)
        weights = [self.weight(self.channels(x), units, name=f"{name}/kernel")]
        if bias:
            weights.append(self.weight(units, name=f"{name}/bias"))
        return self.op(ops.Dense(), x, *weights, name=name)

    def batch_norm(self, x: str, name: str = "norm") -> str:
        name = self.graph.unique_name(name)
        size = self.channels(x)
        trained = [self.weight(size, name=f"{name}/{role}") for role in ("gamma", "beta")]
        moving = [
            self.weight(size, name=f"{name}/moving_{role}", trainable=False) for role in ("mean", "variance")
        ]
        return self.op(ops.BatchNorm(), x, *trained, *moving, name=name)

    def dropout(self, x: str, rate: float, name: str = "drop") -> str:
        name = self.graph.unique_name(name)
        source = ops.Random(self.graph[x].type.shape, "bernoulli", (1 - rate, 1 / (1 - rate)))
        mask = self.op(source, name=f"{name}/mask")
        return self.op(
            ops.InTraining(), x, self.op(ops.Multiply(), x, mask, name=f"{name}/dropped"), name=name
        )

    def flatten(self, x: str) -> str:
        return self.op(ops.Reshape((self.graph[x].type.elements(),)), x, name="flatten")

    def finish(self, *outputs: str) -> Graph:
        self.graph.outputs = {f"out{index or ''}": value for index, value in enumerate(outputs)}
        return self.graph


def lenet(
    pool: type[Op] = ops.MaxPool2D,
    activation: type[Op] = ops.Relu,
    batch_norm: bool = False,
    classes: int = 10,
) -> Graph:
    """LeNet-5: conv, pool, conv, pool, three dense layers, softmax."""
    b = Builder("lenet")
    h = b.input(28, 28, 1)
    for index, (filters, padding) in enumerate(((6, "same"), (16, "valid")), 1):
        h = b.conv(h, filters, (5, 5), padding=padding, name=f"conv{index}")
        if batch_norm:
            h = b.batch_norm(h, name=f"norm{index}")
        h = b.op(activation(), h, name=f"conv{index}/act")
        h = b.op(pool(), h, name=f"pool{index}")
    h = b.flatten(h)
    for index, units in enumerate((120, 84, classes), 1):
        h = b.dense(h, units, name=f"dense{index}")
        h = b.op(activation() if index < 3 else ops.Softmax(), h, name=f"dense{index}/act")
    return b.finish(h)


def residual_block(batch_norm: bool = True, size: Pair = (7, 5), channels: int = 5) -> Graph:
    """Two convolutions and the identity beside them, added and rectified."""
    b = Builder("residual")
    x = b.input(*size, channels)
    h = b.conv(x, channels, bias=not batch_norm, name="first")
    h = b.batch_norm(h, name="norm1") if batch_norm else h
    h = b.op(ops.Relu(), h, name="relu1")
    h = b.conv(h, channels, bias=not batch_norm, name="second")
    h = b.batch_norm(h, name="norm2") if batch_norm else h
    h = b.op(ops.Add(), h, x, name="add")
    return b.finish(b.op(ops.Relu(), h, name="relu2"))


def inception() -> Graph:
    """Three branches over one value, concatenated."""
    b = Builder("inception")
    x = b.input(6, 9, 3)
    narrow = b.op(ops.Relu(), b.conv(x, 4, (1, 1), name="narrow"), name="narrow/act")
    wide = b.op(ops.Relu(), b.conv(x, 5, name="wide"), name="wide/act")
    pooled = b.op(ops.MaxPool2D((3, 3), (1, 1), ((1, 1), (1, 1))), x, name="pool")
    return b.finish(b.op(ops.Concat(), narrow, wide, pooled, name="concat"))


def unet() -> Graph:
    """Down, across and up again, with a skip connection; the way up is a repeat of each column and row."""
    b = Builder("unet")
    x = b.input(6, 4, 3)
    skip = b.op(ops.Relu(), b.conv(x, 4, name="down"), name="down/act")
    h = b.op(ops.MaxPool2D(), skip, name="pool")
    h = b.op(ops.Relu(), b.conv(h, 4, name="bottom"), name="bottom/act")
    wide = b.op(ops.Reshape((3, 1, 2, 1, 4)), h, name="split")
    wide = b.op(ops.Concat(2), wide, wide, name="rows")
    wide = b.op(ops.Concat(4), wide, wide, name="columns")
    up = b.op(ops.Reshape((6, 4, 4)), wide, name="up")
    h = b.op(ops.Concat(), skip, up, name="skip")
    return b.finish(b.conv(h, 2, (1, 1), name="head"))


def shared_layer() -> Graph:
    """One convolution's weights applied to two images, the results compared."""
    b = Builder("shared")
    left, right = b.input(5, 7, 3, name="left"), b.input(5, 7, 3, name="right")
    kernel, bias = b.weight(3, 3, 3, 4, name="shared/kernel"), b.weight(4, name="shared/bias")
    one, two = (b.op(ops.Conv2D(), x, kernel, bias, name=f"shared/{x}") for x in (left, right))
    return b.finish(b.op(ops.Subtract(), one, two, name="difference"))


def chain() -> Graph:
    """image -> relu "first" -> tanh "second"."""
    b = Builder("chain")
    return b.finish(b.op(ops.Tanh(), b.op(ops.Relu(), b.input(4, 3), name="first"), name="second"))


NETWORKS: list[Callable[[], Graph]] = [lenet, residual_block, inception, unet, shared_layer]


def with_loss(graph: Graph, loss: str = "categorical_crossentropy") -> Graph:
    """A copy that ends in a loss of its only output."""
    graph = graph.copy()
    graph.outputs = {"loss": add_loss(graph, loss)}
    return graph


# -- values ----------
def values(graph: Graph, batch: int = 2, seed: int = 0) -> Values:
    """float64 for every source, by its name alone: normal, variances positive, targets one-hot rows."""
    found: Values = {}
    for node in graph.nodes():
        if node.op.kind is not Kind.SOURCE or isinstance(node.op, ops.Constant):
            continue
        generator = torch.Generator().manual_seed(seed + sum(map(ord, node.name)) * 7919)
        shape = node.type.size(batch)
        value = torch.randn(shape, generator=generator, dtype=torch.float64)
        if node.name.endswith("variance"):
            value = value.abs() + 0.5
        elif node.name == "target":
            value = torch.nn.functional.one_hot(value.argmax(-1), shape[-1]).double()
        elif node.name.endswith("/kernel"):
            value /= max(1, value[..., 0].numel()) ** 0.5
        found[node.name] = value
    return found


def outputs(graph: Graph, given: Mapping[str, torch.Tensor]) -> Values:
    """The outputs by reference, in float64."""
    return evaluate(graph, given, given, torch.float64)


def all_values(graph: Graph, given: Mapping[str, torch.Tensor]) -> Values:
    """Every value of the graph by reference, in float64."""
    twin = graph.copy()
    twin.outputs = {node.name: node.name for node in graph.nodes()}
    return outputs(twin, given)


def autograd(graph: Graph, given: Mapping[str, torch.Tensor], names: Sequence[str]) -> Values:
    """Gradients by torch's own autograd through the references, for the seeds `d_<output>` in `given`."""
    leaves = {name: given[name].clone().requires_grad_() for name in names}
    results = outputs(graph, {**given, **leaves})
    total = sum((value * given[f"d_{name}"]).sum() for name, value in results.items())
    found = torch.autograd.grad(total, list(leaves.values()), allow_unused=True)  # type: ignore[arg-type]
    return {
        name: torch.zeros_like(leaf) if grad is None else grad
        for (name, leaf), grad in zip(leaves.items(), found, strict=True)
    }


def differentiated(graph: Graph, wrt_inputs: bool = True) -> tuple[Graph, Derivatives]:
    """A copy with its backward pass; the outputs are the gradients, each under its source's name."""
    twin = graph.copy()
    derivatives = differentiate(twin, wrt_inputs=wrt_inputs)
    twin.outputs = dict(derivatives.gradients)
    return twin, derivatives


def assert_same(found: Mapping[str, torch.Tensor], expected: Mapping[str, torch.Tensor]) -> None:
    """Equal to float64's rounding over sums of a few thousand terms: 2^-52 * 4096 is 1e-12."""
    assert found.keys() == expected.keys()
    for name, value in expected.items():
        scale = max(1.0, float(value.abs().max())) if value.numel() else 1.0
        torch.testing.assert_close(
            found[name], value, rtol=0, atol=1e-12 * scale, msg=partial("{}: {}".format, name)
        )


# -- what `compile` takes ----------
@dataclass
class GraphModel:
    """A graph and its weights, in the form `compile` takes."""

    graph: Graph
    parameters: Values

    def to_graph(self, input_shape: Any = None) -> Graph:
        return self.graph.copy()


# -- random networks ----------
@st.composite
def random_networks(draw: st.DrawFn) -> Graph:
    """Small DAGs of convolution, batch norm, relu, add, pooling, concatenation; at times several outputs."""
    b = Builder("random")
    made = [b.input(draw(st.integers(4, 7)), draw(st.integers(4, 7)), draw(st.integers(1, 3)))]
    for _ in range(draw(st.integers(1, 8))):
        made.append(_layer(draw, b, made))
    others = draw(st.lists(st.sampled_from(made[1:]), max_size=1))
    return b.finish(*dict.fromkeys([made[-1], *others]))


def _layer(draw: st.DrawFn, b: Builder, made: list[str]) -> str:
    recent = made[-3:]
    x = draw(st.sampled_from(recent))
    kind = draw(
        st.sampled_from(("conv", "norm", "relu", "tanh", "add", "pool", "concat", "pad", "dropout", "scale"))
    )
    if kind == "conv":
        filters = draw(st.sampled_from((b.channels(x), 2, 3)))
        return b.conv(x, filters, draw(st.sampled_from(((1, 1), (3, 3), (2, 3)))), bias=draw(st.booleans()))
    if kind == "norm":
        return b.batch_norm(x)
    if kind == "add":
        shape = b.graph[x].type.shape
        return b.op(ops.Add(), x, draw(st.sampled_from([v for v in made if b.graph[v].type.shape == shape])))
    if kind == "concat":
        same = [v for v in made if b.spatial(v) == b.spatial(x) and b.channels(v) + b.channels(x) <= 8]
        return b.op(ops.Concat(), x, draw(st.sampled_from(same))) if same else b.op(ops.Relu(), x)
    if kind == "pool":
        op = draw(st.sampled_from((ops.MaxPool2D, ops.AveragePool2D)))
        size = draw(st.sampled_from((((2, 2), (2, 2)), ((3, 3), (2, 2)), ((2, 1), (2, 1)))))
        return b.op(op(*size), x) if min(b.spatial(x)) >= 3 else b.op(ops.Tanh(), x)
    if kind == "pad":
        wide = b.op(ops.Pad(((1, 0), (0, 1), (0, 0))), x)
        return b.conv(wide, b.channels(x), (2, 2), padding="valid")
    if kind == "scale":
        return b.op(ops.Scale(draw(st.sampled_from((1.0, 0.5)))), x)
    if kind == "dropout":
        return b.dropout(x, 0.25)
    simple: dict[str, Op] = {"relu": ops.Relu(), "tanh": ops.Tanh()}
    return b.op(simple[kind], x)
