"""The frame of an emitted file: header, imports, kernels, launch, reference, example and its own check.

An emitter fills a `KernelFile`: what it computes in words, one or two `JitFunction`s and the lines of
`launch`. `KernelFile.text` writes the rest from the region itself.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from math import prod

from ...graph.ir import Node
from ...graph.op import Kind
from ...planning.regions import Region
from ...planning.schedules import Schedule
from .examples import example_lines
from .helpers import HELPERS, with_their_own
from .names import Names, escaped
from .references import reference_lines
from .writer import WIDTH, Writer, fill, wrap

POINTERS = {
    "float32": "*fp32",
    "float16": "*fp16",
    "bfloat16": "*bf16",
    "bool": "*i1",
    "uint8": "*u8",
    "int8": "*i8",
    "int16": "*i16",
    "int32": "*i32",
    "int64": "*i64",
}
"""Type of a pointer in a kernel's signature."""

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


@dataclass
class JitFunction:
    """One `@triton.jit` function of a file.

    pointers: (argument, element type of the IR). numbers: run-time integers such as the batch.
    constants: `tl.constexpr` arguments and their values; each is a constant of the file under the same name,
    or under the one that `given` has for it. body: its lines. doc: its first line.
    """

    name: str
    pointers: list[tuple[str, str]]
    numbers: list[str] = field(default_factory=list)
    constants: dict[str, object] = field(default_factory=dict)
    body: Writer = field(default_factory=Writer)
    doc: str = ""
    warps: int = 4
    stages: int = 2
    given: dict[str, str] = field(default_factory=dict)

    def signature(self) -> dict[str, str]:
        """Run-time argument -> type, as ahead-of-time compilation wants it."""
        return {
            **{name: POINTERS[dtype] for name, dtype in self.pointers},
            **dict.fromkeys(self.numbers, "i32"),
        }

    def call(self, grid: str, tensors: Sequence[str]) -> str:
        """The statement that launches it: `name[(grid,)](tensors, numbers, CONSTANT=CONSTANT, ...)`."""
        constants = [f"{name}={self.given.get(name, name)}" for name in self.constants]
        options = [f"num_warps={self.warps}", f"num_stages={self.stages}"]
        return f"{self.name}[{grid}]({', '.join([*tensors, *self.numbers, *constants, *options])})"

    def text(self) -> str:
        # A number that is 1 or a multiple of 16 would be compiled for that value; a batch must not be.
        options = f"(do_not_specialize=[{', '.join(map(repr, self.numbers))}])".replace("'", '"')
        arguments = [name for name, _ in self.pointers] + self.numbers
        arguments += [f"{name}: tl.constexpr" for name in self.constants]
        head = wrap(f"def {self.name}({', '.join(arguments)}):")
        writer = Writer(1)
        if self.doc:
            writer.lines(*wrap_doc(self.doc))
        writer.extend(self.body)
        decorator = "@triton.jit" + (options if self.numbers else "")
        return "\n".join(["", decorator, *head]) + "\n" + writer.text


def wrap_doc(text: str) -> list[str]:
    lines = fill(text, WIDTH - 10)
    return [f'"""{lines[0]}"""'] if len(lines) == 1 else [f'"""{lines[0]}', *lines[1:], '"""']


