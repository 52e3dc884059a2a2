"""The operations as functions, with Keras's names and arguments: `ops.where(x > 0, x, 0.1 * x)`.

Each takes its tensors and what an operation is made with, in Keras's order, and gives symbolic tensors. Those
on images stand in `ops.image`, as in Keras.
"""

from __future__ import annotations

import inspect
from collections.abc import Callable
from dataclasses import MISSING, fields
from types import SimpleNamespace
from typing import Any

from ..graph.errors import UnsupportedLayerError, nearest
from ..graph.op import snake_case
from .operations import OPERATIONS, Operation

OWN = ("name", "trainable", "input_shape", "activity_regularizer")
"""Fields that every layer has, and no function of Keras takes but the first."""


class UnknownOperationError(UnsupportedLayerError, AttributeError):
    """An attribute of `ops` that is no operation of ConvLoom."""


def _function(cls: type[Operation]) -> Callable[..., Any]:
    """The operation as a function: its tensors, its arguments, then the tensors it may do without."""
    tensors = [name for name in cls.operands if not name.endswith("?")]
    spare = [name.rstrip("?") for name in cls.operands if name.endswith("?")]
    arguments = [field for field in fields(cls) if field.name not in OWN]
    order = [*tensors, *(field.name for field in arguments), *spare]

    def call(*given: Any, **named: Any) -> Any:
        own = {"name": named.pop("name", None)}
        if len(given) > len(order):
            raise UnsupportedLayerError(
                f"ops.{call.__name__}: takes {len(order)} arguments ({', '.join(order)}), got {len(given)}"
            )
        found = dict(zip(order, given, strict=False))
        for key, value in named.items():
            if key not in order:
                why = nearest(key, order, "it takes")
                raise UnsupportedLayerError(f"ops.{call.__name__}: unknown argument {key!r:.80}{why}")
            if key in found:
                raise UnsupportedLayerError(f"ops.{call.__name__}: {key} is given twice, by place and name")
            found[key] = value
        operation = cls(**{f.name: found.pop(f.name) for f in arguments if f.name in found}, **own)
        return operation(**found)

    empty = inspect.Parameter.empty
    defaults = {field.name: field.default for field in arguments if field.default is not MISSING}
    defaults |= dict.fromkeys(spare)
    call.__name__ = call.__qualname__ = snake_case(cls.__name__)
    call.__doc__ = cls.__doc__
    call.__signature__ = inspect.Signature(  # type: ignore[attr-defined]
        [
            inspect.Parameter(n, inspect.Parameter.POSITIONAL_OR_KEYWORD, default=defaults.get(n, empty))
            for n in order
        ]
    )
    return call


_ALL = {snake_case(name): (cls, _function(cls)) for name, cls in OPERATIONS.items()}
FUNCTIONS = {name: function for name, (cls, function) in _ALL.items() if not cls.module.endswith(".image")}
"""Name -> function, but for those on images."""

image = SimpleNamespace(**{name: f for name, (cls, f) in _ALL.items() if cls.module.endswith(".image")})
"""keras.ops.image."""


def __getattr__(name: str) -> Callable[..., Any]:
    """The function of that name. Raises UnknownOperationError for a name that is none."""
    if name in FUNCTIONS:
        return FUNCTIONS[name]
    if name.startswith("_"):
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    why = nearest(name, FUNCTIONS) or "; docs/keras.md lists those there are"
    raise UnknownOperationError(f"no operation is called {name!r:.80}{why}")


def __dir__() -> list[str]:
    return sorted([*FUNCTIONS, "image"])
