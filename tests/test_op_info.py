"""PyTorch's own samples of its operators (OpInfo), computed by the matching ops: definitions and kernels.

What an operator of PyTorch can and no op of ours is meant for, is left out with a reason.
"""

from __future__ import annotations

import os
import subprocess
import sys
from collections import Counter
from math import prod
from typing import Any

import op_info_samples
import pytest
import torch
from convloom.codegen import NotEmittable, emit
from convloom.codegen.machine.interpreter import interpreting
from convloom.graph import ops
from convloom.graph.errors import ShapeError
from convloom.graph.ir import Graph
from convloom.graph.op import Kind, Op
from convloom.planning.fusion import fuse

KERNELS = 5
"""Samples of an operator whose kernels are interpreted; the others are held to the ops' definitions."""

Row = dict[str, Any]


class LeftOut(Exception):
    """No op of ours is meant to do this."""


@pytest.fixture(scope="module")
def samples(tmp_path_factory: pytest.TempPathFactory) -> dict[str, list[Row]]:
    pytest.importorskip("expecttest", reason="PyTorch's samples need it")
    path = tmp_path_factory.mktemp("samples") / "samples.pt"
    command = [sys.executable, op_info_samples.__file__, str(path)]
    subprocess.run(command, check=True, env={**os.environ, "PYTHONWARNINGS": "ignore"}, capture_output=True)
    found: dict[str, list[Row]] = torch.load(path, weights_only=False)
    return found


class Case:
    """One sample as a graph of ours over channels-last operands, and what it must give."""

    def __init__(self, row: Row) -> None:
        self.graph, self.values = Graph("sample"), dict[str, torch.Tensor]()
        self.args, self.kwargs = list(row["args"]), dict(row["kwargs"])
        self.x, self.result = row["input"], row["result"]
        if not isinstance(self.x, torch.Tensor) or not self.x.numel() or not self.result.numel():
            raise LeftOut("nothing to compute")

    def option(self, name: str, place: int, default: Any) -> Any:
        """An argument of the call. place: after the input."""
        return self.kwargs.get(name, self.args[place] if place < len(self.args) else default)

    def add(self, op: Any, *names: str) -> str:
        return self.graph.add(op, names)

    def input(self, value: torch.Tensor, name: str = "x") -> str:
        self.values[name] = value.contiguous()
        return self.graph.add(ops.Input(("N", *value.shape[1:])), (), name)

    def weight(self, value: torch.Tensor, name: str) -> str:
        self.values[name] = value.contiguous()
        return self.graph.add(ops.Parameter(tuple(value.shape)), (), name)

    def image(self, spatial: int) -> None:
        """The input and the result as (N, H, W, C), a line being an image of height 1."""
        self.x, self.result = (_channels_last(value, spatial) for value in (self.x, self.result))
        self.node = self.input(self.x)

    def pair(self, value: Any, spatial: int, line: int) -> tuple[int, int]:
        """A number, or one an axis, as one for height and width. line: what the height of a line has."""
        numbers = [value] * spatial if isinstance(value, int) else list(value)
        numbers = numbers * spatial if len(numbers) < spatial else numbers
        return (line, numbers[0]) if spatial == 1 else (numbers[0], numbers[1])


def _channels_last(value: torch.Tensor, spatial: int) -> torch.Tensor:
    value = value.unsqueeze(0) if value.dim() == spatial + 1 else value
    value = value.unsqueeze(2) if spatial == 1 else value
    return value.permute(0, 2, 3, 1)


