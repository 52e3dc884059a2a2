"""One kernel for one text: regions that are equal but for names share what is loaded and compiled."""

from __future__ import annotations

import large
import pytest
from convloom.codegen import Kernel, emit
from convloom.codegen import kernels as emitted
from convloom.codegen.text.jit_function import JitFunction
from convloom.codegen.text.source import one_line
from convloom.graph import ops
from convloom.graph.ir import Graph
from convloom.planning.regions import Region

import convloom as cl


def relu(*layers: str, channels: int = 5) -> Kernel:
    """A chain of activations as one kernel, each from a layer of its own."""
    graph = Graph()
    node = graph.add(ops.Input(("N", 9, channels)), (), "x")
    names = []
    for layer in layers:
        node = graph.add(ops.Relu(), (node,), f"{layer}/y", layer=layer)
        names.append(node)
    graph.outputs["y"] = node
    nodes = [graph[name] for name in names]
    return emit(Region(graph, nodes[0], nodes, "relu_7"))


def sums(rows: int, channels: int) -> Kernel:
    graph = Graph()
    x = graph.add(ops.Input(("N", rows, 6, channels)), (), "x")
    y = graph.add(ops.Reduce((0, 1, 2)), (x,), "y")
    graph.outputs["y"] = y
    return emit(Region(graph, graph[y], [graph[y]], "reduce"))


def test_the_training_step_of_resnet50_compiles_a_third_of_its_functions() -> None:
    """Of 548 functions 185 differ."""
    net = cl.compile(large.resnet50(), dtype="bfloat16", device="cpu").train()
    step = net.with_loss("categorical_crossentropy").compiled
    found = [k for k in emitted(step.planned(training=True, target="sm_90")) if isinstance(k, Kernel)]
    keys = {key for kernel in found for key in kernel.functions.values()}
    names = {name for kernel in found for name in kernel.functions}
    assert len(found) == len(step.planned(training=True, target="sm_90").partition.kernels)
    assert len(keys) == len(names) <= 190
    assert sum(kernel.launches for kernel in found) > 2.5 * len(keys)
    assert len({kernel.code for kernel in found}) == len({kernel.region.key for kernel in found}) <= 170


def test_names_of_layers_and_numbers_of_regions_change_one_line() -> None:
    one, two = relu("short"), relu("another_layer")
    assert one.code == two.code
    assert one.functions == two.functions
    assert one.name == "relu_7"
    differing = [
        pair
        for pair in zip(one.source.splitlines(), two.source.splitlines(), strict=True)
        if len(set(pair)) > 1
    ]
    assert differing == [("From the layers: short", "From the layers: another_layer")]
    assert one.load(interpreted=True) is two.load(interpreted=True)


def test_what_differs_has_another_name() -> None:
    kernels = [relu("a"), relu("a", "b"), relu("a", channels=6)]
    assert len({kernel.function for kernel in kernels}) == 3
    assert [kernel.function[:-6] for kernel in kernels] == ["relu_kernel_"] * 3


def test_layers_that_have_no_room_stand_at_the_end() -> None:
    layers = [f"block{number}/activation" for number in range(12)]
    kernel, one = relu(*layers), relu(*(f"b{number}" for number in range(12)))
    head, _, end = kernel.source.partition("\n# From the layers:\n")
    told = [line for line in head.splitlines() if line.startswith("From the layers:")]
    assert told == [one_line("From the layers: ", layers)]
    assert told[0].endswith("block1/activation and 10 more, at the end of this file")
    assert "From the layers: b0, b1, b2," in one.source
    assert end.replace("\n", "").replace("#", "").split() == [*(f"{n}," for n in layers[:-1]), layers[-1]]
    assert max(map(len, kernel.source.splitlines())) <= 100
    starts = {text.source.splitlines().index("import triton") for text in (kernel, one)}
    assert len(starts) == 1


def test_a_function_of_two_files_is_loaded_once() -> None:
    """Both sums end in the same function; what comes before differs."""
    few, many = sums(5, 8), sums(50, 8)
    (first, finish), (second, same) = few.functions, many.functions
    assert first != second
    assert finish == same
    modules = [kernel.load(interpreted=False) for kernel in (few, many)]
    assert getattr(modules[0], finish) is getattr(modules[1], finish)
    assert getattr(modules[0], first) is not getattr(modules[1], second)


def test_a_name_is_given_when_all_is_written() -> None:
    kernel = relu("a")
    function = JitFunction("f", [("x_ptr", "float32")])
    name = function.name
    function.body.line("x = tl.load(x_ptr)")
    assert function.digest() != function.key
    assert function.name == name
    assert kernel.functions[kernel.function].startswith(kernel.function[-6:])


@pytest.mark.parametrize("name", ["x" * 300, 'ü"' * 90])
def test_a_name_longer_than_a_line_is_cut(name: str) -> None:
    line = one_line("From the layers: ", [name])
    assert len(line) <= 100
    assert line.endswith("..., all at the end of this file")
    assert compile(f'"""{line}"""', "text", "exec")
