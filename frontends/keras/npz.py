"""Arrays of strangers in `.npy` form: headers are read before memory is taken for what they announce."""

from __future__ import annotations

import re
import zipfile
from math import prod
from typing import IO, Any

import numpy as np
import numpy.typing as npt
import torch

from ...graph.errors import ModelFormatError, UnsafeModelError
from ..network import Network
from .legacy import Found
from .limits import Limits
from .values import shown

Array = npt.NDArray[Any]
LONGEST_HEADER = 10_000
_HEADER = re.compile(
    rb"\{\s*'descr':\s*'([<>|=]?[a-zA-Z]\d{0,3})',\s*'fortran_order':\s*(True|False),"
    rb"\s*'shape':\s*\(((?:\d{1,18},?\s*){0,32})\),?\s*\}\s*"
)


def read_npy(archive: zipfile.ZipFile, info: zipfile.ZipInfo, label: str, most: int) -> Array:
    """An array of plain numbers. most: bytes it may have; no more than the member has are taken either.

    Raises ModelFormatError for others, ValueError for what is no such array.
    """
    if info.flag_bits & 1:
        raise UnsafeModelError(f"{label}: {shown(info.filename)} is encrypted")
    with archive.open(info) as member:
        shape, columns_first, dtype = _header(member)
        size = prod(shape) * dtype.itemsize
        if dtype.kind not in "fiub" or size > min(info.file_size, most):
            raise ModelFormatError(
                f"{label}: {info.filename!r:.80} is an array of {dtype}, shape {shape}; at most "
                f"{most:,} bytes of plain numbers are read, and no more than the file has"
            )
        data = member.read(size)
    if len(data) != size:
        raise ModelFormatError(f"{label}: {info.filename!r:.80} ends before its {size:,} bytes")
    values: Array = np.frombuffer(bytearray(data), dtype)  # writable
    return values.reshape(shape, order="F" if columns_first else "C")


def _header(member: IO[bytes]) -> tuple[tuple[int, ...], bool, np.dtype[Any]]:
    """Shape, whether the first axis runs fastest, and dtype; NumPy's own reader would compile the text."""
    start = member.read(8)
    width = 2 if start[6:7] == b"\x01" else 4
    length = int.from_bytes(member.read(width), "little")
    if not start.startswith(b"\x93NUMPY") or length > LONGEST_HEADER:
        raise ValueError("a member has no header of a NumPy array")
    found = _HEADER.fullmatch(member.read(length))
    if found is None:
        raise ValueError("a member is no array of plain numbers")
    descr, order, sizes = (part.decode("ascii") for part in found.groups())
    shape = tuple(int(size) for size in sizes.split(",") if size.strip())
    return shape, order == "True", np.dtype(descr)


def read_named(
    model: Network, archive: zipfile.ZipFile, label: str, limits: Limits
) -> tuple[Found, list[str]]:
    """The weights of an `.npz` by the names they have in the model, and what does not fit.

    A graph lacks the layers of its model that no output depends on; their weights may be there.
    """
    members = {info.filename.removesuffix(".npy"): info for info in archive.infolist()}
    slots = {slot.name: slot for slot in model.slots()}
    if missing := [name for name in slots if name not in members]:
        held = ", ".join(shown(name)[1:-1] for name in list(members)[:10])
        raise ModelFormatError(
            f"{label} lacks the weights {', '.join(missing[:10])}{' ...' * (len(missing) > 10)}; "
            f"it holds {held or 'nothing'}{' ...' * (len(members) > 10)}"
        )
    found: Found = []
    extra = [name for name in members if name not in slots] if model.has_layers else []
    problems = [f"the file holds {shown(name)}, which no layer expects" for name in extra]
    for name, slot in slots.items():
        weight = slot.weight
        values = read_npy(archive, members[name], label, min(8 * slot.size + 2**10, limits.archive_bytes))
        wanted = "f" if weight.dtype == "float32" else "iuf"
        if values.shape != weight.shape or values.dtype.kind not in wanted:
            problems.append(
                f"{slot.layer.label}: weight {weight.name!r} has shape {values.shape} of {values.dtype}, "
                f"expected {weight.shape} of {weight.dtype}"
            )
        else:
            found.append((slot.layer, weight.name, torch.from_numpy(values.astype(weight.dtype))))
    return found, problems
