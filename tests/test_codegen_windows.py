"""Emitted kernels of pooling windows and their gradients, interpreted, against float64."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from convloom.codegen import NotEmittable, emit
from convloom.graph import ops
from kernel_checks import check, image, region, vector

import convloom as cl
from convloom import layers as L

WINDOWS = [
    ((2, 2), (2, 2), ((0, 0), (0, 0)), (7, 9)),
    ((3, 3), (2, 2), ((0, 1), (1, 1)), (8, 7)),
    ((3, 2), (1, 3), ((1, 1), (0, 1)), (6, 7)),
    ((5, 5), (1, 1), ((0, 0), (0, 0)), (7, 6)),
    ((5, 6), (5, 6), ((0, 0), (0, 0)), (5, 6)),
    ((1, 1), (2, 3), ((0, 0), (0, 0)), (5, 5)),
    ((9, 8), (9, 8), ((0, 0), (0, 0)), (9, 8)),
]

WIDE = ((3, 3), (2, 2), ((0, 1), (1, 1)), (4, 5))
POOLED = [(*window, channels) for window in WINDOWS[:4] for channels in (1, 17)]
POOLED += [(*WINDOWS[4], 1), (*WINDOWS[5], 17), (*WINDOWS[6], 17), (*WIDE, 130)]


@pytest.mark.parametrize(
    ("size", "strides", "padding", "spatial", "channels"), POOLED, ids=lambda v: str(v).replace(" ", "")
)
def test_pooling(size, strides, padding, spatial, channels) -> None:
    geometry = (size, strides, padding)
    x, bias = image("x", *spatial, channels), vector("bias", channels)
    pooled = [
        ("m", ops.MaxPool2D(*geometry), ["x"]),
        ("i", ops.MaxPoolIndex2D(*geometry), ["x"]),
        ("b", ops.Add(), ["m", "bias"]),
    ]
    check(region([x, bias, *pooled], outputs=["m", "i", "b"], anchor="m"))
    check(region([x, ("i", ops.MaxPoolIndex2D(*geometry), ["x"])]))
    check(
        region([x, ("r", ops.Relu(), ["x"]), ("a", ops.AveragePool2D(*geometry), ["r"])]),
        length=size[0] * size[1],
    )


@pytest.mark.parametrize(
    ("size", "strides", "padding", "spatial", "channels"), POOLED, ids=lambda v: str(v).replace(" ", "")
)
def test_pooling_gradients(size, strides, padding, spatial, channels) -> None:
    geometry = (size, strides, padding)
    pooled = ops.MaxPool2D(*geometry).infer(ops.Input(("N", *spatial, channels)).infer())
    inner = tuple(int(d) for d in pooled.shape[1:])
    kind = ops.MaxPoolIndex2D(*geometry).infer(pooled.with_shape(("N", *spatial, channels))).dtype
    saved = image("s", *spatial, channels)
    gradients = [
        image("dy", *inner),
        image("index", *inner, dtype=kind),
        ("u", ops.MaxUnpool2D(*geometry, input_size=spatial), ["dy", "index"]),
    ]
    masked = ("g", ops.ActivationGrad(ops.Relu()), ["u", "s"])
    check(region([*gradients, saved, masked], anchor="u", phase="backward"))
    average = ("u", ops.AverageUnpool2D(*geometry, input_size=spatial), ["dy"])
    check(region([image("dy", *inner), average], phase="backward"), length=size[0] * size[1])


@pytest.mark.parametrize("dtype", ["float32", "bfloat16"])
def test_what_is_added_to_a_window(dtype: str) -> None:
    shape = (9, 6, 17)
    added = [
        image("d", *shape, dtype=dtype),
        image("gate", 1, 1, 17, dtype=dtype),
        image("dy", 3, 2, 17, dtype=dtype),
        ("g", ops.Multiply(), ["d", "gate"]),
        ("u", ops.AverageUnpool2D((3, 3), (3, 3), input_size=(9, 6)), ["dy"]),
        ("sum", ops.Add(), ["g", "u"]),
    ]
    check(region(added, outputs=["g", "sum"], anchor="u", phase="backward"))
    pooled = [
        image("x", *shape, dtype=dtype),
        image("y", 3, 2, 17, dtype=dtype),
        ("t", ops.Tanh(), ["y"]),
        ("m", ops.MaxPool2D((3, 3), (3, 3)), ["x"]),
        ("sum", ops.Add(), ["m", "t"]),
    ]
    check(region(pooled, anchor="m"))


@pytest.mark.parametrize("dtype", ["float16", "bfloat16"])
def test_pooling_in_low_precision(dtype: str) -> None:
    x = image("x", 9, 6, 5, dtype=dtype)
    check(region([x, ("y", ops.MaxPool2D(), ["x"])]))
    check(region([x, ("y", ops.AveragePool2D((3, 3), (2, 2), ((1, 1), (0, 1))), ["x"])]), length=9)
    dy = image("dy", 4, 3, 5, dtype=dtype)
    check(region([dy, ("u", ops.AverageUnpool2D(input_size=(9, 6)), ["dy"])], phase="backward"))


def test_the_first_of_equal_values_wins_and_nan_is_kept() -> None:
    nodes = [image("x", 2, 4, 1), ("m", ops.MaxPool2D(), ["x"]), ("i", ops.MaxPoolIndex2D(), ["x"])]
    kernel = emit(region(nodes, outputs=["m", "i"], anchor="m"))
    module = kernel.load(interpreted=True)
    x = torch.tensor([[1.0, 3.0, 0.0, float("nan")], [3.0, 3.0, 9.0, 0.0]]).reshape(1, 2, 4, 1)
    m, i = module.results(1)
    module.launch(x, m, i)
    assert m.flatten()[0] == 3.0
    assert m.flatten()[1].isnan()
    assert i.flatten()[0] == 1


def test_pooling_keeps_its_prologue_where_windows_cover_it() -> None:
    nodes = [image("x", 6, 4, 3), ("r", ops.Tanh(), ["x"]), ("y", ops.MaxPool2D(), ["r"])]
    check(region(nodes, outputs=["r", "y"]))
    uncovered = [image("x", 7, 4, 3), ("r", ops.Tanh(), ["x"]), ("y", ops.MaxPool2D(), ["r"])]
    with pytest.raises(NotEmittable, match="r is kept whole, but the windows do not cover all of it"):
        emit(region(uncovered, outputs=["r", "y"]))


WAYS: dict[str, dict[str, Any]] = {
    "triton": {"backend": "triton"},
    "triton unfused": {"backend": "triton", "fuse": False},
    "aten": {},
    "aten float64": {"dtype": "float64", "fuse": False},
}


PADDED = [(3, 2, (7, 9), (1, 1)), (4, 4, (6, 10), (1, 1)), (20, 20, (9, 7), (5, 6))]
"""Window, strides, map, and the padding that Keras's "same" adds before the map."""


