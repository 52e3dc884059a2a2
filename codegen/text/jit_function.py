"""One jitted function of an emitted file: its arguments, its lines, and the name that follows from them."""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from dataclasses import dataclass, field
from functools import cached_property

from .helpers import HELPERS, with_their_own
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


@dataclass
class JitFunction:
    """One `@triton.jit` function of a file.

    stem: what its name begins with. pointers: (argument, element type of the IR).
    numbers: run-time integers such as the batch.
    constants: `tl.constexpr` arguments and their values; each is a constant of the file under the same name,
    or under the one that `given` has for it. body: its lines. doc: its first line.
    parts: functions of the file that it calls, which are not launched.
    """

    stem: str
    pointers: list[tuple[str, str]]
    numbers: list[str] = field(default_factory=list)
    constants: dict[str, object] = field(default_factory=dict)
    body: Writer = field(default_factory=Writer)
    doc: str = ""
    warps: int = 4
    stages: int = 2
    given: dict[str, str] = field(default_factory=dict)
    parts: Sequence[JitFunction] = ()
    launched: bool = True

    @cached_property
    def name(self) -> str:
        """The stem and six digits of the key: equal where one compiled function serves. The body is complete
        when somebody asks for it."""
        return f"{self.stem}_{self.key[:6]}"

    @cached_property
    def key(self) -> str:
        """Of all that decides what it is compiled to, in 32 hexadecimal digits."""
        return self.digest()

    def digest(self) -> str:
        helpers = [HELPERS[name] for name in with_their_own(self.helpers)]
        parts = [part.key for part in self.parts]
        compiled_as = (self.signature(), self.constants, self.warps, self.stages)
        said = (self.text(self.stem), parts, helpers, *compiled_as)
        return hashlib.sha256(repr(said).encode()).hexdigest()[:32]

    @property
    def helpers(self) -> set[str]:
        """The functions of `HELPERS` that it calls."""
        return {name for name in self.body.uses if name in HELPERS}

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

    def text(self, name: str = "") -> str:
        """Its lines. name: instead of its own."""
        # A number that is 1 or a multiple of 16 would be compiled for that value; a batch must not be.
        options = f"(do_not_specialize=[{', '.join(map(repr, self.numbers))}])".replace("'", '"')
        arguments = [name for name, _ in self.pointers] + self.numbers
        arguments += [f"{name}: tl.constexpr" for name in self.constants]
        head = wrap(f"def {name or self.name}({', '.join(arguments)}):")
        writer = Writer(1)
        if self.doc:
            writer.lines(*wrap_doc(self.doc))
        writer.extend(self.body)
        decorator = "@triton.jit" + (options if self.numbers and self.launched else "")
        return "\n".join(["", decorator, *head]) + "\n" + writer.text


def wrap_doc(text: str) -> list[str]:
    lines = fill(text, WIDTH - 10)
    return [f'"""{lines[0]}"""'] if len(lines) == 1 else [f'"""{lines[0]}', *lines[1:], '"""']
