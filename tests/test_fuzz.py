"""Random networks agree with their ops' definitions in every way they run; the fuzz finds what is wrong."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable
from typing import Any

import pytest
import torch
from contraction_graphs import convolution, only_region
from convloom.codegen.dispatch import emit
from convloom.graph import ops
from convloom.graph.gradients import GradientBuilder
from convloom.graph.ir import Graph, Node
from fuzz import SMALL, report
from fuzz_check import ATEN, TRITON, Way, check
from fuzz_draw import LAYERS, MERGES, draw_recipe
from fuzz_fences import StoredOutside, fenced
from fuzz_recipes import Recipe, Step
from fuzz_shrink import shrink
from fuzz_walk import Expected, Question, Values

import convloom as cl
from convloom import layers as L

FUSED, UNFUSED, DOUBLE = ATEN
TURNS = (FUSED, UNFUSED, FUSED, DOUBLE)
"""One after the other, for time's sake: all are held to the same. `make fuzz` turns no way down."""

CHUNK = 30


@pytest.mark.parametrize("first", range(0, 270, CHUNK))
def test_networks_agree_with_float64(first: int) -> None:
    told(range(first, first + CHUNK), {seed: (TURNS[seed % 4],) for seed in range(first, first + CHUNK)})


@pytest.mark.parametrize("first", range(0, 12, 4))
def test_networks_agree_in_the_interpreter(first: int) -> None:
    told(range(first, first + 4), dict.fromkeys(range(first, first + 4), TRITON), small=True)


