"""The `.keras` archive, and the folder it unpacks to: their known members are read, nothing is extracted."""

from __future__ import annotations

import abc
import io
import os
import stat
import struct
import zipfile
import zlib
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import IO

from ...graph.errors import ModelFormatError, UnsafeModelError
from ...graph.words import words
from .kinds import FOLDER, REMEDY
from .limits import DEFAULT, Limits
from .source import Source
from .values import shown

CONFIG, WEIGHTS = "config.json", "model.weights.h5"
FREE_BYTES = 2**20
"""Members up to this size may expand as they like."""
METHODS = (zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED)
END_RECORD = 22 + 2**16
"""Bytes in which the end of a zip file is announced, its comment included."""


class Members(abc.ABC):
    """The parts of a saved model."""

    @abc.abstractmethod
    def config(self) -> bytes:
        """The JSON."""

    @abc.abstractmethod
    def weights(self, expected: int) -> str | IO[bytes] | None:
        """The HDF5 file, or None where there is none. expected: bytes the model's weights may take."""


class Archive(Members):
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

    @property
    def names(self) -> list[str]:
        """Of its members."""
        return list(self._members)

    def config(self) -> bytes:
        if CONFIG not in self._members:
            raise ModelFormatError(f"{self._label}: has no {CONFIG}; {_other_archive(self.names)}")
        return self._read(CONFIG, "json_bytes", self._limits.json_bytes)

    def weights(self, expected: int) -> IO[bytes] | None:
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


class Folder(Members):
    """An archive that somebody unpacked. Only plain files in it are read, no links."""

    def __init__(self, folder: Path, label: str, limits: Limits) -> None:
        self._folder, self._label, self._limits = folder, label, limits
        if not self._member(CONFIG):
            saved_model = (folder / "saved_model.pb").exists()
            what = "a TensorFlow SavedModel, which ConvLoom does not read" if saved_model else "a folder"
            raise ModelFormatError(f"{label}: this is {what}; it has no {CONFIG}. Note that {REMEDY}")

    def config(self) -> bytes:
        size = (self._folder / CONFIG).stat().st_size
        self._limits.check("json_bytes", size, f"{self._label}: {CONFIG}", "bytes")
        return (self._folder / CONFIG).read_bytes()

    def weights(self, expected: int) -> str | None:
        return os.fspath(self._folder / WEIGHTS) if self._member(WEIGHTS) else None

    def _member(self, name: str) -> bool:
        """Whether there is a file of that name. Raises UnsafeModelError for a link and its like."""
        try:
            found = (self._folder / name).lstat()
        except FileNotFoundError:
            return False
        if not stat.S_ISREG(found.st_mode):
            raise UnsafeModelError(f"{self._label}: {name} is a link, or no plain file")
        return True


def _other_archive(names: list[str]) -> str:
    """What an archive is that is no saved model."""
    if any(name.endswith("data.pkl") for name in names):
        return "it was saved by PyTorch, with Python pickles, which could run code and are never opened"
    if names and all(name.endswith(".npy") for name in names):
        option = words("weights=", "--weights")
        return f"it is an .npz of arrays; give one with a model's weights as {option}, one of data as input"
    if inner := [name for name in names if name.endswith(f"/{CONFIG}")]:
        return f"it holds {shown(inner[0])}: the files of a model must not lie in a folder of the archive"
    return f"it is not a .keras archive; {REMEDY}"


@contextmanager
def open_members(source: Source, limits: Limits = DEFAULT) -> Iterator[Members]:
    """The archive, or the folder. Raises as `open_archive`, UnsafeModelError for links in a folder."""
    if source.form == FOLDER:
        assert isinstance(source.file, Path)
        try:
            yield Folder(source.file, source.label, limits)
        except OSError as error:
            raise ModelFormatError(f"{source.label}: cannot be read: {error.strerror}") from None
    else:
        with open_archive(source, limits) as archive:
            yield archive


@contextmanager
def open_zip(source: Source, limits: Limits = DEFAULT) -> Iterator[zipfile.ZipFile]:
    """Any zip file. Raises ModelFormatError for a damaged one, or one of too many members."""
    label = source.label
    try:
        if isinstance(source.file, Path):
            with source.file.open("rb") as file, _indexed(file, label, limits) as archive:
                yield archive
        else:
            with _indexed(source.file, label, limits) as archive:
                yield archive
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


@contextmanager
def open_archive(source: Source, limits: Limits = DEFAULT) -> Iterator[Archive]:
    """Raises ModelFormatError for what is no archive, UnsafeModelError for bombs, links and doubles."""
    with open_zip(source, limits) as archive:
        yield Archive(archive, source.label, limits)


def _indexed(file: IO[bytes], label: str, limits: Limits) -> zipfile.ZipFile:
    _check_index(file, label, limits)
    return zipfile.ZipFile(file)


def _check_index(file: IO[bytes], label: str, limits: Limits) -> None:
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
