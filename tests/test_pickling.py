"""Models and networks in pickles: deep ones, those that go on training, and those sent to another process."""

from __future__ import annotations

import copy
import io
import pickle
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from convloom.runtime.options import Options
from helpers import randomised

import convloom as cl
from convloom import layers as L

Make = Callable[[], cl.Model]


def functional() -> cl.Model:
    image = cl.Input((6, 5, 3), name="image")
    h = L.BatchNormalization()(L.Conv2D(4, 3, activation=L.PReLU())(image))
    h = L.Add()([h, L.Conv2D(4, 3, padding="same")(h)])[:, 1:, :, :] * 2.0
    h = L.GlobalAveragePooling2D()(h)
    return randomised(cl.Model({"image": image}, [L.Dense(2)(h), h], name="several"))


def sequential() -> cl.Model:
    return randomised(
        cl.Sequential([cl.Input((6, 5, 3)), L.Conv2D(4, 3), L.BatchNormalization(), L.Flatten(), L.Dense(2)])
    )


def nested() -> cl.Model:
    base = sequential()
    image = cl.Input((6, 5, 3), name="photo")
    return randomised(cl.Model(image, L.Dense(2)(base(image, training=False)), name="outer"))


def wrapped() -> cl.Model:
    layer = L.SpectralNormalization(L.Conv2D(4, 3))
    return randomised(cl.Sequential([cl.Input((6, 5, 3)), layer, L.Flatten(), L.Dense(2)]))


MODELS = [functional, sequential, nested]


def pickled(value: Any) -> Any:
    return pickle.loads(pickle.dumps(value))


def saved(value: Any) -> Any:
    file = io.BytesIO()
    torch.save(value, file)
    file.seek(0)
    return torch.load(file, weights_only=False)


WAYS = [pickled, saved, copy.deepcopy]


def batch() -> torch.Tensor:
    return torch.randn(4, 6, 5, 3, generator=torch.Generator().manual_seed(1))


def first(outputs: Any) -> torch.Tensor:
    found: torch.Tensor = outputs[0] if isinstance(outputs, tuple) else outputs
    return found


def steps(net: cl.CompiledNetwork, optimizer: torch.optim.Optimizer, count: int = 2) -> torch.Tensor:
    x = batch().to(net.options.kept_dtype)
    net.train()
    for _ in range(count):
        optimizer.zero_grad()
        first(net(x)).square().mean().backward()
        optimizer.step()
    with torch.no_grad():
        return first(net.eval()(x))


@pytest.mark.parametrize("way", WAYS)
@pytest.mark.parametrize("make", [*MODELS, wrapped])
def test_a_model_comes_back_with_its_weights_apart(make: Make, way: Callable[[Any], Any]) -> None:
    model = make()
    again = way(model)
    assert type(again) is type(model)
    assert again.to_json() == model.to_json()
    assert str(again.to_graph()) == str(model.to_graph())
    for name, value in model.parameters.items():
        assert torch.equal(again.parameters[name], value)
    before = model.get_weights()
    again.set_weights([w + 1 for w in before])
    assert all((a == b).all() for a, b in zip(model.get_weights(), before, strict=True))
    # It can be built upon.
    image = cl.Input((6, 5, 3))
    assert cl.Model(image, again(image)).count_params() == model.count_params()


@pytest.mark.parametrize("way", WAYS)
@pytest.mark.parametrize("make", MODELS)
@pytest.mark.parametrize("dtype", ["float32", "float64"])
def test_a_network_goes_on_training(make: Make, way: Callable[[Any], Any], dtype: str) -> None:
    """With the optimizer that was pickled with it, as both would have gone on here."""
    net = cl.compile(make(), device="cpu", dtype=dtype)
    optimizer = torch.optim.SGD(net.parameters(), lr=0.01, momentum=0.9)
    steps(net, optimizer)
    other, its_optimizer = way((net, optimizer))
    held = {id(p) for group in its_optimizer.param_groups for p in group["params"]}
    assert held == {id(p) for p in other.parameters()}
    assert other.options == net.options
    before = {name: value.clone() for name, value in net.state_dict().items()}
    found = steps(other, its_optimizer)
    for name, value in net.state_dict().items():
        assert torch.equal(value, before[name])  # the other has weights of its own
    torch.testing.assert_close(found, steps(net, optimizer))


