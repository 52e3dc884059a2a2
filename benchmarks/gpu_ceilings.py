"""What the card can do: a copy's bytes and a matrix product's operations in a second."""

from __future__ import annotations

from functools import partial

import torch
from gpu_timing import Session, main


def run(session: Session) -> None:
    session.attempt("card", partial(_card, session))
    for megabytes in (1,) if session.tiny else (256, 2048):
        session.attempt(f"copy {megabytes} MB", partial(_copy, session, megabytes))
    for size in (64,) if session.tiny else (4096, 8192):
        session.attempt(f"product {size}", partial(_product, session, size))


def _card(session: Session) -> None:
    import triton

    name = torch.cuda.get_device_name(session.device) if session.on_card else "CPU"
    session.say("card", device=name, torch=torch.__version__, triton=triton.__version__)


def _copy(session: Session, megabytes: int) -> None:
    x = torch.empty(megabytes << 19, dtype=torch.bfloat16, device=session.device)
    y = torch.empty_like(x)
    seconds = session.seconds_of(lambda: y.copy_(x))
    session.say(f"copy {megabytes} MB", terabytes_per_second=2 * x.nbytes / seconds / 1e12)


def _product(session: Session, size: int) -> None:
    a, b = (torch.randn(size, size, device=session.device).bfloat16() for _ in range(2))
    seconds = session.seconds_of(lambda: a @ b)
    session.say(f"product {size}", teraflops=2 * size**3 / seconds / 1e12)


if __name__ == "__main__":
    main("ceilings", run)
