"""Regions run through PyTorch's own operators, in their fast forms."""

from .across import lower_steps
from .lowering import lower, runner

__all__ = ["lower", "lower_steps", "runner"]
