"""Moving statistics computed anew from data, and what torch's own tools for that say of a network."""

from __future__ import annotations

from typing import Any

import keras
import numpy as np
import pytest
import torch
from torch.utils.data import DataLoader, TensorDataset

import convloom as cl
from convloom import layers as L


def model() -> cl.Model:
    image = cl.Input((6, 5, 3), name="image")
    h = L.BatchNormalization(name="first")(L.Conv2D(4, 3, name="conv")(image))
    h = L.BatchNormalization(name="second")(L.ReLU()(h))
    return cl.Model(image, L.Dense(2, name="head")(L.Flatten()(h)), seed=1)


def images(count: int) -> torch.Tensor:
    return torch.randn(count, 6, 5, 3, generator=torch.Generator().manual_seed(2)) * 2 + 1


def torch_twin(net: cl.Model) -> torch.nn.Module:
    """The same in torch, whose variances are unbiased."""
    conv, norms = torch.nn.Conv2d(3, 4, 3), [torch.nn.BatchNorm2d(4, eps=1e-3) for _ in range(2)]
    with torch.no_grad():
        conv.weight.copy_(net.parameters["conv/kernel"].permute(3, 2, 0, 1))
        conv.bias.copy_(net.parameters["conv/bias"])  # type: ignore[union-attr]
    return torch.nn.Sequential(conv, norms[0], torch.nn.ReLU(), norms[1]).double()


@pytest.mark.parametrize("backend", ["aten", "triton"])
@pytest.mark.parametrize("fuse", [True, False])
def test_as_torch_computes_them(backend: str, fuse: bool) -> None:
    net = cl.compile(mine := model(), device="cpu", backend=backend, fuse=fuse)
    x, batch = images(12), 4
    twin = torch_twin(mine)
    torch.optim.swa_utils.update_bn(x.permute(0, 3, 1, 2).double().split(batch), twin)
    cl.update_statistics(net, x, batch_size=batch)
    assert not net.training
    count = batch * 4 * 3
    for name, norm in (("first", twin[1]), ("second", twin[3])):  # type: ignore[index]
        found = net.weights()
        torch.testing.assert_close(
            found[f"{name}/moving_mean"].double(), norm.running_mean, rtol=1e-5, atol=1e-6
        )
        biased = norm.running_var * (count - 1) / count
        torch.testing.assert_close(found[f"{name}/moving_variance"].double(), biased, rtol=1e-5, atol=1e-6)
    # In the model too, and folded anew.
    torch.testing.assert_close(
        mine.parameters["first/moving_mean"].double(), twin[1].running_mean, rtol=1e-5, atol=1e-6  # type: ignore[index]
    )  # fmt: skip
    with torch.no_grad():
        twin[1].running_var *= (count - 1) / count  # type: ignore[index]
        twin[3].running_var *= (count - 1) / count  # type: ignore[index]
        expected = twin.eval()(x.permute(0, 3, 1, 2).double()).permute(0, 2, 3, 1).flatten(1)
        expected = expected @ mine.parameters["head/kernel"].double() + mine.parameters["head/bias"].double()
        torch.testing.assert_close(net(x).double(), expected, rtol=1e-4, atol=1e-4)


def _arrays(x: torch.Tensor) -> Any:
    return x.numpy()


def _pair(x: torch.Tensor) -> Any:
    return x, torch.zeros(len(x))


def _loader(x: torch.Tensor) -> Any:
    return DataLoader(TensorDataset(x, torch.zeros(len(x))), batch_size=4)


def _inputs_alone(x: torch.Tensor) -> Any:
    return list(x.split(4))


def _by_name(x: torch.Tensor) -> Any:
    return {"image": x}


@pytest.mark.parametrize("form", [_arrays, _pair, _loader, _inputs_alone, _by_name])
def test_data_in_every_form(form: Any) -> None:
    """Each batch counts by its examples: the last one here has two."""
    net = cl.compile(model(), device="cpu")
    x = images(10)
    cl.update_statistics(net, form(x), batch_size=4)
    conv = torch.nn.functional.conv2d(
        x.permute(0, 3, 1, 2).double(), net.weights()["conv/kernel"].double().permute(3, 2, 0, 1)
    )
    torch.testing.assert_close(
        net.weights()["first/moving_mean"].double(), conv.mean((0, 2, 3)), rtol=1e-5, atol=1e-6
    )


