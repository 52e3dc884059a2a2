"""Keys of regions: equal for what computes the same, whatever it is called, and for nothing else."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from convloom.codegen import Kernel, NotEmittable, emit
from convloom.codegen import kernels as emitted
from convloom.graph import ops
from convloom.graph.ir import Graph
from convloom.graph.op import Op
from convloom.planning.fusion import fuse
from convloom.planning.program import plan
from convloom.planning.regions import Region
from graphs import Builder, lenet, random_networks, residual_block
from hypothesis import given, settings
from partitions import inference, training


def block(
    name: str = "conv",
    *,
    filters: int = 4,
    kernel: tuple[int, int] = (3, 3),
    strides: tuple[int, int] = (1, 1),
    activation: Op | None = None,
    residual: bool = True,
    swapped: bool = False,
    dtype: str = "float32",
    kept: bool = False,
) -> Region:
    """conv + residual + activation as one region, whose values are called after `name`."""
    b = Builder(name)
    x = b.graph.add(ops.Input(("N", 6, 5, 3), dtype), name=f"{name}/x")
    weight = b.graph.add(ops.Parameter((*kernel, 3, filters), dtype), name=f"{name}/kernel")
    padding = ((1, kernel[0] - 2), (1, kernel[1] - 2))
    h = b.op(ops.Conv2D(strides, padding), x, weight, name=name)
    if residual:
        other = b.graph.add(ops.Input(b.graph[h].type.shape, dtype), name=f"{name}/other")
        h = b.op(ops.Add(), *((other, h) if swapped else (h, other)), name=f"{name}/add")
    last = b.op(activation or ops.Relu(), h, name=f"{name}/act")
    region = next(r for r in fuse(b.finish(last)).kernels if r.anchor.name == name)
    if kept:  # by a kernel behind, as what the backward pass reads is
        b.graph.add(ops.Softmax(), [h], f"{name}/behind", phase="backward")
        region = Region(b.graph, region.anchor, region.nodes, region.name)
    return region


DIFFERENT: dict[str, Callable[[], Region]] = {
    "as it is": block,
    "filters": lambda: block(filters=5),
    "kernel": lambda: block(kernel=(2, 3)),
    "strides": lambda: block(strides=(2, 1)),
    "activation": lambda: block(activation=ops.Tanh()),
    "an attribute": lambda: block(activation=ops.LeakyRelu(0.25)),
    "the attribute's value": lambda: block(activation=ops.LeakyRelu(0.5)),
    "members": lambda: block(residual=False),
    "wiring": lambda: block(swapped=True),
    "dtype": lambda: block(dtype="float16"),
    "stored": lambda: block(kept=True),
}


def test_names_do_not_count_and_all_else_does() -> None:
    keys = {what: make().key for what, make in DIFFERENT.items()}
    assert len(set(keys.values())) == len(keys)
    assert block("other", residual=True).key == block().key
    assert all(len(key) == 32 and int(key, 16) >= 0 for key in keys.values())


def test_an_operand_known_beforehand_counts_and_a_seed_does_not() -> None:
    def masked(source: Op) -> str:
        b = Builder()
        mask = b.op(source, name="mask")
        graph = b.finish(b.op(ops.Multiply(), b.input(5, name="x"), mask, name="y"))
        return fuse(graph).kernels[0].key

    drawn = [ops.Random(("N", 5), "bernoulli", (0.5, 2.0), seed=seed) for seed in (None, 1, 2)]
    assert len({masked(op) for op in drawn}) == 1
    assert masked(ops.Random(("N", 5), "bernoulli", (0.25, 2.0))) != masked(drawn[0])
    constants = {masked(ops.Constant((5,), value)) for value in (1.0, 2.0)}
    assert len(constants) == 2


def test_forward_and_backward_have_kernels_of_their_own() -> None:
    """Their results are called otherwise, "y" and "dx"."""
    b = Builder()
    x = b.input(5)
    graph = b.finish(b.op(ops.Relu(), x, name="one"))
    graph.outputs["two"] = graph.add(ops.Relu(), [x], "two", phase="backward")
    one, two = fuse(graph).kernels
    assert one.key != two.key


def test_the_layers_of_a_repeated_block_share_a_key() -> None:
    b = Builder()
    h = b.input(6, 6, 4)
    for _ in range(5):
        h = b.op(ops.Relu(), b.conv(h, 4))
    keys = [region.key for region in fuse(b.finish(h)).kernels]
    assert len(keys) == 5
    assert len(set(keys)) == 1


def test_a_key_is_the_same_in_another_process() -> None:
    script = (
        "import sys; sys.path.insert(0, sys.argv[1])\n"
        "from test_region_keys import DIFFERENT\n"
        "print(*(make().key for make in DIFFERENT.values()))"
    )
    command = [sys.executable, "-c", script, str(Path(__file__).parent)]
    found = subprocess.run(command, capture_output=True, text=True, check=True).stdout.split()
    assert found == [make().key for make in DIFFERENT.values()]


# -- one key, one text ----------
def texts(graphs: list[Graph]) -> Iterator[tuple[str, str]]:
    """(key, the code that is emitted) of every kernel."""
    for graph in graphs:
        for region in fuse(graph).kernels:
            try:
                yield region.key, emit(region).code
            except NotEmittable as error:
                yield region.key, type(error).__name__


def check_texts(*graphs: Graph) -> None:
    known: dict[str, str] = {}
    for key, text in texts(list(graphs)):
        assert known.setdefault(key, text) == text


@pytest.mark.parametrize("make", [lenet, residual_block])
def test_equal_keys_are_equal_texts(make: Callable[[], Graph]) -> None:
    check_texts(inference(make()), training(make()), inference(make()))


@settings(max_examples=25, deadline=None, derandomize=True)
@given(random_networks(), random_networks())
def test_equal_keys_are_equal_texts_in_random_networks(one: Graph, two: Graph) -> None:
    check_texts(inference(one), training(one), training(two))


def test_equal_regions_of_a_program_are_loaded_once() -> None:
    b = Builder()
    h = b.input(4, 4, 4)
    for _ in range(3):
        h = b.op(ops.Relu(), b.conv(h, 4))
    program = plan(b.finish(b.dense(h, 2)))
    found = [kernel for kernel in emitted(program) if isinstance(kernel, Kernel)]
    assert [kernel.name for kernel in found] == ["conv2d_relu", "conv2d_relu_2", "conv2d_relu_3", "dense"]
    modules = [kernel.load(interpreted=True) for kernel in found]
    assert modules[0] is modules[1] is modules[2] is not modules[3]
    assert len({kernel.source for kernel in found}) == 4  # each file names its own layers


def test_steps_say_form_schedule_and_why_there_is_none() -> None:
    b = Builder()
    penalty = b.op(ops.SizePenalty(0.1, 0.1), b.weight(3, 4, name="w"), name="penalty")
    scaled = b.op(ops.Multiply(), b.op(ops.Softmax(), b.input(40), name="softmax"), penalty, name="scaled")
    program = plan(b.finish(b.op(ops.Reshape((4, 10)), scaled, name="view")))
    told = {step.region.name: (step.form, str(step.schedule), step.reason) for step in program.steps}
    assert told["softmax"] == ("rows", "32x64, 4 warps, 2 stages", "")
    assert told["reshape"] == (None, "None", "")
    assert "softmax: rows [32x64, 4 warps, 2 stages]" in str(program)
