"""The frame of an emitted file: header, imports, kernels, launch, reference, example and its own check.

An emitter fills a `KernelFile`: what it computes in words, one or two `JitFunction`s and the lines of
`launch`. `KernelFile.text` writes the rest from the region itself.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from math import prod

from ...graph.ir import Node
from ...graph.op import Kind
from ...planning.limits import most_images
from ...planning.regions import Region
from ...planning.schedules import Schedule
from .examples import example_lines
from .helpers import HELPERS, with_their_own
from .jit_function import JitFunction, wrap_doc
from .names import Names, escaped
from .references import reference_lines
from .writer import WIDTH, Writer, fill, wrap

TRITON_TYPES = {
    "float32": "tl.float32",
    "float16": "tl.float16",
    "bfloat16": "tl.bfloat16",
    "bool": "tl.int1",
    "uint8": "tl.uint8",
    "int8": "tl.int8",
    "int16": "tl.int16",
    "int32": "tl.int32",
    "int64": "tl.int64",
}

_IMPORTS = """
import os

import torch
import torch.nn.functional as F

if __name__ == "__main__" and not torch.cuda.is_available():
    os.environ["TRITON_INTERPRET"] = "1"  # no GPU: run on the CPU, in Triton's interpreter

import triton
import triton.language as tl
"""

_MAIN = """
if __name__ == "__main__":
    device = "cuda" if torch.cuda.is_available() else "cpu"
    inputs, outputs = example(device=device), results(device=device)
    launch(*inputs, *outputs)
    expected = reference(*inputs)
    worst = 0.0
    for found, wanted in zip(outputs, expected, strict=True):
        found, wanted = found.double(), wanted.double()
        largest = max(float(wanted.abs().max()), 1e-6)
        worst = max(worst, float((found - wanted).abs().max().nan_to_num(float("inf"))) / largest)
    print(f"largest difference {worst:.2e} of the largest value, allowed {TOLERANCE:.2e}")
    if not worst <= TOLERANCE:
        raise SystemExit("WRONG: the kernel and the reference differ")
    print("OK")
    if device == "cuda":
        inputs, outputs = example(256, device), results(256, device)
        milliseconds = triton.testing.do_bench(lambda: launch(*inputs, *outputs))
        print(f"{milliseconds:.4f} ms for a batch of 256")
