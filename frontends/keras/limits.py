"""Bounds on what a file may ask for. Each is checked before the memory or the time it stands for is taken."""

from __future__ import annotations

from dataclasses import dataclass, fields
from typing import NoReturn

from ...graph.errors import ConvLoomError, ModelFormatError
from ...graph.words import words


@dataclass(frozen=True)
class Limits:
    """What `load` and `loads` accept; every network of keras.applications needs a tenth of it at most.

    json_bytes, json_depth, json_values: of the description: bytes, nesting, and values in it.
    text: characters of one string. integer_bits: of one whole number, beside its sign.
    layers: entries in the file, those of nested models included. model_depth: models inside models.
    nodes: calls of layers once every nested model is written out, as often as it is called.
    parameters: numbers in all weights. tensor_elements: in one sample of any one value; total_elements: of
    all values together.
    archive_members, archive_ratio: of a `.keras`: members, and how far a member may expand.
    archive_bytes: of its weights, which may also be no larger than the model and its optimizer need.
    hdf5_bytes: of a weight file, or of all that an index lists; weight_files: how many those may be.
    hdf5_objects, hdf5_depth: entries looked at in one, and groups in groups.
    """

    json_bytes: int = 16 * 2**20
    json_depth: int = 200
    json_values: int = 1_000_000
    text: int = 100_000
    integer_bits: int = 63
    layers: int = 10_000
    model_depth: int = 16
    nodes: int = 100_000
    parameters: int = 2**32
    tensor_elements: int = 2**31
    total_elements: int = 2**36
    archive_members: int = 1_000
    archive_bytes: int = 32 * 2**30
    archive_ratio: int = 200
    hdf5_bytes: int = 64 * 2**30
    weight_files: int = 1_000
    hdf5_objects: int = 100_000
    hdf5_depth: int = 64

    def __post_init__(self) -> None:
        for field in fields(self):
            value = getattr(self, field.name)
            if not isinstance(value, int) or isinstance(value, bool) or value < 1:
                raise ConvLoomError(f"Limits: {field.name} must be a positive integer, got {value!r:.80}")

    def check(self, name: str, value: int, place: str, what: str) -> None:
        """Raise ModelFormatError where `value` of `what` at `place` lies beyond the limit of that name."""
        if value > getattr(self, name):
            self.exceeded(name, value, place, what)

    def exceeded(self, name: str, value: int, place: str, what: str) -> NoReturn:
        size = f"{value:,}" if value < 2**63 else "2**63 or more"
        raise ModelFormatError(
            f"{place}: {size} {what}; at most {getattr(self, name):,} are read. If you trust the file, "
            + words(f"pass limits=Limits({name}=...)", "load it in Python, with a larger limit")
        )


DEFAULT = Limits()
