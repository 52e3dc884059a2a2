"""A model and the networks compiled from it hold the same weights, whichever way they are written."""

from __future__ import annotations

import copy
import itertools
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch
from helpers import randomised

import convloom as cl
from convloom import layers as L


def small() -> cl.Model:
    image = cl.Input((6, 5, 3), name="image")
    h = L.Conv2D(4, 3, use_bias=False, name="conv")(image)
    h = L.ReLU(name="relu")(L.BatchNormalization(name="norm")(h))
    return randomised(cl.Model(image, L.Dense(2, name="head")(L.GlobalAveragePooling2D()(h)), seed=3))


def batch(count: int = 4) -> torch.Tensor:
    return torch.randn(count, 6, 5, 3, generator=torch.Generator().manual_seed(7))


def answer(net: cl.CompiledNetwork, x: torch.Tensor) -> torch.Tensor:
    with torch.no_grad():
        found: torch.Tensor = net.eval()(x.to(net.options.kept_dtype)).float()
    return found


def train(net: cl.CompiledNetwork, x: torch.Tensor, steps: int = 2, fused: bool = False) -> None:
    """A loop of one's own, which ends in train() mode and tells nobody."""
    optimizer = torch.optim.SGD(net.parameters(), lr=0.1, fused=fused)
    net.train()
    for _ in range(steps):
        optimizer.zero_grad()
        net(x.to(net.options.kept_dtype)).square().sum().backward()
        optimizer.step()


