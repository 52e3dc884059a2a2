"""Whether twelve telling kernels compute in bfloat16 what their references do in float64."""

from __future__ import annotations

import time
from functools import partial

import torch
from convloom.codegen import Kernel
from convloom.planning.targets import card_of
from gpu_telling import Telling, compile_ahead, kernels_of, launched, telling
from gpu_timing import Session, main

BATCH = 3


def run(session: Session) -> None:
    start, made = time.monotonic(), dict[Telling, Kernel]()
    for one in telling(session):
        session.attempt(one.name, partial(_emit, session, one, made))
    compiled = compile_ahead(list(made.values()), BATCH, session)
    session.say("compiled", functions=compiled, seconds=time.monotonic() - start)
    for one, kernel in made.items():
        session.attempt(one.name, partial(_check, session, one, kernel))


def _emit(session: Session, one: Telling, made: dict[Telling, Kernel]) -> None:
    target = card_of(session.device)
    made[one] = kernels_of(one.region(target), target, BATCH, 1)[0]


def _check(session: Session, one: Telling, kernel: Kernel) -> None:
    module = kernel.load(interpreted=not session.on_card)
    inputs, outputs = module.example(BATCH, session.device), module.results(BATCH, session.device)
    launched(kernel, [*inputs, *outputs], session)
    worst = 0.0
    for found, wanted in zip(outputs, module.reference(*inputs), strict=True):
        apart = (found.double() - wanted.double()).abs().max().nan_to_num(float("inf"))
        worst = max(worst, float(apart / wanted.double().abs().max().clamp(min=1e-6)))
    allowed = float(module.TOLERANCE)
    session.say(one.name, right=worst <= allowed, error=worst, allowed=allowed, schedule=str(kernel.schedule))


if __name__ == "__main__":
    torch.manual_seed(0)
    main("values", run)