"""


ANY_LAYERS = "From the layers: (of any equal region)"

LISTED_BELOW = "at the end of this file"


@dataclass
class KernelFile:
    """What an emitter says about one file.

    summary: the first line of the header. formula: lines of mathematics. plan: sentences on the schedule.
    constants: name -> (value, comment), written once at the top, for kernels and launch alike.
    launch: lines of the body of `launch`, whose arguments are the operands by role.
    sum_length: terms of the longest sum, for the tolerance. product_eps: rounding of a product's factors.
    parts: the bytes that parts of its sums take beside the operands, in words.
    """

    region: Region
    names: Names
    summary: str
    formula: list[str]
    plan: list[str]
    constants: Mapping[str, tuple[object, str]]
    functions: list[JitFunction]
    launch: Writer
    schedule: Schedule
    sum_length: int = 1
    product_eps: float = 0.0
    parts: str = ""

    @property
    def text(self) -> str:
        """The whole file, which names the layers it came from."""
        layers = self.region.layers
        if not layers:
            return self.code
        line = one_line("From the layers: ", layers)
        text = self.code.replace(ANY_LAYERS, line, 1)
        if not line.endswith(LISTED_BELOW):
            return text
        named = fill(", ".join(map(escaped, layers)), WIDTH - 6)
        return text + "\n".join(["", "# From the layers:", *(f"#     {names}" for names in named)]) + "\n"

    @cached_property
    def code(self) -> str:
        """The file of any equal region: it differs in the line that names the layers, and in no other."""
        functions = [*(part for function in self.functions for part in function.parts), *self.functions]
        kernels = [function.text() for function in functions]
        called = {name for function in functions for name in function.helpers}
        helpers = [HELPERS[name] for name in with_their_own(called)]
        parts = [
            self._header(),
            _IMPORTS.strip("\n"),
            self._constants(),
            *[f"\n{helper.strip(chr(10))}" for helper in helpers],
            *[kernel.rstrip("\n") for kernel in kernels],
            *["\n" + part for part in (self._launch(), self._reference(), *self._examples())],
            _MAIN.rstrip("\n"),
        ]
        for function in self.functions:
            if function.digest() != function.key:
                raise RuntimeError(f"{function.name}: lines were added after it was named")
        text = "\n\n".join(parts) + "\n"
        if "F." not in text.split("def reference", 1)[1]:
            text = text.replace("import torch.nn.functional as F\n", "", 1)
        return text

    # -- parts ------------------------------------------------------------------------------------------
    def _header(self) -> str:
        lines = [*fill(f'"""{self.summary}', WIDTH), ""]
        lines += [f"    {line}" for formula in self.formula for line in hanging(formula)]
        if self.region.layers:
            lines += ["", ANY_LAYERS]
        lines += [
            "",
            "Operands, N being the batch, in row-major order (an image: height, width, channels):",
            "",
        ]
        lines += self._operands()
        lines += ["", *fill("Schedule: " + " ".join(self.plan), WIDTH), "", *fill(self._work(), WIDTH), '"""']
        return "\n".join(line.rstrip() for line in lines)

    def _operands(self) -> list[str]:
        rows = [(node, f"read{self._slice(node, 'from')}") for node in self.region.inputs]
        rows += [(node, f"written{self._slice(node, 'into')}") for node in self.region.outputs]
        table = [(self.names.role[n.name], n.type.dtype, shape_text(n), what) for n, what in rows]
        widths = [max(len(row[i]) for row in table) for i in range(3)]
        return [
            "    " + "  ".join(cell.ljust(w) for cell, w in zip(row[:3], widths, strict=True)) + f"  {row[3]}"
            for row in table
        ]

    def _slice(self, node: Node, how: str) -> str:
        pitch = self.region.pitches.get(node.name)
        return f" {how} its slice of rows of {pitch} channels" if pitch else ""

    def _work(self) -> str:
        one, two = self.region.cost(1), self.region.cost(2)
        flops, moved = two.flops - one.flops, two.bytes - one.bytes
        fixed = one.bytes - moved
        if not moved:
            return f"Work: {one.flops:,} FLOPs, {one.bytes:,} bytes, {one.intensity:.2f} FLOPs a byte."
        text = f"Work for one image: {flops:,} FLOPs, {moved:,} bytes, {flops / moved:.2f} FLOPs a byte"
        text += f"; beside it {fixed:,} bytes once a launch" if fixed > 0 else ""
        return text + (f"; parts of its sums, written and read again: {self.parts}." if self.parts else ".")

    def _constants(self) -> str:
        writer = Writer()
        for name, (value, comment) in self.constants.items():
            writer.line(f"{name} = {value}", comment)
        writer.line(f"TOLERANCE = {self.tolerance():.2e}", self._tolerance_note())
        return writer.text.rstrip("\n")

    def tolerance(self) -> float:
        """Largest difference from the reference, as a part of the largest value.

        Storing rounds by half the output's epsilon; a float32 sum of n terms drifts by about sqrt(n) times
        its epsilon, against a reference in float64; the rest covers exponentials and the members around it.
        """
        dtypes = [n.type.torch_dtype for n in self.region.outputs if n.type.is_floating]
        stored = max((_EPS[str(dtype)] for dtype in dtypes), default=0.0)
        steps = 8 + 4 * len(self.region.nodes) + 4 * self.sum_length**0.5
        return float(stored + steps * (_EPS["torch.float32"] + self.product_eps))

    def _tolerance_note(self) -> str:
        sums = f", and of sums of {self.sum_length:,} terms" if self.sum_length > 1 else ""
        return f"of the largest value: rounding of the result{sums}"

    def roles(self, nodes: Sequence[Node]) -> list[str]:
        return [self.names.role[node.name] for node in nodes]

    def _launch(self) -> str:
        operands = [*self.region.inputs, *self.region.outputs]
        arguments = self.roles(operands)
        writer = Writer(1)
        written = ", ".join(self.roles(self.region.outputs))
        writer.lines(*wrap_doc(f"Compute {written} from the other operands, for any batch."))
        batched = next((node for node in operands if node.type.batched), None)
        most = most_images(self.region)
        if batched is not None and most is not None:
            check = f"assert {self.names.role[batched.name]}.shape[0] <= {most:_}"
            writer.line(f'{check}, "rows are counted in 32 bits"')
        head = f"with torch.cuda.device_of({arguments[0]}):"
        with writer.block(head, "kernels start on the current device"):
            writer.extend(self.launch)
        return "\n".join(wrap(f"def launch({', '.join(arguments)}):")) + "\n" + writer.text.rstrip("\n")

    def _reference(self) -> str:
        inputs = self.roles(self.region.inputs)
        writer = Writer(1)
        writer.line('"""The same in plain PyTorch, in float64."""')
        floats = [self.names.role[node.name] for node in self.region.inputs if node.type.is_floating]
        if len(floats) == 1:
            writer.line(f"{floats[0]} = {floats[0]}.double()")
        elif floats:
            writer.line(f"{', '.join(floats)} = (t.double() for t in ({', '.join(floats)}))")
        values = {node.name: self.names.role[node.name] for node in self.region.inputs}
        for node in self.region.nodes:
            values[node.name] = self.names.role.get(node.name) or self.names.fresh(_reference_hint(node))
            lines = reference_lines(node, [values[name] for name in node.inputs], values[node.name])
            writer.lines(*lines)
        returned = [values[node.name] for node in self.region.outputs]
        writer.line(f"return ({', '.join(returned)}{',' if len(returned) == 1 else ''})")
        return "\n".join(wrap(f"def reference({', '.join(inputs)}):")) + "\n" + writer.text.rstrip("\n")

    def _examples(self) -> list[str]:
        inputs, outputs = Writer(1), Writer(1)
        inputs.line('"""Random operands that `launch` reads."""')
        inputs.line("generator = torch.Generator().manual_seed(seed)")
        for node in self.region.inputs:
            inputs.lines(*example_lines(self.region, node, self.names.role[node.name]))
        listed = ", ".join(self.roles(self.region.inputs))
        one = len(self.region.inputs) == 1
        made = f"[{listed}.to(device)]" if one else f"[t.to(device) for t in ({listed})]"
        inputs.lines(*self._in_rows(made))
        outputs.line('"""Room for what `launch` writes, filled with NaN so that a missed element shows."""')
        room = []
        for node in self.region.outputs:
            fill_value = 'float("nan")' if node.type.is_floating else _UNLIKELY.get(node.type.dtype, "255")
            dtype = f"dtype=torch.{node.type.dtype}, device=device"
            pitch = self.region.pitches.get(node.name)
            size = size_text(node) if pitch is None else size_text(node, pitch)
            cut = "" if pitch is None else f"[..., :{node.type.channels}]"
            outputs.line(f"{self.names.role[node.name]} = torch.full({size}, {fill_value}, {dtype}){cut}")
            room.append(self.names.role[node.name])
        outputs.line(f"return [{', '.join(room)}]")
        return [
            'def example(batch=2, device="cpu", seed=0):\n' + inputs.text.rstrip("\n"),
            'def results(batch=2, device="cpu"):\n' + outputs.text.rstrip("\n"),
        ]


    def _in_rows(self, made: str) -> list[str]:
        """Lines that return the inputs, each in the rows that it is part of."""
        lines = []
        for place, node in enumerate(self.region.inputs):
            if pitch := self.region.pitches.get(node.name):
                channels = node.type.channels
                padded = f"F.pad(operands[{place}], (0, {pitch - channels}))[..., :{channels}]"
                lines.append(f"operands[{place}] = {padded}  # in rows of {pitch} channels")
        return [f"operands = {made}", *lines, "return operands"] if lines else [f"return {made}"]


