"""One formula an op: an op of one class is everywhere, and every formula means the same in each language."""

from __future__ import annotations

import ast
import inspect
import math
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any, ClassVar

import pytest
import torch
import torch.nn.functional as F
from aten_harness import lowered
from convloom.codegen import emit
from convloom.codegen.text import helpers
from convloom.codegen.text.printers import in_torch, mathematics, triton
from convloom.codegen.text.writer import Uses
from convloom.graph import functions, ops
from convloom.graph.errors import CompileError, ShapeError
from convloom.graph.formula import OPERATORS, Formula, Function, Name, evaluate, formula, where
from convloom.graph.functions import clamp, exp, tanh
from convloom.graph.gradients import differentiate
from convloom.graph.ir import Graph
from convloom.graph.op import REGISTRY, Op, Sample, op_from_json, op_to_json
from convloom.graph.passes import BACKWARD, run_pipeline
from convloom.graph.slopes import pull
from convloom.planning.fusion import fuse, leave_unfused
from kernel_checks import check, image, region, vector
from op_cases import CASES

NAMED = {row.name: row for row in vars(functions).values() if isinstance(row, Function)}


# -- an op added in one place --------------------------------------------------------------------------------
@pytest.fixture(scope="module", autouse=True)
def gate() -> Iterator[type[ops.Pointwise]]:
    """An op that ConvLoom does not have, defined by one class, and gone again after these tests."""

    @dataclass(frozen=True)
    class TestGate(ops.Pointwise):
        """x * tanh(width * exp(-x^2)), held within the bounds, where x > 0, else bound * x / width."""

        operands: ClassVar[tuple[str, ...]] = ("x", "width")
        title: ClassVar[str] = "gate of the tests"
        value_name: ClassVar[str] = "gated"
        examples: ClassVar[dict[str, Sample]] = {"width": "positive"}
        bound: float = 0.5

        def formula(self, x: Any, width: Any) -> Any:
            open_gate = clamp(x * tanh(width * exp(-x * x)), -self.bound, self.bound)
            return where(x > 0, open_gate, self.bound * x / width)

    yield TestGate
    del REGISTRY[TestGate.op_name()]


def by_hand(x: torch.Tensor, b: torch.Tensor, bound: float) -> torch.Tensor:
    return torch.where(x > 0, (x * torch.tanh(b * torch.exp(-x * x))).clamp(-bound, bound), bound * x / b)


def test_a_new_op_is_in_the_kernel_the_reference_and_the_header(gate: type[Any]) -> None:
    kernel = check(region([image("x", 7, 17), vector("v", 17), ("y", gate(0.25), ["x", "v"])]))
    text = "".join(kernel.source.split()).replace(",)", ")")  # wrapped lines as one
    inner = "x*tanh(width*tl.exp(-x*x))"
    assert f"tl.where({inner}<-0.25,-0.25,tl.where({inner}>0.25,0.25,{inner}))" in text
    assert "def tanh(x)" in kernel.source  # which the kernel calls
    assert "def sigmoid(x)" not in kernel.source
    assert "torch.clamp(x*torch.tanh(width*torch.exp(-x*x)),-0.25,0.25)" in text
    assert "y=(clamp(x*tanh(width*exp(-x*x)),-0.25,0.25)wherex>0,else0.25*x/width)" in text
    assert "Gate of the tests, element by element." in kernel.source
    assert "width = 0.5 + torch.rand((17,), generator=generator)" in kernel.source.replace("(0.5", "0.5")


def test_a_new_op_rides_in_the_kernel_of_a_product(gate: type[Any]) -> None:
    graph = Graph()
    x = graph.add(ops.Input(("N", 17)))
    w, b = graph.add(ops.Parameter((17, 5))), graph.add(ops.Parameter((5,)))
    y = graph.add(gate(), [graph.add(ops.Dense(), [x, w]), b])
    graph.outputs = {"y": graph.add(ops.Relu(), [y])}
    (alone,) = fuse(graph).kernels
    check(alone, length=17)
    assert "gated = tl.where(" in emit(alone).source
    assert "Matrix product, gate of the tests, ReLU: one kernel." in emit(alone).source


def test_a_new_op_runs_on_aten_and_is_kept_in_files(gate: type[Any]) -> None:
    x, b = torch.randn(3, 7, 17), torch.rand(17) + 0.5
    given = region([image("x", 7, 17), vector("v", 17), ("y", gate(0.25), ["x", "v"])])
    torch.testing.assert_close(lowered(given, inference=True)([x, b])[0], by_hand(x, b, 0.25))
    assert op_from_json(op_to_json(gate(0.25))) == gate(0.25)
    slope = ops.PointwiseGrad(gate(0.25), 1)
    assert op_from_json(op_to_json(slope)) == slope


