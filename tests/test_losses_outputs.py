"""Losses as a user meets them: by name, of several outputs, weighted, in so many kernels; and refusals."""

from __future__ import annotations

import warnings
from typing import Any

import keras
import pytest
import torch
from convloom.graph.losses import CLASSES, LOSSES
from convloom.runtime.losses import find_loss, find_losses

import convloom as cl
from convloom import layers as L

WAYS: dict[str, dict[str, Any]] = {"aten": {}, "unfused": {"fuse": False}, "triton": {"backend": "triton"}}


def made(seed: int, *shape: int) -> torch.Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed))


# -- names ---------------------------------------------------------------------------------------------------
def test_every_loss_of_keras_is_known_by_keras_s_names() -> None:
    """CTC alone stays out, with the reason."""
    theirs = {name for name, value in vars(keras.losses).items() if isinstance(value, type)} - {"Loss", "CTC"}
    assert {loss.__name__ for loss in CLASSES} == theirs
    for name in theirs:
        ours: Any = getattr(cl.losses, name)()
        right = getattr(keras.losses, name)()
        assert len({type(found) for found in (find_loss(name), find_loss(ours.keras_name), ours)}) == 1
        assert ours.name == right.name
        assert ours.reduction == right.reduction
        assert callable(getattr(keras.losses, ours.keras_name))
    for short in ("mse", "MAE", "mape", "MSLE", "bce", "BCE", "kld", "KLD"):
        assert short.lower() in LOSSES
        assert isinstance(find_loss(short), type(find_loss(keras.losses.get(short).__name__)))


@pytest.mark.parametrize(
    ("make", "text"),
    [
        (lambda: find_loss("ctc"), r"the loss 'ctc' is not among those compiled here: it aligns sequences"),
        (lambda: find_loss("hubr"), r"unknown loss 'hubr'; did you mean 'huber'"),
        (lambda: cl.losses.Huber(reduction="average"), r"huber: reduction 'average'; known: 'sum_over_"),
        (
            lambda: cl.losses.CategoricalGeneralizedCrossEntropy(q=1.0),
            r"q must lie between 0 and 1, found 1.0",
        ),
        (lambda: find_losses({"head": "mse"}, ["heads"]), r"loss: the network has no output 'head'; did yo"),
        (lambda: find_losses(["mse"], ["a", "b"]), r"loss has 1 entries, and the network 2 outputs \(a, b"),
        (lambda: find_losses([None, None], ["a", "b"]), r"no output has a loss"),
    ],
)
def test_losses_that_cannot_be(make: Any, text: str) -> None:
    with pytest.raises(cl.ConvLoomError, match=text):
        make()


@pytest.mark.parametrize("axis", [0, 3, True, "last"])
def test_axes_that_are_none(axis: Any) -> None:
    x = cl.Input((2, 3))
    net = cl.compile(cl.Model(x, L.Dense(3)(x)))
    with pytest.raises(cl.ConvLoomError, match="axis must be an axis of the output other than the batch's"):
        net.with_loss(cl.losses.CosineSimilarity(axis=axis))


# -- several outputs -----------------------------------------------------------------------------------------
def two_heads(**options: Any) -> cl.CompiledNetwork:
    x = cl.Input((7,))
    h = L.Dense(6, activation="tanh", kernel_regularizer="l2")(x)
    classes = L.Dense(4, activation="softmax", name="classes")(h)
    place = L.Dense(2, name="place")(h)
    return cl.compile(cl.Model(x, [classes, place], seed=3), device="cpu", **options)


LOSSES_OF_BOTH = {"classes": cl.losses.SparseCategoricalCrossentropy(), "place": cl.losses.Huber(0.5)}


