"""Normalisation of rows: values of its kernels, what shares them, and whole networks on both backends."""

from __future__ import annotations

from collections.abc import Callable

import pytest
import torch
from convloom.codegen import emit
from convloom.graph import ops
from convloom.graph.errors import ShapeError
from convloom.graph.gradients import differentiate
from convloom.graph.ir import Graph
from convloom.graph.passes import BACKWARD, INFERENCE, TRAINING, run_pipeline
from convloom.graph.passes.long_rows import LONGEST
from convloom.graph.types import TensorType
from convloom.planning.forms import choose, finishing_iterations
from convloom.planning.fusion import fuse
from convloom.planning.regions import Region
from convloom.planning.schedules import Schedule
from kernel_checks import check, difference, image, region, vector

import convloom as cl
from convloom import layers as L

DTYPES = ("float32", "float16", "bfloat16")
CHANNELS = (1, 3, 17, 64, 96, 200, 1000)
VECTORS: tuple[list[str], ...] = ([], ["gamma"], ["gamma", "beta"])


def norm(*shape: int, vectors: list[str], centred: bool = True, dtype: str = "float32") -> Region:
    """A row norm, and what is pointwise after it."""
    given = [image("x", *shape, dtype=dtype), *(vector(name, shape[-1]) for name in vectors)]
    other = image("other", *shape, dtype=dtype)
    steps = [("y", ops.RowNorm(1e-3, centred), ["x", *vectors]), ("sum", ops.Add(), ["y", "other"])]
    return region([*given, other, *steps, ("z", ops.Gelu(), ["sum"])], anchor="y", outputs=["y", "z"])


def gradients(*shape: int, vectors: list[str], dtype: str = "float32", centred: bool = True) -> list[Region]:
    """The kernels of the backward pass of a row norm."""
    graph = Graph()
    x = graph.add(ops.Input(("N", *shape), dtype), (), "x")
    given = [graph.add(ops.Parameter((shape[-1],)), (), name) for name in vectors]
    graph.outputs["y"] = graph.add(ops.RowNorm(1e-3, centred), [x, *given], "norm", layer="norm")
    run_pipeline(graph, TRAINING)
    found = differentiate(graph, wrt_inputs=True)
    graph.outputs.update({f"d_{name}": gradient for name, gradient in found.gradients.items()})
    run_pipeline(graph, BACKWARD)
    return [kernel for kernel in fuse(graph).kernels if kernel.phase == "backward"]


# -- values ----------
@pytest.mark.parametrize("vectors", VECTORS, ids=" ".join)
@pytest.mark.parametrize("channels", CHANNELS)
def test_norm_of_any_channels(channels: int, vectors: list[str]) -> None:
    size = (3, 2) if channels > 100 else (9, 7)
    assert check(norm(*size, channels, vectors=vectors), length=channels).launches == 1


@pytest.mark.parametrize("vectors", VECTORS, ids=" ".join)
@pytest.mark.parametrize("channels", CHANNELS)
def test_gradients_are_one_kernel(channels: int, vectors: list[str]) -> None:
    size = (3, 2) if channels > 100 else (9, 7)
    # One number less its mean is 0, and so is its gradient.
    (only,) = gradients(*size, channels, vectors=vectors, centred=channels > 1)
    assert choose(only)[0].name == ("row norm gradient" if vectors else "row norm")
    assert check(only, length=channels + 63).launches == (2 if vectors else 1)


def test_sums_alone_count_the_batch_by_what_has_one() -> None:
    """The gradient of gamma of a frozen network's norm, of what a vector comes first in."""
    shifted, again = ("x", ops.Subtract(), ["shift", "image"]), ("n", ops.RowNorm(1e-3, wide=True), ["x"])
    weighted, total = ("m", ops.Multiply(), ["dy", "n"]), ("d_gamma", ops.Reduce((0, 1)), ["m"])
    sources = [vector("shift", 3), image("image", 5, 3), image("dy", 5, 3)]
    given = region([*sources, shifted, again, weighted, total], anchor="n", phase="backward")
    assert check(given, length=100, batches=(1, 37)).launches == 2


