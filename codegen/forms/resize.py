"""Resizing and its gradient: for each element of the result, the few elements of the operand that count.

The weights lie in one small matrix an axis. Where its entries are not 0 follows from the sizes, so a kernel
walks just those: `Taps` gives the first, and how many.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from math import prod
from typing import Any

from ...graph.ir import Node
from ...graph.ops import Resize, Taps
from ...planning.regions import Region
from ...planning.schedules import Schedule
from ..text.formulas import compose_after
from ..text.jit_function import JitFunction
from ..text.names import Names
from ..text.source import KernelFile, image_size
from ..text.titles import title
from ..text.writer import Writer
from .movement import AXES, write_coordinates
from .pointwise import FlatTile

UNROLLED = 16
"""Terms of a result up to which the loops over them are unrolled."""

_LOOPS = "rstuvw"


@dataclass(frozen=True)
class _Axis:
    """One resized axis. letter: its coordinate; source, size: of the operand and of the result.

    weights: name of its matrix, "" for "nearest". transposed: the matrix is (size, source).
    """

    letter: str
    source: int
    size: int
    taps: Taps
    weights: str
    transposed: bool

    @property
    def reaches_below(self) -> bool:
        return self.taps.first(0) < 0

    @property
    def reaches_above(self) -> bool:
        return self.taps.first(self.size - 1) + self.taps.count > self.source

    @property
    def uneven(self) -> bool:
        """Whether a gradient of "nearest" must ask of each place whether it is a copy of this one."""
        return self.transposed and not self.weights and self.source % self.size != 0

    def weight_index(self, tap: str) -> str:
        if self.transposed:
            return f"{self.letter} * {self.source} + {tap}"
        return f"{tap} * {self.size} + {self.letter}"

    def first_text(self) -> str:
        return _floor(self.letter, self.taps)


def emit_resize(region: Region, schedule: Schedule) -> KernelFile:
    """A region of one resizing with pointwise members behind it."""
    node = region.anchor
    after = [member for member in region.nodes if member is not node]
    names = Names(region)
    image, axes = image_size(node), _axes(names, node)
    operands = [*region.inputs, *region.outputs]
    jit = JitFunction(
        f"{region.name}_kernel",
        [(names.pointer(n), n.type.dtype) for n in operands],
        ["batch"],
        {"IMAGE": image, "BLOCK": schedule.block_m},
        doc="Each program computes BLOCK neighbouring elements.",
        warps=schedule.warps,
    )
    tile = FlatTile(names, node.type.shape)
    tile.start(jit.body)
    tile.values[node.name] = _sum(jit.body, names, tile, node, axes)
    tile.store_if_output(jit.body, node)
    tile.emit(jit.body, after)
    launch = Writer()
    launch.line(f"batch = {names.role[region.outputs[0].name]}.shape[0]")
    launch.line(jit.call("(triton.cdiv(batch * IMAGE, BLOCK),)", [names.role[n.name] for n in operands]))
    counts = " x ".join(str(axis.taps.count) for axis in axes)
    return KernelFile(
        region,
        names,
        summary=f"{title(region)}.",
        formula=_formula(names, node, axes),
        plan=[
            f"each program computes {schedule.block_m} neighbouring elements with {schedule.many_warps},",
            f"each of up to {counts} elements of the operand; neighbours share them in the cache.",
        ],
        constants={
            "IMAGE": (image, "elements of one image of the result"),
            "BLOCK": (schedule.block_m, "elements a program computes"),
        },
        functions=[jit],
        launch=launch,
        schedule=schedule,
        sum_length=prod(axis.taps.count for axis in axes),
    )


def _axes(names: Names, node: Node) -> list[_Axis]:
    op: Any = node.op
    source = names.region.graph[node.inputs[0]].type.shape
    found = []
    for position, (axis, size) in enumerate(zip(op.axes, op.sizes, strict=True)):
        here = int(source[axis])
        weights = names.role[node.inputs[1 + position]] if len(node.inputs) > 1 else ""
        taps, backwards = op.taps(here, size), not isinstance(op, Resize)
        found.append(_Axis(AXES[axis - 1], here, size, taps, weights, backwards))
    return found


# -- the kernel's body ---------------------------------------------------------------------------------------
def _sum(body: Writer, names: Names, tile: FlatTile, node: Node, axes: Sequence[_Axis]) -> str:
    """Lines that compute the result; returns its name."""
    source = names.region.graph[node.inputs[0]]
    image = tile.image_number(body)
    tile.image_element(body)
    write_coordinates(body, node.type.size(1)[1:])
    at = {axis: AXES[axis - 1] for axis in range(1, node.type.rank)}
    place = {axis.letter: names.fresh(f"{axis.letter}_from") for axis in axes}
    for axis in axes:
        body.line(f"{place[axis.letter]} = {axis.first_text()}", "[BLOCK] first place that counts")
    walked = [axis for axis in axes if axis.taps.count > 1]
    total = names.role.get(node.name) or names.fresh("resized")
    if walked:
        body.line(f"{total} = tl.zeros([BLOCK], tl.float32)")
    unrolled = prod(axis.taps.count for axis in axes) <= UNROLLED

    def within(rest: Sequence[_Axis], tests: list[str], weights: list[str]) -> None:
        if not rest:
            where = {axis: place.get(letter, letter) for axis, letter in at.items()}
            value = _loaded(names, source, image, where, tests)
            product = " * ".join([value, *weights])
            body.line(f"{total} {'+=' if walked else '='} {product}", "[BLOCK]")
            return
        axis, *others = rest
        if axis.taps.count == 1:
            within(others, *_one(body, names, axis, place[axis.letter], tests, weights))
            return
        loop = _LOOPS[len(axes) - len(rest)]
        start, tap = place[axis.letter], names.fresh(f"{axis.letter}_at")
        with body.block(f"for {loop} in {'tl.static_range' if unrolled else 'range'}({axis.taps.count}):"):
            body.line(f"{tap} = {start} + {loop}", "[BLOCK]")
            place[axis.letter] = tap
            within(others, *_one(body, names, axis, tap, tests, weights))
            place[axis.letter] = start

    within(axes, ["inside"], [])
    return total


def _one(
    body: Writer, names: Names, axis: _Axis, tap: str, tests: list[str], weights: list[str]
) -> tuple[list[str], list[str]]:
    """The tests and weights with those of one place along one axis."""
    conditions = [f"({tap} >= 0)"] if axis.reaches_below else []
    conditions += [f"({tap} < {axis.source})"] if axis.reaches_above else []
    if axis.uneven:
        conditions.append(f"({_floor(tap, Taps.nearest(axis.size, axis.source))} == {axis.letter})")
    if conditions:
        ok = names.fresh(f"{axis.letter}_ok")
        body.line(f"{ok} = {' & '.join(conditions)}", "[BLOCK]")
        tests = [*tests, ok]
    if not axis.weights:
        return tests, weights
    weight = names.fresh(f"{axis.letter}_weight")
    own = " & ".join([tests[0], *tests[-1:]] if conditions else tests[:1])
    body.line(
        f"{weight} = tl.load({axis.weights}_ptr + {axis.weight_index(tap)}, mask={own}, other=0.0)", "[BLOCK]"
    )
    return tests, [*weights, weight]


def _loaded(names: Names, source: Node, image: str, where: dict[int, str], tests: list[str]) -> str:
    """Text of the operand's elements at these coordinates, in float32."""
    sizes = source.type.size(1)
    sizes = (*sizes[:-1], names.region.pitches.get(source.name, sizes[-1]))
    terms = [f"{image} * {prod(sizes)}"]
    for axis in sorted(where):
        stride = prod(sizes[axis + 1 :])
        terms.append(where[axis] if stride == 1 else f"{where[axis]} * {stride}")
    other = "0.0" if source.type.is_floating else "0"
    text = f"tl.load({names.pointer(source)} + {' + '.join(terms)}, mask={' & '.join(tests)}, other={other})"
    return text if source.type.dtype == "float32" else f"{text}.to(tl.float32)"


