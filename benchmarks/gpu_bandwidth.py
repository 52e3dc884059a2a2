"""Kernels that move bytes, in TB/s: batch norm and its gradient, finishing sums, depthwise convolutions."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial

from convloom.codegen import Kernel, kernels
from convloom.planning.targets import card_of
from gpu_telling import Telling, compile_ahead, launched, operands, program_of
from gpu_timing import Session, main

import convloom as cl
from convloom import layers as L


def batch_norm(size: int, channels: int) -> cl.Model:
    image = cl.Input((size, size, channels), name="image")
    return cl.Model(image, L.ReLU()(L.BatchNormalization()(image)))


def depthwise(size: int, channels: int, stride: int) -> cl.Model:
    return Telling("", size, channels, channels, stride=stride, kind="depthwise", relu=False).model()


BATCH = 128
CASES: dict[str, Callable[[], cl.Model]] = {
    "batch norm 256 at 56": partial(batch_norm, 56, 256),
    "batch norm 2048 at 7": partial(batch_norm, 7, 2048),
    "depthwise 144 at 56": partial(depthwise, 56, 144, 1),
    "depthwise 144 at 56 stride 2": partial(depthwise, 56, 144, 2),
    "depthwise 960 at 7": partial(depthwise, 7, 960, 1),
}
TINY: dict[str, Callable[[], cl.Model]] = {
    "batch norm": partial(batch_norm, 4, 8),
    "depthwise": partial(depthwise, 4, 8, 1),
}


def run(session: Session) -> None:
    batch = 1 if session.tiny else BATCH
    for name, make in (TINY if session.tiny else CASES).items():
        session.attempt(name, partial(_step, session, name, make, batch))


def step_kernels(make: Callable[[], cl.Model], target: str, batch: int) -> list[Kernel]:
    """Every kernel of a training step of one layer."""
    found = kernels(program_of(make(), target, True), batch)
    return [kernel for kernel in found if isinstance(kernel, Kernel)]


def _step(session: Session, name: str, make: Callable[[], cl.Model], batch: int) -> None:
    found = step_kernels(make, card_of(session.device), batch)
    compile_ahead(found, batch, session)
    for kernel in found:
        session.attempt(f"{name}: {kernel.name}", partial(_measure, session, name, kernel, batch))


def _measure(session: Session, name: str, kernel: Kernel, batch: int) -> None:
    tensors = operands(kernel, batch, session.device)
    seconds = session.seconds_of(partial(launched, kernel, tensors, session))
    session.say(
        f"{name}: {kernel.name}",
        batch=batch,
        launches=kernel.launches,
        microseconds=seconds * 1e6,
        terabytes_per_second=kernel.bytes(batch) / seconds / 1e12,
    )


if __name__ == "__main__":
    main("bandwidth", run)
