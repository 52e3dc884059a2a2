"""Every optimizer of Keras's, with every argument of it, held to Keras's own over many steps."""

from __future__ import annotations

import copy
import pickle
from collections.abc import Callable
from typing import Any

import keras
import pytest
import torch
from convloom.graph.errors import ConvLoomError
from convloom.runtime import optimizers
from convloom.runtime.optimizers import OPTIMIZERS, KerasOptimizer, make_optimizer
from helpers import told

STEPS = 30
SHAPES = {
    "dense/kernel": (6, 3),
    "dense/bias": (3,),
    "conv2d/kernel": (3, 2, 1, 4),
    "wide/kernel": (2, 5),
    "tokens/embeddings": (7, 2),
}
OWN: list[tuple[str, dict[str, Any]]] = [
    ("SGD", {}),
    ("SGD", {"learning_rate": 0.05, "momentum": 0.8, "nesterov": True}),
    ("RMSprop", {"rho": 0.7, "momentum": 0.3, "epsilon": 1e-3, "centered": True}),
    ("Adagrad", {}),
    ("Adagrad", {"learning_rate": 0.1, "initial_accumulator_value": 0.0, "epsilon": 1e-3}),
    ("Adadelta", {}),
    ("Adadelta", {"learning_rate": 1.0, "rho": 0.7, "epsilon": 1e-3}),
    ("Adam", {"beta_1": 0.8, "beta_2": 0.9, "epsilon": 1e-3, "amsgrad": True}),
    ("AdamW", {"beta_1": 0.8, "beta_2": 0.9, "epsilon": 1e-3, "amsgrad": True}),
    ("Adamax", {}),
    ("Adamax", {"learning_rate": 0.02, "beta_1": 0.8, "beta_2": 0.9, "epsilon": 1e-3}),
    ("Nadam", {}),
    ("Nadam", {"learning_rate": 0.02, "beta_1": 0.8, "beta_2": 0.9, "epsilon": 1e-3}),
    ("Ftrl", {}),
    ("Ftrl", {"learning_rate": 0.1, "learning_rate_power": -0.7, "initial_accumulator_value": 0.3}),
    ("Ftrl", {"learning_rate": 0.1, "l1_regularization_strength": 0.2, "l2_regularization_strength": 0.1}),
    ("Ftrl", {"learning_rate": 0.1, "l2_shrinkage_regularization_strength": 0.1, "beta": 0.3}),
    ("Lion", {}),
    ("Lion", {"learning_rate": 0.02, "beta_1": 0.8, "beta_2": 0.95}),
    ("Lamb", {}),
    ("Lamb", {"learning_rate": 0.02, "beta_1": 0.8, "beta_2": 0.9, "epsilon": 1e-3}),
    ("Adafactor", {}),
    ("Adafactor", {"learning_rate": 0.1, "beta_2_decay": -0.5, "epsilon_1": 1e-4, "epsilon_2": 0.1}),
    ("Adafactor", {"learning_rate": 0.5, "clip_threshold": 0.3, "relative_step": False}),
    ("Muon", {}),
    ("Muon", {"learning_rate": 0.02, "adam_beta_1": 0.8, "adam_beta_2": 0.9, "adam_weight_decay": 0.1}),
    ("Muon", {"learning_rate": 0.02, "epsilon": 1e-3, "exclude_layers": ["wide"], "adam_lr_ratio": 0.1}),
    ("Muon", {"exclude_embeddings": False, "momentum": 0.8, "nesterov": False, "rms_rate": None}),
    ("Muon", {"muon_a": 3.0, "muon_b": -4.0, "muon_c": 1.8, "ns_steps": 3, "weight_decay": None}),
]
COMMON: list[dict[str, Any]] = [
    {"weight_decay": 0.05},
    {"clipnorm": 0.5},
    {"clipvalue": 0.1},
    {"global_clipnorm": 0.5},
    {"use_ema": True},
    {"use_ema": True, "ema_momentum": 0.7, "ema_overwrite_frequency": 4},
    {"loss_scale_factor": 8.0},
    {"gradient_accumulation_steps": 3},
    {"gradient_accumulation_steps": 3, "clipnorm": 0.5, "use_ema": True, "ema_overwrite_frequency": 2},
    {"learning_rate": keras.optimizers.schedules.ExponentialDecay(0.05, 7, 0.5)},
    {
        "learning_rate": keras.optimizers.schedules.ExponentialDecay(0.05, 7, 0.5),
        "gradient_accumulation_steps": 2,
        "weight_decay": 0.05,
    },
]


def drawn(scale: float = 1.0) -> tuple[dict[str, torch.nn.Parameter], list[list[torch.Tensor]]]:
    """Weights by name, and as many gradients of each as there are steps."""
    generator = torch.Generator().manual_seed(0)

    def draw(shape: tuple[int, ...]) -> torch.Tensor:
        return torch.randn(shape, generator=generator)

    weights = {name: torch.nn.Parameter(draw(shape) / 8) for name, shape in SHAPES.items()}
    return weights, [[scale * draw(shape) for shape in SHAPES.values()] for _ in range(STEPS)]


