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


def axis_padding(padding: str, n: int, size: int, stride: int, dilation: int = 1) -> Pair:
    """`same`, `valid` or `causal` along one axis of n inputs -> (before, after).

    causal: output i reads inputs up to i * stride and none after it.
    """
    match padding:
        case "valid":
            return 0, 0
        case "same":
            return same_padding(n, size, stride, dilation)
        case "causal":
            return extent(size, dilation) - 1, 0
    raise ShapeError(f"padding {padding!r} is unknown; use 'same', 'valid' or ((top, bottom), (left, right))")


def window_output(
    where: str,
    spatial: tuple[int, ...],
    size: tuple[int, ...],
    strides: tuple[int, ...],
    padding: tuple[Pair, ...],
    dilation: tuple[int, ...] = (1, 1),
) -> tuple[int, ...]:
    """A window operation's output size along each axis; raises ShapeError where the window never fits."""
    for label, values in (("size", size), ("stride", strides), ("dilation", dilation)):
        if min(values) < 1:
            raise ShapeError(f"{where}: {label} {values} must be at least 1 on every axis")
    if min(n for pair in padding for n in pair) < 0:
        raise ShapeError(f"{where}: padding {padding} must not be negative")
    outputs = tuple(
        output_size(n, f, s, p, d)
        for n, f, s, p, d in zip(spatial, size, strides, padding, dilation, strict=True)
    )
    if min(outputs) < 1:
        raise ShapeError(
            f"{where}: a window of {_times(size)} (dilation {_times(dilation)}) does not fit "
            f"into an input of {_times(spatial)} with padding {padding}; use padding='same', "
            f"a smaller window or a larger input"
        )
    return outputs


def _times(sizes: tuple[int, ...]) -> str:
    return "x".join(map(str, sizes))