@pytest.mark.parametrize("centred", [True, False], ids=["layer norm", "RMS norm"])
@pytest.mark.parametrize("dtype", DTYPES)
def test_every_dtype(dtype: str, centred: bool) -> None:
    check(norm(5, 3, 17, vectors=["gamma", "beta"], centred=centred, dtype=dtype), length=17)
    (only,) = gradients(5, 3, 17, vectors=["gamma", "beta"], centred=centred, dtype=dtype)
    check(only, length=17 + 15)


def test_rows_of_a_batch_alone_and_of_several_axes() -> None:
    for shape in ((65,), (4, 33), (2, 3, 4, 5)):
        check(norm(*shape, vectors=["gamma", "beta"]), length=65, batches=(1, 40))
        (only,) = gradients(*shape, vectors=["gamma", "beta"])
        check(only, length=65, batches=(1, 40))


@pytest.mark.parametrize("programs", [1, 3, 64])
def test_every_cut_of_the_rows(programs: int) -> None:
    """A part may end within a tile, and programs may have no row."""
    (only,) = gradients(5, 3, 17, vectors=["gamma", "beta"])
    schedule = Schedule(4, 32, chunk=4, programs=programs)
    check(only, length=17 + 15, batches=(1, 3, 7), schedule=schedule)


def test_prologue_that_makes_something_of_nothing() -> None:
    """Columns and rows that do not exist are 0 as loaded, and 1 once exp is taken."""
    graph = Graph()
    x = graph.add(ops.Input(("N", 3, 5)), (), "x")
    vectors = [graph.add(ops.Parameter((5,)), (), name) for name in ("gamma", "beta")]
    graph.outputs["y"] = graph.add(ops.RowNorm(), [graph.add(ops.Exp(), [x]), *vectors])
    (only,) = fuse(graph).kernels
    assert [node.op.op_name() for node in only.nodes] == ["exp", "row_norm"]
    check(only, length=5)
    dy, x2 = image("dy", 3, 5), image("x", 3, 5)
    steps = [
        ("slope", ops.Exp(), ["dy"]),
        ("again", ops.RowNorm(), ["x"]),
        ("dx", ops.RowNormGrad(), ["slope", "x", "gamma"]),
        ("product", ops.Multiply(), ["slope", "again"]),
        ("d_gamma", ops.Reduce((0, 1)), ["product"]),
        ("d_beta", ops.Reduce((0, 1)), ["slope"]),
    ]
    outputs = ["dx", "d_gamma", "d_beta"]
    check(region([dy, x2, vector("gamma", 5), *steps], outputs, "again", "backward"), length=8)


def test_mean_a_thousand_times_the_deviation() -> None:
    """In float32 x itself is known to 2^-24 of its mean, 6e-5 of the deviation; sums of squares cancel."""
    kernel = emit(norm(7, 96, vectors=[]))
    module = kernel.load(interpreted=True)
    x, other = module.example(5, seed=0)
    x += 1000.0
    outputs = module.results(5)
    module.launch(x, other, *outputs)
    wide = x.double() - x.double().mean(-1, keepdim=True)
    wanted = wide / torch.sqrt((wide * wide).mean(-1, keepdim=True) + 1e-3)
    assert difference(outputs[0], wanted) < 2e-4


def test_not_finite_rows_stay_to_themselves() -> None:
    kernel = emit(norm(4, 17, vectors=[]))
    module = kernel.load(interpreted=True)
    x, other = module.example(2, seed=0)
    x[0, 1, 3], x[1, 2, 0] = float("nan"), float("inf")
    y, z = module.results(2)
    module.launch(x, other, y, z)
    broken = y.isnan().all(-1)
    assert broken.nonzero().tolist() == [[0, 1], [1, 2]]
    assert y[~broken].isfinite().all()


# -- what shares a kernel ----------
def test_sums_that_are_finished_in_few_steps() -> None:
    (only,) = gradients(56, 56, 96, vectors=["gamma", "beta"])
    assert 0 < finishing_iterations(only, 256) <= 32
    assert choose(only)[0].name == "row norm gradient"