def keras_twin(weights: dict[str, torch.nn.Parameter]) -> list[Any]:
    """Keras's variables of the same values, names and paths."""
    variables = []
    for name, weight in weights.items():
        layer, own = name.split("/")
        with keras.name_scope(layer):
            variables.append(keras.Variable(weight.detach().numpy().copy(), name=own))
    return variables


def walk_both(ours: KerasOptimizer, theirs: Any, weights: dict[str, torch.nn.Parameter], slopes: Any) -> None:
    """The same steps of both; after each, the weights agree to 1e-5 of the way they went, and to rounding."""
    start = {name: weight.detach().clone() for name, weight in weights.items()}
    variables = keras_twin(weights)
    for step, gradients in enumerate(slopes):
        for weight, slope in zip(weights.values(), gradients, strict=True):
            weight.grad = slope.clone()
        theirs.apply([slope.clone() for slope in gradients], variables)
        ours.step()
        assert_near(weights, variables, start, f"step {step}")
    theirs.finalize_variable_values(variables)
    ours.finalize_variable_values()
    assert_near(weights, variables, start, "the end")


def assert_near(weights: Any, variables: list[Any], start: Any, when: str) -> None:
    for (name, weight), variable in zip(weights.items(), variables, strict=True):
        wanted = torch.as_tensor(keras.ops.convert_to_numpy(variable))
        way = float((wanted - start[name]).abs().max())
        assert float((weight.detach() - wanted).abs().max()) <= 1e-5 * max(way, 0.1), f"{name} at {when}"


def both(name: str, options: dict[str, Any], weights: Any) -> tuple[KerasOptimizer, Any]:
    theirs = getattr(keras.optimizers, name)(**options)
    made = getattr(optimizers, name)(**options)(weights.items())
    assert isinstance(made, KerasOptimizer)
    return made, theirs


@pytest.mark.parametrize("scale", [1.0, 1e-4])
@pytest.mark.parametrize(("name", "options"), OWN, ids=told)
def test_own_arguments(name: str, options: dict[str, Any], scale: float) -> None:
    weights, slopes = drawn(scale)
    walk_both(*both(name, options, weights), weights, slopes)


@pytest.mark.parametrize("options", COMMON, ids=told)
@pytest.mark.parametrize("name", [made.__name__ for made in OPTIMIZERS.values()])
def test_common_arguments(name: str, options: dict[str, Any]) -> None:
    weights, slopes = drawn()
    walk_both(*both(name, options, weights), weights, slopes[:15])


def test_defaults_and_their_order() -> None:
    """Each has Keras's arguments and no more, in Keras's order, with Keras's defaults."""
    import inspect

    for made in OPTIMIZERS.values():
        theirs = dict(inspect.signature(getattr(keras.optimizers, made.__name__).__init__).parameters)
        ours = dict(inspect.signature(made).parameters)
        theirs = {k: p for k, p in theirs.items() if k not in ("self", "kwargs")}
        assert set(ours) == set(theirs), made.__name__
        for argument, parameter in theirs.items():
            default = ours[argument].default
            assert (list(default) or None if isinstance(default, tuple) else default) == parameter.default
        own = [k for k, p in ours.items() if p.kind is not inspect.Parameter.KEYWORD_ONLY]
        assert own == [k for k in theirs if k in own], made.__name__


@pytest.mark.parametrize("name", ["SGD", "Adam", "AdamW", "Nadam", "Lion", "Muon"])
@pytest.mark.parametrize("chosen", [{"var_names": ["bias", "embed"]}, {"var_list": [1, 2]}], ids=told)
def test_exclude_from_weight_decay(name: str, chosen: dict[str, Any]) -> None:
    weights, slopes = drawn()
    recipe = getattr(optimizers, name)(weight_decay=0.3)
    theirs = getattr(keras.optimizers, name)(weight_decay=0.3)
    variables = keras_twin(weights)
    for made, held in ((recipe, list(weights.values())), (theirs, variables)):
        places = chosen.get("var_list")
        said = {"var_list": [held[place] for place in places]} if places else chosen
        made.exclude_from_weight_decay(**said)
    ours = recipe(weights.items())
    for gradients in slopes[:5]:
        for weight, slope in zip(weights.values(), gradients, strict=True):
            weight.grad = slope.clone()
        theirs.apply([slope.clone() for slope in gradients], variables)
        ours.step()
    assert_near(weights, variables, {key: w.detach() for key, w in weights.items()}, "the end")


def test_names_are_asked_for_where_they_are_needed() -> None:
    weights, _ = drawn()
    plain = list(weights.values())
    recipe = optimizers.SGD(weight_decay=0.1)
    recipe.exclude_from_weight_decay(var_names=["bias"])
    with pytest.raises(ConvLoomError, match=r"these have none; give net.named_parameters\(\)"):
        recipe(plain)
    with pytest.raises(ConvLoomError, match=r"Muon leaves embeddings to Adam.*named_parameters\(\)"):
        optimizers.Muon()(plain)
    made = optimizers.Muon(exclude_embeddings=False)(plain)
    assert sorted(len(group["params"]) for group in made.param_groups) == [2, 3]
    recipe = optimizers.SGD(weight_decay=0.1)
    recipe.exclude_from_weight_decay(var_names=["dense/"])
    made = recipe(weights.items())
    assert [group["weight_decay"] for group in made.param_groups] == [0.0, 0.1]
    assert made.param_groups[0]["param_names"] == ["dense/kernel", "dense/bias"]


