"""The file of a sum over pixels that is cut into parts: its functions, their description, its launch."""

from __future__ import annotations

from typing import ClassVar

from ...graph.ir import Node
from ...planning.geometry import Axis
from ...planning.products import Product
from ...planning.regions import Region
from ...planning.schedules import Schedule
from ...planning.splits import Split
from ..text.indices import plus, times
from ..text.jit_function import JitFunction
from ..text.names import Names
from ..text.source import KernelFile
from ..text.titles import title
from ..text.writer import Uses, Writer
from .contraction import Constants
from .parts import emit_add_parts, parts_told


class SplitFile:
    """A weight gradient's file; a form says how its product is computed.

    terms: what the sum goes over, and its parts are cut from. biases: sums of dy over all pixels.
    """

    terms: ClassVar[str] = "pixels"
    region: Region
    schedule: Schedule
    precision: str
    names: Names
    work: Product
    anchor: Node
    x: Node
    dy: Node
    biases: list[Node]
    is_map: bool
    split: Split
    constants: Constants
    at_launch: Uses

    def axes_of_map(self) -> tuple[Axis, Axis]:
        """How pixels of dy and taps meet on x."""
        raise NotImplementedError

    def body(self) -> Writer:
        """The lines of the kernel that computes a part."""
        raise NotImplementedError

    # -- the file --------------------------------------------------------------------------------------------
    def file(self) -> KernelFile:
        functions = [self._function(), *([self._finish()] if self.split.most > 1 else [])]
        launch = self.launch(*functions)
        used = {*self.at_launch, *(name for function in functions for name in function.body.uses)}
        return KernelFile(
            region=self.region,
            names=self.names,
            summary=f"{title(self.region)}: {'in parts' if self.split.most > 1 else 'one kernel'}.",
            formula=self._formula(),
            plan=self.plan(),
            constants={name: value for name, value in self.constants.items() if name in used},
            functions=functions,
            launch=launch,
            schedule=self.schedule,
            sum_length=2 * self.work.inner,
            product_eps=2.0**-10 if self.work.dtype == "float32" and self.precision == "tf32" else 0.0,
            parts=self._parts(),
        )

    def _parts(self) -> str:
        if self.split.most == 1:
            return ""
        return parts_told(self.split, sum(node.type.elements() for node in self._written))

    def _pointers(
        self, body: Writer, pointers: list[tuple[str, str]], numbers: list[str], doc: str, name: str
    ) -> JitFunction:
        constants: dict[str, object] = {n: v for n, (v, _) in self.constants.items() if n in body.uses}
        s = self.schedule
        if "UPCAST" in body.uses:
            constants["UPCAST"] = False
        warps, stages = (4, 2) if name == "add_parts" else (s.warps, s.stages)
        return JitFunction(name, pointers, numbers, constants, body, doc, warps, stages)

    def _function(self) -> JitFunction:
        body = self.body()
        pointers = [(f"{name}_ptr", dtype) for name, dtype in self.factors()]
        pointers += [(f"{self.role(node)}_ptr", "float32") for node in self._written]
        doc = "The part of one split of one tile of dw: rows (r, s, c), columns k."
        return self._pointers(body, pointers, [self.terms, "part"], doc, self.region.name)

    def factors(self) -> list[tuple[str, str]]:
        """What is multiplied: name and element type."""
        return [(self.role(node), node.type.dtype) for node in (self.x, self.dy)]

    @property
    def _written(self) -> list[Node]:
        return [self.anchor, *self.biases]

    @property
    def _sizes(self) -> list[str]:
        """The names of their numbers of elements."""
        return ["SIZE", *["K" for _ in self.biases]]

    def role(self, node: Node) -> str:
        return self.names.role[node.name]

    def _formula(self) -> list[str]:
        dw = self.role(self.anchor)
        if self.is_map:
            down, across = self.axes_of_map()
            rows, columns = (f"{v}{times(a.stride)} + {t}{times(a.step)}{plus(a.shift)}" for v, t, a in
                             (("p", "r", down), ("q", "s", across)))  # fmt: skip
            lines = [f"{dw}[r,s,c,k] = sum over n,p,q of x[n, {rows}, {columns}, c] * dy[n,p,q,k]"]
        else:
            lines = [f"{dw}[c,k] = sum over n of x[n,c] * dy[n,k]"]
        for node in self.biases:
            lines.append(
                f"{self.role(node)}[k] = sum over "
                + ("n,p,q of dy[n,p,q,k]" if self.is_map else "n of dy[n,k]")
            )
        return lines

    def plan(self) -> list[str]:
        s = self.schedule
        return [
            f"Each program computes a tile of {s.block_m} rows by {s.block_n} columns over its part of the "
            f"pixels, {s.block_k} a step, with {s.many_warps} and {s.stages} stages.",
            f"At most {self.split.most} parts, which a second kernel adds in one order: the same bits on "
            f"every run."
            if self.split.most > 1
            else "It writes the result itself.",
        ]

    # -- the finish ------------------------------------------------------------------------------------------
    def _finish(self) -> JitFunction:
        """Adds the parts, many at a time."""
        w, pointers = Writer(), []
        for node in self._written:
            role = self.role(node)
            pointers += [(f"{role}_parts_ptr", "float32"), (f"{role}_ptr", node.type.dtype)]
        roles = map(self.role, self._written)
        emit_add_parts(w, list(zip(self._written, roles, self._sizes, strict=True)))
        return self._pointers(w, pointers, ["splits"], "Add the parts of BESIDE elements.", "add_parts")

    def prepare(self, w: Writer) -> None:
        """Lines of `launch` that make what the kernel reads beside the operands."""

    def count(self, c: Uses) -> str:
        """Text of the number of terms."""
        return f"{self.role(self.dy)}.numel() // {c.K}"

    def tiles_text(self, c: Uses) -> list[str]:
        """Texts of the grid's axes before that of the parts."""
        return [c.TILES_M, f"{c.TILES_N} * {c.GROUPS}" if self.work.groups > 1 else c.TILES_N]

    def launch(self, function: JitFunction, finish: JitFunction | None = None) -> Writer:
        w = Writer()
        c = self.at_launch
        (x, _), (dy, _) = self.factors()
        roles = [self.role(node) for node in self._written]
        self.prepare(w)
        terms = self.terms
        w.line(f"{terms} = {self.count(c)}")
        if finish is None:
            w.line(f"part = triton.cdiv({terms}, BLOCK_K) * BLOCK_K", "all of them")
        else:
            w.line(f"splits = max(1, min(triton.cdiv({terms}, {c.CHUNK}), {c.MOST_SPLITS}))")
            w.line(f"part = max(1, triton.cdiv(triton.cdiv({terms}, BLOCK_K), splits)) * BLOCK_K", "of each")
            w.line(f"splits = max(1, triton.cdiv({terms}, part))")
        w.line(f"grid = ({', '.join(self.tiles_text(c))}, {'splits' if finish else 1})")
        if "UPCAST" in function.constants:
            w.line(f'UPCAST = {x}.device.type == "cpu"', "the interpreter cannot multiply bfloat16")
        if finish is None:
            w.line(function.call("grid", [x, dy, *roles]))
            return w
        with w.block("if splits == 1:", "nothing to add up"):
            w.line(function.call("grid", [x, dy, *roles]))
            w.line("return")
        parts = [f"{role}_parts" for role in roles]
        for part, size in zip(parts, self._sizes, strict=True):
            w.line(f"{part} = torch.empty((splits, {c[size]}), dtype=torch.float32, device={x}.device)")
        w.line(function.call("grid", [x, dy, *parts]))
        both = [name for pair in zip(parts, roles, strict=True) for name in pair]
        w.line(finish.call(f"(triton.cdiv(max({c.SIZE}, {c.K}), {c.BESIDE}),)", both))
        return w