@pytest.mark.parametrize("way", WAYS)
def test_a_loss_for_each_output_with_what_it_counts(way: str) -> None:
    net = two_heads(**WAYS[way]).train()
    x, numbers, places = made(1, 9, 7), torch.arange(9) % 4, made(2, 9, 2)
    first, second = made(3, 9).abs(), made(4, 9).abs()
    step = net.with_losses(LOSSES_OF_BOTH, {"place": 0.25})
    for weights in (None, [first, None], [first, second]):
        result = step([x], [numbers, places], weights)
        (classes, place), penalty = net.with_penalty()([x])
        given = weights or [None, None]
        one = keras.losses.SparseCategoricalCrossentropy()(numbers, classes, sample_weight=given[0])
        two = keras.losses.Huber(0.5)(places, place, sample_weight=given[1])
        torch.testing.assert_close(torch.stack(result.losses), torch.stack([one, two]), rtol=1e-5, atol=1e-6)
        whole = one + 0.25 * two + penalty
        torch.testing.assert_close(result.loss, whole, rtol=1e-5, atol=1e-6)
        wanted = torch.autograd.grad(whole, list(net.parameters()))
        found = torch.autograd.grad(result.loss, list(net.parameters()))
        torch.testing.assert_close(found, wanted, rtol=1e-4, atol=1e-6)
        torch.testing.assert_close(result.predictions, (classes.detach(), place.detach()))


def test_an_output_without_a_loss_or_a_target() -> None:
    net = two_heads().train()
    x, numbers, places = made(1, 9, 7), torch.arange(9) % 4, made(2, 9, 2)
    both = net.with_losses(LOSSES_OF_BOTH)([x], [numbers, None])
    one = net.with_losses({"classes": LOSSES_OF_BOTH["classes"]})([x], [numbers, places])
    torch.testing.assert_close(both.loss, one.loss)
    assert len(both.losses) == len(one.losses) == 1
    with pytest.raises(cl.ConvLoomError, match=r"has no output 'plaace'; did you mean 'place'"):
        net.with_losses({"plaace": cl.losses.Huber()})
    with pytest.raises(cl.ConvLoomError, match="no output has a loss"):
        net.with_losses({})


@pytest.mark.parametrize(
    ("targets", "weights", "text"),
    [
        ([torch.arange(9), made(2, 9, 2)], None, "found class 8, but the network has 4 outputs"),
        ([torch.zeros(9).long(), made(2, 9, 3)], None, r"huber: targets have shape \(9, 3\), but the"),
        ([torch.zeros(9).long(), made(2, 9, 2)], [made(1, 8), None], r"sample weights have shape \(8,\)"),
        ([torch.zeros(9).long(), made(2, 9, 2)], [made(1, 9, 2), None], r"one weight for each example, \(9"),
        ([torch.zeros(9).long(), made(2, 9, 2).requires_grad_()], None, "the target asks for a gradient"),
    ],
)
def test_targets_and_weights_that_do_not_fit(targets: Any, weights: Any, text: str) -> None:
    with pytest.raises(cl.ConvLoomError, match=text):
        two_heads().with_losses(LOSSES_OF_BOTH)([made(1, 9, 7)], targets, weights)


@pytest.mark.parametrize("way", WAYS)
def test_weights_of_pixels(way: str) -> None:
    """One for each example, or for each position; a network of open sizes among them."""
    x = cl.Input((None, None, 3))
    model = cl.Model(x, L.Conv2D(5, 1, activation="softmax", name="map")(x), seed=3)
    net = cl.compile(model, device="cpu", **WAYS[way]).train()
    step = net.with_losses({"map": cl.losses.SparseCategoricalCrossentropy(ignore_class=255)})
    for height, width in ((4, 3), (2, 5)):
        given = made(1, 2, height, width, 3)
        numbers = (made(2, 2, height, width) * 2).long().abs() % 5
        numbers[0, 0, :2] = 255
        keras_loss = keras.losses.SparseCategoricalCrossentropy(ignore_class=255)
        for weight in (None, made(3, 2).abs(), made(4, 2, height, width).abs()):
            spread = weight if weight is None else weight.clone()
            if weight is not None and weight.dim() == 1:  # which Keras does not spread
                spread = weight[:, None, None].expand(2, height, width).clone()
            result = step([given], [numbers], [weight])
            wanted = keras_loss(numbers, net(given), sample_weight=spread)
            torch.testing.assert_close(result.loss, wanted, rtol=1e-5, atol=1e-6)


# -- kernels -------------------------------------------------------------------------------------------------
def regions(loss: cl.losses.Loss, weighted: bool, activation: str) -> list[str]:
    """The kernels of the loss and its gradient, as ops, in a training step."""
    x = cl.Input((4, 5))
    net = cl.compile(cl.Model(x, L.Dense(6, activation=activation)(x)), device="cpu").train()
    step = net.with_losses(dict.fromkeys(net.source.outputs, loss))
    output = next(iter(net.source.outputs.values()))
    shape = loss.target_type(net.source[output].type).size(3)
    target = torch.zeros(shape, dtype=torch.long) if isinstance(loss, NUMBERS) else torch.ones(shape)
    step([torch.zeros(3, 4, 5)], [target], [torch.ones(3) if weighted else None])
    (compiled,) = [n for n in net._twins.values() if (len(n.input_nodes) == 3) == (weighted or loss.weighs)]
    names = [" ".join(node.op.op_name() for node in region.nodes) for region in compiled.program.regions]
    return [name for name in names if not name.startswith(("dense", "reshape"))]


