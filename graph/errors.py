"""The errors a user can cause, each saying what is wrong, where, and what to do."""

from __future__ import annotations


class ConvLoomError(Exception):
    """Base class of every error ConvLoom raises for input that is merely wrong."""


class ShapeError(ConvLoomError):
    """Shapes, ranks or dtypes that do not fit together."""


class ModelFormatError(ConvLoomError):
    """A model file or description that is malformed; the text names the place in the file."""


class UnsupportedLayerError(ConvLoomError):
    """A layer, activation or argument that ConvLoom does not know."""


class UnsafeModelError(ConvLoomError):
    """A model file that asks for something a model file must never do."""


class CompileError(ConvLoomError):
    """A network that cannot be compiled as asked, or an option that does not exist."""
