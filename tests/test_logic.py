"""Comparisons, logic and choices: training, integers beyond float32, NaN, half precision, Python's words."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch
from convloom.frontends.operations import OPERATIONS
from convloom.graph import ops
from convloom.graph.errors import ShapeError
from convloom.graph.types import TensorType
from keras_networks import images, randomised

import convloom as cl
from convloom import layers as L

WHERE, CAST, STOP = OPERATIONS["Where"], OPERATIONS["Cast"], OPERATIONS["StopGradient"]
BACKENDS = pytest.mark.parametrize("backend", ["aten", "triton"])
no_fallback = pytest.mark.filterwarnings("error::convloom.runtime.backends.FallbackWarning")


def by_hand(x: torch.Tensor, kernel: torch.Tensor, bias: torch.Tensor) -> torch.Tensor:
    h = torch.nn.functional.conv2d(x.permute(0, 3, 1, 2), kernel.permute(3, 2, 0, 1), bias, padding=1)
    h = h.permute(0, 2, 3, 1)
    inside = (h > h.mean((1, 2), keepdim=True)) & ~(h >= 9.0)
    h = torch.where(inside, h * 2, -h.square() * 0.1) * (h < 8.5)
    return h + (h * 3 - h).detach() + torch.where(h != 0, 0.5, x.mean(-1, keepdim=True))


def network() -> cl.Model:
    x = cl.Input((6, 5, 3))
    h = L.Conv2D(4, 3, padding="same", name="c")(x)
    inside = (h > OPERATIONS["Mean"]((1, 2), True)(h)) & ~(h >= 9.0)  # type: ignore[arg-type, call-arg]
    h = WHERE()(inside, h * 2, h**2 * -0.1) * CAST("float32")(h < 8.5)  # type: ignore[call-arg]
    y = h + STOP()(h * 3 - h) + WHERE()(h != 0, 0.5, OPERATIONS["Mean"](-1, True)(x))  # type: ignore[arg-type, call-arg]
    return randomised(cl.Model(x, y))


@no_fallback
@pytest.mark.parametrize("fuse", [True, False])
@BACKENDS
def test_values_and_gradients_are_those_of_torch(backend: str, fuse: bool) -> None:
    model, x = network(), torch.from_numpy(images(3, 6, 5, 3))
    net = cl.compile(model, device="cpu", backend=backend, fuse=fuse).train()
    y = net(x)
    y.square().sum().backward()
    y = y.detach()
    weights = [torch.from_numpy(w).double().requires_grad_() for w in model.get_weights()]
    exact = by_hand(x.double(), *weights)
    exact.square().sum().backward()
    exact = exact.detach()
    assert float((y - exact).abs().max()) <= 1e-5 * float(exact.abs().max())
    for parameter, weight in zip(net.parameters(), weights, strict=True):
        assert parameter.grad is not None
        assert weight.grad is not None
        assert float((parameter.grad - weight.grad).abs().max()) <= 1e-5 * float(weight.grad.abs().max())


@BACKENDS
def test_no_gradient_crosses_a_masked_step_or_a_stop(backend: str) -> None:
    """Zeros too are masked: through Masking(0) a step of zeros passes none."""
    x = torch.from_numpy(images(2, 5, 3))
    for value in (0.0, 2.0):
        given = x.clone()
        given[:, ::2] = value
        given.requires_grad_()
        net = cl.compile(cl.Sequential([cl.Input((5, 3)), L.Masking(value)]), device="cpu", backend=backend)
        (gradient,) = torch.autograd.grad(net.train()(given).sum(), given)
        expected = torch.ones_like(x)
        expected[:, ::2] = 0
        assert torch.equal(gradient, expected)


@BACKENDS
@pytest.mark.parametrize("dtype", ["bfloat16", "float16", "float32"])
def test_values_are_masked_as_the_dtype_rounds_them(dtype: str, backend: str) -> None:
    x = images(2, 5, 3)
    x[:, ::2] = 2.1
    model = cl.Sequential([cl.Input((5, 3)), L.Masking(2.1)])
    with torch.no_grad():
        y = cl.compile(model, device="cpu", backend=backend, dtype=dtype)(x)
    assert torch.equal(y == 0, torch.from_numpy(x == np.float32(2.1)))


@BACKENDS
def test_an_infinite_gradient_leaves_the_other_side_alone(backend: str) -> None:
    x = cl.Input((3,))
    given = torch.tensor([[1.0, 4.0, -1.0]], requires_grad=True)
    net = cl.compile(cl.Model(x, WHERE()(x > 0, x, x * 2)), device="cpu", backend=backend).train()
    net(given).backward(torch.tensor([[float("inf"), 3.0, -float("inf")]]))
    assert given.grad is not None
    assert given.grad[0].tolist() == [float("inf"), 3.0, -float("inf")]


@no_fallback
@BACKENDS
@pytest.mark.parametrize("dtype", ["int64", "int32"])
def test_integers_are_compared_as_integers(dtype: str, backend: str) -> None:
    """float32 does not tell 2^24 + 1 from 2^24."""
    x, y = cl.Input((4,), dtype=dtype), cl.Input((4,), dtype=dtype)
    model = cl.Model([x, y], [x > y, OPERATIONS["Equal"]()(x, y), WHERE()(x > y, x, y)])
    a = np.array([[2**24 + 1, 2**24, -(2**24) - 1, 5]], dtype)
    b = np.array([[2**24, 2**24 + 1, -(2**24), 5]], dtype)
    greater, equal, larger = cl.compile(model, device="cpu", backend=backend)(a, b)
    assert (greater.dtype, equal.dtype, larger.dtype) == (torch.bool, torch.bool, getattr(torch, dtype))
    np.testing.assert_array_equal(greater, a > b)
    np.testing.assert_array_equal(equal, a == b)
    np.testing.assert_array_equal(larger, np.maximum(a, b))


@BACKENDS
def test_nan_compares_as_everywhere(backend: str) -> None:
    x = cl.Input((3,))
    names = ("Greater", "GreaterEqual", "Less", "LessEqual", "Equal", "NotEqual")
    model = cl.Model(x, [OPERATIONS[name]()(x, 1.0) for name in names])
    given = torch.tensor([[float("nan"), float("inf"), -float("inf")]])
    found = [y[0].tolist() for y in cl.compile(model, device="cpu", backend=backend)(given)]
    expected = [[False, True, False], [False, True, False], [False, False, True], [False, False, True]]
    assert found == [*expected, [False, False, False], [True, True, True]]


def test_truth_values_come_in_and_go_out() -> None:
    a, b = cl.Input((4,), dtype="bool", name="a"), cl.Input((4,), dtype="bool", name="b")
    model = cl.Model([a, b], [a & b, a | b, a ^ b, ~a, a & True, a != b])
    x, y = np.array([[True, True, False, False]]), np.array([[True, False, True, False]])
    expected = [x & y, x | y, x ^ y, ~x, x, x != y]
    for backend in ("aten", "triton"):
        given = cl.compile(model, device="cpu", backend=backend)(x, y)
        for found, wanted in zip(given, expected, strict=True):
            np.testing.assert_array_equal(found, wanted)


def test_constants_take_the_tensors_dtype_unless_they_do_not_fit() -> None:
    x = cl.Input((4,), dtype="uint8")

    def dtypes(tensor: Any) -> set[str]:
        graph = cl.Model(x, tensor).to_graph()
        (node,) = (n for n in graph.nodes() if isinstance(n.op, ops.Compare | ops.Where))
        return {graph[name].type.dtype for name in node.inputs if graph[name].type.dtype != "bool"}

    assert dtypes(x > 3) == {"uint8"}
    assert dtypes(x > 300) == dtypes(x > -1) == {"int32"}
    assert dtypes(x > 2**40) == {"int64"}
    assert dtypes(x > 0.5) == {"float32"}
    assert dtypes(WHERE()(CAST("bool")(x), 1, 2)) == {"int32"}  # type: ignore[call-arg]
    given = np.array([[0, 3, 4, 255]], np.uint8)
    for bound in (3, 300, -1, 0.5, 2**40):
        found = cl.compile(cl.Model(x, x > bound), device="cpu")(given)
        np.testing.assert_array_equal(found, given > bound)


def test_equality_in_python_is_of_tensors_as_in_keras() -> None:
    x, y = cl.Input((2,)), cl.Input((2,))
    assert (x == y) is False
    assert x == x
    assert y not in [x]
    for other in (0, 1.5, np.ones(2)):
        with pytest.raises(cl.ShapeError, match="asks whether two tensors are the same one"):
            assert x == other


def test_choices_join_the_kernel_before_them() -> None:
    x = cl.Input((8, 8, 4))
    y = cl.Input((8, 8, 4))
    h = L.Conv2D(4, 3, padding="same")(x)
    assert len(cl.compile(cl.Model([x, y], WHERE()(y > 0, h, 0.0)), device="cpu").kernels) == 2
    assert len(cl.compile(cl.Model([x, y], WHERE()(y, h, 0.0)), device="cpu").kernels) <= 2


@pytest.mark.parametrize(
    ("wrong", "text"),
    [
        (lambda x: x > "a", "combines with symbolic tensors and numbers, got 'a'"),
        (lambda x: WHERE()(x), "needs x1 and x2"),
        (lambda x: x > np.ones((2, 4)), "takes tensors, numbers, and arrays along the last axis, got"),
        (lambda x: x > np.ones(3), "do not broadcast together"),
        (lambda x: x + True, "combines with symbolic tensors and numbers, got 'True'"),
        (lambda x: x > cl.Input((3, 4)), "2 and 3 axes, so that a batch would meet another axis"),
        (lambda x: CAST("flaot32")(x), "did you mean 'float32'?"),  # type: ignore[call-arg]
        (lambda x: 1 if x > 0 else 2, "has no value yet; a network cannot branch on it"),
    ],
)
def test_wrong_uses_are_named(wrong: Any, text: str) -> None:
    with pytest.raises(cl.ConvLoomError) as caught:
        wrong(cl.Input((4,)))
    assert text in str(caught.value)


def test_ops_refuse_what_is_of_another_kind() -> None:
    number, truth = TensorType(("N", 3)), TensorType(("N", 3), "bool")
    for op, kinds, text in (
        (ops.Logical("and"), (number, truth), "logical_and takes truth values, found float32"),
        (ops.Not(), (number,), "not takes truth values"),
        (ops.Where(), (number, number, number), "where takes truth values"),
        (ops.Compare("greater"), (number, truth), "takes two values of one dtype"),
        (ops.Compare("above"), (number, number), "no relation is called 'above'"),
        (ops.Logical("nand"), (truth, truth), "no connective is called 'nand'"),
    ):
        with pytest.raises(ShapeError, match=text):
            op.result(*kinds)
