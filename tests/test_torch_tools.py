"""A compiled network among PyTorch's own tools: right inside them, or refused in words."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
import torch
from helpers import randomised
from torch.nn.utils import parametrize, prune
from torch.utils.checkpoint import checkpoint

import convloom as cl
from convloom import layers as L


def network(dropout: bool = False, open_axes: bool = False) -> cl.CompiledNetwork:
    x = cl.Input((None, None, 3) if open_axes else (8, 7, 3))
    h = L.Conv2D(4, 3, padding="same", use_bias=False, name="conv")(x)
    h = L.ReLU()(L.BatchNormalization(name="norm")(h))
    h = L.Dropout(0.4)(h) if dropout else h
    y = L.Dense(3, name="head")(L.GlobalAveragePooling2D()(h))
    return cl.compile(randomised(cl.Model(x, y, name="small")), device="cpu")


def batch(count: int = 3) -> torch.Tensor:
    return torch.randn(count, 8, 7, 3, generator=torch.Generator().manual_seed(5))


def step(call: Callable[[torch.Tensor], Any], net: torch.nn.Module, x: torch.Tensor) -> list[torch.Tensor]:
    """The output, all gradients and the statistics after a step from the weights as they are, which stay."""
    before = {name: value.clone() for name, value in net.state_dict().items()}
    x = x.clone().requires_grad_()
    net.zero_grad()
    torch.manual_seed(2)
    y = call(x)
    y.square().sum().backward()
    found = [y.detach(), x.grad, *(p.grad for p in net.parameters()), *(b.clone() for b in net.buffers())]
    net.load_state_dict(before)
    return [value for value in found if value is not None]


class Around(torch.nn.Module):
    """A network with something of torch's before and behind it."""

    def __init__(self, net: cl.CompiledNetwork) -> None:
        super().__init__()
        self.net = net
        self.mix = torch.nn.Linear(3, 3)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        found: torch.Tensor = self.mix(self.net(self.mix(x) * 2)).relu()
        return found


@pytest.mark.parametrize("backend", ["eager", "aot_eager"])
@pytest.mark.parametrize("open_axes", [False, True])
def test_torch_compile_compiles_what_is_around(backend: str, open_axes: bool) -> None:
    torch._dynamo.reset()
    plain = Around(network(open_axes=open_axes))
    compiled = torch.compile(plain, backend=backend)
    for training in (True, False):
        plain.train(training)
        for count in (3, 2):
            torch.testing.assert_close(step(compiled, plain, batch(count)), step(plain, plain, batch(count)))


@pytest.mark.parametrize("tool", [torch.jit.trace, torch.export.export])
@pytest.mark.filterwarnings("ignore:.*torch.jit.trace.*:DeprecationWarning")
def test_what_sees_no_operators_is_refused(tool: Callable[..., Any]) -> None:
    with pytest.raises(cl.CompileError, match=r"small: torch.export and torch.jit see no operators"):
        tool(network(), (batch(),))


@pytest.mark.parametrize("dropout", [False, True])
@pytest.mark.parametrize("reentrant", [False, True])
def test_checkpoints(dropout: bool, reentrant: bool) -> None:
    """The forward pass runs twice, with the same draws; the moving statistics move twice, as torch's do."""
    net = network(dropout).train()
    count = 2 + len(list(net.parameters()))
    found = step(lambda x: checkpoint(net, x, use_reentrant=reentrant), net, batch())
    torch.testing.assert_close(found[:count], step(net, net, batch())[:count])


@pytest.fixture
def one_process(tmp_path: Path) -> Iterator[None]:
    torch.distributed.init_process_group(
        "gloo", init_method=f"file://{tmp_path / 'store'}", rank=0, world_size=1
    )
    yield
    torch.distributed.destroy_process_group()


@pytest.mark.usefixtures("one_process")
@pytest.mark.parametrize("options", [{}, {"static_graph": True}, {"gradient_as_bucket_view": True}], ids=str)
def test_distributed_data_parallel(options: dict[str, bool]) -> None:
    net = network().train()
    expected = step(net, net, batch())
    parallel = torch.nn.parallel.DistributedDataParallel(net, **options)  # type: ignore[arg-type]
    for _ in range(2):
        torch.testing.assert_close(step(parallel, parallel, batch()), expected)


def test_weights_that_were_taken_out_are_missed_in_words() -> None:
    net = network()
    prune.l1_unstructured(net, "head/kernel", 0.5)
    with pytest.raises(cl.CompileError, match=r"no longer has its weight 'head/kernel'"):
        net(batch())
    net = network()
    parametrize.register_parametrization(net, "conv/kernel", torch.nn.Tanh())
    with pytest.raises(cl.CompileError, match=r"no longer has its weight 'conv/kernel'"):
        net(batch())


def test_hooks_are_called() -> None:
    net, seen = network().train(), []
    net.register_forward_hook(lambda *a: seen.append("forward"))
    net.register_full_backward_hook(lambda *a: seen.append("backward"))
    net.get_parameter("head/kernel").register_hook(lambda g: seen.append("gradient"))
    net(batch().requires_grad_()).sum().backward()
    assert sorted(seen) == ["backward", "forward", "gradient"]
