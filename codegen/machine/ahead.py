"""Compiling what launches will ask for before they do: in processes beside this one, into Triton's own cache.

A launch over tensors without memory tells which functions it needs, and how: Triton is asked as it will be,
and describes what it is about to compile (its `jit_cache_hook`). From that description another process
compiles (its `preload`), so that the key in the cache is the one the launch looks for. Neither needs a GPU.
"""

from __future__ import annotations

import contextlib
import linecache
import threading
import types
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from functools import lru_cache, partial
from typing import Any

import torch
from triton import knobs
from triton.backends.compiler import GPUTarget
from triton.runtime.driver import driver

from ...planning.targets import Chip
from .aot import reason
from .interpreter import compiling, load_module
from .workers import answered


@dataclass(frozen=True)
class Wanted:
    """A jitted function as one launch wants it.

    code: the file that it was loaded from, as `module`. data: what Triton says of it, as JSON.
    """

    function: str
    chip: Chip
    module: str = field(repr=False)
    data: str = field(repr=False)
    code: str = field(repr=False)

    def answer(self) -> str:
        """Compile it, in a process of `workers`: "", or why not."""
        try:
            function = getattr(_module(self.code, self.module), self.function)
            with compiling(), driving(self.chip):
                kernel = function.preload(self.data)
        except Exception as error:  # Triton raises its own, MLIR's and Python's errors alike
            return reason(error)
        _build_launcher(kernel)
        return ""


@dataclass(frozen=True)
class Prepared:
    """What became of the functions that launches want: found in Triton's cache, or compiled anew.

    failed: function -> why it does not compile. Its launch will meet the same error.
    """

    found: int
    compiled: int
    failed: Mapping[str, str]


def launch_wants(
    module: types.ModuleType,
    functions: Iterable[str],
    tensors: Sequence[torch.Tensor],
    chip: Chip | None = None,
) -> dict[Wanted, Any]:
    """The functions that `module.launch(*tensors)` will compile, and the objects that will.

    Those that are in memory already are left out. chip: to compile for, or that of the current device.
    tensors: on the device "meta", without memory but at the places that they will have, since how they are
    aligned decides what is compiled.
    """
    found: dict[Wanted, Any] = {}

    def note(*, fn: Any, compile: Mapping[str, Any], **_: Any) -> bool:
        function, current = fn.jit_function, driver.active.get_current_target()
        here = Chip(current.backend, current.arch, current.warp_size)
        code = "".join(linecache.getlines(function.fn.__code__.co_filename))
        data = compile["specialization_data"]
        found[Wanted(function.__name__, here, function.module, data, code)] = function
        return True  # compile nothing now

    asked = {name: _Asked(getattr(module, name)) for name in functions}
    launch = types.FunctionType(module.launch.__code__, {**vars(module), **asked})
    with compiling(), driving(chip), _hooked(note):
        launch(*tensors)
    return found


def prepare(
    wants: Mapping[Wanted, Any],
    jobs: int,
    chip: Chip | None = None,
    told: Callable[[int, int], object] = lambda done, of: None,
) -> Prepared:
    """Compile what Triton's cache does not hold in `jobs` processes, and load all of it.

    chip: as for `launch_wants`. told: called with how many are compiled, of how many, before the first and
    after each.
    """
    missing = [want for want, function in wants.items() if not _loaded(want, function, chip)]
    if not missing:
        return Prepared(len(wants), 0, {})
    done = iter(range(1, len(missing) + 1))
    told(0, len(missing))
    answers = answered(missing, jobs, lambda: told(next(done), len(missing)))
    failed = {
        want.function: "the compiler process ended before answering" if reason is None else reason
        for want, reason in zip(missing, answers, strict=True)
        if reason != ""
    }
    compiled = sum(_loaded(want, wants[want], chip) for want in missing)
    return Prepared(len(wants) - len(missing), compiled, failed)


def _loaded(want: Wanted, function: Any, chip: Chip | None) -> bool:
    """Whether Triton's cache holds it; from then on the function does too, and launches at once."""
    with compiling(), driving(chip):
        function.device_caches[driver.active.get_current_device()]  # which gives it the `compile` to replace
        compile, here = function.compile, threading.get_ident()

        def look(source: Any, **options: Any) -> Any:
            if threading.get_ident() == here:
                source.make_ir = _not_there
            return compile(source, **options)

        function.compile = look
        try:
            function.preload(want.data)
        except _NotThere:
            return False
        finally:
            function.compile = compile
    return True


class _NotThere(Exception):
    """A function would have to be compiled."""


def _not_there(*_: Any, **__: Any) -> Any:
    raise _NotThere


class _Asked:
    """Stands for a jitted function in a launch that compiles nothing and starts nothing."""

    def __init__(self, function: Any) -> None:
        self.function = function

    def __getitem__(self, grid: Any) -> Callable[..., Any]:
        return partial(self.function.warmup, grid=grid)


@contextlib.contextmanager
def _hooked(note: Callable[..., bool]) -> Iterator[None]:
    """Inside, `note` hears of what this thread is about to compile. Other threads go on as they did."""
    before, here = knobs.runtime.jit_cache_hook, threading.get_ident()

    def hook(**said: Any) -> Any:
        if threading.get_ident() == here:
            return note(**said)
        return before(**said) if before is not None else None

    knobs.runtime.jit_cache_hook = hook
    try:
        yield
    finally:
        knobs.runtime.jit_cache_hook = before


@lru_cache(maxsize=16)
def _module(code: str, name: str) -> types.ModuleType:
    return load_module(code, name, interpreted=False)


# -- the card ----------------------------------------------------------------------------------------------
class _Assumed:
    """A card that need not be there: no more of a driver than compiling asks for."""

    def __init__(self, chip: Chip) -> None:
        self._target = GPUTarget(chip.backend, chip.arch, chip.warp_size)
        self._device = _NUMBERS.setdefault(chip, 1000 + len(_NUMBERS))

    def get_current_target(self) -> GPUTarget:
        return self._target

    def get_current_device(self) -> int:
        return self._device

    def get_current_stream(self, device: int) -> int:
        return 0


_NUMBERS: dict[Chip, int] = {}
"""Numbers of devices that no card has: a function keeps under them what is compiled for it."""


@contextlib.contextmanager
def driving(chip: Chip | None) -> Iterator[None]:
    """Inside, Triton's current device is an assumed one of that kind; for None, the one that it is."""
    if chip is None:
        yield
        return
    before = driver._active
    driver.set_active(_Assumed(chip))
    try:
        yield
    finally:
        driver.set_active(before)


def _build_launcher(kernel: Any) -> None:
    """Triton 3.6 compiles C code for each signature at its first launch, where there is a card: now.

    What goes wrong here goes wrong there too, and is told there.
    """
    if torch.cuda.is_available():
        with contextlib.suppress(Exception):
            driver.active.launcher_cls(kernel.src, kernel.metadata)
