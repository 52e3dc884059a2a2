"""HDF5 files of strangers: only data inside the file is read, and only as much as was announced.

h5py follows links and external storage silently, and a chunk may be larger than the data set it belongs to:
so every step of a path is looked at before it is taken, and every data set before it is read.
"""

from __future__ import annotations

import os
from typing import IO, Any

import h5py
import numpy as np
import numpy.typing as npt

from ...graph.errors import ModelFormatError, UnsafeModelError
from .limits import DEFAULT, Limits
from .values import shown

BUILT_IN_FILTERS = frozenset({1, 2, 3})
"""Deflate, shuffle and the Fletcher checksum; HDF5 loads a library from disk for others."""
OPAQUE = np.dtype("V2")
LONGEST_DTYPE = 64
FREE_CHUNK = 2**20
"""Bytes a chunk may have, however small its data set is."""


def open_hdf5(source: str | os.PathLike[str] | IO[bytes], label: str, limits: Limits = DEFAULT) -> h5py.File:
    """Raises ModelFormatError for what is no HDF5 file, or too large a one."""
    try:
        if isinstance(source, (str, os.PathLike)):
            size = os.stat(source).st_size
        else:
            size = source.seek(0, os.SEEK_END)
        limits.check("hdf5_bytes", size, label, "bytes of HDF5")
        return h5py.File(source, "r")
    except FileNotFoundError:
        raise ModelFormatError(f"{label}: there is no such file") from None
    except (OSError, ValueError, TypeError) as error:
        raise ModelFormatError(f"{label}: not a readable HDF5 file: {first_line(error)}") from None


def first_line(error: BaseException) -> str:
    """What a library says, on one line and without control characters."""
    return shown((str(error) or type(error).__name__).splitlines()[0])[1:-1]


def child(group: Any, path: str, label: str, limits: Limits = DEFAULT) -> Any:
    """The object at a path below `group`, or None where there is none.

    Raises UnsafeModelError where a step of the path is a link to elsewhere.
    """
    steps = path.split("/")
    limits.check("hdf5_depth", len(steps), f"{label}: {shown(path)}", "groups in groups")
    current: Any = group
    for step in steps:
        # "in" and [] would follow links, getlink does not.
        link = current.get(step, getlink=True) if isinstance(current, h5py.Group) and step else None
        if link is None:
            return None
        if not isinstance(link, h5py.HardLink):
            raise UnsafeModelError(
                f"{label}: {shown(path)} is a {type(link).__name__}; only data inside the file is read"
            )
        current = current[step]
    return current


def child_names(group: h5py.Group, label: str, limits: Limits = DEFAULT) -> list[str]:
    limits.check("hdf5_objects", len(group), f"{label}: {shown(group.name)}", "entries")
    return list(group)


def is_bfloat16(data: h5py.Dataset) -> bool:
    """Whether Keras says of two opaque bytes, in an attribute, that they are a bfloat16, which HDF5 lacks."""
    if data.dtype != OPAQUE or "dtype" not in data.attrs:
        return False
    stored = data.attrs.get_id("dtype")
    text = h5py.check_string_dtype(stored.dtype)
    if text is None or stored.shape != () or (text.length or 0) > LONGEST_DTYPE:
        return False
    return data.attrs["dtype"] in ("bfloat16", b"bfloat16")


def read_array(
    data: h5py.Dataset, shape: tuple[int, ...], place: str, dtype: str = "float32", bfloat16: bool = False
) -> npt.NDArray[Any]:
    """The values of a data set whose shape the caller expects, as `dtype`.

    bfloat16: its bytes are the upper halves of float32 numbers. Raises ModelFormatError for another shape, or
    for numbers of another kind than `dtype`'s; `check_storage` comes before it.
    """
    kinds = "f" if dtype == "float32" else "iu"
    if tuple(data.shape or ()) != shape or data.shape is None or not (data.dtype.kind in kinds or bfloat16):
        raise ModelFormatError(
            f"{place} has shape {tuple(data.shape or ())} of {data.dtype}, expected {shape} of {dtype}"
        )
    values = np.asarray(data[()])
    if bfloat16:
        values = (values.view("<u2").astype(np.uint32) << 16).view(np.float32)
    return values.astype(dtype, copy=False)


def check_storage(data: Any, place: str) -> None:
    """Refuse a data set that reading would take out of the file, or that takes more memory than it has."""
    if not isinstance(data, h5py.Dataset):
        raise ModelFormatError(f"{place} is {'missing' if data is None else 'no data set'}")
    if data.external or data.is_virtual:
        raise UnsafeModelError(f"{place}: keeps its data outside the file; only data inside it is read")
    created = data.id.get_create_plist()
    filters = {created.get_filter(i)[0] for i in range(created.get_nfilters())}
    if foreign := filters - BUILT_IN_FILTERS:
        raise UnsafeModelError(
            f"{place}: is packed by filter {min(foreign)}, for which HDF5 would load a library; store it "
            f"without compression or with gzip"
        )
    if data.chunks is not None:
        chunk = data.dtype.itemsize
        for size in data.chunks:
            chunk *= size
        if chunk > max(FREE_CHUNK, 4 * data.size * data.dtype.itemsize):
            raise ModelFormatError(f"{place}: is stored in chunks of {chunk:,} bytes, far more than it holds")
