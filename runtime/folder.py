"""A folder of files that is written anew: what an earlier call wrote goes, what others wrote stays."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from ..graph.errors import ConvLoomError
from ..graph.words import words

MANIFEST = ".convloom.json"
"""Says which files of the folder are ours: {"files": {name: [SHA-256 of what was written, ...]}}."""


@dataclass(frozen=True)
class Written:
    """What became of a folder. files: written now. removed: of an earlier call, and not written any more.

    kept: of an earlier call too, but changed by somebody since.
    """

    files: list[Path]
    removed: list[Path]
    kept: list[Path]


def write_files(folder: Path, texts: Mapping[str, str], overwrite: bool = False) -> Written:
    """Write `texts`, by file name, into the folder, and remove what an earlier call wrote beside them.

    overwrite: also write over files that something else wrote, or that were changed since they were written.
    Raises ConvLoomError, before anything is written, where such a file is in the way, and where the system
    refuses.
    """
    try:
        folder.mkdir(parents=True, exist_ok=True)
        ours = _read_manifest(folder)
        new = {name: text.encode() for name, text in texts.items()}
        if not overwrite:
            _check_free(folder, new, ours)
        digests = {name: [_digest(data)] for name, data in new.items()}
        # Before the files, and with what both calls wrote: after an interruption every file is known.
        _write_manifest(folder, {name: ours.get(name, []) + digests.get(name, []) for name in ours | digests})
        for name, data in new.items():
            (folder / name).write_bytes(data)
        stale = [name for name in ours if name not in new and (folder / name).is_file()]
        kept = [name for name in stale if _digest((folder / name).read_bytes()) not in ours[name]]
        removed = [name for name in stale if name not in kept]
        for name in removed:
            (folder / name).unlink()
        _write_manifest(folder, digests | {name: ours[name] for name in kept})
    except OSError as error:
        raise ConvLoomError(f"cannot write kernels to {folder}: {error.strerror or error}") from None
    return Written(*([folder / name for name in names] for names in (new, removed, kept)))


def _check_free(folder: Path, new: Mapping[str, bytes], ours: Mapping[str, list[str]]) -> None:
    for name, data in new.items():
        path = folder / name
        if not path.exists() or (found := path.read_bytes()) == data or _digest(found) in ours.get(name, []):
            continue
        why = "was changed since it was written" if name in ours else "is there and was not written by emit"
        option = words("overwrite=True", "--overwrite")
        raise ConvLoomError(f"{path} {why}; move it away, name another folder, or give {option}")


def _digest(data: bytes) -> str:
    return hashlib.sha256(data).hexdigest()


def _read_manifest(folder: Path) -> dict[str, list[str]]:
    """File name -> digests; nothing where there is no manifest, or one that says something else."""
    try:
        files = json.loads((folder / MANIFEST).read_text(encoding="utf-8"))["files"]
        return {
            name: [digest for digest in digests if isinstance(digest, str)]
            for name, digests in files.items()
            if Path(name).name == name and isinstance(digests, list)  # of this folder, and no way out of it
        }
    except (FileNotFoundError, ValueError, KeyError, TypeError, AttributeError, RecursionError):
        return {}


def _write_manifest(folder: Path, files: Mapping[str, list[str]]) -> None:
    text = json.dumps({"files": files}, indent=1) + "\n"
    (folder / MANIFEST).write_text(text, encoding="utf-8")