def _floor(place: str, taps: Taps) -> str:
    """taps.first(place) as text."""
    text = place if taps.step == 1 else f"{place} * {taps.step}"
    if taps.divisor > 1:
        text = f"({text} + {taps.offset})" if taps.offset else text
        text = f"{text} // {taps.divisor}"
        rest = -taps.shift
    else:
        rest = taps.offset - taps.shift
    return text if not rest else f"{text} + {rest}" if rest > 0 else f"{text} - {-rest}"


# -- the header ----------------------------------------------------------------------------------------------
def _formula(names: Names, node: Node, axes: Sequence[_Axis]) -> list[str]:
    letters = AXES[: node.type.rank - 1]
    x, loops = names.role[node.inputs[0]], dict(zip((axis.letter for axis in axes), _LOOPS, strict=False))
    index, own = [loops.get(letter, letter) for letter in letters], ",".join(["n", *letters])
    factors = [
        f"{axis.weights}[{axis.letter},{loops[axis.letter]}]"
        if axis.transposed
        else f"{axis.weights}[{loops[axis.letter]},{axis.letter}]"
        for axis in axes
        if axis.weights
    ]
    product = " * ".join([*factors, f"{x}[n,{','.join(index)}]"])
    text = f"sum over {', '.join(loops.values())} of {product}"
    if not factors:
        rule = ", ".join(
            f"{loops[a.letter]} = "
            + (f"every place copied from {a.letter}" if a.transposed else a.first_text().replace(" ", ""))
            for a in axes
        )
        text = (f"sum of {product}" if axes[0].transposed else product) + f" at {rule}"
    return compose_after(names, text, f"{{}}[{own}]", "t")
