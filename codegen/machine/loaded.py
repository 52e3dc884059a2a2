"""Kernels in memory: the same text is loaded once in a process, and the same function compiled once."""

from __future__ import annotations

import hashlib
import threading
import types
from collections.abc import Mapping
from typing import Any
from weakref import WeakValueDictionary

from .interpreter import load_module

_MODULES: WeakValueDictionary[tuple[str, bool], types.ModuleType] = WeakValueDictionary()
_FUNCTIONS: WeakValueDictionary[str, Any] = WeakValueDictionary()
_LOCK = threading.RLock()


def load(code: str, functions: Mapping[str, str], interpreted: bool) -> types.ModuleType:
    """The text of a kernel file as a module.

    functions: name -> key of its jitted functions. One that is loaded already, with another file, takes the
    place of its equal: what it was compiled to serves both.
    """
    key = hashlib.sha256(code.encode()).hexdigest(), interpreted
    with _LOCK:
        module = _MODULES.get(key)
        if module is None:
            module = load_module(code, next(iter(functions)), interpreted=interpreted)
            if not interpreted:
                for name, same in functions.items():
                    setattr(module, name, _FUNCTIONS.setdefault(same, getattr(module, name)))
            _MODULES[key] = module
        return module
