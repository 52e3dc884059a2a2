"""Regions run through PyTorch's own operators, in their fast forms."""

from .lowering import lower, runner

__all__ = ["lower", "runner"]
