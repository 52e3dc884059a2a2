"""float16 and bfloat16: sums, and what feeds them, are float32; against Keras in float64."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
import torch
from convloom.graph import ops
from convloom.graph.ir import Graph
from convloom.graph.passes.precision import widen_terms, with_dtype
from convloom.graph.types import DTYPES
from convloom.graph.verify import verify
from convloom.planning.fusion import fuse, leave_unfused

import convloom as cl
from convloom import layers as L

keras = pytest.importorskip("keras")

DTYPE_NAMES = ("float16", "bfloat16")
EPSILON = {name: torch.finfo(DTYPES[name]).eps for name in DTYPE_NAMES}
IMAGE = (4, 3, 8)

NORMS: dict[str, Callable[[Any], Any]] = {
    "layer": lambda of: of.LayerNormalization(),
    "layer over all": lambda of: of.LayerNormalization(axis=(1, 2, 3)),
    "layer of tiny epsilon": lambda of: of.LayerNormalization(epsilon=1e-12),
    "group": lambda of: of.GroupNormalization(2),
    "instance": lambda of: of.GroupNormalization(-1),
    "instance of tiny epsilon": lambda of: of.GroupNormalization(-1, epsilon=1e-12),
    "rms": lambda of: of.RMSNormalization(),
    "rms over all": lambda of: of.RMSNormalization(axis=(1, 2, 3)),
    "rms of tiny epsilon": lambda of: of.RMSNormalization(epsilon=1e-12),
    "unit": lambda of: of.UnitNormalization(),
    "unit over places": lambda of: of.UnitNormalization(axis=(1, 2)),
    "batch": lambda of: of.BatchNormalization(),
    "batch of tiny epsilon": lambda of: of.BatchNormalization(epsilon=1e-12),
}
SIZES = {"300": (300.0, 0.0), "300 about 1000": (300.0, 1000.0), "1e4": (1e4, 0.0), "1e-4": (1e-4, 0.0)}

Found = tuple[torch.Tensor, torch.Tensor, list[torch.Tensor]]
"""The result, the gradient of the input, those of the weights."""


def given(size: str, dtype: str, shape: tuple[int, ...] = IMAGE) -> torch.Tensor:
    """Values that the dtype can hold, in float64."""
    scale, mean = SIZES[size]
    x = torch.randn((3, *shape), generator=torch.Generator().manual_seed(7)) * scale + mean
    return x.clamp(-3e4, 3e4).to(DTYPES[dtype]).double()


def seed(shape: torch.Size, dtype: str) -> torch.Tensor:
    return torch.randn(shape, generator=torch.Generator().manual_seed(8)).to(DTYPES[dtype]).double()


def of_keras(make: Callable[[Any], Any], x: torch.Tensor, dtype: str, training: bool) -> Found:
    with keras.device("cpu"):
        layer = make(_InFloat64())
        x = x.clone().requires_grad_()
        y = layer(x, training=training) if "Batch" in type(layer).__name__ else layer(x)
    y.backward(seed(y.shape, dtype))
    assert x.grad is not None
    return y.detach(), x.grad, [w.value.grad for w in layer.trainable_weights]


class _InFloat64:
    """Keras's layers, computing in float64."""

    def __getattr__(self, name: str) -> Any:
        return lambda *args, **options: getattr(keras.layers, name)(*args, dtype="float64", **options)


def of_ours(model: cl.Model, x: torch.Tensor, dtype: str, training: bool, **options: Any) -> Found:
    net = cl.compile(model, device="cpu", dtype=dtype, **options).train(training)
    bound = x.detach().to(DTYPES[dtype], copy=True).requires_grad_()
    y = net(bound)
    assert y.dtype == DTYPES[dtype]
    y.backward(seed(y.shape, dtype if dtype in DTYPE_NAMES else "float16").to(y.dtype))
    assert bound.grad is not None
    return y.detach(), bound.grad, [p.grad for p in net.parameters() if p.grad is not None]


def check(found: Found, wanted: Found, dtype: str, roundings: float) -> None:
    for ours, right in zip((found[0], found[1], *found[2]), (wanted[0], wanted[1], *wanted[2]), strict=True):
        error = float((ours.double() - right).abs().max())
        assert error <= roundings * EPSILON[dtype] * float(right.abs().max())


def network(make: Callable[[Any], Any]) -> cl.Model:
    x = cl.Input(IMAGE)
    return cl.Model(x, make(L)(x))