# -- operators -----------------------------------------------------------------------------------------------
def convolution(case: Case, spatial: int) -> str:
    weight, bias = case.option("weight", 0, None), case.option("bias", 1, None)
    weight = weight.unsqueeze(2) if spatial == 1 else weight
    case.image(spatial)
    stride = case.pair(case.option("stride", 2, 1), spatial, 1)
    dilation = case.pair(case.option("dilation", 4, 1), spatial, 1)
    padding, kernel = case.option("padding", 3, 0), weight.shape[2:]
    if padding == "same":
        total = [d * (k - 1) for d, k in zip(dilation, kernel, strict=True)]
        around = tuple((t // 2, t - t // 2) for t in total)
    else:
        each = case.pair(0 if padding == "valid" else padding, spatial, 0)
        around = tuple((p, p) for p in each)
    op = ops.Conv2D(stride, around, dilation, case.option("groups", 5, 1))  # type: ignore[arg-type]
    vectors = () if bias is None else (case.weight(bias, "bias"),)
    return case.add(op, case.node, case.weight(weight.permute(2, 3, 1, 0), "w"), *vectors)


def transposed(case: Case, spatial: int) -> str:
    weight, bias = case.option("weight", 0, None), case.option("bias", 1, None)
    weight = weight.unsqueeze(2) if spatial == 1 else weight
    case.image(spatial)
    stride = case.pair(case.option("stride", 2, 1), spatial, 1)
    padding = case.pair(case.option("padding", 3, 0), spatial, 0)
    more = case.pair(case.option("output_padding", 4, 0), spatial, 0)
    dilation = case.pair(case.option("dilation", 6, 1), spatial, 1)
    if any(extra > least for extra, least in zip(more, padding, strict=True)):
        raise LeftOut("rows beyond what the kernel reaches")
    (top, left), (bottom, right) = padding, more
    around = ((top, top - bottom), (left, left - right))
    size = (int(case.result.shape[1]), int(case.result.shape[2]))
    op = ops.Conv2DTranspose(stride, around, dilation, case.option("groups", 5, 1), input_size=size)
    y = case.add(op, case.node, case.weight(weight.permute(2, 3, 1, 0), "w"))
    return y if bias is None else case.add(ops.Add(), y, case.weight(bias, "bias"))


def pooling(case: Case, spatial: int, op: type[Any]) -> str:
    case.image(spatial)
    average = op is ops.AveragePool2D
    size = case.pair(case.option("kernel_size", 0, 1), spatial, 1)
    stride = case.pair(case.option("stride", 1, None) or size[2 - spatial :], spatial, 1)
    padding = case.pair(case.option("padding", 2, 0), spatial, 0)
    if not average and case.pair(case.option("dilation", 3, 1), spatial, 1) != (1, 1):
        raise LeftOut("windows with gaps")
    if average and case.option("divisor_override", 5, None):
        raise LeftOut("another divisor than the window's size")
    if average and max(padding) and case.option("count_include_pad", 4, True):
        raise LeftOut("padding that counts")
    around = tuple(
        (p, max(0, (out - 1) * s + k - have - p))
        for p, out, s, k, have in zip(
            padding, case.result.shape[1:3], stride, size, case.x.shape[1:3], strict=True
        )
    )
    return case.add(op(size, stride, around), case.node)


def adaptive(case: Case) -> str:
    case.image(2)
    have, wanted = case.x.shape[1:3], case.result.shape[1:3]
    if any(h % w for h, w in zip(have, wanted, strict=True)):
        raise LeftOut("windows of several sizes")
    size = (have[0] // wanted[0], have[1] // wanted[1])
    return case.add(ops.AveragePool2D(size, size, ((0, 0), (0, 0))), case.node)


def normalised(case: Case, x: str, axes: tuple[int, ...], epsilon: float) -> str:
    """(x - mean) / sqrt(variance + epsilon) along axes."""
    mean = case.add(ops.Reduce(axes, mean=True, keepdims=True), x)
    centred = case.add(ops.Subtract(), x, mean)
    variance = case.add(ops.Reduce(axes, mean=True, keepdims=True), case.add(ops.Square(), centred))
    return case.add(ops.Multiply(), centred, case.add(ops.RsqrtPlus(epsilon), variance))


def affine(case: Case, y: str, weight: torch.Tensor | None, bias: torch.Tensor | None) -> str:
    y = y if weight is None else case.add(ops.Multiply(), y, case.weight(weight, "weight"))
    return y if bias is None else case.add(ops.Add(), y, case.weight(bias, "bias"))


def batch_norm(case: Case) -> str:
    if case.x.dim() not in (3, 4) or case.option("eps", 6, 1e-5) <= 0:
        raise LeftOut("no image, or an epsilon below 0")
    mean, variance, weight, bias = (
        case.option(name, place, None)
        for place, name in enumerate(("running_mean", "running_var", "weight", "bias"))
    )
    case.image(case.x.dim() - 2)
    epsilon = case.option("eps", 6, 1e-5)
    if case.option("training", 4, False):
        pixels = tuple(range(3))
        mean = case.add(ops.Reduce(pixels, mean=True), case.node)
        squares = case.add(ops.Square(), case.add(ops.Subtract(), case.node, mean))
        variance = case.add(ops.Reduce(pixels, mean=True), squares)
    else:
        mean, variance = case.weight(mean, "mean"), case.weight(variance, "variance")
    ones = torch.ones(case.x.shape[-1], dtype=torch.float64)
    gamma = case.weight(ones if weight is None else weight, "gamma")
    beta = case.weight(0 * ones if bias is None else bias, "beta")
    return case.add(ops.BatchNorm(epsilon), case.node, gamma, beta, mean, variance)


def layer_norm(case: Case) -> str:
    axes = len(case.option("normalized_shape", 0, ()))
    epsilon = case.option("eps", 3, 1e-5)
    if not 0 < axes < case.x.dim() or epsilon <= 0:
        raise LeftOut("the batch is normalised too, or an epsilon below 0")
    rank = case.x.dim()
    y = normalised(case, case.input(case.x), tuple(range(rank - axes, rank)), epsilon)
    return affine(case, y, case.option("weight", 1, None), case.option("bias", 2, None))


def group_norm(case: Case) -> str:
    groups, epsilon = case.option("num_groups", 0, 1), case.option("eps", 3, 1e-5)
    if case.x.dim() not in (3, 4) or epsilon <= 0:
        raise LeftOut("no image")
    case.image(case.x.dim() - 2)
    height, width, channels = case.x.shape[1:]
    apart = case.add(ops.Reshape((height, width, groups, channels // groups), batched=True), case.node)
    y = normalised(case, apart, (1, 2, 4), epsilon)
    y = case.add(ops.Reshape((height, width, channels), batched=True), y)
    return affine(case, y, case.option("weight", 1, None), case.option("bias", 2, None))


def instance_norm(case: Case) -> str:
    epsilon = case.option("eps", 6, 1e-5)
    if case.x.dim() not in (3, 4) or not case.option("use_input_stats", 4, True) or epsilon <= 0:
        raise LeftOut("stored statistics, or no image")
    case.image(case.x.dim() - 2)
    y = normalised(case, case.node, (1, 2), epsilon)
    return affine(case, y, case.option("weight", 2, None), case.option("bias", 3, None))


def loss(case: Case, op: Op) -> str:
    target = case.option("target", 0, None)
    plain = {"input", "target", "reduction"}
    if case.option("reduction", 9, "mean") != "mean" or set(case.kwargs) - plain or case.x.dim() < 1:
        raise LeftOut("a weighted loss, a loss that is no mean, or of no batch")
    if isinstance(op, ops.SoftmaxCrossEntropy):
        if case.x.dim() < 2:
            raise LeftOut("one row without a batch")
        x = case.x.movedim(1, -1)
        whole = not target.is_floating_point()
        target = torch.nn.functional.one_hot(target, x.shape[-1]).double() if whole else target.movedim(1, -1)
        case.x = x
    if target.shape != case.x.shape:
        raise LeftOut("a target that is spread")
    node = case.add(op, case.input(case.x), case.input(target, "target"))
    return case.add(ops.Reduce(tuple(range(case.x.dim())), mean=True), node)


METHODS = {"nearest-exact": "nearest", "nearest": "nearest", "linear": "bilinear", "bilinear": "bilinear"}


def interpolation(case: Case) -> str:
    mode, spatial = case.kwargs.get("mode", "nearest"), case.x.dim() - 2
    if mode not in METHODS or case.kwargs.get("align_corners") or spatial not in (1, 2):
        raise LeftOut(f"{mode} interpolation, with corners aligned, or of volumes")
    case.image(spatial)
    have, wanted = tuple(case.x.shape[1:3]), tuple(case.result.shape[1:3])
    if mode == "nearest" and any(there % here for here, there in zip(have, wanted, strict=True)):
        raise LeftOut("nearest places counted from the corner")
    if case.kwargs.get("scale_factor") and not case.kwargs.get("recompute_scale_factor"):
        scale = case.kwargs["scale_factor"]
        scales = [scale] * spatial if isinstance(scale, int | float) else scale
        if any(s * size != int(s * size) for s, size in zip(scales, have[2 - spatial :], strict=True)):
            raise LeftOut("a scale that is not that of the sizes")
    method, axes = METHODS[mode], (1, 2)
    pairs = list(zip(have, wanted, strict=True)) if method != "nearest" else []
    matrices = [case.add(ops.InterpolationMatrix(here, there, method)) for here, there in pairs]
    return case.add(ops.Resize(axes, wanted, method), case.node, *matrices)


MATCHING: dict[str, Any] = {
    "conv1d": lambda case: convolution(case, 1),
    "conv2d": lambda case: convolution(case, 2),
    "conv_transpose1d": lambda case: transposed(case, 1),
    "conv_transpose2d": lambda case: transposed(case, 2),
    "max_pool1d": lambda case: pooling(case, 1, ops.MaxPool2D),
    "max_pool2d": lambda case: pooling(case, 2, ops.MaxPool2D),
    "avg_pool1d": lambda case: pooling(case, 1, ops.AveragePool2D),
    "avg_pool2d": lambda case: pooling(case, 2, ops.AveragePool2D),
    "adaptive_avg_pool2d": adaptive,
    "batch_norm": batch_norm,
    "layer_norm": layer_norm,
    "group_norm": group_norm,
    "instance_norm": instance_norm,
    "mse_loss": lambda case: loss(case, ops.SquaredError()),
    "binary_cross_entropy": lambda case: loss(case, ops.BinaryCrossEntropy()),
    "binary_cross_entropy_with_logits": lambda case: loss(case, ops.BinaryCrossEntropy(from_logits=True)),
    "cross_entropy": lambda case: loss(case, ops.SoftmaxCrossEntropy()),
    "interpolate": interpolation,
}


# -- the test ------------------------------------------------------------------------------------------------
def by_definition(graph: Graph, values: dict[str, torch.Tensor]) -> torch.Tensor:
    known = dict(values)
    for node in graph.nodes():
        if node.name not in known:
            known[node.name] = node.op.reference(*(known[name] for name in node.inputs))
    return known[graph.outputs["y"]]


def by_kernels(graph: Graph, values: dict[str, torch.Tensor]) -> torch.Tensor:
    """In float32, in Triton's interpreter. Raises NotEmittable where a region has no kernel."""
    known = {name: value.float() for name, value in values.items()}
    for node in graph.nodes():
        if node.op.kind is Kind.SOURCE and node.name not in known:
            known[node.name] = node.op.reference().float()
    batch = values["x"].shape[0]
    for region in fuse(graph).regions:
        if not region.launches:
            node = region.anchor
            known[node.name] = node.op.reference(*(known[name] for name in node.inputs)).contiguous()
            continue
        kernel = emit(region)
        made = [torch.full(node.type.size(batch), torch.nan) for node in kernel.outputs]
        with interpreting():
            kernel.load(True).launch(*(known[node.name] for node in kernel.inputs), *made)
        known.update({node.name: value for node, value in zip(kernel.outputs, made, strict=True)})
    return known[graph.outputs["y"]]


@pytest.mark.parametrize("name", op_info_samples.NAMES)
def test_samples_of_pytorch(name: str, samples: dict[str, list[Row]]) -> None:
    left_out: Counter[str] = Counter()
    defined = interpreted = 0
    for row in samples[name]:
        try:
            case = Case(row)
            case.graph.outputs["y"] = MATCHING[name](case)
        except (LeftOut, ShapeError) as error:
            left_out[str(error)] += 1
            continue
        wanted = case.result
        found = by_definition(case.graph, case.values)
        assert found.shape == wanted.shape, row
        near = 1e-6 if name == "interpolate" else 1e-9  # whose matrices are float32
        torch.testing.assert_close(found, wanted.double(), rtol=near, atol=near, equal_nan=True)
        defined += 1
        if interpreted < KERNELS:
            terms = max(1, prod(case.values.get("w", torch.ones(1)).shape[:3]), case.x.shape.numel())
            try:
                found = by_kernels(case.graph, case.values).double()
            except NotEmittable as error:
                left_out[str(error)] += 1
                continue
            scale = max(1.0, float(wanted.abs().max()))
            assert float((found - wanted).abs().max()) <= 2.0**-23 * (32 + 8 * terms**0.5) * scale, row
            interpreted += 1
    assert defined, f"all left out: {left_out}"
    assert interpreted, f"no kernel: {left_out}"
