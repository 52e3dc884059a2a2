"""Images under a transform, and the gradient, as plain PyTorch text: rows of the table in `references.py`."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from ...graph.formula import Name, formula
from ...graph.op import Op
from ...graph.ops import Warp, WarpGrad
from ...graph.ops.warp import NUMBERS
from .printers import in_torch
from .writer import number

Lines = list[str]


def _taps(op: Warp | WarpGrad, transform: str, *lines: str) -> Lines:
    """The taps of a result of rows x columns in n images of h x w, and a loop over them, with the lines that
    make use of each one's `index` in the image, its `weight`, and whether it is `inside`."""
    found = [
        f"{', '.join(NUMBERS)} = {transform}.expand(n, 8)[..., None, None].unbind(1)",
        f"p = torch.arange(rows, device={transform}.device)[:, None]",
        f"q = torch.arange(columns, device={transform}.device)",
    ]

    def let(name: str, value: Any, remark: str) -> Name:
        found.append(f"{name} = {in_torch(formula(value))}")
        return Name(name)

    image = Name("h"), Name("w")
    place = op.at(list(map(Name, NUMBERS)), Name("p"), Name("q"), image, let)
    taps = [tuple(in_torch(formula(part)) for part in tap) for tap in op.taps_at(place, image, let)]
    found += ["taps = [", *(f"    ({', '.join(tap)})," for tap in taps), "]"]
    if op.fill_mode == "constant":
        lines = ("index = torch.where(inside, index, 0)", *lines)
    return [*found, "for index, weight, inside in taps:", *[f"    {line}" for line in lines]]


def _warp(op: Warp, result: str, x: str, transform: str) -> Lines:
    weight = "weight" if op.interpolation == "nearest" else "weight[..., None]"
    lines = ["found = pixels[image, index.long()]"]
    if op.fill_mode == "constant":
        lines.append(f"found = torch.where(inside[..., None], found, {number(op.fill_value)})")
    return [
        f"n, h, w, c = {x}.shape",
        f"rows, columns = {op.size}",
        f"pixels = {x}.reshape(n, h * w, c)",
        f"image = torch.arange(n, device={x}.device)[:, None, None]",
        f"{result} = {x}.new_zeros(n, rows, columns, c)",
        *_taps(op, transform, *lines, f"{result} = {result} + {weight} * found"),
    ]


def _warp_grad(op: WarpGrad, result: str, dy: str, transform: str) -> Lines:
    weighed = op.interpolation == "bilinear" or op.fill_mode == "constant"
    share = f"(weight * inside)[..., None] * {dy}" if weighed else dy
    return [
        f"n, rows, columns, c = {dy}.shape",
        f"h, w = {op.input_size}",
        f"{result} = {dy}.new_zeros(n * h * w, c)",
        f"first = h * w * torch.arange(n, device={dy}.device)[:, None, None]",
        *_taps(
            op,
            transform,
            f"share = {share}",
            f"{result}.index_add_(0, (first + index).flatten(), share.flatten(0, 2))",
        ),
        f"{result} = {result}.reshape(n, h, w, c)",
    ]


WARPS: dict[type[Op], Callable[..., Lines | str]] = {Warp: _warp, WarpGrad: _warp_grad}