@pytest.mark.parametrize("fused", [True, False])
@pytest.mark.parametrize("dtype", DTYPE_NAMES)
@pytest.mark.parametrize("size", SIZES)
@pytest.mark.parametrize("name", NORMS)
def test_normalisations_are_keras_s_in_float64(name: str, size: str, dtype: str, fused: bool) -> None:
    x = given(size, dtype)
    for training in (True, False) if "batch" in name else (True,):
        wanted = of_keras(NORMS[name], x, dtype, training)
        found = of_ours(network(NORMS[name]), x, dtype, training, backend="aten", fuse=fused)
        check(found, wanted, dtype, 3)


@pytest.mark.parametrize("size", ["300", "1e-4"])
@pytest.mark.parametrize("name", ["layer of tiny epsilon", "instance", "rms", "unit", "batch"])
def test_kernels_normalise_as_keras_does_in_float64(name: str, size: str) -> None:
    x = given(size, "float16")
    wanted = of_keras(NORMS[name], x, "float16", True)
    for fused in (True, False):
        found = of_ours(network(NORMS[name]), x, "float16", True, backend="triton", fuse=fused)
        check(found, wanted, "float16", 3)


def test_moving_statistics_are_those_of_float32() -> None:
    x = given("300 about 1000", "float16")
    net = cl.compile(network(NORMS["batch"]), device="cpu", dtype="float16").train()
    with torch.no_grad():
        net(x.half())
    moved = [value for name, value in net.weights().items() if "moving" in name]
    mean, variance = x.mean((0, 1, 2)), x.var((0, 1, 2), correction=0)
    torch.testing.assert_close(moved[0].double(), 0.01 * mean, rtol=1e-5, atol=0)
    torch.testing.assert_close(moved[1].double(), 0.99 + 0.01 * variance, rtol=1e-5, atol=0)


# -- attention ----------
def attention(kind: str) -> cl.Model:
    x = cl.Input((7, 8))
    if kind == "scores":
        return cl.Model(x, L.Attention()([x, x]))
    return cl.Model(x, L.MultiHeadAttention(2, 4)(x, x, use_causal_mask=kind == "causal"))


@pytest.mark.parametrize("backend", ["aten", "triton"])
@pytest.mark.parametrize("dtype", DTYPE_NAMES)
@pytest.mark.parametrize("kind", ["heads", "causal", "scores"])
def test_scores_beyond_the_range_of_half_precision(kind: str, dtype: str, backend: str) -> None:
    """A product of values about 300 is about 90,000 for each term of its sum."""
    torch.manual_seed(0)
    model, large = attention(kind), given("300", dtype, (7, 8))
    small = (large / 300).to(DTYPES[dtype]).double()
    for x in (large, small):
        wanted = of_ours(model, x, "float64", True, backend="aten", fuse=False)
        for fused in (True, False):
            found = of_ours(model, x, dtype, True, backend=backend, fuse=fused)
            assert all(torch.isfinite(t).all() for t in (found[0], found[1], *found[2]))
            # The rounding of projections decides between scores of 100,000: any choice is right there.
            if x is small or kind == "scores":
                check((found[0], found[1], []), (wanted[0], wanted[1], []), dtype, 8)


# -- reductions of other layers ----------
SUMMING: dict[str, Callable[[Any], Any]] = {
    "mean": L.GlobalAveragePooling2D(),
    "average": L.AveragePooling2D(3, padding="same"),
    "softmax": L.Softmax(),
    "grey": L.RandomGrayscale(0.0),
    "masking": L.Masking(1.0),
}


@pytest.mark.parametrize("fused", [True, False])
@pytest.mark.parametrize("dtype", DTYPE_NAMES)
@pytest.mark.parametrize("name", SUMMING)
def test_other_layers_of_values_about_300(name: str, dtype: str, fused: bool) -> None:
    shape = (4, 3, 3) if name == "grey" else IMAGE
    x = cl.Input(shape)
    model, values = cl.Model(x, SUMMING[name](x)), given("300", dtype, shape)
    exact = cl.compile(model, device="cpu", dtype="float64", fuse=False)(values)
    for backend in ("aten", "triton"):
        net = cl.compile(model, device="cpu", dtype=dtype, fuse=fused, backend=backend)
        found = net(values.to(DTYPES[dtype]))
        assert found.dtype == DTYPES[dtype]
        assert float((found.double() - exact).abs().max()) <= 3 * EPSILON[dtype] * float(exact.abs().max())


def test_one_channel_and_statistics_of_its_own_shape() -> None:
    """Where x and its mean have one shape, the layer's result still has the network's dtype."""
    x = cl.Input((5, 1))
    h = L.UnitNormalization(axis=-1)(L.LayerNormalization(axis=-1)(x))
    model = cl.Model(x, L.Dense(3)(L.Flatten()(h)))
    net = cl.compile(model, device="cpu", dtype="bfloat16").train()
    y = net(torch.randn(2, 5, 1))
    y.sum().backward()
    assert y.dtype == torch.bfloat16


