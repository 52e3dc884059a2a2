"""Each loss against Keras's object of its name: values and gradients, with all arguments, to the edges."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import keras
import pytest
import torch

import convloom as cl
from convloom import layers as L

WAYS: dict[str, dict[str, Any]] = {"aten": {}, "unfused": {"fuse": False}, "triton": {"backend": "triton"}}


def made(seed: int, *shape: int) -> torch.Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed))


def shares(x: torch.Tensor) -> torch.Tensor:
    return 0.05 + 0.9 * x.sigmoid()


def one_hot(x: torch.Tensor) -> torch.Tensor:
    return torch.nn.functional.one_hot(x.argmax(-1), x.shape[-1]).float()


def coins(x: torch.Tensor) -> torch.Tensor:
    return (x > 0).float()


def numbers(x: torch.Tensor) -> torch.Tensor:
    return x.argmax(-1)


Make = Callable[[torch.Tensor], torch.Tensor]


def plain(x: torch.Tensor) -> torch.Tensor:
    return x


def rows(x: torch.Tensor) -> torch.Tensor:
    return x.softmax(-1)


CASES: list[tuple[str, dict[str, Any], Make, Make]] = [
    ("MeanSquaredError", {}, plain, plain),
    ("MeanAbsoluteError", {}, plain, plain),
    ("MeanAbsolutePercentageError", {}, plain, plain),
    ("MeanSquaredLogarithmicError", {}, plain, plain),
    ("Huber", {}, plain, plain),
    ("Huber", {"delta": 0.3}, plain, plain),
    ("LogCosh", {}, plain, plain),
    ("Poisson", {}, shares, shares),
    ("KLDivergence", {}, rows, rows),
    ("CosineSimilarity", {}, plain, plain),
    ("CosineSimilarity", {"axis": 1}, plain, plain),
    ("Hinge", {}, plain, coins),
    ("Hinge", {}, plain, lambda x: 2 * coins(x) - 1),
    ("SquaredHinge", {}, plain, coins),
    ("CategoricalHinge", {}, plain, one_hot),
    ("BinaryCrossentropy", {}, shares, coins),
    ("BinaryCrossentropy", {"from_logits": True, "label_smoothing": 0.2}, plain, coins),
    ("BinaryCrossentropy", {"axis": 1}, shares, shares),
    ("BinaryFocalCrossentropy", {}, shares, coins),
    ("BinaryFocalCrossentropy", {"from_logits": True, "gamma": 1.5, "label_smoothing": 0.1}, plain, coins),
    ("BinaryFocalCrossentropy", {"apply_class_balancing": True, "alpha": 0.4, "axis": 1}, shares, coins),
    ("CategoricalCrossentropy", {}, shares, one_hot),
    ("CategoricalCrossentropy", {"from_logits": True, "label_smoothing": 0.2}, plain, one_hot),
    ("CategoricalCrossentropy", {"label_smoothing": 0.2, "axis": 1}, shares, rows),
    ("CategoricalFocalCrossentropy", {}, shares, one_hot),
    ("CategoricalFocalCrossentropy", {"from_logits": True, "gamma": 3.0, "alpha": 0.5}, plain, rows),
    ("CategoricalFocalCrossentropy", {"alpha": [0.1, 0.2, 0.3, 0.4, 0.5], "gamma": 0.5}, shares, one_hot),
    ("CategoricalFocalCrossentropy", {"label_smoothing": 0.1, "axis": 1}, shares, one_hot),
    ("SparseCategoricalCrossentropy", {}, shares, numbers),
    ("SparseCategoricalCrossentropy", {"from_logits": True}, plain, numbers),
    ("SparseCategoricalCrossentropy", {"from_logits": True, "ignore_class": 1}, plain, numbers),
    ("SparseCategoricalCrossentropy", {"axis": 1}, shares, lambda x: x.argmax(1)),
    ("CategoricalGeneralizedCrossEntropy", {}, shares, numbers),
    ("CategoricalGeneralizedCrossEntropy", {"q": 0.7}, shares, numbers),
    ("Dice", {}, shares, coins),
    ("Dice", {"axis": (1, 2)}, shares, coins),
    ("Tversky", {"alpha": 0.3, "beta": 0.7}, shares, coins),
    ("Tversky", {"axis": (1,)}, shares, coins),
]


def name_of(case: Any) -> str:
    return case[0] + "".join(f" {key}={value}" for key, value in case[1].items())


def through(shape: tuple[int, ...], **options: Any) -> cl.CompiledNetwork:
    """A network that gives what it is given."""
    x = cl.Input(shape)
    return cl.compile(cl.Model(x, L.Activation("linear")(x)), device="cpu", **options)


def ours(
    way: str, loss: cl.losses.Loss, x: torch.Tensor, target: torch.Tensor, weight: torch.Tensor | None = None
) -> tuple[torch.Tensor, torch.Tensor]:
    """The loss in a compiled graph, and its gradient with respect to the prediction."""
    net = through(tuple(x.shape[1:]), **WAYS[way]).train()
    (name,) = net.source.outputs
    given = x.clone().requires_grad_()
    result = net.with_losses({name: loss})([given], [target], [weight])
    (gradient,) = torch.autograd.grad(result.loss, given)
    torch.testing.assert_close(result.predictions[0], x)
    return result.loss.detach(), gradient


def theirs(
    loss: Any, x: torch.Tensor, target: torch.Tensor, weight: torch.Tensor | None = None
) -> tuple[torch.Tensor, torch.Tensor]:
    given = x.clone().requires_grad_()
    value = loss(target, given, sample_weight=weight)
    (gradient,) = torch.autograd.grad(value, given)
    return value.detach(), gradient


def assert_same(found: Any, wanted: Any) -> None:
    for mine, right in zip(found, wanted, strict=True):
        torch.testing.assert_close(mine, right, rtol=2e-5, atol=1e-6)


@pytest.mark.parametrize("way", WAYS)
@pytest.mark.parametrize("case", CASES, ids=name_of)
def test_values_and_gradients_are_those_of_keras(case: Any, way: str) -> None:
    name, options, of_prediction, of_target = case
    x, target = of_prediction(made(1, 6, 3, 5)), of_target(made(2, 6, 3, 5))
    mine, right = getattr(cl.losses, name)(**options), getattr(keras.losses, name)(**options)
    assert mine.name == right.name
    assert_same(ours(way, mine, x, target), theirs(right, x, target))


def weights_like(values: torch.Tensor) -> torch.Tensor:
    """One for each of the loss's numbers, some of them 0."""
    return made(3, *values.shape).abs() * (made(4, *values.shape) > -0.5)


