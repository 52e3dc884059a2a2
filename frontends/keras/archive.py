"""The `.keras` archive: three known members read into memory, nothing extracted."""

from __future__ import annotations

import io
import os
import stat
import zipfile
from dataclasses import dataclass
from pathlib import Path

from ...graph.errors import ModelFormatError, UnsafeModelError
from .guard import LARGEST_TEXT

LARGEST_WEIGHTS = 16 * 2**30
LARGEST_RATIO = 200
"""Expansion of a member; Keras stores members as they are, and dense weights hardly shrink."""
FREE_BYTES = 2**20
"""Members up to this size may expand as they like."""


@dataclass(frozen=True)
class Archive:
    """config: the JSON. weights: the HDF5 file, or None where the archive has none."""

    config: bytes
    weights: io.BytesIO | None


def read_archive(path: str | os.PathLike[str], label: str) -> Archive:
    """Raises ModelFormatError for what is no such archive, UnsafeModelError for bombs, links and doubles."""
    try:
        with zipfile.ZipFile(path) as archive:
            members: dict[str, zipfile.ZipInfo] = {}
            for info in archive.infolist():
                if info.filename in members:
                    raise UnsafeModelError(
                        f"{label}: member {info.filename!r:.80} stands twice in the archive"
                    )
                members[info.filename] = info
            if "config.json" not in members:
                raise ModelFormatError(f"{label}: has no config.json; it is not a .keras archive")
            config = _read(archive, members["config.json"], LARGEST_TEXT, label)
            stored = members.get("model.weights.h5")
            if stored is None:
                return Archive(config, None)
            # Weights cannot be larger than the archive allows them to expand.
            size = Path(path).stat().st_size * LARGEST_RATIO + FREE_BYTES
            return Archive(config, io.BytesIO(_read(archive, stored, min(size, LARGEST_WEIGHTS), label)))
    except (zipfile.BadZipFile, NotImplementedError, EOFError, OSError) as error:
        raise ModelFormatError(f"{label}: damaged archive: {error}") from None


def _read(archive: zipfile.ZipFile, info: zipfile.ZipInfo, limit: int, label: str) -> bytes:
    if info.flag_bits & 1 or stat.S_ISLNK(info.external_attr >> 16):
        raise UnsafeModelError(f"{label}: member {info.filename!r} is encrypted or a link")
    ratio = info.file_size / max(1, info.compress_size)
    if info.file_size > limit or (info.file_size > FREE_BYTES and ratio > LARGEST_RATIO):
        raise UnsafeModelError(
            f"{label}: member {info.filename!r} expands {info.compress_size:,} bytes to {info.file_size:,}; "
            f"at most {limit:,} bytes and {LARGEST_RATIO} times are read"
        )
    with archive.open(info) as member:
        data = member.read(info.file_size + 1)
    if len(data) != info.file_size:
        raise ModelFormatError(f"{label}: member {info.filename!r} is not of the size it declares")
    return data
