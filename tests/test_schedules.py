"""Learning rate schedules: Keras's, step for step."""

from __future__ import annotations

import pickle
from collections.abc import Callable
from typing import Any

import keras
import pytest
import torch
from convloom.graph.errors import ConvLoomError

import convloom as cl

CASES: list[tuple[str, tuple[Any, ...], dict[str, Any]]] = [
    ("ExponentialDecay", (0.1, 7, 0.9), {}),
    ("ExponentialDecay", (0.1, 7, 0.9), {"staircase": True}),
    ("InverseTimeDecay", (0.1, 7, 0.5), {}),
    ("InverseTimeDecay", (0.1, 2.5, 0.5), {"staircase": True}),
    ("PiecewiseConstantDecay", ([3, 10], [0.1, 0.2, 0.3]), {}),
    ("PiecewiseConstantDecay", ([3], [0.1, 0.2]), {}),
    ("PolynomialDecay", (0.1, 20), {}),
    ("PolynomialDecay", (0.1, 20), {"end_learning_rate": 0.01, "power": 0.5}),
    ("PolynomialDecay", (0.1, 20, 0.01, 2.0), {"cycle": True}),
    ("CosineDecay", (0.1, 20), {"alpha": 0.2}),
    ("CosineDecay", (0.0, 20, 0.1), {"warmup_target": 0.3, "warmup_steps": 5}),
    ("CosineDecay", (0.1, 20), {"warmup_target": 0.3}),
    ("CosineDecayRestarts", (0.1, 7), {}),
    ("CosineDecayRestarts", (0.1, 5), {"t_mul": 1.0, "m_mul": 0.8, "alpha": 0.1}),
    ("CosineDecayRestarts", (0.1, 5), {"t_mul": 1.5, "m_mul": 0.8, "alpha": 0.1}),
]


@pytest.mark.parametrize(("name", "values", "options"), CASES, ids=str)
def test_rates_are_kerass(name: str, values: tuple[Any, ...], options: dict[str, Any]) -> None:
    ours = getattr(cl.schedules, name)(*values, **options)
    theirs = getattr(keras.optimizers.schedules, name)(*values, **options)
    assert ours.name == theirs.name
    ours = pickle.loads(pickle.dumps(ours))
    for step in (*range(45), 150, 151, 152, 1000):
        assert ours(step) == pytest.approx(float(theirs(step)), rel=1e-5, abs=1e-7), step


def test_a_rate_is_what_a_schedule_a_function_or_a_number_says() -> None:
    """Steps done are counted from 0, and a schedule of Keras's own serves too."""
    for rate in (
        cl.schedules.ExponentialDecay(1.0, 1, 0.5),
        keras.optimizers.schedules.ExponentialDecay(1.0, 1, 0.5),
        lambda step: 0.5**step,
    ):
        weight = torch.nn.Parameter(torch.zeros(1))
        made = cl.optimizers.SGD(rate)([weight])
        assert made.param_groups[0]["lr"] == 1.0
        for _ in range(3):
            weight.grad = torch.ones(1)
            made.step()
        assert float(weight.detach()) == -1.75
    rates = iter((1.0, 4.0, 2.0))  # Keras calls a function without arguments; once for the rate at the start
    weight = torch.nn.Parameter(torch.zeros(1))
    made = cl.optimizers.SGD(lambda: next(rates))([weight])
    for _ in range(2):
        weight.grad = torch.ones(1)
        made.step()
    assert float(weight.detach()) == -6.0


@pytest.mark.parametrize(
    ("make", "text"),
    [
        (lambda: cl.schedules.CosineDecay(0.1, 0), "CosineDecay: decay_steps is 0.0; it must be above 0"),
        (lambda: cl.schedules.CosineDecayRestarts(0.1, 3, t_mul=0.5), "t_mul is 0.5; it must be at least 1"),
        (lambda: cl.schedules.ExponentialDecay("a", 3, 0.5), "initial_learning_rate is 'a'"),  # type: ignore[arg-type]
        (lambda: cl.schedules.PiecewiseConstantDecay([1, 2], [0.1, 0.2]), "2 boundaries and 2 values"),
        (lambda: cl.schedules.PiecewiseConstantDecay([2, 1], [0.1, 0.2, 0.3]), "boundaries .2, 1. must rise"),
    ],
)
def test_arguments_out_of_range(make: Callable[[], Any], text: str) -> None:
    with pytest.raises(ConvLoomError, match=text):
        make()
