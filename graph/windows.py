"""Sliding-window arithmetic: padding and output sizes. It exists once, here.

Output size per axis: floor((n + p_before + p_after - ((f - 1) * dilation + 1)) / stride) + 1,
the lectures' floor((n + 2p - f) / s + 1) with padding that may differ on the two sides.
"""

from __future__ import annotations

from .errors import ShapeError

Pair = tuple[int, int]
Padding = tuple[Pair, Pair]
"""((top, bottom), (left, right))"""

NO_PADDING: Padding = ((0, 0), (0, 0))


def extent(size: int, dilation: int = 1) -> int:
    """Input positions a window of `size` taps covers along one axis."""
    return (size - 1) * dilation + 1


def output_size(n: int, size: int, stride: int, padding: Pair, dilation: int = 1) -> int:
    """Positions a window takes along one axis of n inputs; 0 or less where it never fits."""
    return (n + padding[0] + padding[1] - extent(size, dilation)) // stride + 1


def same_padding(n: int, size: int, stride: int, dilation: int = 1) -> Pair:
    """Keras's `same`: ceil(n / stride) outputs, the odd element of padding after the data."""
    outputs = -(-n // stride)
    total = max(0, (outputs - 1) * stride + extent(size, dilation) - n)
    return total // 2, total - total // 2


def resolve_padding(
    padding: str | Padding, spatial: Pair, size: Pair, strides: Pair, dilation: Pair = (1, 1)
) -> Padding:
    """`same`, `valid` or explicit pairs -> explicit pairs for an input of height, width = `spatial`."""
    if padding == "valid":
        return NO_PADDING
    if padding == "same":
        rows, cols = (
            same_padding(n, f, s, d) for n, f, s, d in zip(spatial, size, strides, dilation, strict=True)
        )
        return rows, cols
    if isinstance(padding, str):
        raise ShapeError(
            f"padding {padding!r} is unknown; use 'same', 'valid' or ((top, bottom), (left, right))"
        )
    (top, bottom), (left, right) = padding
    return (top, bottom), (left, right)


def window_output(
    where: str, spatial: Pair, size: Pair, strides: Pair, padding: Padding, dilation: Pair = (1, 1)
) -> Pair:
    """Height and width of a window operation's output; raises ShapeError where the window never fits."""
    for label, values in (("size", size), ("stride", strides), ("dilation", dilation)):
        if min(values) < 1:
            raise ShapeError(f"{where}: {label} {values} must be at least 1 on both axes")
    if min(*padding[0], *padding[1]) < 0:
        raise ShapeError(f"{where}: padding {padding} must not be negative")
    rows, cols = (
        output_size(n, f, s, p, d)
        for n, f, s, p, d in zip(spatial, size, strides, padding, dilation, strict=True)
    )
    if rows < 1 or cols < 1:
        raise ShapeError(
            f"{where}: a window of {size[0]}x{size[1]} (dilation {dilation[0]}x{dilation[1]}) does not fit "
            f"into an input of {spatial[0]}x{spatial[1]} with padding {padding}; use padding='same', "
            f"a smaller window or a larger input"
        )
    return rows, cols
