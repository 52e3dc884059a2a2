"""Whether the package triton is there: compiling and running kernels needs it, writing them does not."""

from __future__ import annotations

import importlib.metadata
import importlib.util

from ...graph.errors import CompileError
from ...graph.words import words

WANTED = "triton>=3.6,<3.10"


def has_triton() -> bool:
    """Whether it can be imported."""
    return importlib.util.find_spec("triton") is not None


def triton_version() -> str:
    """Of the installed package; "not installed" where there is none."""
    if not has_triton():
        return "not installed"
    try:
        return importlib.metadata.version("triton")
    except importlib.metadata.PackageNotFoundError:  # built by hand
        return "unknown"


def require_triton(what: str) -> None:
    """Raise CompileError where `what` needs triton and it is not there."""
    if not has_triton():
        raise CompileError(
            f"{what} needs the package triton, which is not installed: pip install '{WANTED}'. Without it "
            + words(
                "backend='aten' runs networks, and emit() writes kernels",
                "--backend aten runs networks, and `convloom emit` writes kernels",
            )
        )
