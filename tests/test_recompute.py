"""What a training step keeps for its backward pass, and what it computes anew instead."""

from __future__ import annotations

from typing import Any

import large
import networks
import pytest
import torch
from convloom.graph import ops
from convloom.graph.gradients import differentiate
from convloom.graph.passes import BACKWARD, RECOMPUTE, TRAINING, run_pipeline
from convloom.planning.modes import Mode
from convloom.planning.program import plan
from helpers import randomised
from torch import nn
from torch.autograd.graph import saved_tensors_hooks

import convloom as cl
from convloom import layers as L


class Kept:
    """Counts the memory that autograd keeps inside, each piece once, but for that of these tensors."""

    def __init__(self, *others: torch.Tensor) -> None:
        self.others = {tensor.untyped_storage().data_ptr() for tensor in others}
        self.found: dict[int, torch.Tensor] = {}
        self.hooks = saved_tensors_hooks(self._pack, lambda tensor: tensor)

    def _pack(self, tensor: torch.Tensor) -> torch.Tensor:
        self.found[tensor.untyped_storage().data_ptr()] = tensor
        return tensor

    def __enter__(self) -> Kept:
        self.hooks.__enter__()
        return self

    def __exit__(self, *error: Any) -> None:
        self.hooks.__exit__(*error)

    @property
    def bytes(self) -> int:
        return sum(
            tensor.untyped_storage().nbytes()
            for place, tensor in self.found.items()
            if place not in self.others
        )


NETWORKS = {
    "ResNet-18": (networks.resnet18, networks.ResNet18, 32, 10),
    "MobileNetV2": (lambda: large.mobilenet_v2(96), large.MobileNetV2, 96, 1000),
}


@pytest.mark.parametrize("name", NETWORKS)
def test_a_step_keeps_at_most_065_of_what_eager_keeps(name: str) -> None:
    make, module, size, classes = NETWORKS[name]
    x = torch.randn(4, size, size, 3)
    target = nn.functional.one_hot(torch.arange(4), classes).float()
    eager: Any = module().train()
    eager.to(memory_format=torch.channels_last)
    with Kept(*eager.parameters(), *eager.buffers()) as theirs:
        loss = nn.functional.cross_entropy(eager(x.permute(0, 3, 1, 2)), target)
    net = cl.compile(make(), device="cpu", backend="aten").train()
    step = net.with_loss("categorical_crossentropy")
    with Kept(*net.parameters(), *net.buffers()) as ours:
        mine, _ = step(x, target)
    assert loss.isfinite()
    assert mine.isfinite()
    assert ours.bytes <= 0.65 * theirs.bytes
    assert step.compiled.program.saved_bytes(4) == pytest.approx(ours.bytes, rel=0.05)


def small() -> cl.Model:
    """Two residual blocks, dropout, and activations whose derivatives are written in x and in y."""
    x = cl.Input((8, 8, 4))
    h = L.ReLU(6.0)(L.BatchNormalization()(L.Conv2D(8, 3, padding="same", use_bias=False)(x)))
    for _ in range(2):
        y = L.ReLU()(L.BatchNormalization()(L.Conv2D(8, 3, padding="same")(h)))
        y = L.Dropout(0.3)(y)
        y = L.BatchNormalization()(L.Conv2D(8, 3, padding="same")(y))
        h = L.LeakyReLU()(L.Add()([h, y]))
    h = L.MaxPooling2D()(L.Activation("swish")(L.BatchNormalization()(L.DepthwiseConv2D(3)(h))))
    return randomised(cl.Model(x, L.Dense(5)(L.GlobalAveragePooling2D()(h))))