@pytest.mark.parametrize("reduction", ["sum_over_batch_size", "sum", "mean", "mean_with_sample_weight"])
@pytest.mark.parametrize("case", CASES, ids=name_of)
def test_reductions_with_and_without_weights(case: Any, reduction: str) -> None:
    name, options, of_prediction, of_target = case
    x, target = of_prediction(made(1, 6, 3, 5)), of_target(made(2, 6, 3, 5))
    mine = getattr(cl.losses, name)(reduction=reduction, **options)
    right = getattr(keras.losses, name)(reduction=reduction, **options)
    assert_same(ours("aten", mine, x, target), theirs(right, x, target))
    each = getattr(keras.losses, name)(reduction=None, **options)(target, x)
    alone = getattr(cl.losses, name)(reduction=None, **options)
    torch.testing.assert_close(alone(target, x), each, rtol=2e-5, atol=1e-6)
    if each.dim():
        weight = weights_like(each)
        assert_same(ours("aten", mine, x, target, weight), theirs(right, x, target, weight))
        torch.testing.assert_close(
            mine(target, x, weight), right(target, x, sample_weight=weight), rtol=2e-5, atol=1e-6
        )


# -- the edges -----------------------------------------------------------------------------------------------
SATURATED = torch.tensor([[0.0, 1.0, 0.0], [1.0, 0.0, 0.0], [1.0, 1.0, 1.0], [0.5, 0.5, 0.0]])
TRUTHS = torch.tensor([[0.0, 1.0, 0.0], [0.0, 1.0, 0.0], [0.0, 0.0, 1.0], [1.0, 0.0, 0.0]])
HUGE = torch.tensor([[1e4, -1e4, 0.0], [-1e4, 1e4, 30.0], [0.0, 0.0, 0.0], [-80.0, 80.0, -20.0]])

