"""ConvLoom compiles convolutional networks to readable, fused Triton kernels."""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from .api import *  # noqa: F403

__version__ = "0.1.0"


def __getattr__(name: str) -> Any:
    """What `api` holds, imported here and not before: `convloom --version` needs no PyTorch."""
    if name.startswith("__") and name != "__all__":
        raise AttributeError(name)
    api = importlib.import_module(f"{__name__}.api")
    found = getattr(api, name, globals().get(name, api))  # a room, such as convloom.graph, is there by now
    if found is api:
        raise AttributeError(f"module 'convloom' has no attribute {name!r}")
    globals()[name] = found
    return found


def __dir__() -> list[str]:
    return sorted({*globals(), *__getattr__("__all__")})