def alike(model: cl.Model, net: cl.CompiledNetwork) -> None:
    for name, value in model.parameters.items():
        torch.testing.assert_close(value, net.weights()[name].detach().float(), rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize("dtype", ["float32", "bfloat16", "float64"])
def test_what_a_network_trains_the_model_has(dtype: str, tmp_path: Path) -> None:
    model, x = small(), batch()
    before = model.get_weights()
    net = cl.compile(model, device="cpu", backend="aten", dtype=dtype)
    train(net, x)
    # Reading each way, with nothing called in between.
    assert all(np.abs(a - b).max() > 1e-4 for a, b in zip(before, model.get_weights(), strict=True))
    alike(model, net)
    model.save(tmp_path / "net.keras")
    model.save_weights(tmp_path / "net.weights.h5")
    restored = small()
    restored.load_weights(tmp_path / "net.weights.h5")
    for other in (cl.load(tmp_path / "net.keras"), restored, copy.deepcopy(model)):
        alike(other, net)
    if dtype != "bfloat16":
        exact = answer(cl.compile(model, device="cpu", dtype=dtype), x)
        torch.testing.assert_close(answer(net, x), exact, rtol=1e-5, atol=1e-6)


def _set_weights(model: cl.Model, net: cl.CompiledNetwork, new: cl.Model, folder: Path) -> None:
    model.set_weights(new.get_weights())


def _load_weights(model: cl.Model, net: cl.CompiledNetwork, new: cl.Model, folder: Path) -> None:
    new.save_weights(folder / "new.weights.h5")
    model.load_weights(folder / "new.weights.h5")


def _assign(model: cl.Model, net: cl.CompiledNetwork, new: cl.Model, folder: Path) -> None:
    for name, value in new.parameters.items():
        model.parameters[name] = value.numpy()


def _write_in_place(model: cl.Model, net: cl.CompiledNetwork, new: cl.Model, folder: Path) -> None:
    for name, value in new.parameters.items():
        model.parameters[name].copy_(value)


def _load_state_dict(model: cl.Model, net: cl.CompiledNetwork, new: cl.Model, folder: Path) -> None:
    net.load_state_dict(cl.compile(new, device="cpu", dtype=net.options.dtype).state_dict())


def _load_state_dict_by_assignment(
    model: cl.Model, net: cl.CompiledNetwork, new: cl.Model, folder: Path
) -> None:
    net.load_state_dict(cl.compile(new, device="cpu", dtype=net.options.dtype).state_dict(), assign=True)


@pytest.mark.parametrize("dtype", ["float32", "float64"])
@pytest.mark.parametrize(
    "write",
    [
        *(_set_weights, _load_weights, _assign, _write_in_place),
        *(_load_state_dict, _load_state_dict_by_assignment),
    ],
)
def test_every_way_of_writing_reaches_the_model_and_all_its_networks(
    write: Callable[..., None], dtype: str, tmp_path: Path
) -> None:
    model, new, x = small(), randomised(small(), seed=5), batch()
    for value in new.parameters.values():
        value.mul_(1.5)
    nets = [
        cl.compile(model, device="cpu", backend="aten", dtype=kind, fuse=fuse)
        for kind in (dtype, "float32", "float64")
        for fuse in (True, False)
    ]
    before = [answer(net, x) for net in nets]
    write(model, nets[0], new, tmp_path)
    expected = answer(cl.compile(new, device="cpu", dtype="float64"), x)
    for net, old in zip(nets, before, strict=True):
        assert (answer(net, x) - old).abs().max() > 1e-2
        torch.testing.assert_close(answer(net, x), expected, rtol=1e-5, atol=1e-5)
        alike(model, net)
    for a, b in zip(model.get_weights(), new.get_weights(), strict=True):
        np.testing.assert_array_equal(a, b)


@pytest.mark.parametrize("fused", [False, True])
@pytest.mark.parametrize("first", ["float32", "float64"])
@pytest.mark.parametrize("second", ["float32", "float64"])
def test_networks_of_one_model_train_by_turns(first: str, second: str, fused: bool) -> None:
    """As one network alone trains for as many steps. Torch's fused optimizers count no write themselves."""
    model, x = small(), batch()
    alone = cl.compile(copy.deepcopy(model), device="cpu", dtype="float64")
    nets = [cl.compile(model, device="cpu", dtype=dtype) for dtype in (first, second)]
    for _ in range(2):
        for net in nets:
            train(net, x, steps=1, fused=fused)
            train(alone, x, steps=1)
            found = [answer(each, x) for each in nets]
            torch.testing.assert_close(found, [answer(alone, x)] * 2, rtol=1e-4, atol=1e-5)
    alike(model, alone)


@pytest.mark.parametrize("dtype", ["float32", "float64"])
@pytest.mark.parametrize("backend", ["aten", "triton"])
def test_a_parent_and_its_base_share_what_either_trains(backend: str, dtype: str) -> None:
    """In eval mode too, where batch norms are folded and kernels packed."""
    if backend == "triton" and dtype == "float64":
        pytest.skip("emitted kernels compute in float32")
    base = small()
    image = cl.Input((6, 5, 3), name="photo")
    parent = cl.Model(image, L.Dense(2, name="top")(base(image)), seed=1)
    x = batch(2)
    child = cl.compile(base, device="cpu", backend=backend, dtype=dtype)
    whole = cl.compile(parent, device="cpu", backend=backend)
    before = answer(child, x), answer(whole, x)
    train(child, x, steps=1)
    exact = cl.compile(copy.deepcopy(parent), device="cpu", dtype="float64")
    assert (answer(whole, x) - before[1]).abs().max() > 1e-3
    torch.testing.assert_close(answer(whole, x), answer(exact, x), rtol=1e-4, atol=1e-5)
    before = answer(child, x), answer(whole, x)
    train(whole, x, steps=1)
    exact = cl.compile(copy.deepcopy(base), device="cpu", dtype="float64")
    assert (answer(child, x) - before[0]).abs().max() > 1e-4
    torch.testing.assert_close(answer(child, x), answer(exact, x), rtol=1e-4, atol=1e-5)


def test_the_memory_is_one_where_it_can_be() -> None:
    model = small()
    net, half = cl.compile(model, device="cpu"), cl.compile(model, device="cpu", dtype="float16")
    for name, value in model.parameters.items():
        assert {n.weights()[name].data_ptr() for n in (net, half)} == {value.data_ptr()}
        assert {n.weights()[name].dtype for n in (net, half)} == {torch.float32}


def test_tensors_of_the_model_stay_the_same_objects() -> None:
    model = small()
    held = dict(model.parameters)
    net = cl.compile(model, device="cpu", dtype="float64")
    train(net, batch())
    model.set_weights(model.get_weights())
    assert all(model.parameters[name] is tensor for name, tensor in held.items())


def test_a_backward_pass_notices_that_its_weights_were_written() -> None:
    model, x = small(), batch()
    net = cl.compile(model, device="cpu").train()
    loss = net(x).square().sum()
    model.set_weights(model.get_weights())
    with pytest.raises(RuntimeError, match="modified by an inplace operation"):
        loss.backward()


def test_where_both_sides_were_written_the_network_wins() -> None:
    """Of two writes that nothing stands between; a write by name has its network follow at once instead."""
    model = small()
    held = model.parameters["head/bias"]
    net = cl.compile(model, device="cpu", dtype="float64")
    held.fill_(1.0)
    with torch.no_grad():
        net.get_parameter("head/bias").fill_(2.0)
    assert model.parameters["head/bias"].tolist() == [2.0, 2.0]
    model.parameters["head/bias"] = np.full(2, 3.0)
    assert net.get_parameter("head/bias").tolist() == [3.0, 3.0]
    with torch.no_grad():
        net.get_parameter("head/bias").add_(1.0)
    assert model.parameters["head/bias"].tolist() == [4.0, 4.0]


@pytest.mark.parametrize("dtype", ["float32", "float64"])
def test_a_parameter_given_other_memory_is_followed(dtype: str) -> None:
    model, x = small(), batch()
    net, other = (cl.compile(model, device="cpu", dtype=dtype) for _ in range(2))
    weight = net.get_parameter("head/kernel")
    weight.data = weight.data * 2
    expected = answer(net, x)
    torch.testing.assert_close(answer(other, x), expected)
    torch.testing.assert_close(model.parameters["head/kernel"], weight.detach().float())
    net.to(memory_format=torch.channels_last)  # type: ignore[call-overload]
    train(net, x, steps=1)
    torch.testing.assert_close(answer(other, x), answer(net, x))


@pytest.mark.parametrize("first", ["float32", "float64"])
@pytest.mark.parametrize("second", ["float32", "float64"])
def test_writes_through_data_reach_the_model_and_other_networks(first: str, second: str) -> None:
    """In eval mode, where each has a fold and packed weights of its own."""
    model, x = small(), batch()
    net, other = (cl.compile(model, device="cpu", dtype=dtype) for dtype in (first, second))
    before = answer(other, x)
    for weight in (net.get_parameter("conv/kernel"), net.get_buffer("norm/moving_variance")):
        held = weight.data
        held.mul_(2.0)
        exact = answer(cl.compile(copy.deepcopy(model), device="cpu", dtype="float64"), x)
        assert (exact - before).abs().max() > 1e-3
        torch.testing.assert_close(answer(other, x), exact, rtol=1e-5, atol=1e-6)
        held.mul_(1.5)  # what was given away is still there
        exact = answer(cl.compile(copy.deepcopy(model), device="cpu", dtype="float64"), x)
        torch.testing.assert_close(answer(other, x), exact, rtol=1e-5, atol=1e-6)
        torch.testing.assert_close(answer(net, x), exact, rtol=1e-5, atol=1e-6)
        del held


def test_a_data_that_somebody_holds_undoes_no_training() -> None:
    """As long as `p.data` of one network is held, it may be written through at any time, but was not."""
    model, x = small(), batch()
    net, other = (cl.compile(model, device="cpu", dtype=dtype) for dtype in ("float32", "float64"))
    held = {name: weight.data for name, weight in other.named_parameters()}
    train(net, x)
    exact = {name: weight.detach().double().clone() for name, weight in net.named_parameters()}
    answer(net, x)
    for name, weight in net.named_parameters():
        assert torch.equal(weight.detach().double(), exact[name]), name
    torch.testing.assert_close(answer(other, x), answer(net, x))
    for name, data in held.items():
        torch.testing.assert_close(data, exact[name])
        data.mul_(2.0)
    for name, value in exact.items():
        torch.testing.assert_close(net.weights()[name].detach().double(), 2.0 * value)


def test_a_state_dict_has_what_another_network_trained() -> None:
    model, x = small(), batch()
    one, other = (cl.compile(model, device="cpu", dtype=dtype) for dtype in ("float64", "float32"))
    train(one, x)
    for name, value in other.state_dict().items():
        torch.testing.assert_close(value, one.weights()[name].detach().float())
    train(other, x)
    for name, value in one.state_dict().items():
        torch.testing.assert_close(value.float(), other.weights()[name].detach())


def test_networks_that_are_gone_leave_nothing_behind() -> None:
    model = small()
    for _ in range(3):
        train(cl.compile(model, device="cpu", dtype="float64"), batch(), steps=1)
    import gc

    gc.collect()
    assert all(not model.parameters.held(name).ties() for name in model.parameters)


def test_a_write_in_inference_mode_reaches_the_network() -> None:
    with torch.inference_mode():
        model = small()
        net = cl.compile(model, device="cpu", dtype="float64")
        before = answer(net, batch())
        model.set_weights([2 * w for w in model.get_weights()])
        assert (answer(net, batch()) - before).abs().max() > 1e-2
    train(net, batch(), steps=1)


def test_fit_and_its_callbacks_leave_the_weights_in_the_model() -> None:
    model, x = small(), batch(8)
    net = cl.compile(model, device="cpu", dtype="float64")
    y = torch.zeros(8, 2)
    cl.fit(net, (x, y), "mse", "sgd", epochs=1, verbose=False)
    alike(model, net)
    assert not hasattr(net, "update_model")


# -- freezing ------------------------------------------------------------------------------------------------
def transfer() -> tuple[cl.Model, cl.Model]:
    base = small()
    image = cl.Input((6, 5, 3), name="photo")
    return base, cl.Model(image, L.Dense(2, name="top")(base(image)), seed=1)


def trained(net: cl.CompiledNetwork, x: torch.Tensor, loss: bool) -> set[str]:
    """The weights that a step moves, by name; the step of a loss where there is to be one."""
    before = {name: value.detach().clone() for name, value in net.weights().items()}
    optimizer = torch.optim.SGD(net.parameters(), lr=0.1)
    net.train()
    optimizer.zero_grad()
    y = net.with_loss("mse")(x, torch.ones(len(x), 2))[0] if loss else net(x).square().sum()
    y.backward()
    optimizer.step()
    return {name for name, value in net.weights().items() if not torch.equal(value, before[name])}


@pytest.mark.parametrize("loss", [False, True])
@pytest.mark.parametrize("dtype", ["float32", "float64"])
def test_freezing_after_compiling_is_followed(dtype: str, loss: bool) -> None:
    base, model = transfer()
    net = cl.compile(model, device="cpu", backend="aten", dtype=dtype)
    x = batch().to(net.options.kept_dtype)
    everything = set(net.weights())
    assert trained(net, x, loss) == everything
    base.trainable = False
    assert trained(net, x, loss) == {"top/kernel", "top/bias"}
    fresh = cl.compile(model, device="cpu", backend="aten", dtype=dtype)
    net.train(), fresh.train()
    torch.testing.assert_close(net(x), fresh(x))  # a frozen batch norm normalises with what it keeps
    layer = base.get_layer("conv")
    layer.trainable = True  # type: ignore[attr-defined]
    assert trained(net, x, loss) == {f"{base.name}/conv/kernel", "top/kernel", "top/bias"}
    model.trainable = True
    assert trained(net, x, loss) == everything


def test_a_network_compiled_while_frozen_is_freed() -> None:
    base, model = transfer()
    base.trainable = False
    net = cl.compile(model, device="cpu", backend="aten")
    keys = set(net.state_dict())
    assert trained(net, batch(), loss=False) == {"top/kernel", "top/bias"}
    base.trainable = True
    # An optimizer made before the next call has the freed weights.
    asked = {name for name, p in net.named_parameters() if p.requires_grad}
    assert f"{base.name}/conv/kernel" in asked
    assert trained(net, batch(), loss=True) == keys == set(net.state_dict())


def test_what_a_user_froze_in_the_network_stays_frozen() -> None:
    base, model = transfer()
    net = cl.compile(model, device="cpu", backend="aten")
    net.get_parameter("top/bias").requires_grad_(False)
    base.get_layer("conv").trainable = False  # type: ignore[attr-defined]
    asked = {name for name, p in net.named_parameters() if p.requires_grad}
    assert not asked & {"top/bias", f"{base.name}/conv/kernel"}
    assert "top/kernel" in asked


def test_a_model_with_other_layers_than_when_it_was_compiled_is_refused() -> None:
    model = cl.Sequential([cl.Input((3,)), L.Dense(2)])
    net = cl.compile(model, device="cpu")
    model.add(L.ReLU())
    assert net(torch.zeros(1, 3)).shape == (1, 2)
    model.trainable = False
    with pytest.raises(cl.CompileError, match="has other layers than when it was compiled"):
        net(torch.zeros(1, 3))


def test_freezing_is_as_keras_has_it() -> None:
    """Three steps, frozen after the first and freed after the second, side by side with Keras."""
    import keras

    def build(L: object, image: object, model: object) -> tuple[object, object]:
        conv = L.Conv2D(4, 3, name="conv")  # type: ignore[attr-defined]
        norm = L.BatchNormalization(name="norm")  # type: ignore[attr-defined]
        out = L.GlobalAveragePooling2D()(norm(conv(image)))  # type: ignore[attr-defined]
        return model(image, L.Dense(2, name="head")(out)), norm  # type: ignore[attr-defined, operator]

    mine, norm = build(L, cl.Input((6, 5, 3)), cl.Model)
    theirs, their_norm = build(keras.layers, keras.Input((6, 5, 3)), keras.Model)
    theirs.set_weights(mine.get_weights())  # type: ignore[attr-defined]
    net = cl.compile(mine, device="cpu", backend="aten")  # type: ignore[arg-type]
    x, y = batch(8), torch.ones(8, 2)
    for trainable in (True, False, True):
        norm.trainable = their_norm.trainable = trainable  # type: ignore[attr-defined]
        cl.fit(net, (x, y), "mse", torch.optim.SGD(net.parameters(), 0.1), shuffle=False, verbose=False)
        theirs.compile(keras.optimizers.SGD(0.1), "mse")  # type: ignore[attr-defined]
        theirs.fit(x.numpy(), y.numpy(), batch_size=32, shuffle=False, verbose=0)  # type: ignore[attr-defined]
        expected = {v.path: np.asarray(v) for v in theirs.weights}  # type: ignore[attr-defined]
        for name, value in mine.parameters.items():  # type: ignore[attr-defined]
            np.testing.assert_allclose(value, expected[name], rtol=1e-4, atol=1e-5)


def test_a_frozen_weight_is_no_longer_counted_in_the_loss() -> None:
    """As Keras counts what is trained; the network follows before the step of the loss is made."""
    layer = L.Dense(2, kernel_regularizer="l2", use_bias=False, name="d")
    net = cl.compile(cl.Sequential([cl.Input((3,)), layer], seed=1), device="cpu").train()
    x, y = torch.ones(4, 3), torch.zeros(4, 2)
    plain = net(x).square().mean().detach()
    penalty = 0.01 * net.weights()["d/kernel"].detach().square().sum()
    torch.testing.assert_close(net.with_loss("mse")(x, y)[0].detach(), plain + penalty)
    layer.trainable = False
    torch.testing.assert_close(net.with_loss("mse")(x, y)[0], plain)


def test_a_weight_moved_elsewhere_does_not_undo_what_another_network_learns() -> None:
    """`vector_to_parameters` puts other memory under the weights of one network; another goes on training."""
    image = cl.Input((8, 8, 3))
    model = cl.Model(image, L.Dense(2)(L.Flatten()(L.Conv2D(5, 3)(image))))
    x, losses = torch.randn(3, 8, 8, 3), []
    serve = cl.compile(model, device="cpu", backend="aten").eval()
    train = cl.compile(model, device="cpu", backend="aten").train()
    flat = torch.cat([p.detach().reshape(-1) for p in serve.parameters()])
    torch.nn.utils.vector_to_parameters(flat, serve.parameters())
    optimizer = torch.optim.SGD(train.parameters(), lr=0.002)
    for _ in range(5):
        loss = train(x).square().mean()
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        losses.append(loss.item())
    assert all(after < before for before, after in itertools.pairwise(losses))
    with torch.no_grad():
        torch.testing.assert_close(serve(x), train.eval()(x))


@pytest.mark.parametrize("training", [True, False])
def test_weights_that_are_parts_of_a_flat_buffer_are_followed(training: bool) -> None:
    image = cl.Input((8, 8, 3))
    model = cl.Model(image, L.Dense(2)(L.Flatten()(L.Conv2D(5, 3)(image))))
    x = torch.randn(3, 8, 8, 3)
    net = cl.compile(model, device="cpu", backend="aten").train(training)
    flat, at = torch.cat([p.detach().reshape(-1) for p in net.parameters()]), 0
    for p in net.parameters():
        p.data = flat[at : at + p.numel()].view(p.shape)
        at += p.numel()
    before = net(x).detach()
    with torch.no_grad():
        flat.mul_(2)
    torch.testing.assert_close(net(x).detach(), 4 * before)  # two layers, no biases but 0
