"""The telling kernels, each with its two best schedules, against cuDNN's with the same epilogue."""

from __future__ import annotations

from functools import partial

import torch
import torch.nn.functional as F
from convloom.codegen import Kernel
from convloom.planning.targets import card_of
from gpu_telling import Telling, compile_ahead, kernels_of, launched, operands, telling
from gpu_timing import Call, Session, main

BATCH = 64


def run(session: Session) -> None:
    batch, found = (1 if session.tiny else BATCH), dict[Telling, list[Kernel]]()
    for one in telling(session):
        session.attempt(one.name, partial(_emit, session, one, batch, found))
    compile_ahead([kernel for both in found.values() for kernel in both], batch, session)
    for one, kernels in found.items():
        session.attempt(one.name, partial(_measure, session, one, kernels, batch))


def _emit(session: Session, one: Telling, batch: int, found: dict[Telling, list[Kernel]]) -> None:
    target = card_of(session.device)
    found[one] = kernels_of(one.region(target), target, batch, 2)


def _measure(session: Session, one: Telling, kernels: list[Kernel], batch: int) -> None:
    with torch.no_grad():
        theirs = {name: session.seconds_of(call) for name, call in rivals(one, batch, session.device).items()}
    for kernel in kernels:
        tensors = operands(kernel, batch, session.device)
        seconds = session.seconds_of(partial(launched, kernel, tensors, session))
        session.say(
            one.name,
            batch=batch,
            schedule=str(kernel.schedule),
            microseconds=seconds * 1e6,
            teraflops=kernel.flops(batch) / seconds / 1e12,
            terabytes_per_second=kernel.bytes(batch) / seconds / 1e12,
            **{f"{name}_microseconds": value * 1e6 for name, value in theirs.items()},
            faster_than_same=theirs["same"] / seconds,
        )


def rivals(one: Telling, batch: int, device: torch.device) -> dict[str, Call]:
    """What PyTorch runs for it in bfloat16, channels last: "bare", the product alone, and the "same"."""
    if one.kind == "dense":
        flat, matrix = (_random(device, *size) for size in ((batch, one.taken), (one.channels, one.taken)))
        bias = _random(device, one.channels)
        return {
            "bare": lambda: F.linear(flat, matrix),
            "same": lambda: F.linear(flat, matrix, bias),
        }
    groups = one.taken if one.kind == "depthwise" else 1
    size = (one.taken, one.channels) if one.kind == "transposed" else (one.channels, one.taken // groups)
    x = _random(device, batch, one.taken, one.size, one.size)
    w, bias = _random(device, *size, one.taps, one.taps), _random(device, one.channels)
    pad = 0 if one.kind == "transposed" else one.taps // 2

    def product(b: torch.Tensor | None = None) -> torch.Tensor:
        if one.kind == "transposed":
            return F.conv_transpose2d(x, w, b, one.stride)
        return F.conv2d(x, w, b, one.stride, pad, 1, groups)

    y = product()
    if one.part != "forward":
        mask = [one.part == "image", one.part == "weights", False]
        strides, pads = [one.stride] * 2, [pad] * 2
        back = partial(
            torch.ops.aten.convolution_backward,
            *(torch.randn_like(y), x, w, None, strides, pads, [1, 1], False, [0, 0], groups, mask),
        )
        return {"bare": back, "same": back}
    other = torch.randn_like(y)

    def same() -> torch.Tensor:
        h = product(bias)
        h = h.add_(other) if one.residual else h
        h = h.relu_() if one.relu else h
        return F.max_pool2d(h, 2) if one.pool else h

    calls: dict[str, Call] = {"bare": product, "same": same}
    if device.type == "cuda" and one.relu and not one.pool and one.kind == "conv":
        fixed = ([one.stride] * 2, [pad] * 2, [1, 1], 1)
        calls["cudnn"] = (
            partial(torch.cudnn_convolution_add_relu, x, w, other, 1.0, bias, *fixed)
            if one.residual
            else partial(torch.cudnn_convolution_relu, x, w, bias, *fixed)
        )
    return calls


def _random(device: torch.device, *size: int) -> torch.Tensor:
    value = torch.randn(size, device=device).bfloat16() * 0.1
    return value.contiguous(memory_format=torch.channels_last) if len(size) == 4 else value


if __name__ == "__main__":
    main("rivals", run)