def pooled_by_torch(x: torch.Tensor, size: int, strides: int, before: tuple[int, int]) -> torch.Tensor:
    """Max pooling as PyTorch has it, whose padding may be half a window at most."""
    maps = x.permute(0, 3, 1, 2)
    if 2 * max(before) > size or size > max(x.shape[1:3]):  # one window, over all of the map
        return torch.nn.functional.max_pool2d(maps, x.shape[1:3])
    return torch.nn.functional.max_pool2d(maps, size, strides, before)


@pytest.mark.parametrize("way", WAYS)
@pytest.mark.parametrize(("size", "strides", "shape", "before"), PADDED, ids=str)
def test_a_window_of_minus_infinity_names_a_place_on_the_map(
    size: int, strides: int, shape: tuple[int, int], before: tuple[int, int], way: str
) -> None:
    """Its gradient goes where PyTorch's does, to the first pixel that is no padding, and is not lost."""
    x = torch.randn(3, *shape, 5, dtype=torch.float64)
    x[:, :4, :4] = x[:, -4:, -4:] = x[1] = float("-inf")
    image = cl.Input((*shape, 5))
    net = cl.compile(
        cl.Model(image, L.MaxPooling2D(size, strides=strides, padding="same")(image)),
        device="cpu",
        **WAYS[way],
    )
    dtype: torch.dtype = getattr(torch, net.options.dtype)
    found, wanted = (x.to(kind, copy=True).requires_grad_() for kind in (dtype, x.dtype))
    expected = pooled_by_torch(wanted, size, strides, before)
    seed = torch.randn_like(expected)
    expected.backward(seed)
    net(found).backward(seed.permute(0, 2, 3, 1).to(dtype))
    assert wanted.grad is not None
    torch.testing.assert_close(found.grad, wanted.grad.to(dtype))
    second = torch.autograd.grad(  # by the ops' definitions
        net(found), found, seed.permute(0, 2, 3, 1).to(dtype), create_graph=True
    )[0]
    torch.testing.assert_close(second.detach(), wanted.grad.to(dtype))


@pytest.mark.parametrize("way", WAYS)
def test_a_window_of_minus_infinity_in_an_epilogue(way: str) -> None:
    """Windows of 4x4 whose first row and column are padding, of channels that are -inf everywhere."""
    image = cl.Input((6, 10, 3))
    h = L.MaxPooling2D(4, padding="same")(L.Conv2D(5, 1, name="conv")(image))
    net = cl.compile(cl.Model(image, h), device="cpu", **WAYS[way]).train()
    with torch.no_grad():
        net.get_parameter("conv/bias")[1:4:2] = float("-inf")
    x = torch.randn(3, 6, 10, 3, dtype=torch.float64)
    kernel, bias = (
        net.get_parameter(f"conv/{name}").detach().double().requires_grad_() for name in ("kernel", "bias")
    )
    expected = pooled_by_torch(x @ kernel[0, 0] + bias, 4, 4, (1, 1))
    seed = torch.randn_like(expected)
    expected.backward(seed)
    dtype: torch.dtype = getattr(torch, net.options.dtype)
    net(x.to(dtype)).backward(seed.permute(0, 2, 3, 1).to(dtype))
    for name, value in (("kernel", kernel), ("bias", bias)):
        grad = net.get_parameter(f"conv/{name}").grad
        assert grad is not None
        torch.testing.assert_close(grad.double(), value.grad, rtol=1e-5, atol=1e-5)
    if way == "triton":
        assert "max_pool_index2d" in net.kernels[0].ops
