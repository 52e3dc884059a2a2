"""The `.keras` archive: its known members read into memory, nothing extracted."""

from __future__ import annotations

import io
import os
import stat
import struct
import zipfile
import zlib
from collections.abc import Iterator
from contextlib import contextmanager

from ...graph.errors import ModelFormatError, UnsafeModelError
from .limits import DEFAULT, Limits
from .values import shown

CONFIG, WEIGHTS = "config.json", "model.weights.h5"
FREE_BYTES = 2**20
"""Members up to this size may expand as they like."""
METHODS = (zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED)
END_RECORD = 22 + 2**16
"""Bytes in which the end of a zip file is announced, its comment included."""


class Archive:
    """An open archive whose index has been checked."""

    def __init__(self, archive: zipfile.ZipFile, label: str, limits: Limits) -> None:
        self._archive, self._label, self._limits = archive, label, limits
        self._members: dict[str, zipfile.ZipInfo] = {}
        for info in archive.infolist():
            if info.filename in self._members:
                raise UnsafeModelError(f"{label}: member {shown(info.filename)} stands twice in the archive")
            self._members[info.filename] = info
            steps = info.filename.replace("\\", "/").split("/")
            if ".." in steps or steps[0] == "" or ":" in steps[0] or stat.S_ISLNK(info.external_attr >> 16):
                raise UnsafeModelError(
                    f"{label}: member {shown(info.filename)} is a link, or leads out of the archive"
                )
        if CONFIG not in self._members:
            raise ModelFormatError(f"{label}: has no {CONFIG}; it is not a .keras archive")

    def config(self) -> bytes:
        """The JSON."""
        return self._read(CONFIG, "json_bytes", self._limits.json_bytes)

    def weights(self, expected: int) -> io.BytesIO | None:
        """The HDF5 file, or None where the archive has none. expected: bytes the model's weights may take."""
        if WEIGHTS not in self._members:
            if other := [name for name in self._members if name.startswith("model.weights")]:
                raise ModelFormatError(
                    f"{self._label}: keeps its weights in {shown(other[0])}; ConvLoom reads {WEIGHTS}. Save "
                    f"the model again with Keras's default format"
                )
            return None
        size = self._members[WEIGHTS].file_size
        if size > expected and self._members[WEIGHTS].compress_type != zipfile.ZIP_STORED:
            raise UnsafeModelError(
                f"{self._label}: {WEIGHTS} expands to {size:,} bytes; "
                f"this model and its optimizer need at most {expected:,}"
            )
        return io.BytesIO(self._read(WEIGHTS, "archive_bytes", self._limits.archive_bytes))

    def _read(self, name: str, limit: str, most: int) -> bytes:
        info, place = self._members[name], f"{self._label}: {name}"
        if info.flag_bits & 1:
            raise UnsafeModelError(f"{place}: is encrypted")
        if info.compress_type not in METHODS:
            raise ModelFormatError(f"{place}: is compressed by method {info.compress_type}, not by deflate")
        if info.file_size > most:
            self._limits.exceeded(limit, info.file_size, place, "bytes")
        ratio = info.file_size / max(1, info.compress_size)
        if info.file_size > FREE_BYTES and ratio > self._limits.archive_ratio:
            raise UnsafeModelError(
                f"{place}: expands {info.compress_size:,} bytes to {info.file_size:,}; "
                f"at most {self._limits.archive_ratio} times are read"
            )
        with self._archive.open(info) as member:
            data = member.read(info.file_size + 1)
        if len(data) != info.file_size:
            raise ModelFormatError(f"{place}: is not of the size it declares")
        return data


@contextmanager
def open_archive(path: str | os.PathLike[str], label: str, limits: Limits = DEFAULT) -> Iterator[Archive]:
    """Raises ModelFormatError for what is no such archive, UnsafeModelError for bombs, links and doubles."""
    try:
        with open(path, "rb") as file:
            _check_index(file, label, limits)
            with zipfile.ZipFile(file) as archive:
                yield Archive(archive, label, limits)
    except (
        zipfile.BadZipFile,
        zlib.error,
        struct.error,
        NotImplementedError,
        EOFError,
        OSError,
        ValueError,
        OverflowError,
        RuntimeError,
    ) as error:
        raise ModelFormatError(f"{label}: damaged archive: {shown(str(error))}") from None


def _check_index(file: io.BufferedReader, label: str, limits: Limits) -> None:
    """The number of members and the size of the index, before zipfile reads the whole index."""
    size = file.seek(0, os.SEEK_END)
    file.seek(max(0, size - END_RECORD))
    tail = file.read(END_RECORD)
    at = tail.rfind(b"PK\x05\x06")
    if at < 0 or len(tail) - at < 22:
        raise ModelFormatError(f"{label}: damaged archive: its end is missing")
    members, bytes_of_index = struct.unpack("<HI", tail[at + 10 : at + 16])
    if members == 0xFFFF or bytes_of_index == 0xFFFFFFFF:
        raise ModelFormatError(f"{label}: its index says it has 65,535 members or more; a .keras has three")
    limits.check("archive_members", members, label, "members")
    limits.check("archive_members", bytes_of_index // 2**10, label, "kB of index")
    file.seek(0)