EDGES: list[tuple[str, dict[str, Any], torch.Tensor, torch.Tensor]] = [
    ("BinaryCrossentropy", {}, SATURATED, TRUTHS),
    ("BinaryCrossentropy", {"from_logits": True}, HUGE, TRUTHS),
    ("BinaryFocalCrossentropy", {}, SATURATED, TRUTHS),
    ("BinaryFocalCrossentropy", {"from_logits": True}, HUGE, TRUTHS),
    ("CategoricalCrossentropy", {}, SATURATED, TRUTHS),
    ("CategoricalCrossentropy", {"from_logits": True}, HUGE, TRUTHS),
    ("CategoricalCrossentropy", {}, torch.tensor([[0.3], [1.0]]), torch.ones(2, 1)),
    ("SparseCategoricalCrossentropy", {}, SATURATED, TRUTHS.argmax(-1)),
    ("SparseCategoricalCrossentropy", {"from_logits": True}, HUGE, TRUTHS.argmax(-1)),
    ("SparseCategoricalCrossentropy", {"ignore_class": 255}, SATURATED, torch.tensor([255, 1, 255, 0])),
    ("SparseCategoricalCrossentropy", {"ignore_class": -1}, SATURATED, torch.full((4,), -1)),
    ("CategoricalFocalCrossentropy", {}, SATURATED, TRUTHS),
    ("CategoricalFocalCrossentropy", {"from_logits": True}, HUGE, TRUTHS),
    ("KLDivergence", {}, SATURATED, TRUTHS),
    ("Poisson", {}, SATURATED, TRUTHS),
    ("MeanSquaredLogarithmicError", {}, SATURATED - 0.5, TRUTHS - 0.5),
    ("MeanAbsolutePercentageError", {}, SATURATED, TRUTHS),
    ("MeanAbsoluteError", {}, SATURATED, TRUTHS),
    ("Huber", {}, HUGE, TRUTHS),
    ("Huber", {}, TRUTHS + 1, TRUTHS),
    ("LogCosh", {}, HUGE, TRUTHS),
    ("Hinge", {}, 2 * SATURATED - 1, TRUTHS),
    ("SquaredHinge", {}, 2 * SATURATED - 1, TRUTHS),
    ("CategoricalHinge", {}, torch.tensor([[0.0, 0.0, 0.0], [1.0, 1.0, 1.0], [0.0, 1.0, -3.0]]), TRUTHS[:3]),
    ("Dice", {}, SATURATED, TRUTHS),
    ("Dice", {}, torch.zeros(4, 3), torch.zeros(4, 3)),
    ("Tversky", {}, torch.zeros(4, 3), torch.zeros(4, 3)),
    ("CategoricalGeneralizedCrossEntropy", {"q": 0.7}, torch.ones(4, 3), TRUTHS.argmax(-1)),
]


@pytest.mark.parametrize("way", WAYS)
@pytest.mark.parametrize("case", EDGES, ids=name_of)
def test_the_edges_are_those_of_keras(case: Any, way: str) -> None:
    """Probabilities of 0 and 1, logits far away, ties, all ignored, one class, nothing there."""
    name, options, x, target = case
    mine, right = getattr(cl.losses, name)(**options), getattr(keras.losses, name)(**options)
    found, wanted = ours(way, mine, x, target), theirs(right, x, target)
    assert torch.isfinite(wanted[1]).all()
    assert_same(found, wanted)


@pytest.mark.parametrize("way", WAYS)
def test_a_zero_vector_has_no_direction_and_a_finite_gradient(way: str) -> None:
    """Keras's own gradient is NaN there."""
    x, target = torch.tensor([[0.0, 0.0], [3.0, 4.0], [1.0, 2.0]]), torch.tensor([[1.0, 2.0], [0, 0], [2, 4]])
    value, gradient = ours(way, cl.losses.CosineSimilarity(), x, target)
    assert float(value) == pytest.approx(-1 / 3)
    assert float(keras.losses.CosineSimilarity()(target, x)) == pytest.approx(-1 / 3)
    assert torch.isfinite(gradient).all()
    assert gradient[1:].abs().max() < 1e-6


