"""Images under a transform, and the gradient, as plain PyTorch text: rows of the table in `references.py`."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from ...graph.op import Op
from ...graph.ops import Warp, WarpGrad
from .writer import number

Lines = list[str]


def _places(op: Any, transform: str) -> Lines:
    """Lines for the places `down` and `across` of a result of rows x columns in n images of h x w."""
    lines = [
        f"a0, a1, a2, b0, b1, b2, c0, c1 = {transform}.expand(n, 8)[..., None, None].unbind(1)",
        f"p = torch.arange(rows, device={transform}.device)[:, None]",
        f"q = torch.arange(columns, device={transform}.device)",
        "k = c0 * q + c1 * p + 1",
        "down, across = (b0 * q + b1 * p + b2) / k, (a0 * q + a1 * p + a2) / k",
    ]
    if op.fill_mode in ("constant", "nearest"):
        lines.append("down, across = down.clamp(-2, h + 1), across.clamp(-2, w + 1)")
    if op.interpolation == "nearest":
        lines.append("down, across = ((t.abs() + 0.5).floor() * t.sign() for t in (down, across))")
    return lines


def _taps(op: Any, *lines: str) -> Lines:
    """The loop over the taps: `index` in the image, `weight`, whether it is `inside`, and what is done."""
    offsets = "((0, 0),)" if op.interpolation == "nearest" else "((0, 0), (0, 1), (1, 0), (1, 1))"
    found = [
        "i, j = down.floor().long() + r, across.floor().long() + s",
        "weight = (1 - (down - i).abs()) * (1 - (across - j).abs())",
        "inside = (i >= 0) & (i < h) & (j >= 0) & (j < w)",
    ]
    if op.fill_mode == "wrap":
        found.append("i, j = i % h, j % w")
    if op.fill_mode == "reflect":
        found.append("i, j = i % (2 * h), j % (2 * w)")
        found.append("i, j = torch.minimum(i, 2 * h - 1 - i), torch.minimum(j, 2 * w - 1 - j)")
    found.append("index = i.clamp(0, h - 1) * w + j.clamp(0, w - 1)")
    return [f"for r, s in {offsets}:", *[f"    {line}" for line in (*found, *lines)]]


def _warp(op: Warp, result: str, x: str, transform: str) -> Lines:
    lines = ["found = pixels[image, index]"]
    if op.fill_mode == "constant":
        lines.append(f"found = torch.where(inside[..., None], found, {number(op.fill_value)})")
    return [
        f"n, h, w, c = {x}.shape",
        f"rows, columns = {op.size}",
        *_places(op, transform),
        f"pixels = {x}.reshape(n, h * w, c)",
        f"image = torch.arange(n, device={x}.device)[:, None, None]",
        f"{result} = {x}.new_zeros(n, rows, columns, c)",
        *_taps(op, *lines, f"{result} = {result} + weight[..., None] * found"),
    ]


def _warp_grad(op: WarpGrad, result: str, dy: str, transform: str) -> Lines:
    weight = "weight * inside" if op.fill_mode == "constant" else "weight"
    return [
        f"n, rows, columns, c = {dy}.shape",
        f"h, w = {op.input_size}",
        *_places(op, transform),
        f"{result} = {dy}.new_zeros(n * h * w, c)",
        f"first = h * w * torch.arange(n, device={dy}.device)[:, None, None]",
        *_taps(
            op,
            f"share = ({weight})[..., None] * {dy}",
            f"{result}.index_add_(0, (first + index).flatten(), share.flatten(0, 2))",
        ),
        f"{result} = {result}.reshape(n, h, w, c)",
    ]


WARPS: dict[type[Op], Callable[..., Lines | str]] = {Warp: _warp, WarpGrad: _warp_grad}