# -- the mechanism ----------
def test_what_feeds_a_sum_is_float32_and_what_leaves_a_layer_is_not() -> None:
    graph = with_dtype(network(lambda of: of.RMSNormalization(axis=(2, 3))).to_graph(), "float16")
    widen_terms(graph)
    verify(graph)
    types = {node.name.split("/")[-1]: node.type.dtype for node in graph.nodes()}
    assert types["squared"] == types["power"] == "float32"
    assert types["normalized"] == "float16"
    assert graph[next(iter(graph.outputs.values()))].type.dtype == "float16"
    before = str(graph)
    assert widen_terms(graph) == []
    assert str(graph) == before
    assert [str(r) for r in fuse(graph).kernels] == [
        "cast_square_reduce: cast -> square -> reduce",
        "normalize_multiply: normalize -> multiply",
    ]
    assert len(leave_unfused(graph).kernels) == 5


def test_float32_networks_are_left_as_they_are() -> None:
    for make in NORMS.values():
        graph = network(make).to_graph()
        before = str(graph)
        assert widen_terms(graph) == []
        assert str(graph) == before


def test_a_value_that_others_read_is_not_widened() -> None:
    graph = Graph()
    x = graph.add(ops.Input(("N", 4), "float16"), name="x")
    square = graph.add(ops.Square(), [x], "square", layer="a")
    graph.outputs = {
        "sum": graph.add(ops.Reduce((1,)), [square], "sum", layer="a"),
        "root": graph.add(ops.Sqrt(), [square], "root", layer="a"),
    }
    assert widen_terms(graph) == []
    assert graph["square"].type.dtype == "float16"


def test_folded_weights_are_rounded_once() -> None:
    x = cl.Input((5, 4, 3))
    model = cl.Model(x, L.BatchNormalization()(L.Conv2D(4, 3)(x)))
    graph = cl.compile(model, device="cpu", dtype="float16").graph
    (convolution,) = (node for node in graph.nodes() if isinstance(node.op, ops.Conv2D))
    kernel = graph[convolution.inputs[1]]
    assert (kernel.op, kernel.type.dtype) == (ops.Cast("float16"), "float16")
    assert {graph[name].type.dtype for name in graph[kernel.inputs[0]].inputs} == {"float32"}


FOLDED: dict[str, Any] = {
    "conv": lambda x: L.BatchNormalization()(L.Conv2D(5, 3)(x)),
    "depthwise": lambda x: L.BatchNormalization()(L.DepthwiseConv2D(3, depth_multiplier=2)(x)),
    "separable": lambda x: L.BatchNormalization()(L.SeparableConv2D(5, 3)(x)),
    "twice": lambda x: L.BatchNormalization()(L.BatchNormalization()(L.Conv2D(5, 1, use_bias=False)(x))),
    "dense": lambda x: L.BatchNormalization()(L.Dense(5)(L.Flatten()(x))),
}


@pytest.mark.parametrize("dtype", ["bfloat16", "float16"])
@pytest.mark.parametrize("name", FOLDED)
def test_a_folded_weight_is_the_exact_one_rounded_once(name: str, dtype: str) -> None:
    """Half a unit in the last place of it; rounded before it is scaled as well, it would be up to one."""
    x = cl.Input((6, 5, 3))
    model = cl.Model(x, FOLDED[name](x), seed=1)
    half = cl.compile(model, device="cpu", dtype=dtype)
    exact = cl.compile(model, device="cpu", dtype="float64")
    generator = torch.Generator().manual_seed(0)
    for key, value in exact.state_dict().items():
        drawn = torch.rand(value.shape, generator=generator).add(0.1).float()  # which both hold exactly
        value.copy_(drawn)
        half.state_dict()[key].copy_(drawn)
    kernels = []
    for net in (half.eval(), exact.eval()):
        (last,) = (node for node in net.graph.nodes() if node.name == net.program.regions[-1].anchor.name)
        kernels.append(net.executor.prelude(net.weights())[last.inputs[1]])
    rounded, wanted = kernels
    assert rounded.dtype == getattr(torch, dtype)
    unit = {"bfloat16": 2.0**-8, "float16": 2.0**-11}[dtype]
    assert float(((rounded.double() - wanted) / wanted).abs().max()) <= unit * (1 + 1e-3)


def test_weights_of_half_precision_networks_stay_float32() -> None:
    net = cl.compile(attention("heads"), device="cpu", dtype="float16")
    assert {p.dtype for p in net.parameters()} == {torch.float32}
    assert np.isfinite(net(np.ones((1, 7, 8), np.float32)).detach().float().numpy()).all()