@pytest.mark.parametrize("backend", ["aten", "triton"])
def test_gradients_are_those_of_values_that_were_kept(
    backend: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    found, model = [], small()
    for again in (False, True):
        monkeypatch.setattr("convloom.runtime.options.Options.recompute", again)
        net = cl.compile(model, device="cpu", backend=backend).train()
        x = torch.randn(3, 8, 8, 4, generator=torch.Generator().manual_seed(2)).requires_grad_()
        torch.manual_seed(4)
        net(x).square().sum().backward()
        found.append([x.grad, *(p.grad for p in net.parameters())])
        names = [node.name for node in net.graph.nodes()]
        assert any(name.endswith("/again") for name in names) == again
    for kept, computed in zip(*found, strict=True):
        torch.testing.assert_close(kept, computed, rtol=1e-4, atol=1e-5)


def test_derivatives_of_derivatives_stay_right() -> None:
    net = cl.compile(small(), device="cpu", backend="aten", dtype="float64").train()
    x = torch.randn(2, 8, 8, 4, dtype=torch.float64, requires_grad=True)

    def slope(x: torch.Tensor) -> torch.Tensor:
        torch.manual_seed(1)
        (found,) = torch.autograd.grad(net(x).square().sum(), x, create_graph=True)
        return found

    direction = torch.randn_like(x)
    (by_autograd,) = torch.autograd.grad((slope(x) * direction).sum(), x)
    step = 1e-6
    by_difference = (slope(x + step * direction) - slope(x - step * direction)) / (2 * step)
    torch.testing.assert_close(by_autograd, by_difference, rtol=1e-3, atol=1e-4)


def decisions(model: cl.Model) -> dict[str, str]:
    """Of each value that was looked at: "" where it is computed anew, else the reason why it is kept."""
    graph = model.to_graph()
    run_pipeline(graph, TRAINING)
    found = differentiate(graph)
    graph.outputs.update({f"gradient of {n}": value for n, value in found.gradients.items()})
    run_pipeline(graph, BACKWARD)
    (report,) = run_pipeline(graph, RECOMPUTE)
    return {decision.node: decision.reason for decision in report.decisions}


def test_what_follows_from_values_kept_anyway_is_computed_anew() -> None:
    x = cl.Input((8, 8, 4))
    h = L.ReLU(name="first")(L.BatchNormalization()(L.Conv2D(4, 3, padding="same")(x)))
    found = decisions(cl.Model(x, L.Conv2D(4, 3)(h)))
    assert found == {"first": ""}


def test_an_activation_of_a_convolution_that_nobody_keeps_is_kept() -> None:
    x = cl.Input((8, 8, 4))
    h = L.ReLU(name="first")(L.Conv2D(4, 3, name="conv")(x))
    assert decisions(cl.Model(x, L.Conv2D(4, 3)(h))) == {"first": "conv is not kept"}


def test_chains_are_cut() -> None:
    x = cl.Input((8, 8, 4))
    h = L.Conv2D(4, 3, padding="same")(x)
    for block in range(4):
        y = L.BatchNormalization()(L.Conv2D(4, 3, padding="same")(h))
        h = L.ReLU(name=f"sum{block}")(L.Add()([h, y]))
    found = decisions(cl.Model(x, L.Conv2D(4, 3)(h)))
    assert [name for name, reason in found.items() if reason] == ["sum2"]
    assert "2 values" in found["sum2"]


def test_costly_values_outputs_and_unfused_networks_keep_all() -> None:
    x = cl.Input((8, 8, 4))
    h = L.BatchNormalization()(L.Conv2D(4, 3, padding="same")(x))
    costly = L.Activation("gelu")(h)
    shown = L.ReLU(name="shown")(h)
    model = cl.Model(x, [L.Conv2D(4, 3)(costly), L.Conv2D(4, 3)(shown), shown])
    assert "shown" not in decisions(model)
    for fuse, again in ((True, 1), (False, 0)):
        mode = Mode(training=True, backward=True, fuse=fuse, recompute=True)
        program = plan(model.to_graph(), mode)
        computed = [n for n in program.graph.nodes() if n.name.endswith("/again")]
        assert bool(computed) == bool(again)
        assert not [n for n in computed if isinstance(n.op, ops.Gelu | ops.Relu)]
