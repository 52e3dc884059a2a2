"""The worked numbers of the lectures on convolutional networks, on every backend."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path

import pytest
import torch
from convloom.graph import ops
from convloom.graph.ir import Graph
from convloom.graph.types import BATCH, TensorType
from convloom.graph.windows import output_size
from graphs import Builder, GraphModel
from helpers import evaluate

NUMBERS = json.loads((Path(__file__).parent / "data" / "lecture_numbers.json").read_text())
Rows = Sequence[Sequence[float]]
Run = Callable[[Graph, Mapping[str, torch.Tensor], torch.Tensor], torch.Tensor]


@pytest.fixture(params=["reference", "aten", "triton"])
def run(request: pytest.FixtureRequest) -> Run:
    """Runs a network of one input `image` and one output; triton on the CPU is its interpreter."""
    backend: str = request.param

    def by_reference(graph: Graph, weights: Mapping[str, torch.Tensor], x: torch.Tensor) -> torch.Tensor:
        return evaluate(graph, weights, {"image": x})["out"]

    def compiled(graph: Graph, weights: Mapping[str, torch.Tensor], x: torch.Tensor) -> torch.Tensor:
        from convloom.runtime.compile import compile as compile_model

        network = compile_model(GraphModel(graph, dict(weights)), device="cpu", backend=backend)
        with torch.no_grad():
            found: torch.Tensor = network(x)
        return found

    return by_reference if backend == "reference" else compiled


def picture(rows: Rows) -> torch.Tensor:
    """One picture of one channel: (1, height, width, 1)."""
    return torch.tensor(rows, dtype=torch.float32)[None, :, :, None]


def correlate(run: Run, image: Rows, kernel: Rows) -> torch.Tensor:
    """The cross-correlation of a picture with a filter, (height, width)."""
    weights = torch.tensor(kernel, dtype=torch.float32)[:, :, None, None]
    b = Builder()
    x = b.input(len(image), len(image[0]), 1)
    size = (len(kernel), len(kernel[0]))
    graph = b.finish(b.conv(x, 1, size, padding="valid", bias=False, name="filter"))
    return run(graph, {"filter/kernel": weights}, picture(image))[0, :, :, 0]


def pool(run: Run, image: Rows) -> list[list[float]]:
    b = Builder()
    graph = b.finish(b.op(ops.MaxPool2D(), b.input(len(image), len(image[0]), 1)))
    rows: list[list[float]] = run(graph, {}, picture(image))[0, :, :, 0].tolist()
    return rows


def test_cross_correlation(run: Run) -> None:
    image = [[2, -3, 0, 2, -1], [0, 1, 4, 0, 1], [2, -2, 7, 3, 0], [-1, 0, 1, 0, 4]]
    found = correlate(run, image, [[1, -1], [2, -3]])
    assert found.tolist() == [[2, -13, 6, 0], [9, -28, 9, 5], [2, -12, 6, -9]]


def test_max_pooling_of_the_first_sixteen_numbers(run: Run) -> None:
    assert pool(run, [[4 * row + column for column in range(4)] for row in range(4)]) == [[5, 7], [13, 15]]


def test_max_pooling_of_six_by_six(run: Run) -> None:
    image = [
        [5, -2, 1, 0, 2, 4],
        [2, 3, 0, 3, 4, 2],
        [5, 7, 7, 4, 3, 4],
        [0, 4, 9, 0, 2, 3],
        [1, 3, 5, 2, 6, 2],
        [2, 2, 4, 3, 8, 0],
    ]
    assert pool(run, image) == [[5, 3, 4], [7, 9, 4], [3, 5, 8]]


def test_feature_detector(run: Run) -> None:
    numbers = NUMBERS["feature_detector"]
    assert correlate(run, numbers["image_7x7"], numbers["filter_3x3"]).tolist() == numbers["output_5x5"]


def test_corner_filter(run: Run) -> None:
    """The table was printed from unrounded pixels; the rounded picture gives it within 0.1."""
    numbers = NUMBERS["corner_filter"]
    found = correlate(run, numbers["image_12x12"], numbers["filter_5x5"])
    difference = (found - torch.tensor(numbers["output_8x8"])).abs().max()
    assert difference <= 0.1
    assert divmod(int(found.argmax()), 8) == (5, 2)  # the corner itself


@pytest.mark.parametrize("n", [1, 2, 5, 6, 7, 28, 224])
@pytest.mark.parametrize("f", [1, 2, 3, 5, 7])
def test_output_size(n: int, f: int) -> None:
    """floor((n + 2p - f) / s + 1), for the formula, the op's type and the op's value alike."""
    for p in (0, 1, 2, 3):
        for s in (1, 2, 3, 4):
            if n + 2 * p < f:
                continue
            expected = int((n + 2 * p - f) / s + 1)
            assert output_size(n, f, s, (p, p)) == expected
            conv = ops.Conv2D((s, 1), ((p, p), (0, 0)))
            kind = conv.infer(TensorType((BATCH, n, 1, 1)), TensorType((f, 1, 1, 2)))
            assert kind.shape == (BATCH, expected, 1, 2)
            value = conv.reference(torch.zeros(1, n, 1, 1), torch.zeros(f, 1, 1, 2))
            assert value.shape == (1, expected, 1, 2)


@pytest.mark.parametrize(("n", "p", "f", "s"), [(5, 0, 2, 1), (6, 1, 3, 2), (7, 2, 5, 3), (4, 3, 3, 4)])
def test_output_size_when_it_runs(run: Run, n: int, p: int, f: int, s: int) -> None:
    b = Builder()
    x = b.input(n, n + 1, 1)
    graph = b.finish(b.conv(x, 1, (f, f), (s, s), ((p, p), (p, p)), bias=False, name="c"))
    found = run(graph, {"c/kernel": torch.ones(f, f, 1, 1)}, torch.ones(1, n, n + 1, 1))
    assert found.shape == (1, (n + 2 * p - f) // s + 1, (n + 1 + 2 * p - f) // s + 1, 1)
    assert found.max() == f * f  # some window lies inside the picture


def test_parameters_of_a_dense_network() -> None:
    b = Builder()
    h = b.op(ops.Relu(), b.dense(b.input(3072), 1000))
    graph = b.finish(b.dense(h, 10))
    assert sum(node.type.elements() for node in graph.sources(ops.Parameter)) == 3_083_010