def test_a_new_op_has_a_gradient_with_a_kernel(gate: type[Any]) -> None:
    """By autograd of the formula written by hand, on aten and in the emitted kernels."""
    graph = Graph()
    graph.add(ops.Input(("N", 5, 17)), name="x")
    graph.add(ops.Parameter((17,)), name="b")
    graph.outputs = {"y": graph.add(gate(), ["x", "b"], "y")}
    derivatives = differentiate(graph, wrt_inputs=True)
    graph.outputs.update({f"d_{name} out": node for name, node in derivatives.gradients.items()})
    run_pipeline(graph, BACKWARD)
    values = {"x": 2 * torch.randn(3, 5, 17), "b": torch.rand(17) + 0.5, "d_y": torch.randn(3, 5, 17)}
    x, b = (values[name].double().requires_grad_() for name in ("x", "b"))
    wanted = torch.autograd.grad(by_hand(x, b, 0.5), [x, b], values["d_y"].double())
    seen = dict(values)
    for part in leave_unfused(graph).kernels:
        given = [values[node.name] for node in part.inputs]
        for node, value in zip(part.outputs, lowered(part, inference=False)(given), strict=True):
            values[node.name] = value
        module = emit(part).load(interpreted=True)
        made = module.results(3)
        module.launch(*(seen[node.name] for node in part.inputs), *made)
        seen.update({node.name: value for node, value in zip(part.outputs, made, strict=True)})
    for name, gradient in zip(("x", "b"), wanted, strict=True):
        for found in (values, seen):
            value = found[derivatives.gradients[name]].double()
            torch.testing.assert_close(value, gradient, rtol=1e-5, atol=1e-5)
    titles = [emit(part).source for part in leave_unfused(graph).kernels]
    assert any("Derivative of gate of the tests" in title for title in titles)


def test_what_has_no_derivative_gets_none() -> None:
    """An operand that only a condition looks at."""
    x, y = Name("x"), Name("y")
    tree = where(x > y, 2.0 * y, 0.0)
    assert pull(tree, "x", Name("dy")) is None
    assert mathematics(formula(pull(tree, "y", Name("dy")))) == "(2 * dy where x > y, else 0)"
    with pytest.raises(CompileError, match="mystery has no derivative; give its row in"):
        pull(Function("mystery", "torch.exp")(x), "x", Name("dy"))


# -- every formula, in every language ------------------------------------------------------------------------
def operand_names(op: Op, count: int) -> list[Name]:
    return [Name(f"x{i}") for i in range(count)]


@pytest.mark.parametrize("case", [c for c in CASES if isinstance(c.op, ops.Pointwise)], ids=str)
def test_every_formula_is_printed_and_its_torch_text_is_its_meaning(case: Any) -> None:
    op = case.op
    graph = case.graph()
    given = {f"x{i}": case.values(graph, 2)[name] for i, name in enumerate(graph["y"].inputs)}
    names = [Name(name) for name in given]
    if op.counted:
        given["n"] = 7.0
        names = [*names[:1], Name("n")] if isinstance(op, ops.BroadcastTo) else [*names, Name("n")]
    tree = formula(op.formula(*names))
    triton(tree, Uses())
    mathematics(formula(op.mathematics(*[name for name in names if name.text != "n"])))
    text = in_torch(tree)
    found = eval(text, {"torch": torch, "F": F, **given})
    wanted = op.formula(*(given[name.text] for name in names))
    close = 1e-2 if isinstance(op, ops.Cast) else 1e-12  # the text stays in float64
    torch.testing.assert_close(found.double(), wanted.double(), rtol=close, atol=close, equal_nan=True)


def random_tree(generator: torch.Generator, depth: int) -> Formula:
    def draw(most: int) -> int:
        return int(torch.randint(most, (), generator=generator))

    if depth == 0:
        return formula((Name("x"), Name("y"), Name("x"), Name("y"), 2.5, -3)[draw(6)])
    symbol = ("+", "-", "*", "/")[draw(4)]
    if draw(5) == 0:
        return -random_tree(generator, depth - 1)
    if draw(5) == 0:
        condition = Name("x") > random_tree(generator, depth - 1)
        return where(condition, random_tree(generator, depth - 1), random_tree(generator, depth - 1))
    left, right = random_tree(generator, depth - 1), random_tree(generator, draw(depth))
    return OPERATORS[symbol](left, right)


@pytest.mark.parametrize("seed", range(60))
def test_brackets_stand_where_the_meaning_needs_them(seed: int) -> None:
    """Bit for bit: sums and products in the order of the tree."""
    tree = random_tree(torch.Generator().manual_seed(seed), 4)
    x, y = torch.randn(5, dtype=torch.float64), torch.randn(5, dtype=torch.float64)
    values = {"x": x, "y": y}
    wanted = torch.as_tensor(evaluate(tree, values))
    found = torch.as_tensor(eval(in_torch(tree), {"torch": torch, **values}))
    assert torch.equal(found.nan_to_num(7.0), wanted.to(found.dtype).nan_to_num(7.0))


