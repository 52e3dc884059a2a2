"""The error of a region that has no kernel."""

from __future__ import annotations

from ..graph.errors import CompileError


class NotEmittable(CompileError):
    """A region that no emitter handles; the runtime computes it with PyTorch's own operators instead."""