@pytest.mark.parametrize("name", list(OPTIMIZERS))
@pytest.mark.parametrize("way", ["deepcopy", "pickle", "state_dict"])
def test_going_on(name: str, way: str) -> None:
    """Interrupted between two accumulated moves, averaged and scheduled: the same bits as without."""
    options: dict[str, Any] = {
        "gradient_accumulation_steps": 2,
        "use_ema": True,
        "clipnorm": 1.0,
        "weight_decay": 0.01,
    }
    recipe = OPTIMIZERS[name](lambda step: 0.1 / (step + 1), **options)
    if way == "pickle":
        recipe = OPTIMIZERS[name](falling, **options)
    results = []
    for split in (False, True):
        weights, slopes = drawn()
        made = recipe(weights.items())
        for step, gradients in enumerate(slopes[:9]):
            if split and step == 5:
                made = again(made, recipe, weights, way)
            for group, (weight, slope) in zip(held(made), zip(weights, gradients, strict=True), strict=True):
                assert weight
                group.grad = slope.clone()
            made.step()
        results.append([p.detach().clone() for p in held(made)])
    assert all(torch.equal(a, b) for a, b in zip(*results, strict=True))


def falling(step: int) -> float:
    return 0.1 / (step + 1)


def held(made: torch.optim.Optimizer) -> list[torch.nn.Parameter]:
    """The parameters in the order of SHAPES."""
    found = {n: p for g in made.param_groups for n, p in zip(g["param_names"], g["params"], strict=True)}
    return [found[name] for name in SHAPES]


def again(made: Any, recipe: Callable[..., Any], weights: dict[str, torch.nn.Parameter], way: str) -> Any:
    if way == "deepcopy":
        return copy.deepcopy(made)
    if way == "pickle":
        return pickle.loads(pickle.dumps(made))
    fresh = recipe(weights.items())
    fresh.load_state_dict(made.state_dict())
    return fresh


def test_swapping_averages() -> None:
    weight = torch.nn.Parameter(torch.zeros(2))
    made = optimizers.SGD(1.0, use_ema=True, ema_momentum=0.5)([weight])
    assert isinstance(made, KerasOptimizer)
    for _ in range(2):
        weight.grad = torch.ones(2)
        made.step()
    assert weight.tolist() == [-2.0, -2.0]
    made.swap_averages()
    assert weight.tolist() == [-1.5, -1.5]
    made.swap_averages()
    assert weight.tolist() == [-2.0, -2.0]
    made.finalize_variable_values()
    assert weight.tolist() == [-1.5, -1.5]


def test_torch_scaler_and_our_clipping() -> None:
    """torch's own GradScaler unscales before the clipping: the step is as without it."""
    results = []
    for scaled in (False, True):
        weight = torch.nn.Parameter(torch.tensor([1.0, -2.0]))
        made = optimizers.Adam(0.1, clipnorm=0.5)([weight])
        scaler = torch.amp.GradScaler("cpu", init_scale=1024.0, enabled=scaled)
        for _ in range(3):
            made.zero_grad()
            scaler.scale((weight * torch.tensor([3.0, 400.0])).sum()).backward()
            scaler.step(made)
            scaler.update()
        results.append(weight.detach().clone())
    assert torch.equal(*results)


def test_new_weights_join() -> None:
    """A group that is added counts on from where the others are."""
    first, second = (torch.nn.Parameter(torch.ones(2)) for _ in range(2))
    made = optimizers.Adamax(0.1)([first])
    first.grad = torch.ones(2)
    made.step()
    made.add_param_group({"params": [second]})
    assert [group["steps"] for group in made.param_groups] == [1, 1]


@pytest.mark.parametrize(
    ("make", "text"),
    [
        (lambda: optimizers.Adam(gradient_accumulation_steps=1), "steps is 1; it must be at least 2"),
        (lambda: optimizers.Adam(use_ema=True, ema_momentum=1.5), "momentum is 1.5; it must be at most 1"),
        (lambda: optimizers.Adam(ema_overwrite_frequency=0), "frequency is 0; it must be at least 1"),
        (lambda: optimizers.Ftrl(learning_rate_power=0.5), "rate_power is 0.5; it must be at most 0"),
        (lambda: optimizers.Lion(beta_1=0.0), "Lion: beta_1 is 0.0; it must be above 0"),
        (lambda: optimizers.AdamW(weight_decay=None), "AdamW: weight_decay is None"),  # type: ignore[arg-type]
        (lambda: make_optimizer("sgd", []), "no trainable parameters"),
        (lambda: optimizers.SGD()([]), "was given no parameters"),
    ],
)  # fmt: skip
def test_arguments_out_of_range(make: Callable[[], Any], text: str) -> None:
    with pytest.raises(ConvLoomError, match=text):
        make()
