"""Threads that call one network at once get what each would get alone."""

from __future__ import annotations

import sys
import threading
from collections.abc import Callable, Iterator
from typing import Any

import pytest
import torch

import convloom as cl
from convloom import layers as L

THREADS, ROUNDS = 4, 6


def network() -> cl.Model:
    """With weights that are folded before a call, in inference."""
    x = cl.Input((8, 8, 3))
    h = L.BatchNormalization()(L.Conv2D(6, 3, padding="same", use_bias=False)(x))
    h = L.MaxPooling2D(2)(L.ReLU()(h))
    return cl.Model(x, L.Dense(4)(L.Flatten()(h)))


@pytest.fixture
def hurried() -> Iterator[None]:
    """Threads take turns as often as Python lets them."""
    before = sys.getswitchinterval()
    sys.setswitchinterval(1e-6)
    yield
    sys.setswitchinterval(before)


def at_once(work: Callable[[int], None]) -> None:
    """The work of each thread, all begun together; what one raises is raised."""
    errors: list[BaseException] = []
    start = threading.Barrier(THREADS)

    def guarded(number: int) -> None:
        try:
            start.wait()
            work(number)
        except BaseException as error:
            errors.append(error)

    threads = [threading.Thread(target=guarded, args=(number,)) for number in range(THREADS)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    if errors:
        raise errors[0]


def step(net: Any, x: torch.Tensor) -> list[torch.Tensor]:
    """The output, and the gradients of all parameters and of the input."""
    given = x.clone().requires_grad_()
    y = net(given)
    return [y.detach(), *torch.autograd.grad(y.square().sum(), [given, *net.parameters()])]


@pytest.mark.usefixtures("hurried")
@pytest.mark.parametrize("training", [False, True], ids=["inference", "training"])
def test_forward_and_backward(training: bool) -> None:
    """On weights that have changed since the last round, so that all threads find them so at once."""
    net = cl.compile(network(), backend="aten", device="cpu").train(training)
    alone = cl.compile(network(), backend="aten", device="cpu").train(training)
    images = [torch.randn(2 + number, 8, 8, 3) for number in range(THREADS)]
    for _ in range(ROUNDS):
        with torch.no_grad():
            for parameter in net.parameters():
                parameter.add_(0.1 * torch.randn_like(parameter))
        alone.load_state_dict(net.state_dict())
        expected = [step(alone, x) for x in images]

        def work(number: int, expected: list[list[torch.Tensor]] = expected) -> None:
            for _ in range(3):
                for a, b in zip(step(net, images[number]), expected[number], strict=True):
                    torch.testing.assert_close(a, b)

        at_once(work)


def test_a_call_in_the_middle_of_another_finds_every_slot() -> None:
    """Between the moment at which one call knows the folded weights and that at which they lie in slots."""
    net = cl.compile(network(), backend="aten", device="cpu").eval()
    executor, weights = net.executor, net.weights()
    found: list[list[Any]] = []

    class Known(dict[str, torch.Tensor]):
        def items(self) -> Any:
            for name, value in super().items():
                if not found:
                    found.append([])
                    found.append(executor._start(weights, None))
                yield name, value

    known = Known(executor.prelude(weights))
    executor.prelude = lambda *given: known  # type: ignore[assignment]
    outer = executor._start(weights, None)
    assert [value is None for value in found[1]] == [value is None for value in outer]
