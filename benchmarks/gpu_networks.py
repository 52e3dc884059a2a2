"""Whole networks in bfloat16 against PyTorch: eager with channels last, and torch.compile.

Everybody runs the same weights on the same images; a time is that of one call. `graphed` is the call as a
CUDA graph. First comes what is quick to begin, and last what takes a minute to tune itself.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from functools import cached_property, partial
from typing import Any

import torch
from gpu_timing import Call, Session, main
from torch import nn
from twins import BY_NAME, twins

import convloom as cl

CASES = (("resnet50", 256), ("resnet50", 1), ("mobilenet_v2", 256), ("vgg16", 32), ("unet", 16))
TINY = (("lenet5", 2),)
TUNED = ("reduce-overhead", "max-autotune")


@dataclass(frozen=True)
class Case:
    """One network and batch; what is made of it is made once."""

    session: Session
    network: str
    batch: int

    @property
    def name(self) -> str:
        return f"{self.network} b{self.batch}"

    @cached_property
    def twins(self) -> tuple[cl.Model, nn.Module]:
        model, module = twins(BY_NAME[self.network])
        placed: Any = module.to(self.session.device, torch.bfloat16)  # whose stub lacks memory_format
        return model, placed.to(memory_format=torch.channels_last)

    @cached_property
    def images(self) -> torch.Tensor:
        size = (self.batch, *BY_NAME[self.network].image)
        return torch.randn(size, device=self.session.device).bfloat16()

    @property
    def images_first(self) -> torch.Tensor:
        """The same memory as PyTorch's modules take it: channels last, but named first."""
        return self.images.permute(0, 3, 1, 2)

    @cached_property
    def net(self) -> cl.CompiledNetwork:
        device = str(self.session.device)
        return cl.compile(self.twins[0], device=device, backend="triton", dtype="bfloat16")


def cases(session: Session) -> list[Case]:
    return [Case(session, *case) for case in (TINY if session.tiny else CASES)]


def run(session: Session) -> None:
    todo = cases(session)
    with torch.no_grad():
        for case in todo:
            session.attempt(case.name, partial(_ours, case))
            session.attempt(case.name, partial(_eager, case))
        for mode in TUNED:
            for case in todo:
                session.attempt(f"{case.name} {mode}", partial(_compiled, case, mode))


def told(case: Case, how: str, call: Call, **more: Any) -> None:
    seconds = case.session.seconds_of(call)
    rate = case.batch / seconds
    case.session.say(case.name, how=how, milliseconds=seconds * 1e3, images_per_second=rate, **more)


def _ours(case: Case) -> None:
    net, x = case.net.eval(), case.images
    case.session.say(case.name, how="prepared", seconds=timed(lambda: net.prepare(case.batch), case.session))
    logits = case.twins[1].eval()(case.images_first).float()
    expected = torch.softmax(logits, 1).movedim(1, -1) if logits.ndim == 4 else torch.softmax(logits, 1)
    error = float((net(x).float() - expected).abs().max())
    told(case, "convloom", lambda: net(x), error=error)
    told(case, "convloom graphed", case.session.graphed(lambda: net(x)))


def _eager(case: Case) -> None:
    module, x = case.twins[1].eval(), case.images_first
    told(case, "eager", lambda: module(x))
    told(case, "eager graphed", case.session.graphed(lambda: module(x)))


def _compiled(case: Case, mode: str) -> None:
    call, x = tuned(case, case.twins[1].eval(), mode), case.images_first
    seconds = timed(lambda: [call(x) for _ in range(3)], case.session)
    told(case, mode, lambda: call(x), ready_after=seconds)


def tuned(case: Case, what: Any, mode: str) -> Callable[..., Any]:
    """What torch.compile makes of it; on the CPU, no more than its tracing."""
    how: dict[str, Any] = {"mode": mode} if case.session.on_card else {"backend": "eager"}
    found: Callable[..., Any] = torch.compile(what, **how)
    return found


def timed(work: Call, session: Session) -> float:
    """Seconds of something that is done once."""
    import time

    start = time.perf_counter()
    work()
    session.wait()
    return time.perf_counter() - start


if __name__ == "__main__":
    main("networks", run)