@pytest.mark.parametrize("way", WAYS)
@pytest.mark.parametrize("reduction", ["sum_over_batch_size", "mean_with_sample_weight"])
def test_weights_of_zero_leave_nothing(way: str, reduction: str) -> None:
    for name in ("MeanSquaredError", "CategoricalCrossentropy", "Huber", "CosineSimilarity"):
        loss = getattr(cl.losses, name)(reduction=reduction)
        value, gradient = ours(way, loss, SATURATED, TRUTHS, torch.zeros(4))
        assert float(value) == 0
        assert not gradient.any()


def test_impossible_classes_may_have_infinite_logits() -> None:
    x = torch.tensor([[0.5, float("-inf"), 1.0]])
    for way in WAYS:
        loss = cl.losses.SparseCategoricalCrossentropy(from_logits=True)
        value, gradient = ours(way, loss, x, torch.tensor([2]))
        assert float(value) == pytest.approx(0.474077, rel=1e-5)
        assert torch.isfinite(gradient).all()


@pytest.mark.parametrize("dtype", ["bfloat16", "float16"])
@pytest.mark.parametrize("backend", ["aten", "triton"])
@pytest.mark.parametrize("case", CASES, ids=name_of)
def test_networks_of_half_precision_have_losses_in_float32(case: Any, backend: str, dtype: str) -> None:
    name, options, of_prediction, of_target = case
    x, target = of_prediction(made(1, 6, 3, 5)), of_target(made(2, 6, 3, 5))
    net = through((3, 5), backend=backend, dtype=dtype).train()
    (output,) = net.source.outputs
    result = net.with_losses({output: getattr(cl.losses, name)(**options)})([x], [target])
    rounded = x.to(getattr(torch, dtype)).float()
    assert result.loss.dtype == torch.float32
    right = getattr(keras.losses, name)(**options)(target, rounded)
    torch.testing.assert_close(result.loss, right, rtol=2e-5, atol=1e-6)


# -- pairs ---------------------------------------------------------------------------------------------------
def embeddings(seed: int, examples: int) -> torch.Tensor:
    return torch.nn.functional.normalize(made(seed, examples, 5), dim=-1)


@pytest.mark.parametrize("way", WAYS)
@pytest.mark.parametrize("reduction", ["sum_over_batch_size", "sum", "mean_with_sample_weight"])
@pytest.mark.parametrize(
    "options", [{}, {"gamma": 20.0, "margin": 0.25}, {"gamma": 5.0, "remove_diagonal": False}], ids=str
)
def test_circle(options: dict[str, Any], reduction: str, way: str) -> None:
    x, labels = embeddings(1, 40), torch.arange(40) % 6
    mine = cl.losses.Circle(reduction=reduction, **options)
    right = keras.losses.Circle(reduction=reduction, **options)
    weight = weights_like(x[:, 0])
    for given in (None, weight):
        found, wanted = ours(way, mine, x, labels, given), theirs(right, x, labels, given)
        torch.testing.assert_close(found[0], wanted[0], rtol=1e-4, atol=1e-5)
        torch.testing.assert_close(found[1], wanted[1], rtol=1e-3, atol=1e-4 * float(wanted[1].abs().max()))


@pytest.mark.parametrize("way", WAYS)
def test_circle_where_some_examples_have_no_like(way: str) -> None:
    """Values as Keras's; the gradient is finite, where Keras's is NaN."""
    x, loss = embeddings(2, 7), cl.losses.Circle(gamma=10.0)
    for labels in (torch.tensor([0, 0, 1, 2, 2, 3, 0]), torch.arange(7), torch.zeros(7).long()):
        value, gradient = ours(way, loss, x, labels)
        torch.testing.assert_close(value, keras.losses.Circle(gamma=10.0)(labels, x), rtol=1e-4, atol=1e-6)
        assert torch.isfinite(gradient).all()