@dataclass
class KernelFile:
    """What an emitter says about one file.

    summary: the first line of the header. formula: lines of mathematics. plan: sentences on the schedule.
    constants: name -> (value, comment), written once at the top, for kernels and launch alike.
    launch: lines of the body of `launch`, whose arguments are the operands by role.
    sum_length: terms of the longest sum, for the tolerance. product_eps: rounding of a product's factors.
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

    @property
    def text(self) -> str:
        """The whole file."""
        kernels = [function.text() for function in self.functions]
        called = {name for function in self.functions for name in function.body.uses if name in HELPERS}
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
        text = "\n\n".join(parts) + "\n"
        if "F." not in text.split("def reference", 1)[1]:
            text = text.replace("import torch.nn.functional as F\n", "", 1)
        return text

    # -- parts ------------------------------------------------------------------------------------------
    def _header(self) -> str:
        lines = [f'"""{self.summary}', ""]
        lines += [f"    {line}" for formula in self.formula for line in hanging(formula)]
        layers = ", ".join(escaped(layer) for layer in self.region.layers)
        if layers:
            lines += ["", *fill(f"From the layers: {layers}", WIDTH)]
        lines += [
            "",
            "Operands, N being the batch, in row-major order (an image: height, width, channels):",
            "",
        ]
        lines += self._operands()
        lines += ["", *fill("Schedule: " + " ".join(self.plan), WIDTH), "", *fill(self._work(), WIDTH), '"""']
        return "\n".join(line.rstrip() for line in lines)

    def _operands(self) -> list[str]:
        rows = [(node, "read") for node in self.region.inputs]
        rows += [(node, self._written(node)) for node in self.region.outputs]
        table = [(self.names.role[n.name], n.type.dtype, shape_text(n), what) for n, what in rows]
        widths = [max(len(row[i]) for row in table) for i in range(3)]
        return [
            "    " + "  ".join(cell.ljust(w) for cell, w in zip(row[:3], widths, strict=True)) + f"  {row[3]}"
            for row in table
        ]

    def _written(self, node: Node) -> str:
        pitch = self.region.pitches.get(node.name)
        return "written" + (f" into its slice of rows of {pitch} channels" if pitch else "")

    def _work(self) -> str:
        one, two = self.region.cost(1), self.region.cost(2)
        flops, moved = two.flops - one.flops, two.bytes - one.bytes
        fixed = one.bytes - moved
        if not moved:
            return f"Work: {one.flops:,} FLOPs, {one.bytes:,} bytes, {one.intensity:.2f} FLOPs a byte."
        text = f"Work for one image: {flops:,} FLOPs, {moved:,} bytes, {flops / moved:.2f} FLOPs a byte"
        return text + (f"; beside it {fixed:,} bytes once a launch." if fixed > 0 else ".")

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
        arguments = self.roles([*self.region.inputs, *self.region.outputs])
        writer = Writer(1)
        written = ", ".join(self.roles(self.region.outputs))
        writer.lines(*wrap_doc(f"Compute {written} from the other operands, for any batch."))
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
        inputs.line(f"return [{listed}.to(device)]" if one else f"return [t.to(device) for t in ({listed})]")
        outputs.line('"""Room for what `launch` writes, filled with NaN so that a missed element shows."""')
        made = []
        for node in self.region.outputs:
            fill_value = 'float("nan")' if node.type.is_floating else _UNLIKELY.get(node.type.dtype, "255")
            dtype = f"dtype=torch.{node.type.dtype}, device=device"
            pitch = self.region.pitches.get(node.name)
            size = size_text(node) if pitch is None else size_text(node, pitch)
            cut = "" if pitch is None else f"[..., :{node.type.channels}]"
            outputs.line(f"{self.names.role[node.name]} = torch.full({size}, {fill_value}, {dtype}){cut}")
            made.append(self.names.role[node.name])
        outputs.line(f"return [{', '.join(made)}]")
        return [
            'def example(batch=2, device="cpu", seed=0):\n' + inputs.text.rstrip("\n"),
            'def results(batch=2, device="cpu"):\n' + outputs.text.rstrip("\n"),
        ]


_UNLIKELY = {"bool": "True", "int8": "-1"}
"""What stands for a missed element where there is no NaN; 255 where it fits."""

_EPS = {"torch.float32": 2.0**-23, "torch.float16": 2.0**-10, "torch.bfloat16": 2.0**-7}


def _reference_hint(node: Node) -> str:
    return f"t_{node.op.op_name()}" if node.op.kind is not Kind.CONTRACTION else node.op.op_name()


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
