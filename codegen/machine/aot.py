"""Ahead-of-time compilation of emitted kernels, on a machine that needs no GPU.

Triton compiles for any target it knows; the resources a kernel takes there are read from the result.
"""

from __future__ import annotations

import contextlib
import io
import re
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from ...graph.errors import CompileError
from ...planning.targets import target as find_target
from .installed import require_triton
from .resources import Resources, read_resources
from .workers import Worker, answered


@dataclass(frozen=True)
class Request:
    """One kernel to compile: the arguments of `compile_kernel`."""

    source: str
    function: str
    signature: Mapping[str, str]
    constants: Mapping[str, object]
    target: str
    num_warps: int = 4
    num_stages: int = 2

    def answer(self) -> Resources:
        """What it takes, in the process that compiles it."""
        return compile_request(self)


def compile_kernel(
    source: str,
    function: str,
    signature: Mapping[str, str],
    constants: Mapping[str, object],
    *,
    target: str,
    num_warps: int,
    num_stages: int,
) -> Resources:
    """Compile one `@triton.jit` function of an emitted file for `target` and report what it takes.

    `signature` gives the type of each run-time argument: "*bf16" for a pointer, aligned to 16 bytes as every
    tensor the runtime makes is, "i32" for a number, "i32:16" for one known to be a multiple of 16.
    `constants` gives the value of each `tl.constexpr`, and None for a pointer that is not passed.
    Raises CompileError naming the kernel, the target and the reason.
    """
    chosen = find_target(target)
    require_triton("compiling a kernel")
    # Imported where they are needed: all else works without Triton.
    import triton
    from triton.backends.compiler import GPUTarget
    from triton.compiler import ASTSource
    from triton.runtime.jit import JITFunction

    from .interpreter import compiling, load_module

    kernel = getattr(load_module(source, function, interpreted=False), function, None)
    if not isinstance(kernel, JITFunction):
        raise CompileError(f"the source has no @triton.jit function called {function!r}")
    try:
        types = _argument_types(kernel.arg_names, signature, constants)
        divisible = {
            (position,): [["tt.divisibility", 16]]
            for position, kind in enumerate(types.values())
            if kind.startswith("*") or kind.endswith(":16")
        }
        plain = {name: kind.removesuffix(":16") for name, kind in types.items()}
        ast_source = ASTSource(fn=kernel, signature=plain, constexprs=dict(constants), attrs=divisible)
        # Triton 3.9 asks for an explicit choice; fused multiply-add has always been the default.
        options = {"num_warps": num_warps, "num_stages": num_stages, "enable_fp_fusion": True}
        gpu = GPUTarget(chosen.gpu.backend, chosen.gpu.arch, chosen.gpu.warp_size)
        start = time.perf_counter()
        with compiling(), contextlib.redirect_stdout(io.StringIO()):  # it prints whole programs when it fails
            compiled = triton.compile(ast_source, target=gpu, options=options)
        seconds = time.perf_counter() - start
        return read_resources(compiled, function, chosen, num_warps, seconds)
    except CompileError as error:
        raise CompileError(f"kernel {function} for {target}: {error}") from error
    except Exception as error:  # Triton raises its own, MLIR's and Python's errors alike
        raise CompileError(f"kernel {function} does not compile for {target}: {reason(error)}") from error


def _argument_types(
    names: Sequence[str], signature: Mapping[str, str], constants: Mapping[str, object]
) -> dict[str, str]:
    types = {name: "constexpr" if name in constants else signature.get(name, "") for name in names}
    missing = [name for name, kind in types.items() if not kind]
    unknown = sorted({*signature, *constants} - set(names))
    if missing or unknown:
        raise CompileError(
            f"arguments without a type or value: {missing}; given but not arguments of it: {unknown}"
        )
    return types


def reason(error: BaseException) -> str:
    """The first line that says something: of the innermost cause, past Triton's quotation of the source."""
    cause = error
    while cause.__cause__ is not None:
        cause = cause.__cause__
    text = str(getattr(cause, "error_message", None) or cause)
    lines = [line.strip() for line in text.splitlines() if line.strip()]
    # ptxas: "ptxas kernel.ptx, line 45; error   : Modifier ..." beneath a heading of Triton's
    telling = next((found[1] for line in lines if (found := re.search(r"error\s*:\s*(\S.*)", line))), None)
    node = getattr(error, "node", None)
    place = f" (line {node.lineno} of the kernel)" if node is not None and hasattr(node, "lineno") else ""
    return f"{telling or (lines[0] if lines else type(cause).__name__)}{place}"


def compile_request(request: Request) -> Resources:
    """`compile_kernel` that answers with the error's text in `Resources.error` instead of raising it."""
    try:
        return compile_kernel(
            request.source,
            request.function,
            request.signature,
            request.constants,
            target=request.target,
            num_warps=request.num_warps,
            num_stages=request.num_stages,
        )
    except CompileError as error:
        return Resources(request.function, request.target, error=str(error))


def compile_many(requests: Sequence[Request], jobs: int = 2) -> list[Resources]:
    """Compile many kernels in `jobs` processes; results in the order of `requests`.

    A kernel that does not compile, or that kills its compiler, is a result with `error`; the others go on.
    With `jobs` of 1 everything happens in this process.
    """
    return [compile_request(request) for request in requests] if jobs <= 1 else compile_apart(requests, jobs)


def compile_apart(requests: Sequence[Request], jobs: int = 1) -> list[Resources]:
    """`compile_many` that never compiles in this process."""
    return _results(requests, answered(requests, jobs))


def compile_by(worker: Worker[Resources], requests: Sequence[Request]) -> list[Resources]:
    """`compile_apart` in a process that is kept for the next kernels: beginning one takes seconds."""
    return _results(requests, [worker.ask(request) for request in requests])


def _results(requests: Sequence[Request], answers: Sequence[Resources | None]) -> list[Resources]:
    pairs = zip(requests, answers, strict=True)
    return [_unanswered(request) if used is None else used for request, used in pairs]


def _unanswered(request: Request) -> Resources:
    text = f"kernel {request.function} for {request.target}: the compiler process ended before answering"
    return Resources(request.function, request.target, error=text)
