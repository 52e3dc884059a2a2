"""Triton kernels on the CPU, in the process that also compiles them for a GPU.

Triton decides between compiling and interpreting when `@triton.jit` decorates a function, and for its own
library (`tl.max`, `tl.cdiv`, ...) when it is imported. So a process is usually one or the other, chosen by an
environment variable before the first import. Here the choice is made per kernel file instead:

- `load_module` runs an emitted file with its kernels interpreted or native;
- `interpreting()` puts Triton's language into the interpreter's state and takes it back out, completely.

The language's state is process-wide, hence the lock: a thread that compiles waits for one that interprets.
"""

from __future__ import annotations

import contextlib
import functools
import hashlib
import linecache
import threading
import traceback
import types
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any

import numpy as np
import triton.language as tl
from triton import knobs
from triton.runtime import interpreter
from triton.runtime.errors import InterpreterError
from triton.runtime.interpreter import InterpretedFunction
from triton.runtime.jit import JITFunction

from ...graph.errors import CompileError
from .interpreter_repairs import repairs

# All that the interpreter writes to while it runs: the namespaces kernels see, the classes of their values.
_MODULES: tuple[Any, ...] = (tl, tl.core, tl.standard, tl.math, tl.random)
_CLASSES: tuple[Any, ...] = (tl.tensor, tl.dtype, tl.core.tensor_descriptor_base)


class InterpretedKernel(InterpretedFunction):
    """A `@triton.jit` function that runs in the interpreter, wherever and whenever it is launched."""

    def __init__(self, fn: Callable[..., Any]) -> None:
        super().__init__(fn)
        self._rewritten: Callable[..., Any] | None = None

    def run(self, *args: Any, grid: Any, warmup: bool, **kwargs: Any) -> Any:
        """Launch over `grid`; raises CompileError with the kernel's name and line if the kernel fails."""
        # Masked lanes divide 0 by 0, which a GPU does in silence.
        with interpreting(), np.errstate(divide="ignore", invalid="ignore"):
            try:
                return super().run(*args, grid=grid, warmup=warmup, **kwargs)
            except InterpreterError as error:
                raise CompileError(_failure_text(self.fn, error)) from error

    def rewrite(self) -> Callable[..., Any]:
        """The function with its assignments wrapped, kept here rather than in Triton's table without end."""
        if self._rewritten is None:
            self._rewritten = self.rewriter.rewrite_ast()
        return self._rewritten

    def __call__(self, *args: Any, **kwargs: Any) -> Any:
        """Call from inside a kernel. `interpreting()` has patched the language already: no patch per call."""
        return self.rewrite()(*args, **kwargs)


def _failure_text(fn: Callable[..., Any], error: InterpreterError) -> str:
    cause: BaseException = error
    while isinstance(cause, InterpreterError) and cause.__cause__ is not None:
        cause = cause.__cause__
    filename = fn.__code__.co_filename
    lines = [frame for frame in traceback.extract_tb(cause.__traceback__) if frame.filename == filename]
    where = f", line {lines[-1].lineno}: `{lines[-1].line}`" if lines else ""
    return (
        f"kernel {fn.__name__} failed in Triton's interpreter{where}\n"
        f"{type(cause).__name__}: {cause}\n"
        "Run the kernel's file by itself to debug it, or compile the network with backend='aten'."
    )


@dataclass(frozen=True)
class _LibraryFunction:
    """One name of Triton's library under which a jitted function is found, with both forms of it."""

    namespace: Any
    name: str
    native: JITFunction[Any]
    interpreted: Any


def _both_forms(function: Any) -> tuple[JITFunction[Any], InterpretedKernel]:
    native = function if isinstance(function, JITFunction) else JITFunction(function.fn)
    return native, InterpretedKernel(function.fn)


def _library() -> list[_LibraryFunction]:
    """Every place where Triton's library keeps a jitted function; one pair of forms for each function."""
    pairs: dict[int, tuple[JITFunction[Any], InterpretedKernel]] = {}
    found: list[_LibraryFunction] = []
    for module in _MODULES:
        for name, value in vars(module).items():
            if isinstance(value, JITFunction | InterpretedFunction):
                native, interpreted = pairs.setdefault(id(value.fn), _both_forms(value))
                found.append(_LibraryFunction(module, name, native, interpreted))
    members = {entry.name: entry for entry in found if entry.namespace is tl.standard}
    for name in vars(tl.tensor):
        if name in members:  # x.sum(axis): a method must be a plain function to be bound to its tensor
            method = functools.partialmethod(_call_form, members[name].interpreted)
            found.append(_LibraryFunction(tl.tensor, name, members[name].native, method))
    return found