@pytest.mark.parametrize("make", MODELS)
def test_a_shallow_copy_has_the_same_weights(make: Make) -> None:
    """As of any module of torch's: its mode is its own, its parameters are not."""
    net = cl.compile(make(), device="cpu")
    other = copy.copy(net)
    assert [id(p) for p in other.parameters()] == [id(p) for p in net.parameters()]
    found = steps(other, torch.optim.SGD(other.parameters(), lr=0.1))
    torch.testing.assert_close(first(net(batch())), found)
    other.train()
    assert not net.training


def test_a_network_is_not_copied_to_other_gpus() -> None:
    """What DataParallel does at each call, where there are several."""
    with pytest.raises(cl.CompileError, match="DistributedDataParallel"):
        cl.compile(functional(), device="cpu")._replicate_for_data_parallel()


@pytest.mark.parametrize("way", WAYS)
@pytest.mark.parametrize("dtype", ["float32", "float64"])
@pytest.mark.parametrize("model_first", [True, False])
def test_a_model_and_its_network_stay_together(
    way: Callable[[Any], Any], dtype: str, model_first: bool
) -> None:
    model = functional()
    net = cl.compile(model, device="cpu", dtype=dtype)
    net.get_parameter("conv2d/kernel").requires_grad_(False)
    if model_first:
        model, net = way((model, net))
    else:
        net, model = way((net, model))
    assert not net.get_parameter("conv2d/kernel").requires_grad
    steps(net, torch.optim.SGD(net.parameters(), lr=0.1))
    for name, value in net.weights().items():
        torch.testing.assert_close(model.parameters[name], value.detach().float())
    model.set_weights([w + 1 for w in model.get_weights()])
    torch.testing.assert_close(net.state_dict()["dense/bias"].float(), model.parameters["dense/bias"])


def test_the_mode_and_the_loss_come_along() -> None:
    net = cl.compile(sequential(), device="cpu").train()
    target = torch.ones(4, 2)
    loss, _ = net.with_loss("mse")(batch(), target)
    other = pickled(net)
    assert other.training
    torch.testing.assert_close(other.with_loss("mse")(batch(), target)[0], loss)
    assert len(pickle.dumps(net)) < len(pickle.dumps(net.state_dict())) + 20_000  # and no plan


def test_a_deep_network_is_no_deep_recursion() -> None:
    tensor = x = cl.Input((3,))
    for _ in range(2000):
        tensor = L.ReLU()(tensor)
    model = cl.Model(x, L.Dense(2)(tensor))
    for again in (pickled(model), copy.deepcopy(model)):
        assert [layer.name for layer in again.layers] == [layer.name for layer in model.layers]
    net = cl.compile(model, device="cpu")
    assert len(pickled(net).source) == len(copy.deepcopy(net).source) == len(net.source)


def test_layers_shared_by_models_are_shared_by_their_copies() -> None:
    x = cl.Input((3,))
    h = L.Dense(4, name="hidden")(x)
    pair = cl.Model(x, h), cl.Model(x, L.Dense(2)(h))
    for features, whole in (pickled(pair), copy.deepcopy(pair)):
        features.parameters["hidden/kernel"].fill_(7.0)
        assert (whole.parameters["hidden/kernel"] == 7).all()


def test_what_was_moved_to_another_device_is_refused_with_words() -> None:
    """As `torch.load(map_location=...)` would do to a network of a GPU."""
    net = cl.compile(sequential(), device="cpu")
    state = net.__getstate__()
    state["options"] = Options(torch.device("cuda", 0), "triton", "float32", True)
    other = cl.CompiledNetwork.__new__(cl.CompiledNetwork)
    with pytest.raises(cl.CompileError, match=r"compiled for cuda:0; .* another device, such as cpu"):
        other.__setstate__(state)


def test_a_network_is_an_argument_of_a_spawned_process(tmp_path: Path) -> None:
    """Torch hands tensors on as shared memory: what the process trains, this one has too."""
    model = sequential()
    net, twin = cl.compile(model, device="cpu"), copy.deepcopy(cl.compile(model, device="cpu"))
    expected = steps(twin, torch.optim.SGD(twin.parameters(), lr=0.05))
    torch.multiprocessing.spawn(_spawned, args=(net, str(tmp_path / "found.pt")), nprocs=1)  # type: ignore[attr-defined]
    torch.testing.assert_close(torch.load(tmp_path / "found.pt"), expected)
    with torch.no_grad():
        torch.testing.assert_close(net.eval()(batch()), expected)
    torch.testing.assert_close(model.parameters["dense/kernel"], twin.weights()["dense/kernel"].detach())


def _spawned(rank: int, net: cl.CompiledNetwork, path: str) -> None:
    torch.save(steps(net, torch.optim.SGD(net.parameters(), lr=0.05)), path)