_UNLIKELY = {"bool": "True", "int8": "-1"}
"""What stands for a missed element where there is no NaN; 255 where it fits."""

_EPS = {"torch.float32": 2.0**-23, "torch.float16": 2.0**-10, "torch.bfloat16": 2.0**-7}


def _reference_hint(node: Node) -> str:
    return f"t_{node.op.op_name()}" if node.op.kind is not Kind.CONTRACTION else node.op.op_name()


def one_line(before: str, layers: Sequence[str]) -> str:
    """The layers' names in one line, or those that there is room for and how many more there are.

    One line in every file, so that equal kernels begin at the same line: Triton's cache looks at it.
    """
    names = [escaped(layer) for layer in layers]
    for shown in range(len(names), 0, -1):
        rest = f" and {len(names) - shown} more, {LISTED_BELOW}" if shown < len(names) else ""
        line = f"{before}{', '.join(names[:shown])}{rest}"
        if len(line) <= WIDTH:
            return line
    room = WIDTH - len(before) - len(LISTED_BELOW) - len("..., all ")
    cut = next(n for n in range(len(layers[0]), -1, -1) if len(escaped(layers[0][:n])) <= room)
    return f"{before}{escaped(layers[0][:cut])}..., all {LISTED_BELOW}"


def hanging(text: str) -> list[str]:
    """A line of mathematics, its continuation indented."""
    first, *rest = fill(text, WIDTH - 8)
    return [first, *("    " + line for line in rest)]


def shape_text(node: Node, channels: int | None = None) -> str:
    """(N, 28, 28, 1); channels: of the last axis, instead of the node's own."""
    shape = node.type.shape if channels is None else (*node.type.shape[:-1], channels)
    inner = ", ".join(map(str, shape))
    return f"({inner},)" if node.type.rank == 1 else f"({inner})"


def size_text(node: Node, channels: int | None = None) -> str:
    """The shape as source text, with `batch` for the batch axis."""
    return shape_text(node, channels).replace("N", "batch")


def image_size(node: Node) -> int:
    """Elements of one image: all axes but the batch."""
    return prod(node.type.size(1))
