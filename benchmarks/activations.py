"""What it costs that ReLUs follow oneDNN's convolutions as operators of their own, and so keep NaN.

    python benchmarks/activations.py [--rounds 15] [--networks mobilenet_v2 ...] [--batches 1 8]

The same network twice in one process: as ConvLoom runs it, and with oneDNN's own ReLU and hard tanh inside
the convolutions and products, which make a number of NaN. The two take turns, in a new random order each
round. A value is the lower quartile over the rounds of the processor time of one thread: what else a machine
does adds little to that, and never takes from it.
"""

from __future__ import annotations

import argparse
import random
import time
from collections.abc import Callable, Sequence
from functools import partial

import torch
from convloom.graph.op import Op
from convloom.graph.ops import Relu, Relu6
from convloom.runtime.aten import contraction, onednn
from large import mobilenet_v2, resnet50
from networks import lenet5

import convloom as cl

SLICE_SECONDS = 0.05


NETWORKS: dict[str, tuple[Callable[[], cl.Model], tuple[int, ...]]] = {
    "lenet5": (lenet5, (1, 2, 32, 256)),
    "mobilenet_v2": (mobilenet_v2, (1, 8, 32)),
    "resnet50": (resnet50, (1, 8, 32)),
}


# -- the form that loses NaN ----------
def losing_attribute(op: Op | None) -> onednn.Attribute | None:
    match op:
        case Relu():
            return onednn.Attribute("relu")
        case Relu6():
            return onednn.Attribute("hardtanh", (0.0, 6.0))
    return ATTRIBUTE(op)


def losing_convolution(self: contraction.Convolution) -> None:
    PREPARE(self)
    if self.with_residual and isinstance(self.activation, Relu):
        self.attribute, self.after = onednn.Attribute("relu"), None


def convolve(
    x: torch.Tensor,
    w: torch.Tensor,
    bias: torch.Tensor | None,
    geometry: onednn.Geometry,
    attribute: onednn.Attribute,
    residual: torch.Tensor | None,
) -> torch.Tensor:
    """As the executor's, and with a ReLU behind the residual where `attribute` names one."""
    if residual is None or attribute.name != "relu":
        return CONVOLVE(x, w, bias, geometry, attribute, residual)
    place = (geometry.padding, geometry.strides, geometry.dilation, geometry.groups)
    binary = torch.ops.mkldnn._convolution_pointwise.binary
    result: torch.Tensor = binary(x, residual, w, bias, *place, "add", 1.0, "relu", (), None)
    return result


ATTRIBUTE, CONVOLVE, PREPARE = onednn.attribute, onednn.convolve, contraction.Convolution.__post_init__


def variants(model: cl.Model, x: torch.Tensor) -> dict[str, Callable[[], torch.Tensor]]:
    found: dict[str, Callable[[], torch.Tensor]] = {}
    onednn.convolve = convolve
    for name, losing in (("loses NaN", True), ("keeps NaN", False)):
        onednn.attribute = losing_attribute if losing else ATTRIBUTE
        contraction.Convolution.__post_init__ = losing_convolution if losing else PREPARE  # type: ignore[method-assign]
        net = cl.compile(model, device="cpu", backend="aten").eval()
        net(x)  # lowered now, as this variant wants it
        found[name] = partial(net, x)
    return found


# -- timing ----------
def quartiles(calls: dict[str, Callable[[], torch.Tensor]], rounds: int) -> dict[str, float]:
    """Milliseconds a call."""
    repeats = max(1, round(SLICE_SECONDS / _seconds(next(iter(calls.values())), 1)))
    times: dict[str, list[float]] = {name: [] for name in calls}
    for _ in range(rounds):
        for name in random.sample(list(calls), len(calls)):
            times[name].append(1e3 * _seconds(calls[name], repeats))
    return {name: sorted(values)[len(values) // 4] for name, values in times.items()}


def _seconds(call: Callable[[], torch.Tensor], repeats: int) -> float:
    call()
    start = time.process_time()
    for _ in range(repeats):
        call()
    return (time.process_time() - start) / repeats


def main(argv: Sequence[str] | None = None) -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--networks", nargs="+", choices=NETWORKS, default=list(NETWORKS))
    parser.add_argument("--batches", nargs="+", type=int, help="default: each network's own")
    parser.add_argument("--rounds", type=int, default=15)
    arguments = parser.parse_args(argv)
    torch.set_num_threads(1)
    for name in arguments.networks:
        build, batches = NETWORKS[name]
        model = build()
        for batch in arguments.batches or batches:
            image = [size for size in model.inputs[0].shape[1:] if size is not None]
            x = torch.randn(batch, *image, generator=torch.Generator().manual_seed(0))
            with torch.no_grad():
                calls = variants(model, x)
                torch.testing.assert_close(*(call() for call in calls.values()))
                ms = quartiles(calls, arguments.rounds)
            ratio = ms["keeps NaN"] / ms["loses NaN"]
            print(f"{name}, batch {batch}: {ms['keeps NaN']:.3f} ms keeps NaN, {ratio:.3f} of what loses it")


if __name__ == "__main__":
    main()