def test_no_more_brackets_than_that() -> None:
    x, y, z = Name("x"), Name("y"), Name("z")
    assert in_torch(x - (y - z)) == "x - (y - z)"
    assert in_torch(x - y - z) == "x - y - z"
    assert in_torch(x / (y * z) * x) == "x / (y * z) * x"
    assert in_torch((x <= 0) | (x >= 1)) == "(x <= 0) | (x >= 1)"
    assert in_torch(-(x + y) * 2.0) == "-(x + y) * 2.0"
    assert triton(where(x > y, -x, 1.0), Uses()) == "tl.where(x > y, -x, 1.0)"
    assert mathematics(x + (y + z * z)) == "x + y + z^2"
    assert mathematics(x / (y * z)) == "x / (y * z)"  # once printed without its brackets
    assert mathematics(x * 2.0 + -1.0) == "x * 2 - 1"
    assert mathematics(Name("max over 2x2 of t", loose=True) * x) == "(max over 2x2 of t) * x"
    assert mathematics(x * 1 + 0) == "x"


# -- the functions -------------------------------------------------------------------------------------------
UNLIKE = ("not", "floor", "one_hot")
SLOPED = [name for name, row in NAMED.items() if (row.slope or row.definition) and name not in UNLIKE]


@pytest.mark.parametrize("name", SLOPED)
def test_slopes_of_functions_are_autograd_s(name: str) -> None:
    row = NAMED[name]
    positive = name in ("log", "log1p", "sqrt", "rsqrt")
    x = torch.linspace(0.1 if positive else -4.0, 4.3, 41, dtype=torch.float64).requires_grad_()
    more = {"clamp": (-1.0, 1.5), "threshold": (0.3, -2.0), "leaky_relu": (0.2,), "hard_sigmoid": (0.3, 0.4)}
    more |= {"at_most": (1.5,), "at_least": (0.5,)}
    more |= {"hard_shrink": (0.7,), "elu": (0.8,), "squareplus": (2.0,)}
    others: tuple[Any, ...] = more.get(name, ())
    if name in ("max", "min"):
        others = (torch.linspace(2.0, -2.0, 41, dtype=torch.float64),)
    (wanted,) = torch.autograd.grad(row(x, *others).sum(), x)
    arguments = [Name("a") if isinstance(other, torch.Tensor) else other for other in others]
    slope = pull(formula(row(Name("x"), *arguments)), "x", formula(1.0))
    values = {"x": x.detach(), "a": others[0] if others else None}
    found = torch.as_tensor(evaluate(formula(slope), values), dtype=torch.float64)
    torch.testing.assert_close(found.expand_as(wanted), wanted)


def test_every_helper_is_a_function_and_says_what_it_calls() -> None:
    assert set(helpers.HELPERS) - set(NAMED) == {"merge_moments"}  # of sums, not of formulas
    for name, source in helpers.HELPERS.items():
        (defined,) = ast.parse(source.replace("@triton.jit\n", "")).body
        called = {
            node.func.id
            for node in ast.walk(defined)
            if isinstance(node, ast.Call) and isinstance(node.func, ast.Name)
        }
        assert called == set(helpers._CALLS.get(name, ())), name
        assert set(helpers.with_their_own([name])) >= {name, *called}


def test_a_function_that_no_kernel_computes_is_named() -> None:
    with pytest.raises(CompileError, match="no kernel computes zeros_like; give its row"):
        triton(functions._zeros_like(Name("x")), Uses())


def test_every_pointwise_op_has_one_formula() -> None:
    ours = [op for op in REGISTRY.values() if issubclass(op, ops.Pointwise) and not inspect.isabstract(op)]
    assert len(ours) > 45
    own_meaning = {op.__name__ for op in ours if op.reference is not ops.Pointwise.reference}
    assert own_meaning == {"BatchNormGrad", "BroadcastTo", "StopGradient"}
    assert math.isclose(float(ops.Relu().formula(torch.tensor(2.0))), 2.0)


@pytest.mark.parametrize("place", [7, 1, -1])
def test_a_derivative_names_an_operand_that_is_there(place: int) -> None:
    graph = Graph()
    graph.add(ops.Input(("N", 3)), name="x")
    with pytest.raises(ShapeError, match=f"relu has no operand {place}"):
        graph.add(op_from_json({**op_to_json(ops.PointwiseGrad(ops.Relu())), "place": place}), ["x", "x"])