SEVERAL = (cl.losses.Circle, cl.losses.Dice, cl.losses.Tversky)
NUMBERS = (cl.losses.SparseCategoricalCrossentropy, cl.losses.CategoricalGeneralizedCrossEntropy)


@pytest.mark.parametrize("weighted", [False, True])
@pytest.mark.parametrize("loss", [loss for loss in CLASSES if loss not in SEVERAL])
def test_a_loss_is_one_kernel_and_its_gradient_another(loss: type[cl.losses.Loss], weighted: bool) -> None:
    """Whatever it is, and with weights: as the mean of squares."""
    assert len(regions(loss(), weighted, "linear")) <= 2


def test_overlaps_take_the_sums_side_by_side() -> None:
    found = regions(cl.losses.Dice(), False, "linear")
    assert len([name for name in found if "reduce" in name]) == 1
    assert len(found) == 5


# -- a last layer that does not fit --------------------------------------------------------------------------
@pytest.mark.parametrize(
    ("units", "activation", "loss", "text"),
    [
        (4, "softmax", "binary_crossentropy", "a softmax of 4 classes wants categorical_crossentropy"),
        (1, "softmax", "binary_crossentropy", "a softmax of one unit is always 1"),
        (1, "sigmoid", "categorical_crossentropy", "of one class the loss is always 0; two classes want one"),
        (4, "sigmoid", "categorical_crossentropy", "many classes want softmax"),
        (4, "linear", "categorical_crossentropy", "no activation gives any numbers; end in softmax, or say"),
        (4, "relu", "categorical_crossentropy", "relu gives any numbers"),
        (2, "linear", "binary_crossentropy", "end in sigmoid, or say from_logits=True"),
        (3, "softmax", "mse", "numbers that a softmax gives sum to 1; regression wants no activation"),
        (1, "linear", "poisson", "end in softplus or exponential"),
        (1, "sigmoid", "hinge", "its targets are -1 and 1"),
    ],
)
def test_a_last_layer_that_does_not_fit_its_loss_is_told_once(
    units: int, activation: str, loss: str, text: str
) -> None:
    x = cl.Input((7,))
    net = cl.compile(cl.Model(x, L.Dense(units, activation=activation, name="out")(x), seed=3))
    with pytest.warns(UserWarning, match=text) as caught:
        cl.fit(net, (made(1, 8, 7), torch.ones(8, units)), loss, epochs=2, verbose=False, stop_on_nan=False)
    (told,) = [str(warning.message) for warning in caught]
    assert told.count("As a rule: for regression no activation and mean_squared_error; for two classes") == 1


@pytest.mark.parametrize(
    ("units", "activation", "loss"),
    [
        (4, "softmax", "categorical_crossentropy"),
        (4, "softmax", cl.losses.KLDivergence()),
        (4, "sigmoid", "binary_crossentropy"),
        (1, "sigmoid", "bce"),
        (4, "linear", cl.losses.CategoricalCrossentropy(from_logits=True)),
        (4, "linear", cl.losses.BinaryCrossentropy(from_logits=True)),
        (4, "linear", "mse"),
        (4, "relu", "mse"),
        (4, "sigmoid", "mae"),
        (4, "tanh", "huber"),
        (4, "tanh", "hinge"),
        (4, "softplus", "poisson"),
        (4, "softmax", "dice"),
        (4, "hard_sigmoid", "binary_crossentropy"),
    ],
)
def test_what_fits_or_may_be_meant_is_left_alone(units: int, activation: str, loss: Any) -> None:
    x = cl.Input((7,))
    net = cl.compile(cl.Model(x, L.Dense(units, activation=activation)(x), seed=3))
    with warnings.catch_warnings():
        warnings.simplefilter("error", UserWarning)
        cl.fit(net, (made(1, 8, 7), torch.ones(8, units)), loss, verbose=False)