def _call_form(tensor: Any, form: InterpretedKernel, *args: Any, **kwargs: Any) -> Any:
    return form(tensor, *args, **kwargs)


class _Language:
    """Triton's language in one of two states, native or interpreted; `switch` moves between them."""

    def __init__(self) -> None:
        self.lock = threading.RLock()
        self.interpreted: bool | None = None  # not touched yet
        self._library = _library()
        self._repairs = repairs()
        self._broken = [(target, name, vars(target).get(name)) for target, name, _ in self._repairs]
        self._native = [(space, dict(vars(space))) for space in (*_MODULES, *_CLASSES)]
        for entry in self._library:  # already interpreted where the user set TRITON_INTERPRET
            names = next(names for space, names in self._native if space is entry.namespace)
            names[entry.name] = entry.native
        # Names the interpreter's rewriter adds to the library's globals; they leave with it and come back.
        self._added: dict[types.ModuleType, dict[str, Any]] = {module: {} for module in _MODULES}

    @contextlib.contextmanager
    def state(self, interpreted: bool) -> Iterator[None]:
        with self.lock:
            if self.interpreted == interpreted:
                yield
                return
            before, knob = self.interpreted, vars(knobs.runtime).get("interpret")
            outside = knobs.runtime.interpret if before is None else before
            try:
                self._switch(interpreted)
                yield
            finally:
                self._switch(outside)
                self.interpreted = before
                _set_knob(knob)

    def _switch(self, interpreted: bool) -> None:
        self._restore_native()
        _set_knob(interpreted)
        if interpreted:
            for entry in self._library:
                setattr(entry.namespace, entry.name, entry.interpreted)
            for module, names in self._added.items():
                vars(module).update(names)
            for target, name, value in self._repairs:
                setattr(target, name, value)
            interpreter._patch_lang(_sees_whole_language)
        self.interpreted = interpreted

    def _restore_native(self) -> None:
        for target, name, value in self._broken:
            if value is not None:
                setattr(target, name, value)
            elif name in vars(target):  # an instance's own attribute that hid its class's method
                delattr(target, name)
        for space, names in self._native:
            now = dict(vars(space))
            for name, value in names.items():
                if now.get(name) is not value:
                    setattr(space, name, value)
            extra = {name: value for name, value in now.items() if name not in names}
            for name in extra:
                delattr(space, name)
            if space in self._added:
                self._added[space].update(extra)


def _set_knob(value: bool | None) -> None:
    """Set Triton's switch in this process only: a compile worker started meanwhile must not inherit it."""
    propagate, knobs.propagate_env = knobs.propagate_env, False
    try:
        if value is None:
            del knobs.runtime.interpret
        else:
            knobs.runtime.interpret = value
    finally:
        knobs.propagate_env = propagate


# Triton patches those language modules that it finds among a function's globals: this function's hold both.
_sees_whole_language = types.FunctionType((lambda: None).__code__, {"tl": tl, "core": tl.core})
_LANGUAGE = _Language()


def interpreting() -> contextlib.AbstractContextManager[None]:
    """A context in which Triton's language is interpreted; native before it and after it. Reentrant.

    A kernel of an interpreted module enters it by itself at each launch; wrap many launches in one
    `interpreting()` to save the switch (about a millisecond). Other threads that interpret or compile wait
    until it is left.
    """
    return _LANGUAGE.state(interpreted=True)


def compiling() -> contextlib.AbstractContextManager[None]:
    """A context in which Triton compiles, even where TRITON_INTERPRET is set or inside `interpreting()`."""
    return _LANGUAGE.state(interpreted=False)


def load_module(source: str, name: str, *, interpreted: bool) -> types.ModuleType:
    """Run the text of an emitted kernel file and return it as a module.

    Its `@triton.jit` functions are interpreted or native as asked. The text is registered with `linecache`,
    so that Triton can read it back and tracebacks show its lines; the module is not entered in `sys.modules`.
    `name` is an identifier and becomes `__name__`, so the file's `__main__` part does not run.
    Raises CompileError if the text is not valid Python.
    """
    digest = hashlib.sha256(source.encode()).hexdigest()[:12]
    filename = f"<kernel {name} {digest}>"
    linecache.cache[filename] = (len(source), None, source.splitlines(keepends=True), filename)
    try:
        code = compile(source, filename, "exec")
    except SyntaxError as error:
        text = f"kernel file {name}, line {error.lineno}: {error.msg}; correct the source"
        raise CompileError(text) from error
    module = types.ModuleType(name)
    module.__file__ = filename
    with _LANGUAGE.state(interpreted):
        exec(code, vars(module))
    for key, value in list(vars(module).items()):
        if type(value) is InterpretedFunction:
            setattr(module, key, InterpretedKernel(value.fn))
    return module
