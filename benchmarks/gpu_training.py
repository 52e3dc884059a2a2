"""Training steps in bfloat16 against PyTorch: forward, backward and a step of SGD with momentum.

ConvLoom keeps its weights in float32; PyTorch's modules are bfloat16 throughout, which spares them the casts.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import Any

import torch
from gpu_networks import TUNED, Case, timed, told, tuned
from gpu_timing import Session, main
from torch.nn.functional import cross_entropy, one_hot

CASES = (("resnet50", 128), ("mobilenet_v2", 128), ("unet", 8))
TINY = (("lenet5", 2),)


def run(session: Session) -> None:
    todo = [Case(session, *case) for case in (TINY if session.tiny else CASES)]
    for case in todo:
        session.attempt(case.name, partial(_ours, case))
        session.attempt(case.name, partial(_theirs, case, ""))
    for case in todo:
        session.attempt(f"{case.name} compiled", partial(_theirs, case, TUNED[0]))


def _labels(case: Case) -> torch.Tensor:
    """(N, H, W), or (N,): classes."""
    with torch.no_grad():
        shape = case.twins[1](case.images_first[:2]).shape
    return torch.arange(case.batch * shape[2:].numel(), device=case.session.device).remainder(
        shape[1]
    ).reshape(case.batch, *shape[2:])


def _sgd(parameters: Any, session: Session) -> torch.optim.Optimizer:
    return torch.optim.SGD(parameters, lr=1e-3, momentum=0.9, fused=session.on_card)


def _ours(case: Case) -> None:
    session, x = case.session, case.images
    labels = _labels(case)
    target = one_hot(labels, _classes(case)).float()
    net = case.net.train()
    step, optimizer = net.with_loss("categorical_crossentropy"), _sgd(net.parameters(), session)

    def train() -> None:
        optimizer.zero_grad(set_to_none=True)
        step(x, target)[0].backward()
        optimizer.step()

    session.say(case.name, how="prepared", seconds=timed(train, session))
    told(case, "convloom", train)


def _theirs(case: Case, mode: str) -> None:
    session, x, labels = case.session, case.images_first, _labels(case)
    module = case.twins[1].train()
    optimizer = _sgd(module.parameters(), session)

    def loss() -> torch.Tensor:
        return cross_entropy(module(x).float(), labels)

    value: Callable[[], torch.Tensor] = tuned(case, loss, mode) if mode else loss

    def train() -> None:
        optimizer.zero_grad(set_to_none=True)
        value().backward()
        optimizer.step()

    def three() -> None:
        for _ in range(3):
            train()

    seconds = timed(three, session)
    told(case, mode or "eager", train, ready_after=seconds)


def _classes(case: Case) -> int:
    output = case.twins[0].to_graph()
    (name,) = output.outputs.values()
    return int(output[name].type.channels)


if __name__ == "__main__":
    main("training", run)
