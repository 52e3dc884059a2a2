"""Files as users give them: a path, a folder that was an archive, or a binary file object."""

from __future__ import annotations

import io
import os
from dataclasses import dataclass
from pathlib import Path
from typing import IO, Any, NoReturn

from ...graph.errors import ConvLoomError, ModelFormatError
from .kinds import FOLDER, HEAD, OTHER, form, other_kind
from .limits import Limits
from .values import shown

Readable = str | os.PathLike[str] | IO[bytes]
"""What `load` takes: a path, or a binary file object that can be read from its start again."""


@dataclass(frozen=True)
class Source:
    """A file that was looked at. file: its path, or the object that was given; label: its name in errors.

    form: ZIP, HDF5, FOLDER, or OTHER for what may be text. head: its first bytes.
    """

    file: Path | IO[bytes]
    label: str
    form: str
    head: bytes = b""

    @property
    def hdf5(self) -> str | IO[bytes]:
        """What h5py opens."""
        return os.fspath(self.file) if isinstance(self.file, Path) else self.file

    def text(self, limits: Limits) -> bytes:
        """All of it. Raises ModelFormatError for what is plainly no JSON, saying what it is."""
        if not self.head.lstrip(b"\xef\xbb\xbf \t\r\n").startswith((b"{", b"[")):
            self.refuse_other_kinds()
        try:
            if isinstance(self.file, Path):
                with self.file.open("rb") as stream:
                    return stream.read(limits.json_bytes + 1)
            self.file.seek(0)
            return self.file.read(limits.json_bytes + 1)
        except OSError as error:
            _unreadable(self.label, error)

    def refuse_other_kinds(self) -> None:
        """Raises ModelFormatError for a file that is known to be something else."""
        if self.form == OTHER and (kind := other_kind(self.head)):
            raise ModelFormatError(f"{self.label}: this is {kind}")


def examine(given: Any, what: str = "a model") -> Source:
    """Look at what a user gave as `what`.

    Raises ModelFormatError where it cannot be read, ConvLoomError where it is neither a path nor a file.
    """
    if isinstance(given, Source):
        return given
    if isinstance(given, (str, os.PathLike)):
        return _examine_path(given)
    if hasattr(given, "read") and hasattr(given, "seek"):
        return _examine_stream(given)
    hint = ""
    if isinstance(given, dict):
        hint = "; a description that is parsed already goes to convloom.loads"
    elif isinstance(given, (bytes, bytearray)):
        hint = "; wrap bytes in io.BytesIO, or give JSON to convloom.loads"
    elif hasattr(given, "get_config") or hasattr(given, "to_graph"):
        hint = "; this is a model already: save it first, with its save()"
    raise ConvLoomError(
        f"{what} is loaded from a path or a binary file object, got {shown(given) if given is None else ''}"
        f"{'' if given is None else type(given).__name__}{hint}"
    )


def _examine_path(given: str | os.PathLike[str]) -> Source:
    path = Path(given)
    label = _label(path.name or os.fspath(given))
    if not os.fspath(given):
        raise ModelFormatError("the path is empty text; give the path of a file")
    try:
        if path.is_dir():
            return Source(path, label, FOLDER)
        with path.open("rb") as stream:
            head = stream.read(HEAD)
    except (OSError, ValueError) as error:
        _unreadable(label, error)
    return Source(path, label, form(head), head)


def _examine_stream(given: Any) -> Source:
    name = getattr(given, "name", None)
    label = _label(os.path.basename(name) if isinstance(name, str) and name else "the file given")
    if isinstance(given, io.TextIOBase):
        raise ConvLoomError(f"{label} is open as text; open it in binary mode: open(path, 'rb')")
    try:
        given.seek(0)
        head = given.read(HEAD)
        given.seek(0)
    except (OSError, ValueError) as error:  # closed, written only, or a pipe
        raise ConvLoomError(
            f"{label} cannot be read from its start: {str(error) or type(error).__name__}; "
            f"open it in binary mode: open(path, 'rb')"
        ) from None
    if not isinstance(head, bytes):
        raise ConvLoomError(f"{label} gives {type(head).__name__}, not bytes; open it in binary mode")
    return Source(given, label, form(head), head)


def _label(name: str) -> str:
    """A file's name in an error, on one line whatever it is."""
    return name if name.isprintable() else shown(name)


def _unreadable(label: str, error: OSError | ValueError) -> NoReturn:
    reason = error.strerror if isinstance(error, OSError) else str(error)
    raise ModelFormatError(f"{label}: cannot be read: {reason or error}") from None