def told(seeds: range, ways: dict[int, tuple[Way, ...]], small: bool = False) -> None:
    """Fails with the smallest network that does."""
    undecided = 0
    for seed in seeds:
        verdict, text = report(seed, ways[seed], small)
        assert not text, text
        undecided += not verdict.decided
    assert undecided <= max(2, len(seeds) // 10)


# -- that it sees --------------------------------------------------------------------------------------------
def test_it_draws_every_layer() -> None:
    seen = Counter(step.kind for seed in range(500) for step in draw_recipe(seed).steps)
    assert {row[0] for row in (*LAYERS, *MERGES)} <= seen.keys()


def first_failure(most: int, way: Way) -> tuple[int, str]:
    for seed in range(most):
        verdict, text = report(seed, (way,), small=False, seconds=20.0)
        if verdict.failure:
            return seed, text
    raise AssertionError(f"{most} networks, and none fails")


def test_a_wrong_gradient_is_found_and_made_small(monkeypatch: pytest.MonkeyPatch) -> None:
    """Wrong by a ten-thousandth."""
    right = ops.BatchNormGrad.reference
    monkeypatch.setattr(ops.BatchNorm, "gradient", _off(ops.BatchNorm.gradient))
    seed, text = first_failure(40, UNFUSED)
    assert f"seed {seed}: aten, unfused, float32; eval: gradient of" in text
    assert "BatchNormalization" in text
    assert text.count("= L.") == 1, text
    assert ops.BatchNormGrad.reference is right


def _off(gradient: Callable[..., Any]) -> Callable[..., Any]:
    def wrong(self: ops.BatchNorm, build: GradientBuilder, node: Node, dy: str) -> Any:
        return gradient(self, build, node, build.add(ops.Scale(1.0001), dy))

    return wrong


def test_a_stale_fold_is_found(monkeypatch: pytest.MonkeyPatch) -> None:
    from convloom.runtime.prelude import Prelude

    right = Prelude._compute
    monkeypatch.setattr(Prelude, "_compute", lambda self, p, changed: self.values or right(self, p, changed))
    _, text = first_failure(60, FUSED)
    assert "after a step: output" in text or "after load_state_dict: output" in text


def test_a_wrong_update_is_found(monkeypatch: pytest.MonkeyPatch) -> None:
    from convloom.runtime.executor import Executor

    monkeypatch.setattr(Executor, "_write_back", lambda *_: None)
    _, text = first_failure(60, FUSED)
    assert "train: moved" in text


def test_a_store_beside_an_output_is_found() -> None:
    graph, y = convolution((5, 4), 3, 4, (1, 1))
    kernel = emit(only_region(graph, y=y))
    assert "row_ok = row < rows" in kernel.code
    kernel.code = kernel.code.replace("row_ok = row < rows", "row_ok = row < rows + 1")
    kernel.functions = {name: f"{key} broken" for name, key in kernel.functions.items()}
    with fenced():
        module = kernel.load(interpreted=True)
    with pytest.raises(StoredOutside, match="conv2d has stored values beside its output conv2d"):
        module.launch(*module.example(1), *module.results(1))


def difference(a: torch.Tensor, b: torch.Tensor) -> Expected:
    """Of relu(a - b) and its gradients."""
    graph = Graph()
    one, other = (graph.add(ops.Input(("N", 3), "float64"), name=name) for name in "ab")
    graph.outputs = {"y": graph.add(ops.Relu(), [graph.add(ops.Subtract(), [one, other])])}
    values: Values = {"a": a.double(), "b": b.double()}
    return Expected(Question(graph, values, False, {"y": torch.ones(1, 3).double()}), 1, 0)


def test_rounding_decides_at_a_kink_alone() -> None:
    a = torch.tensor([[1.0, 0.5, -2.0]])
    near, clear, tie = (difference(a, a - step) for step in (1e-7, 1e-3, 0.0))
    assert near.undecided() == ["gradient of a", "gradient of b"]
    assert tie.undecided() == ["gradient of a", "gradient of b"]
    assert clear.undecided() == []
    # a - b keeps four of its seven digits
    assert 1e-7 < clear.tolerance("output y", torch.float32) < 1e-5
    assert clear.tolerance("output y", torch.float64) < 1e-14
    right = clear.exact.values
    assert clear.differences(right, torch.float32) == {}
    assert list(
        clear.differences(right | {"gradient of a": 1.0001 * right["gradient of a"]}, torch.float32)
    ) == ["gradient of a"]
    assert list(clear.differences(right | {"output y": right["output y"] * float("nan")}, torch.float32)) == [
        "output y"
    ]


# -- recipes -------------------------------------------------------------------------------------------------
@pytest.mark.parametrize("seed", range(20))
def test_the_text_of_a_recipe_builds_its_network(seed: int) -> None:
    recipe = draw_recipe(seed)
    assert recipe == draw_recipe(seed)
    assert recipe == recipe.pruned()
    names: dict[str, object] = {"cl": cl, "L": L}
    exec(str(recipe), names)
    written, built = (model.to_graph() for model in (names["model"], recipe.build()))  # type: ignore[attr-defined]
    assert [node.op for node in written.nodes()] == [node.op for node in built.nodes()]
    assert len(written.outputs) == len(built.outputs)


def test_a_shared_layer_stays_shared_when_its_first_call_goes() -> None:
    relu = Step("ReLU", (0,))
    calls = (relu, Step("ReLU", (1,), again=0), Step("ReLU", (0,), again=0), Step("Flatten", (3,)))
    recipe = Recipe(((3, 2),), calls, (3, 4)).pruned()
    assert [(step.kind, step.operands, step.again) for step in recipe.steps] == [
        ("ReLU", (0,), None),
        ("Flatten", (1,), None),
    ]
    recipe = Recipe(((3, 2),), calls, (2, 3)).pruned()
    assert [step.again for step in recipe.steps] == [None, 0, 0]


def test_shrinking_ends_at_what_fails() -> None:
    recipe = draw_recipe(6, most_steps=10)
    kinds = [step.kind for step in recipe.steps]
    wanted = kinds[len(kinds) // 2]
    least = shrink(
        recipe, lambda smaller: bool(smaller.build()) and wanted in [s.kind for s in smaller.steps]
    )
    assert [step.kind for step in least.steps] == [wanted]
    assert len(least.outputs) == 1
    assert least.batch == 1
    assert check(least, 0, ()).failure is None
    assert len(SMALL) == 2