def test_a_batch_norm_called_twice_measures_twice() -> None:
    image = cl.Input((4, 4, 2))
    norm = L.BatchNormalization(name="norm")
    both = cl.Model(image, [norm(image), norm(L.Rescaling(3.0)(image))])
    net = cl.compile(both, device="cpu")
    x = torch.randn(8, 4, 4, 2) + 1
    cl.update_statistics(net, x)
    mean = x.double().mean((0, 1, 2))
    torch.testing.assert_close(net.weights()["norm/moving_mean"].double(), 2 * mean, rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize(
    "options", [{}, {"fuse": False}, {"backend": "triton"}, {"dtype": "float64"}], ids=str
)
def test_a_frozen_call_reads_what_calls_before_it_have_moved(options: dict[str, Any]) -> None:
    """In one step, as Keras's layers called one after another do; no gradient passes through that."""
    x = cl.Input((5,))
    norm, dense = L.BatchNormalization(momentum=0.5, name="norm"), L.Dense(5, activation="tanh", name="d")
    h = norm(dense(norm(norm(x, training=False))))
    net = cl.compile(cl.Model(x, norm(h, training=False)), device="cpu", **options).train()
    theirs = keras.layers.BatchNormalization(momentum=0.5)
    theirs.build((None, 5))
    kernel, bias = (net.get_parameter(name).detach().float().numpy() for name in ("d/kernel", "d/bias"))
    values = torch.randn(6, 5, generator=torch.Generator().manual_seed(1)) * 2 + 1
    with torch.no_grad():
        z = keras.ops.convert_to_numpy(theirs(theirs(values.numpy(), training=False), training=True))
        z = theirs(theirs(np.tanh(z @ kernel + bias), training=True), training=False)
    expected = torch.tensor(keras.ops.convert_to_numpy(z))
    statistics = {name: value.clone() for name, value in net.state_dict().items()}
    values = values.to(net.options.kept_dtype).requires_grad_()
    found = net(values)
    torch.testing.assert_close(found.detach().float(), expected, rtol=1e-4, atol=1e-5)

    w = {name: torch.nn.Parameter(value.detach().clone()) for name, value in statistics.items()}
    twin_values = values.detach().clone().requires_grad_()
    moving = [statistics["norm/moving_mean"], statistics["norm/moving_variance"]]

    def normalised(z: torch.Tensor, frozen: bool) -> torch.Tensor:
        batch = [z.mean(0), z.var(0, unbiased=False)]
        mean, variance = moving if frozen else batch
        if not frozen:
            moving[:] = [0.5 * m + 0.5 * b.detach() for m, b in zip(moving, batch, strict=True)]
        return (z - mean) / (variance + 1e-3).sqrt() * w["norm/gamma"] + w["norm/beta"]

    y = normalised(normalised(twin_values, frozen=True), frozen=False)
    y = normalised(torch.tanh(y @ w["d/kernel"] + w["d/bias"]), frozen=False)
    y = normalised(y, frozen=True)
    torch.testing.assert_close(found, y, rtol=1e-4, atol=1e-5)
    names = [name for name, _ in net.named_parameters()]
    ours, reference = [values, *net.parameters()], [twin_values, *(w[name] for name in names)]
    for again in (False, True):
        got = torch.autograd.grad(found.square().sum(), ours, retain_graph=True, create_graph=again)
        wanted = torch.autograd.grad(y.square().sum(), reference, retain_graph=True, create_graph=again)
        torch.testing.assert_close(got, wanted, rtol=1e-3, atol=1e-4)
    got = torch.autograd.grad(got[0].square().sum(), ours, allow_unused=True)
    wanted = torch.autograd.grad(wanted[0].square().sum(), reference, allow_unused=True)
    for one, other in zip(got, wanted, strict=True):
        if other is not None:
            torch.testing.assert_close(one, other, rtol=1e-3, atol=1e-3)


def test_frozen_batch_norms_keep_theirs() -> None:
    mine = model()
    mine.get_layer("first").trainable = False  # type: ignore[attr-defined]
    net = cl.compile(mine, device="cpu")
    cl.update_statistics(net, images(8))
    assert not net.weights()["first/moving_mean"].any()
    assert net.weights()["second/moving_mean"].any()
    mine.get_layer("second").trainable = False  # type: ignore[attr-defined]
    cl.update_statistics(net, images(8) * 3)


def test_an_average_of_weights_gets_statistics_of_its_own() -> None:
    net = cl.compile(model(), device="cpu")
    average = torch.optim.swa_utils.AveragedModel(net)
    cl.update_statistics(average, images(8))
    assert average.module.weights()["first/moving_mean"].any()  # type: ignore[operator]
    assert not net.weights()["first/moving_mean"].any()


@pytest.mark.parametrize(
    ("net", "data", "text"),
    [
        (torch.nn.Linear(2, 2), np.zeros((2, 2)), "takes a compiled network, got Linear"),
        (None, "x.npy", "data is a str; give an array"),
        (None, iter(()), "the data gave no batch"),
        (None, np.zeros((2, 5, 6, 3), np.float32), "axis 1 must be 6"),
    ],
)
def test_wrong_calls_are_refused(net: Any, data: Any, text: str) -> None:
    with pytest.raises(cl.ConvLoomError, match=text):
        cl.update_statistics(net or cl.compile(model(), device="cpu"), data)
    with pytest.raises(cl.ConvLoomError, match="batch_size"):
        cl.update_statistics(cl.compile(model(), device="cpu"), images(2), batch_size=0)


@pytest.mark.parametrize("wrapped", [False, True])
def test_tools_of_torch_that_do_not_see_the_batch_norms_say_so(wrapped: bool) -> None:
    """They would do nothing, and say nothing."""
    net: torch.nn.Module = cl.compile(model(), device="cpu")
    if wrapped:
        net = torch.nn.Sequential(net, torch.nn.Linear(2, 2))
    with pytest.raises(cl.CompileError, match=r"update_bn works on torch's .* call cl.update_statistics"):
        torch.optim.swa_utils.update_bn([images(2)], net)
    with pytest.raises(cl.CompileError, match=r"convert_sync_batchnorm works on torch's"):
        torch.nn.SyncBatchNorm.convert_sync_batchnorm(net)
    assert "compiled into the kernels" in repr(net)
    plain = cl.compile(cl.Sequential([cl.Input((3,)), L.Dense(2)]), device="cpu")
    assert torch.nn.SyncBatchNorm.convert_sync_batchnorm(plain) is plain
