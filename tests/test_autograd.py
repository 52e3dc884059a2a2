"""What PyTorch's autograd may ask of a compiled network: any order, any mode, whatever was switched since."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
import torch
from convloom.frontends import Input, Model, Sequential
from convloom.graph.errors import CompileError, ConvLoomError
from convloom.runtime.compile import compile
from helpers import randomised
from torch.nn import functional as F

import convloom as cl
from convloom import layers as L

pytestmark = pytest.mark.filterwarnings("error::convloom.runtime.backends.FallbackWarning")

BACKENDS = ("aten", "triton")


def small(activation: str = "tanh", noise: bool = False) -> Model:
    """A convolution, a batch norm, an activation, pooling and a softmax, all of them differentiable twice."""
    layers = [
        Input((6, 5, 2)),
        L.Conv2D(3, 3, padding="same", name="conv"),
        L.BatchNormalization(momentum=0.9, name="norm"),
        L.Activation(activation),
        *([L.Dropout(0.4), L.GaussianNoise(0.3)] if noise else []),
        L.AveragePooling2D(2),
        L.Flatten(),
        L.Dense(4, activation="softmax", name="head"),
    ]
    return randomised(Sequential(layers))


class Twin(torch.nn.Module):
    """The same network as `small` in PyTorch's own modules, over the compiled network's weights."""

    def __init__(self, net: torch.nn.Module, training: bool) -> None:
        super().__init__()
        self.weight = {name: value.detach().clone() for name, value in net.weights().items()}  # type: ignore[operator]
        for name, p in net.named_parameters():
            self.weight[name] = torch.nn.Parameter(p.detach().clone())
        self.training = training

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        w = self.weight
        h = F.conv2d(x.permute(0, 3, 1, 2), w["conv/kernel"].permute(3, 2, 0, 1), w["conv/bias"], padding=1)
        mean, variance = w["norm/moving_mean"].clone(), w["norm/moving_variance"].clone()
        h = F.batch_norm(h, mean, variance, w["norm/gamma"], w["norm/beta"], self.training, 0.1, 1e-3)
        h = F.avg_pool2d(torch.tanh(h), 2).permute(0, 2, 3, 1).flatten(1)
        return torch.softmax(h @ w["head/kernel"] + w["head/bias"], -1)


def penalty(net: Any, x: torch.Tensor) -> torch.Tensor:
    """A gradient penalty (Gulrajani et al. 2017), after the loss itself."""
    y = net(x).square().sum()
    (g,) = torch.autograd.grad(y, x, create_graph=True)
    return y + (g.square().sum((1, 2, 3)).add(1e-6).sqrt() - 1).square().mean()


@pytest.mark.parametrize("training", [False, True], ids=["eval", "train"])
@pytest.mark.parametrize("backend", BACKENDS)
def test_gradient_penalties_are_those_of_torch(backend: str, training: bool) -> None:
    dtype = "float64" if backend == "aten" else "float32"
    net = compile(small(), backend=backend, device="cpu", dtype=dtype).train(training)
    twin = Twin(net, training).double()
    twin.weight = {k: v.detach().double().requires_grad_(v.requires_grad) for k, v in twin.weight.items()}
    x = torch.randn(3, 6, 5, 2, generator=torch.Generator().manual_seed(1), dtype=torch.float64)
    values = []
    for network, image in ((net, x.to(getattr(torch, dtype))), (twin, x)):
        value = penalty(network, image.requires_grad_())
        value.backward()
        values.append(value.detach().double())
    torch.testing.assert_close(*values, rtol=1e-5, atol=1e-6)
    tolerance = 1e-9 if dtype == "float64" else 2e-4
    for name, p in net.named_parameters():
        wanted = twin.weight[name].grad
        assert p.grad is not None
        assert wanted is not None
        assert (p.grad - wanted).abs().max() <= tolerance * (1 + wanted.abs().max()), name


@pytest.mark.parametrize("training", [False, True], ids=["eval", "train"])
@pytest.mark.parametrize("activation", ["tanh", "swish", "gelu", "softplus"])
def test_second_derivatives(activation: str, training: bool) -> None:
    net = compile(small(activation, noise=True), dtype="float64").train(training)
    x = torch.randn(2, 6, 5, 2, dtype=torch.float64, requires_grad=True)
    chosen = [p for key, p in net.named_parameters() if key.endswith(("gamma", "bias"))]

    def run(*_: torch.Tensor) -> torch.Tensor:
        torch.manual_seed(5)  # the same draws
        result: torch.Tensor = net(x)
        return result

    assert torch.autograd.gradgradcheck(run, (x, *chosen), atol=1e-6, fast_mode=True)


def test_first_derivatives_do_not_depend_on_create_graph() -> None:
    net = compile(small(noise=True), dtype="float64").train()
    x = torch.randn(2, 6, 5, 2, dtype=torch.float64, requires_grad=True)
    wanted = [x, *net.parameters()]
    y = net(x)[:, 0].sum()
    plain = torch.autograd.grad(y, wanted, retain_graph=True)
    again = torch.autograd.grad(y, wanted, create_graph=True)
    for one, other in zip(plain, again, strict=True):
        torch.testing.assert_close(one, other, rtol=1e-10, atol=1e-12)


def test_a_gradient_stops_where_one_input_follows_from_another() -> None:
    a, b = Input((4,), name="a"), Input((4,), name="b")
    net = compile(Model([a, b], L.Multiply()([a, b])), dtype="float64")
    first = torch.randn(2, 4, dtype=torch.float64, requires_grad=True)
    y = net(first, first.sin()).sum()
    (g,) = torch.autograd.grad(y, first, create_graph=True)
    torch.testing.assert_close(g, first.sin() + first * first.cos())
    (gg,) = torch.autograd.grad(g.sum(), first)
    torch.testing.assert_close(gg, 2 * first.cos() - first * first.sin())


def test_a_hessian() -> None:
    net = compile(Sequential([Input((3,)), L.Dense(2, activation="tanh")]), dtype="float64")
    x = torch.randn(3, dtype=torch.float64)
    kernel, bias = (p.detach() for p in net.parameters())

    def plain(x: torch.Tensor) -> torch.Tensor:
        return torch.tanh(x @ kernel + bias).prod()

    found = torch.autograd.functional.hessian(lambda x: net(x[None]).prod(), x)
    torch.testing.assert_close(found, torch.autograd.functional.hessian(plain, x))
    assert found.abs().max() > 1e-3


def test_the_loss_is_differentiable_twice() -> None:
    net = compile(small(), dtype="float64").train()
    target = torch.eye(4, dtype=torch.float64)[:2]
    x = torch.randn(2, 6, 5, 2, dtype=torch.float64, requires_grad=True)
    loss, _ = net.with_loss("categorical_crossentropy")(x, target)
    (g,) = torch.autograd.grad(loss, x, create_graph=True)
    g.square().sum().backward()
    found = {name: p.grad.clone() for name, p in net.named_parameters() if p.grad is not None}
    twin = Twin(net, True)
    (g,) = torch.autograd.grad(-(target * twin(x).log()).sum(-1).mean(), x, create_graph=True)
    g.square().sum().backward()
    for name, value in found.items():
        torch.testing.assert_close(value, twin.weight[name].grad)


@pytest.mark.parametrize("training", [True, False])
def test_only_the_loss_of_a_compiled_loss_is_differentiated(training: bool) -> None:
    """And nothing that looks as if it were: neither the prediction nor the target."""
    step = compile(small()).train(training).with_loss("categorical_crossentropy")
    x, target = torch.randn(2, 6, 5, 2), torch.full((2, 4), 0.25)
    loss, prediction = step(x, target)
    assert loss.requires_grad
    assert not prediction.requires_grad
    with pytest.raises(ConvLoomError, match=r"the target asks for a gradient.*target\.detach\(\)"):
        step(x, target.requires_grad_())
    with torch.no_grad():
        torch.testing.assert_close(step(x, target)[0], loss)


def test_what_stops_a_gradient_stops_it_to_any_order() -> None:
    x = Input((4,))
    net = compile(Model(x, L.Multiply()([x, cl.ops.stop_gradient(x)])), dtype="float64")
    values = torch.randn(3, 4, dtype=torch.float64, requires_grad=True)
    (g,) = torch.autograd.grad(net(values).square().sum(), values, create_graph=True)
    torch.testing.assert_close(g, 2 * values**3)  # of (x c)^2 with c = x
    for found in (
        torch.func.grad(lambda v: net(v).sum())(values),
        torch.autograd.functional.jvp(net, values, torch.ones_like(values))[1],
    ):
        torch.testing.assert_close(found, values)


# -- torch.func ----------
def test_torch_func() -> None:
    net = compile(small(), dtype="float64").eval()
    twin = Twin(net, False)
    x = torch.randn(3, 6, 5, 2, dtype=torch.float64)

    def total(f: Callable[[torch.Tensor], torch.Tensor]) -> Callable[[torch.Tensor], torch.Tensor]:
        return lambda x: f(x).square().sum()

    torch.testing.assert_close(torch.func.grad(total(net))(x), torch.func.grad(total(twin))(x))
    one = torch.func.vmap(lambda x: net(x[None])[0])
    torch.testing.assert_close(one(x), twin(x))
    direction = torch.randn_like(x)
    for transform in (torch.func.jvp, torch.autograd.functional.jvp):
        found = transform(net, (x,), (direction,))
        wanted = transform(twin, (x,), (direction,))
        torch.testing.assert_close(found, wanted)
    with torch.autograd.forward_ad.dual_level():
        dual = net(torch.autograd.forward_ad.make_dual(x, direction))
        tangent = torch.autograd.forward_ad.unpack_dual(dual).tangent
    torch.testing.assert_close(tangent, wanted[1])


@pytest.mark.parametrize("backend", BACKENDS)
@pytest.mark.parametrize("training", [True, False])
def test_many_seeds_at_once(backend: str, training: bool) -> None:
    """What `vectorize=True` asks for, and `is_grads_batched`."""
    net = compile(small("relu", noise=True), backend=backend).train(training)
    x = torch.randn(2, 6, 5, 2, requires_grad=True)
    asked = [x, *net.parameters()]
    y = net(x)
    seeds = torch.eye(y.numel()).reshape(-1, *y.shape)
    found = torch.autograd.grad(y, asked, seeds, is_grads_batched=True, retain_graph=True)
    rows = [torch.autograd.grad(y, asked, seed, retain_graph=True) for seed in seeds]
    for one, *each in zip(found, *rows, strict=True):
        torch.testing.assert_close(one, torch.stack(each), rtol=1e-4, atol=1e-5)
    assert not found[0].requires_grad


def test_torch_func_over_the_parameters() -> None:
    net = compile(small(), dtype="float64").eval()
    x = torch.randn(2, 6, 5, 2, dtype=torch.float64)
    parameters = {name: p.detach() for name, p in net.named_parameters()}

    def loss(parameters: dict[str, torch.Tensor]) -> torch.Tensor:
        return torch.func.functional_call(net, parameters, (x,)).square().sum()

    found = torch.func.grad(loss)(parameters)
    net(x).square().sum().backward()
    for name, p in net.named_parameters():
        torch.testing.assert_close(found[name], p.grad)


def test_torch_func_and_moving_statistics() -> None:
    net = compile(small()).train()
    with pytest.raises(CompileError, match=r"batch norms move their statistics; .*call eval\(\) first"):
        torch.func.grad(lambda x: net(x).sum())(torch.randn(2, 6, 5, 2))


# -- bound when the forward pass runs ----------
@pytest.mark.parametrize("backend", BACKENDS)
def test_the_mode_is_that_of_the_forward_pass(backend: str) -> None:
    net = compile(small(), backend=backend, device="cpu").eval()
    x = torch.randn(3, 6, 5, 2, requires_grad=True)

    def gradients(switch: bool) -> list[torch.Tensor]:
        y = net.eval()(x)
        if switch:
            net.train()
        return list(torch.autograd.grad(y.square().sum(), [x, *net.parameters()]))

    before = net.weights()["norm/moving_mean"].clone()
    for one, other in zip(gradients(False), gradients(True), strict=True):
        torch.testing.assert_close(one, other)
    assert torch.equal(net.weights()["norm/moving_mean"], before)


def test_the_other_way_round() -> None:
    net = compile(small(), dtype="float64").train()
    x = torch.randn(3, 6, 5, 2, dtype=torch.float64)
    y = net(x).square().sum()
    wanted = torch.autograd.grad(y, list(net.parameters()), retain_graph=True)
    net.eval()
    found = torch.autograd.grad(y, list(net.parameters()))
    for one, other in zip(found, wanted, strict=True):
        assert torch.equal(one, other)


@pytest.mark.parametrize("create_graph", [False, True])
@pytest.mark.parametrize("name", ["norm/moving_mean", "norm/gamma", "head/kernel"])
def test_a_write_between_forward_and_backward_is_refused(name: str, create_graph: bool) -> None:
    net = compile(small()).eval()
    y = net(torch.randn(3, 6, 5, 2)).square().sum()
    with torch.no_grad():
        net.weights()[name].add_(1.0)
    with pytest.raises(RuntimeError, match="modified by an inplace operation"):
        torch.autograd.grad(y, list(net.parameters()), create_graph=create_graph)


def test_steps_of_several_forward_passes_may_end_together() -> None:
    """Moving statistics of a later pass do not disturb the gradients of an earlier one in training."""
    net = compile(small(), dtype="float64").train()
    xs = torch.randn(2, 3, 6, 5, 2, dtype=torch.float64)
    found = torch.autograd.grad(sum(net(x).square().sum() for x in xs), list(net.parameters()))
    parts = [torch.autograd.grad(net(x).square().sum(), list(net.parameters())) for x in xs]
    for total, *each in zip(found, *parts, strict=True):
        torch.testing.assert_close(total, sum(each))


def test_a_batch_norm_frozen_in_one_call_and_trained_in_another() -> None:
    """The frozen call comes later, and reads what the trained one has moved in the same step."""
    norm, image = L.BatchNormalization(momentum=0.5, name="norm"), Input((4, 3, 2))
    model = randomised(Model(image, L.Add()([norm(image), norm(L.ReLU()(image), training=False)])))
    net = compile(model, dtype="float64").train()
    x = torch.randn(3, 4, 3, 2, dtype=torch.float64)
    weights = {name: value.detach().clone() for name, value in net.weights().items()}
    net(x).square().sum().backward()
    gamma = weights["norm/gamma"].clone().requires_grad_()
    mean, variance = x.mean((0, 1, 2)), x.var((0, 1, 2), unbiased=False)
    moved = 0.5 * (weights["norm/moving_mean"] + mean), 0.5 * (weights["norm/moving_variance"] + variance)
    scale = torch.rsqrt(moved[1] + 1e-3)
    y = (x - mean) * torch.rsqrt(variance + 1e-3) * gamma + weights["norm/beta"]
    y = y + (x.relu() - moved[0]) * scale * gamma + weights["norm/beta"]
    y.square().sum().backward()
    found = dict(net.named_parameters())["norm/gamma"].grad
    torch.testing.assert_close(found, gamma.grad)
    torch.testing.assert_close(net.weights()["norm/moving_mean"], moved[0])


# -- what wants a gradient ----------
@pytest.mark.parametrize("training", [False, True], ids=["eval", "train"])
def test_requires_grad_is_followed(training: bool) -> None:
    net = compile(small(), dtype="float64").train(training)
    x = torch.randn(3, 6, 5, 2, dtype=torch.float64)
    wanted = torch.autograd.grad(net(x).square().sum(), list(net.parameters()))
    kernel = dict(net.named_parameters())["conv/kernel"].requires_grad_(False)
    y = net(x).square().sum()
    y.backward()
    assert kernel.grad is None
    programs = [program for program in net._programs.values() if program.mode.backward]
    assert [("conv/kernel" in program.derivatives.gradients) for program in programs] == [True, False]
    for (name, p), value in zip(net.named_parameters(), wanted, strict=True):
        if name != "conv/kernel":
            torch.testing.assert_close(p.grad, value)
    kernel.requires_grad_(True)
    net(x).square().sum().backward()
    assert kernel.grad is not None


def test_a_gradient_of_moving_statistics() -> None:
    net = compile(small(), dtype="float64").eval()
    statistics = [net.get_buffer(f"norm/moving_{which}").requires_grad_() for which in ("mean", "variance")]
    x = torch.randn(2, 6, 5, 2, dtype=torch.float64)
    assert torch.autograd.gradcheck(lambda *_: net(x), statistics)


# -- statistics of a shared batch norm ----------
@pytest.mark.parametrize("views", [False, True], ids=["plain", "behind a view"])
@pytest.mark.parametrize("backend", BACKENDS)
def test_a_batch_norm_called_twice_moves_its_statistics_twice(backend: str, views: bool) -> None:
    image = Input((6, 2))
    norm = L.BatchNormalization(momentum=0.9, name="norm")
    first = L.Conv1D(3, 3, name="conv")(image) if views else L.Dense(3, name="conv")(image)
    model = randomised(Model(image, norm(L.ReLU()(norm(first)))))
    net = compile(model, backend=backend, device="cpu").train()
    x = torch.randn(3, 6, 2)
    mean, variance = (net.weights()[f"norm/moving_{which}"].clone() for which in ("mean", "variance"))
    weights = net.weights()
    h = (
        F.conv1d(x.mT, weights["conv/kernel"].permute(2, 1, 0), weights["conv/bias"]).mT
        if views
        else x @ weights["conv/kernel"] + weights["conv/bias"]
    )
    for _ in range(2):
        m, v = h.mean((0, 1)), h.var((0, 1), unbiased=False)
        mean, variance = 0.9 * mean + 0.1 * m, 0.9 * variance + 0.1 * v
        h = ((h - m) * torch.rsqrt(v + 1e-3) * weights["norm/gamma"] + weights["norm/beta"]).relu()
    net(x)
    torch.testing.assert_close(net.weights()["norm/moving_mean"], mean.detach())
    torch.testing.assert_close(net.weights()["norm/moving_variance"], variance.detach())


# -- autocast ----------
@pytest.mark.parametrize("training", [False, True], ids=["eval", "train"])
@pytest.mark.parametrize("dtype", ["float32", "float64"])
def test_autocast_is_off_inside(dtype: str, training: bool) -> None:
    net = compile(small(), backend="aten", dtype=dtype).train(training)
    x = torch.randn(3, 6, 5, 2, requires_grad=True)

    def run() -> list[torch.Tensor]:
        y = net(x)
        first = torch.autograd.grad(y.square().sum(), [x, *net.parameters()], retain_graph=True)
        again = torch.autograd.grad(y.square().sum(), [x, *net.parameters()], create_graph=True)
        return [y, *first, *again]

    wanted = run()
    with torch.autocast("cpu", torch.bfloat16):
        found = run()
    for one, other in zip(found, wanted, strict=True):
        torch.testing.assert_close(one, other, rtol=1e-6, atol=1e-7)


# -- writes through .data ----------
@pytest.mark.parametrize("name", ["conv/kernel", "norm/gamma", "norm/moving_variance", "head/kernel"])
def test_writes_through_data_are_followed(name: str) -> None:
    model = small()
    net, unfused = compile(model, backend="aten"), compile(model, backend="aten", fuse=False)
    x = torch.randn(20, 6, 5, 2)

    def agree() -> torch.Tensor:
        with torch.no_grad():
            for key, value in net.weights().items():
                unfused.weights()[key].copy_(value)
            y: torch.Tensor = net(x)
            torch.testing.assert_close(y, unfused(x), rtol=1e-4, atol=1e-5)
        return y

    before = agree()
    net.weights()[name].data.mul_(2.0)
    after = agree()
    assert (after - before).abs().max() > 1e-3
    alias = net.weights()[name].data
    agree()
    alias.mul_(0.3)  # an alias that was taken before the last call
    assert (agree() - after).abs().max() > 1e-3
    last = alias[..., -1:]  # a view, however the kernel lies
    del alias
    agree()
    last.mul_(2.0)
    agree()
    net.weights()[name].data = torch.rand_like(net.weights()[name])
    agree()
