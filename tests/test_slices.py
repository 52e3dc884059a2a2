"""Concatenation for free: kernels that write into their slices touch nothing else, and the files say so."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
import torch
from convloom.codegen import emit
from convloom.graph.op import Op
from convloom.graph.ops import Concat, Conv2DWeightGrad, DenseWeightGrad, Reduce, Slice
from convloom.graph.passes import INFERENCE, run_pipeline
from convloom.planning.forms import FORMS, forms_taking
from convloom.planning.fusion import fuse
from convloom.planning.regions import Partition, Region
from convloom.planning.slices import CUT, EQUATION, write_into_slices
from kernel_checks import image, region

import convloom as cl
from convloom import layers as L

Branch = Callable[[Any], Any]

BRANCHES: dict[str, Branch] = {
    "convolution": lambda x: L.Conv2D(5, 3, padding="same", activation="relu")(x),
    "pooled convolution": lambda x: L.MaxPooling2D(2)(L.Conv2D(7, 3, padding="same")(L.UpSampling2D(2)(x))),
    "depthwise": lambda x: L.DepthwiseConv2D(3, padding="same")(x),
    "transposed": lambda x: L.Conv2DTranspose(5, 2, strides=2)(L.AveragePooling2D(2)(x)),
    "pooling": lambda x: L.MaxPooling2D(3, strides=1, padding="same")(x),
    "pointwise": lambda x: L.Activation("tanh")(x),
    "upsampled": lambda x: L.UpSampling2D(2, interpolation="bilinear")(L.AveragePooling2D(2)(x)),
    "softmax": lambda x: L.Softmax()(x),
    "product": lambda x: L.Dense(9)(x),
}


def concatenated(*branches: Branch, shape: tuple[int, ...] = (6, 4, 3)) -> Partition:
    x = cl.Input(shape)
    whole = L.Concatenate()([branch(x) for branch in branches])
    graph = cl.Model(x, L.Conv2D(2, 1)(whole) if len(shape) == 3 else L.Dense(2)(whole)).to_graph()
    run_pipeline(graph, INFERENCE)
    partition = fuse(graph)
    write_into_slices(partition)
    return partition


@pytest.mark.parametrize("name", BRANCHES)
def test_a_kernel_writes_its_slice_and_nothing_else(name: str) -> None:
    partition = concatenated(BRANCHES[name], lambda x: L.Conv2D(4, 1)(x))
    (joined,) = (region for region in partition if region.joined)
    (kernel,) = (emit(r) for r in partition.kernels if joined.anchor.inputs[0] in r.pitches)
    module = kernel.load(interpreted=True)
    inputs = module.example(batch=3)
    (result,) = kernel.outputs
    pitch, channels = kernel.region.pitches[result.name], result.type.channels
    whole = torch.full((*result.type.size(3)[:-1], pitch), float("nan"))
    for start in (0, 2, pitch - channels):
        whole.fill_(float("nan"))
        module.launch(*inputs, whole[..., start : start + channels])
        (expected,) = module.reference(*inputs)
        found, most = whole[..., start : start + channels].double(), float(expected.abs().max())
        torch.testing.assert_close(found, expected, rtol=0, atol=module.TOLERANCE * most)
        assert whole[..., :start].isnan().all()
        assert whole[..., start + channels :].isnan().all()
    assert f"into its slice of rows of {pitch} channels" in kernel.source


def test_vectors_too() -> None:
    partition = concatenated(lambda x: L.Dense(3, activation="relu")(x), lambda x: L.Dense(5)(x), shape=(4,))
    assert any(region.joined for region in partition)


READERS: dict[str, tuple[Branch, str]] = {
    "matrix product": (lambda x: L.Conv2D(5, 1)(x), "convolution"),
    "taps": (lambda x: L.Conv2D(5, 3, strides=2, padding="same", activation="relu")(x), "convolution"),
    "groups": (lambda x: L.Conv2D(8, 3, groups=2)(x), "convolution"),
    "pooled": (lambda x: L.MaxPooling2D(2)(L.Conv2D(5, 3, padding="same")(x)), "convolution"),
    "before": (lambda x: L.Conv2D(5, 1)(L.Activation("relu")(L.Rescaling(2.0, 1.0)(x))), "convolution"),
    "beside": (lambda x: L.Add()([L.Conv2D(20, 1)(L.Conv2D(3, 1)(x)), x]), "convolution"),
    "dense": (lambda x: L.Dense(7)(x), "convolution"),
    "transposed": (lambda x: L.Conv2DTranspose(3, 3, strides=2)(x), "data gradient"),
    "windows": (lambda x: L.MaxPooling2D(3, strides=1, padding="same")(x), "pooling"),
    "means": (lambda x: L.AveragePooling2D(2)(L.Activation("tanh")(x)), "pooling"),
    "pointwise": (lambda x: L.Add()([x, L.Activation("tanh")(x)]), "pointwise"),
    "rows": (lambda x: L.Softmax()(x), "rows"),
    "sums": (lambda x: cl.ops.sum(x, axis=1), "sums"),
    "resized": (lambda x: L.UpSampling2D(2, interpolation="bilinear")(x), "resize"),
    "cropped": (lambda x: L.Cropping2D(1)(x), "movement"),
    "few channels": (lambda x: L.Conv2D(5, 3)(L.Rescaling(2.0, 1.0)(x)), "first convolution"),
    "depthwise": (lambda x: L.DepthwiseConv2D(3, strides=2)(L.Activation("relu")(x)), "direct convolution"),
    "normed": (lambda x: L.LayerNormalization()(x), "row norm"),
    "channels": (lambda x: L.Add()([x, L.BatchNormalization()(x)]), "channel tiles"),
}
"""What reads a part besides, and the form of its kernel."""


@pytest.mark.parametrize("channels", [20, 2])
@pytest.mark.parametrize("name", READERS)
def test_a_kernel_reads_a_part_where_it_lies(name: str, channels: int) -> None:
    branch, form = READERS[name]
    if name == "beside" and channels != 20:
        pytest.skip("a sum is of 20 channels")
    x = cl.Input((6, 4, 3))
    part = L.Conv2D(channels, 1, name="part")(x)
    whole = L.Concatenate()([L.Conv2D(4, 1)(x), part])
    graph = cl.Model(x, [L.Conv2D(2, 1)(whole), branch(part)]).to_graph()
    run_pipeline(graph, INFERENCE)
    partition = fuse(graph)
    write_into_slices(partition)
    readers = [r for r in partition.kernels if any(n.name in r.pitches for n in r.inputs)]
    assert readers
    if form == "first convolution" and channels > 4:
        form = "convolution"
    for reader in readers:
        found = [each.name for each in forms_taking(reader)]
        assert form in found
        for each in found:
            check_reader(reader, channels, each)


def check_reader(region: Region, channels: int, form: str) -> None:
    module = emit(region, form=form).load(interpreted=True)
    inputs, outputs = module.example(batch=3), module.results(batch=3)
    expected = module.reference(*inputs)
    for place, node in enumerate(region.inputs):
        if pitch := region.pitches.get(node.name):
            assert (pitch, node.type.channels) == (channels + 4, channels)
            wide = torch.full((*inputs[place].shape[:-1], pitch), float("nan"))
            wide[..., 4:] = inputs[place]
            inputs[place] = wide[..., 4:]
    module.launch(*inputs, *outputs)
    for found, wanted in zip(outputs, expected, strict=True):
        most = float(wanted.abs().max())
        torch.testing.assert_close(found.double(), wanted, rtol=0, atol=module.TOLERANCE * most)


def test_readers_of_every_form_that_steps_over_rows_are_tested() -> None:
    """Those of the backward pass and of whole networks are below."""
    stepping = {form.name for form in FORMS if form.reads_rows is not None and form.reads_rows != range(0)}
    assert stepping - {form for _, form in READERS.values()} == {
        "pooling gradient",
        "channel sums",
        "direct data gradient",
        "row norm gradient",
        "weight gradient",
    }


SAME = ((1, 1), (1, 1))
WEIGHT_GRADIENTS: dict[str, tuple[Op, tuple[int, ...], tuple[int, ...]]] = {
    "taps of few channels": (Conv2DWeightGrad((1, 1), SAME, kernel_size=(3, 3)), (6, 5, 5), (6, 5, 9)),
    "one tap a tile": (Conv2DWeightGrad((2, 1), kernel_size=(3, 2)), (7, 6, 32), (3, 5, 17)),
    "a single tap": (Conv2DWeightGrad((2, 2), kernel_size=(1, 1)), (7, 5, 17), (4, 3, 20)),
    "a matrix product": (Conv2DWeightGrad(kernel_size=(1, 1)), (5, 4, 17), (5, 4, 20)),
    "groups": (Conv2DWeightGrad(groups=2, kernel_size=(2, 2)), (5, 4, 40), (4, 3, 34)),
    "dense": (DenseWeightGrad(), (4, 33), (4, 17)),
}


@pytest.mark.parametrize("name", WEIGHT_GRADIENTS)
def test_a_weight_gradient_reads_parts_where_they_lie(name: str) -> None:
    """Of x, of dy, and of both; the rows are 4 channels wider, and what is beside the parts is no number."""
    op, of_x, of_dy = WEIGHT_GRADIENTS[name]
    axes = tuple(range(len(of_dy)))
    steps = [("dw", op, ["x", "dy"]), ("db", Reduce(axes), ["dy"])]
    for parts in (("x",), ("dy",), ("x", "dy")):
        nodes = [image("x", *of_x), image("dy", *of_dy)]
        given = region([*nodes, *steps], ["dw", "db"], "dw", "backward")
        for part in parts:
            given.pitches[part] = given.graph[part].type.channels + 4
        assert [form.name for form in forms_taking(given)] == ["weight gradient"]
        module = emit(given).load(interpreted=True)
        inputs, outputs = module.example(batch=3), module.results(batch=3)
        expected = module.reference(*inputs)
        for place, node in enumerate(given.inputs):
            if node.name in parts:
                wide = torch.full((*inputs[place].shape[:-1], node.type.channels + 4), float("nan"))
                wide[..., 4:] = inputs[place]
                inputs[place] = wide[..., 4:]
        module.launch(*inputs, *outputs)
        for found, wanted in zip(outputs, expected, strict=True):
            most = float(wanted.abs().max())
            torch.testing.assert_close(found.double(), wanted, rtol=0, atol=module.TOLERANCE * most)


def dense_block(training: bool) -> cl.Model:
    """Each layer reads all before it, through a normalization in training."""
    x = cl.Input((6, 5, 3))
    h = L.MaxPooling2D(2)(L.Conv2D(6, 3, padding="same", activation="relu")(x))
    for _ in range(3):
        branch = L.ReLU()(L.BatchNormalization()(h) if training else h)
        h = L.Concatenate()([h, L.Conv2D(4, 3, padding="same", use_bias=False)(branch)])
    skip = L.MaxPooling2D(2, strides=1, padding="same")(h)
    both = L.Concatenate()([L.Activation("tanh")(h), L.AveragePooling2D(3, 1, padding="same")(skip), skip])
    return cl.Model(x, L.Dense(4)(L.GlobalAveragePooling2D()(both)))


@pytest.mark.parametrize("training", [False, True])
def test_concatenations_of_concatenations(training: bool) -> None:
    model, images, found = dense_block(training), torch.randn(2, 6, 5, 3), []
    for backend in ("aten", "triton"):
        net = cl.compile(model, backend=backend, device="cpu").train(training)
        given = images.clone().requires_grad_()
        y = net(given)
        y.square().sum().backward()
        found.append([y, given.grad, *(p.grad for p in net.parameters())])
        net.zero_grad()
        whole = [r for r in net.program.partition if isinstance(r.anchor.op, Concat) and r.phase == "forward"]
        assert [region.joined for region in whole] == [True] * 4
        if training:  # what a concatenation's gradient is cut into
            cut = [r for r in net.program.partition if isinstance(r.anchor.op, Slice)]
            assert [region.joined for region in cut] == [True] * 9
    for a, b in zip(*found, strict=True):
        torch.testing.assert_close(a, b, rtol=0, atol=2e-5 * float(a.detach().abs().max()))


def refused(x: Any, out: Any) -> list[str]:
    """Why a concatenation is still a kernel."""
    graph = cl.Model(x, out).to_graph()
    run_pipeline(graph, INFERENCE)
    partition = fuse(graph)
    write_into_slices(partition)
    assert not any(region.joined for region in partition)
    return [decision.reason for decision in partition.decisions if decision.rule == EQUATION]


def test_what_stays_a_kernel_says_why() -> None:
    x = cl.Input((6, 4, 3), name="image")
    left, right = L.Conv2D(4, 1, name="left")(x), L.Conv2D(4, 1)(x)
    assert refused(x, L.Concatenate(axis=1, name="both")([left, right])) == ["both is not along the channels"]
    assert refused(x, L.Concatenate()([left, left])) == ["left is there twice"]
    assert refused(x, [L.Concatenate()([left, right]), L.Dense(2)(L.Flatten()(left))]) == [
        "left is seen as flatten"
    ]
    assert refused(x, L.Concatenate()([left, x])) == ["image is not computed by a kernel"]
    assert refused(x, [L.Concatenate()([left, right]), left]) == ["left is an output of the network"]
    flat = L.Concatenate()([L.Flatten()(left), L.GlobalAveragePooling2D(name="mean")(right)])
    assert refused(x, flat) == ["flatten is a view of left"]


# -- slices ----------
def split(make: Branch, *readers: Branch) -> Partition:
    """A value whose first and last channels the readers take."""
    x = cl.Input((6, 4, 3), name="image")
    h = make(x)
    parts = [h[..., :2], h[..., 2:]]
    out = [reader(part) for reader, part in zip(readers, parts, strict=True)]
    graph = cl.Model(x, out).to_graph()
    run_pipeline(graph, INFERENCE)
    partition = fuse(graph)
    write_into_slices(partition)
    return partition


def reasons(partition: Partition) -> list[str]:
    return [decision.reason for decision in partition.decisions if decision.rule == CUT]


def test_what_is_cut_is_read_where_it_lies() -> None:
    both = split(lambda x: L.Conv2D(7, 1)(x), lambda x: L.Conv2D(2, 3)(x), lambda x: L.Activation("tanh")(x))
    assert reasons(both) == ["", ""]
    assert [region.anchor.op.op_name() for region in both.kernels] == ["conv2d", "conv2d", "tanh"]
    assert [pitch for kernel in both.kernels for pitch in kernel.pitches.values()] == [7, 7]


def test_what_is_cut_by_a_kernel_says_why() -> None:
    conv, tanh = lambda x: L.Conv2D(7, 1, name="conv")(x), lambda x: L.Activation("tanh")(x)
    assert reasons(split(lambda x: x, conv, tanh)) == ["image is not computed by a kernel"] * 2
    assert reasons(split(conv, lambda x: L.Dense(2)(L.Flatten()(x)), tanh)) == [
        "get_item is seen as flatten",
        "",
    ]
    assert reasons(split(conv, lambda x: x, tanh)) == ["get_item is an output of the network", ""]
    whole = split(lambda x: L.Flatten()(L.Conv2D(7, 1)(x)), lambda x: L.Dense(2)(x), tanh)
    assert reasons(whole) == ["flatten is not computed by a kernel"] * 2


@pytest.mark.parametrize("training", [False, True])
def test_networks_that_split_channels_on_both_backends(training: bool) -> None:
    """Halves that go two ways and meet again, as in ShuffleNet, and a whole that is read beside them."""
    x = cl.Input((6, 5, 3))
    h = L.Conv2D(9, 3, padding="same", activation="relu")(x)
    left, right = h[..., :4], h[..., 4:]
    left = L.BatchNormalization()(L.Conv2D(5, 3, padding="same", use_bias=False)(left))
    h = L.Add()([L.Concatenate()([L.Conv2D(4, 1)(right), left]), h])
    h = L.LayerNormalization()(h)
    model = cl.Model(x, L.Dense(4)(L.GlobalAveragePooling2D()(h)))
    images, found = torch.randn(2, 6, 5, 3), []
    for backend in ("aten", "triton"):
        net = cl.compile(model, backend=backend, device="cpu").train(training)
        given = images.clone().requires_grad_()
        y = net(given)
        y.square().sum().backward()
        found.append([y, given.grad, *(p.grad for p in net.parameters())])
        net.zero_grad()
        assert any(r.joined for r in net.program.partition if isinstance(r.anchor.op, Slice))
    for a, b in zip(*found, strict=True):
        torch.testing.assert_close(a, b, rtol=0, atol=2e-5 * float(a.detach().abs().max()) + 1e-7)