def test_other_norms_do_not_share_its_kernel() -> None:
    nodes = [image("dy", 17), image("x", 17), ("again", ops.RowNorm(1e-3), ["x"])]
    given = region(
        [*nodes, ("dx", ops.RowNormGrad(1e-5), ["dy", "x"])], ["again", "dx"], "again", phase="backward"
    )
    with pytest.raises(cl.ConvLoomError, match=r"dx: row_norm_grad cannot share a kernel with row_norm"):
        emit(given)


def test_long_rows_go_in_steps() -> None:
    for size, kernels in ((LONGEST, 1), (LONGEST + 1, 3)):
        graph = Graph()
        x = graph.add(ops.Input(("N", size)), (), "x")
        gamma = graph.add(ops.Parameter((size,)), (), "gamma")
        graph.outputs["y"] = graph.add(ops.RowNorm(), [x, gamma], "norm")
        run_pipeline(graph, INFERENCE)
        assert len(fuse(graph).kernels) == kernels


def test_vectors_of_another_length_are_refused() -> None:
    with pytest.raises(ShapeError, match=r"row_norm of float32\[N,5,7\] takes vectors of shape \(7,\)"):
        ops.RowNorm().result(TensorType(("N", 5, 7)), TensorType((5,)))


def test_wide_rows_leave_the_sums_outside() -> None:
    kernels = gradients(9000, vectors=["gamma", "beta"])
    assert len(kernels) > 1
    for kernel in kernels:
        emit(kernel)


# -- networks ----------
LAYERS: dict[str, tuple[Callable[[], L.Layer], tuple[int, ...]]] = {
    "layer": (lambda: L.LayerNormalization(epsilon=1e-5), (5, 3, 17)),
    "layer without gamma": (lambda: L.LayerNormalization(scale=False), (5, 3, 17)),
    "layer without beta": (lambda: L.LayerNormalization(center=False), (5, 3, 17)),
    "layer over all": (lambda: L.LayerNormalization(axis=(1, 2, 3)), (5, 3, 4)),
    "layer of rows": (lambda: L.LayerNormalization(axis=1), (5, 3, 4)),
    "group": (lambda: L.GroupNormalization(2), (5, 3, 8)),
    "RMS": (lambda: L.RMSNormalization(), (5, 3, 17)),
}


def step(backend: str, name: str, dtype: str = "float32") -> list[torch.Tensor]:
    """Result and gradients of a small network with the layer in its middle."""
    make, shape = LAYERS[name]
    torch.manual_seed(3)
    x = cl.Input(shape)
    h = L.Conv2D(shape[-1], 3, padding="same")(x)
    h = L.Activation("tanh")(make()(h))
    y = L.Dense(4)(L.GlobalAveragePooling2D()(h))
    net = cl.compile(cl.Model(x, y), device="cpu", backend=backend, dtype=dtype).train()
    generator = torch.Generator().manual_seed(0)
    for weight in net.parameters():
        weight.data = torch.randn(weight.shape, generator=generator) * 0.3 + 0.1
    given = torch.randn(3, *shape, generator=generator)
    given.requires_grad_()
    result = net(given)
    result.double().square().sum().backward()
    gradients = [given.grad, *(weight.grad for weight in net.parameters())]
    return [result.detach(), *(gradient for gradient in gradients if gradient is not None)]


@pytest.mark.parametrize("name", LAYERS)
def test_layers_train_alike_on_both_backends(name: str) -> None:
    exact = step("aten", name, "float64")
    for backend in ("aten", "triton"):
        for found, wanted in zip(step(backend, name), exact, strict=True):
            scale = max(1e-2, float(wanted.abs().max()))  # some gradients are 0 but for rounding
            assert float((found.double() - wanted).abs().max()) < 2e-5 * scale


def test_a_training_step_has_a_kernel_each_way() -> None:
    x = cl.Input((8, 8, 3))
    h = L.Conv2D(16, 3, padding="same")(x)
    h = L.LayerNormalization()(h)
    net = cl.compile(cl.Model(x, L.Conv2D(4, 1)(h)), device="cpu").train()
    net(torch.zeros(1, 8, 8, 3))
    found = [kernel.ops for kernel in net.kernels if any("row_norm" in name for name in kernel.ops)]
    assert found == [["row_norm"], ["row_norm", "row_norm_grad", "multiply", "reduce", "reduce"]]
