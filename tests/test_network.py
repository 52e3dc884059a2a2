"""Whole compiled networks: backends agree, training trains, folds are never stale, errors are clear."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch
from convloom.frontends import Input, Model, Sequential
from convloom.graph.errors import CompileError, ConvLoomError, ShapeError
from convloom.runtime.backends import FallbackWarning
from convloom.runtime.compile import compile
from helpers import randomised

from convloom import layers as L

# a kernel that quietly ran through PyTorch would make these comparisons worthless
pytestmark = pytest.mark.filterwarnings("error::convloom.runtime.backends.FallbackWarning")


def small_lenet(pool: str = "max", activation: str = "relu") -> Model:
    pooling = L.MaxPooling2D if pool == "max" else L.AveragePooling2D
    return Sequential(
        [
            Input((12, 14, 1)),
            L.Conv2D(6, 3, padding="same", activation=activation),
            pooling(2),
            L.Conv2D(17, 3, activation=activation),
            pooling(2),
            L.Flatten(),
            L.Dense(20, activation=activation),
            L.Dense(5, activation="softmax"),
        ]
    )


def residual(channels: int = 5, dropout: float = 0.3) -> Model:
    """Batch norms before and behind an addition, a strided shortcut, a concatenation, dropout, a gate."""
    image = Input((9, 8, 3))
    h = L.Conv2D(channels, 3, padding="same", use_bias=False)(image)
    h = L.BatchNormalization()(h)
    h = L.ReLU()(h)
    a = L.Conv2D(channels, 3, strides=2, padding="same")(h)
    a = L.BatchNormalization()(a)
    b = L.Conv2D(channels, 1, strides=2, padding="same")(h)
    h = L.Activation("swish")(L.Add()([a, b]))
    h = L.Concatenate()([h, L.Activation("tanh")(b)])
    h = L.Dropout(dropout)(h)
    gate = L.Dense(2 * channels, activation="sigmoid")(L.GlobalAveragePooling2D(keepdims=True)(h))
    h = L.Multiply()([h, gate])
    h = L.ZeroPadding2D(((1, 0), (0, 1)))(h)
    h = L.MaxPooling2D(3, strides=2, padding="same")(h)
    out = L.Dense(4)(L.GlobalAveragePooling2D()(h))
    return Model(image, out)


NETWORKS = {
    "lenet-max-relu": small_lenet,
    "lenet-average-tanh": lambda: small_lenet("average", "tanh"),
    "residual": residual,
}


def batch(model: Model, size: int = 3, seed: int = 1) -> torch.Tensor:
    shape = model.to_graph().nodes().__next__().type.size(size)
    return torch.randn(shape, generator=torch.Generator().manual_seed(seed))


def gradients(net: torch.nn.Module, x: torch.Tensor) -> tuple[torch.Tensor, dict[str, torch.Tensor]]:
    """The output, and the gradients of a weighted sum of it, of one pass forward and one back."""
    torch.manual_seed(3)
    y = net(x)
    weight = torch.randn(y.shape, generator=torch.Generator().manual_seed(2))
    (y * weight.to(y)).sum().backward()
    return y, {name: p.grad.double().cpu() for name, p in net.named_parameters() if p.grad is not None}


WAYS = [
    *(("aten", fuse, name) for fuse in (True, False) for name in NETWORKS),
    *(("triton", True, name) for name in NETWORKS),
    ("triton", False, "residual"),  # one: unfused, a kernel holds one op, as in tests/test_layer_cases.py
]


@pytest.mark.parametrize("training", [False, True], ids=["eval", "train"])
@pytest.mark.parametrize(("backend", "fuse", "name"), WAYS)
def test_backends_agree_with_float64(name: str, training: bool, fuse: bool, backend: str) -> None:
    model = randomised(NETWORKS[name]())
    exact = compile(model, dtype="float64", fuse=False)
    net = compile(model, backend=backend, device="cpu", fuse=fuse)
    x = batch(model, 2)
    for network in (exact, net):
        network.train(training)
    expected, wanted = gradients(exact, x)
    y, found = gradients(net, x)
    # float32 sums of at most a few hundred terms through at most a dozen layers
    torch.testing.assert_close(y.double(), expected, rtol=2e-4, atol=2e-5)
    for key, value in wanted.items():
        torch.testing.assert_close(found[key], value, rtol=5e-4, atol=5e-5 * float(value.abs().max() + 1))


@pytest.mark.parametrize("dtype", ["bfloat16", "float16"])
@pytest.mark.parametrize("backend", ["aten", "triton"])
def test_half_precision_is_close(dtype: str, backend: str) -> None:
    # smooth on purpose: where a rounding flips a maximum's winner, gradients rightly jump
    model = randomised(small_lenet("average", "tanh"))
    exact = compile(model, dtype="float64")
    net = compile(model, backend=backend, device="cpu", dtype=dtype)
    x = batch(model)
    expected, wanted = gradients(exact, x)
    y, found = gradients(net, x)
    assert y.dtype == getattr(torch, dtype)
    epsilon = torch.finfo(y.dtype).eps
    assert (y.double() - expected).abs().max() < 8 * epsilon  # probabilities, four roundings deep
    for key, value in found.items():
        assert (value - wanted[key]).abs().max() <= 16 * epsilon * (wanted[key].abs().max() + 1)


@pytest.mark.parametrize("name", NETWORKS)
@pytest.mark.parametrize("training", [False, True], ids=["eval", "train"])
def test_gradcheck_in_float64(name: str, training: bool) -> None:
    torch.manual_seed(0)
    model = randomised(NETWORKS[name]())
    net = compile(model, dtype="float64").train(training)
    x = batch(model, 2).double().requires_grad_()
    chosen = [p for key, p in net.named_parameters() if key.endswith(("gamma", "bias"))]

    def run(*_: torch.Tensor) -> torch.Tensor:
        torch.manual_seed(5)
        net.train(training)  # gradcheck writes through .data
        return net(x)

    assert torch.autograd.gradcheck(run, (x, *chosen), eps=1e-6, atol=1e-6, fast_mode=True)


def test_no_stale_fold() -> None:
    model = randomised(residual())
    net, unfused = compile(model), compile(model, fuse=False)
    x = batch(model)
    before = net(x).detach()
    optimizer = torch.optim.SGD(net.parameters(), lr=0.05)
    net.train()
    for _ in range(3):
        optimizer.zero_grad()
        net(x).square().sum().backward()
        optimizer.step()
    net.eval()
    with torch.no_grad():
        for key, value in net.weights().items():
            unfused.weights()[key].copy_(value)
        after = net(x)
        assert (after - before).abs().max() > 1e-3
        torch.testing.assert_close(after, unfused(x), rtol=1e-4, atol=1e-5)
        next(p for n, p in net.named_parameters() if n.endswith("gamma")).mul_(1.5)  # in eval mode, no switch
        assert (net(x) - after).abs().max() > 1e-4


def test_moving_statistics_follow_keras_rule() -> None:
    model = Sequential([Input((4, 4, 2)), L.BatchNormalization(momentum=0.9)])
    net = compile(model).train()
    x = batch(model, 3)
    net(x)
    weights = {name.rpartition("/")[2]: value for name, value in net.weights().items()}
    torch.testing.assert_close(weights["moving_mean"], 0.1 * x.mean((0, 1, 2)))
    torch.testing.assert_close(weights["moving_variance"], 0.9 + 0.1 * x.var((0, 1, 2), unbiased=False))


def test_torch_training_loop_learns() -> None:
    torch.manual_seed(0)
    x = torch.randn(64, 12, 14, 1)
    target = torch.nn.functional.one_hot((x.mean((1, 2, 3)) > 0).long(), 5).float()
    net = compile(small_lenet()).train()
    step = net.with_loss("categorical_crossentropy")
    optimizer = torch.optim.Adam(net.parameters(), lr=3e-3)
    losses = []
    for _ in range(30):
        optimizer.zero_grad()
        loss, prediction = step(x, target)
        loss.backward()
        optimizer.step()
        losses.append(float(loss.detach()))
    assert prediction.shape == (64, 5)
    assert losses[-1] < 0.5 * losses[0]


def test_loss_step_equals_torch() -> None:
    model = randomised(small_lenet())
    net = compile(model, dtype="float64").train()
    x, target = batch(model), torch.eye(5, dtype=torch.float64)[:3]
    loss, prediction = net.with_loss("categorical_crossentropy")(x, target)
    loss.backward()
    found = {name: p.grad.clone() for name, p in net.named_parameters()}  # type: ignore[union-attr]
    net.zero_grad()
    expected = -(target * net(x).log()).sum(-1).mean()
    expected.backward()
    torch.testing.assert_close(loss, expected)
    assert not prediction.requires_grad
    for name, p in net.named_parameters():
        torch.testing.assert_close(found[name], p.grad)


def test_a_copy_has_weights_of_its_own() -> None:
    """What torch.optim.swa_utils does to a network."""
    model = randomised(small_lenet())
    net = compile(model, backend="aten")
    x = batch(model)
    average = torch.optim.swa_utils.AveragedModel(net)
    before = net(x)
    torch.testing.assert_close(average(x), before, rtol=0, atol=0)
    with torch.no_grad():
        for p in net.parameters():
            p.mul_(1.5)
    torch.testing.assert_close(average(x), before, rtol=0, atol=0)
    assert not torch.allclose(net(x), before)
    average.update_parameters(net)
    assert not torch.allclose(average(x), before)


def test_any_batch_size_without_compiling_anew(monkeypatch: pytest.MonkeyPatch) -> None:
    """No kernel is written or loaded for another batch of a class, in eval and in training."""
    from convloom.codegen.dispatch import write
    from convloom.codegen.machine.interpreter import load_module

    made: list[str] = []

    def counted(function: Any) -> Any:
        def count(*arguments: Any, **options: Any) -> Any:
            made.append(function.__name__)
            return function(*arguments, **options)

        return count

    monkeypatch.setattr("convloom.codegen.programs.write", counted(write))
    monkeypatch.setattr("convloom.codegen.machine.loaded.load_module", counted(load_module))
    model = small_lenet()
    net = compile(model, backend="triton", device="cpu")
    exact = compile(model, backend="aten")
    for training in (False, True):
        net.train(training)
        exact.train(training)
        gradients(net, batch(model, 4))
        assert "write" in made
        assert training or "load_module" in made  # what a step shares with the backward pass of eval is there
        made.clear()
        for size in (3, 8, 5):
            expected, wanted = gradients(exact, batch(model, size))
            found, ours = gradients(net, batch(model, size))
            torch.testing.assert_close(found, expected, rtol=1e-4, atol=1e-5)
            assert ours.keys() == wanted.keys()
        assert made == []


def test_input_gradient_and_frozen_parameters() -> None:
    model = small_lenet()
    net = compile(model, dtype="float64")
    for p in net.parameters():
        p.requires_grad_(False)
    x = batch(model).double().requires_grad_()
    net(x).square().sum().backward()
    assert x.grad is not None
    assert float(x.grad.abs().max()) > 0
    assert all(p.grad is None for p in net.parameters())


def test_numpy_in_tensor_out_and_several_outputs() -> None:
    image = Input((6, 6, 2), name="image")
    h = L.Conv2D(3, 3, name="features")(image)
    model = Model(image, [h, L.GlobalAveragePooling2D()(h)])
    net = compile(model)
    features, pooled = net(np.zeros((2, 6, 6, 2)))
    assert not features.requires_grad
    assert net(torch.zeros(2, 6, 6, 2))[0].requires_grad
    assert features.shape == (2, 4, 4, 3)
    assert pooled.shape == (2, 3)


@pytest.mark.parametrize(
    ("value", "text"),
    [
        (np.zeros((12, 14, 1), np.float32), "rank 3.*takes rank 4.*add the batch axis"),
        (np.zeros((2, 12, 14, 3), np.float32), r"axis 3 must be 1"),
        (np.zeros((2, 12, 14, 1), np.uint8), "has dtype uint8.*astype"),
        (np.zeros((0, 12, 14, 1), np.float32), "an empty batch"),
        ([[1.0]], "is a list"),
    ],
)
def test_wrong_inputs_are_refused(value: object, text: str) -> None:
    with pytest.raises(ShapeError, match=text):
        compile(small_lenet())(value)


@pytest.mark.parametrize(
    ("options", "text"),
    [
        ({"backend": "tpu"}, "unknown backend 'tpu'"),
        ({"dtype": "int8"}, "unknown dtype 'int8'"),
        ({"device": "abacus"}, "unknown device 'abacus'"),
        ({"dtype": "float64", "backend": "triton"}, "runs on backend 'aten' only"),
    ],
)
def test_wrong_options_are_refused(options: dict[str, str], text: str) -> None:
    with pytest.raises(CompileError, match=text):
        compile(small_lenet(), **options)  # type: ignore[arg-type]


def test_a_network_compiled_in_inference_mode_follows_its_weights_and_trains() -> None:
    x = batch(small_lenet())
    with torch.inference_mode():
        net = compile(randomised(small_lenet()), device="cpu")
        before = net(x)
        for p in net.parameters():
            p.mul_(1.1)
        assert (net(x) - before).abs().max() > 1e-3
    net.train()(x).square().sum().backward()
    assert all(p.grad is not None for p in net.parameters())


def test_weights_in_another_memory_format_are_read_right() -> None:
    net = compile(randomised(small_lenet()), backend="triton", device="cpu")
    x = batch(small_lenet())
    with torch.no_grad():
        expected = net(x)
        net.to(memory_format=torch.channels_last)  # type: ignore[call-overload]
        assert not all(p.is_contiguous() for p in net.parameters())
        torch.testing.assert_close(net(x), expected)


@pytest.mark.parametrize(
    ("target", "text"),
    [("meta", "for cpu; .* another device"), (torch.half, "for float32; .* another dtype")],
)
def test_a_network_stays_where_and_what_it_was_compiled_for(target: str | torch.dtype, text: str) -> None:
    model = small_lenet()
    model.trainable = False
    for network in (compile(small_lenet(), device="cpu"), compile(model, device="cpu")):
        with pytest.raises(CompileError, match=text):
            network.to(target)
        assert network(batch(model)).dtype is torch.float32  # nothing was moved


def test_a_model_is_needed() -> None:
    with pytest.raises(ConvLoomError, match="compile takes a Model"):
        compile(object())  # type: ignore[arg-type]


def test_fallback_is_visible_and_right(monkeypatch: pytest.MonkeyPatch) -> None:
    from convloom.codegen import programs

    def refuse(*_: object) -> None:
        raise CompileError("no kernel today")

    monkeypatch.setattr(programs, "write", refuse)
    model = small_lenet()
    net = compile(model, backend="triton", device="cpu")
    x = batch(model)
    with pytest.warns(FallbackWarning, match="runs through PyTorch's operators.*no kernel today") as seen:
        y = net(x)
    assert "conv2d_relu_max_pool2d (from conv2d" in str(seen[0].message)
    torch.testing.assert_close(y, compile(model)(x))
