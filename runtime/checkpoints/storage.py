"""A folder of checkpoints, each a folder of its own that is there whole or not at all.

    run/checkpoint-000012/
        weights.safetensors     the network's weights and statistics, by their names
        tensors.safetensors     the other tensors of the state: the optimizer's, averages, random states
        state.json              all else: epoch and step, History, schedules, data order, what is trained
        checkpoint.json         format and version, and of each file its length and SHA-256

A checkpoint is written beside the others under a name that counts for nothing, each file and then the folder
brought to the disk (fsync), and renamed; only then does the oldest go. Wherever a process or the power stops,
the last whole checkpoint is still there. Nothing in a checkpoint is ever executed: safetensors and JSON hold
numbers and text.
"""

from __future__ import annotations

import hashlib
import json
import os
import re
import shutil
import warnings
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch

from ...graph.errors import ConvLoomError, ModelFormatError
from ...graph.words import words
from .encoding import decode, encode

FORMAT = "ConvLoom checkpoint"
VERSION = 1
"""Of the format. A reader refuses a larger one, and says so."""

MANIFEST, STATE, WEIGHTS, TENSORS = (
    *("checkpoint.json", "state.json"),
    *("weights.safetensors", "tensors.safetensors"),
)
NAME = re.compile(r"checkpoint-(\d{6,})")
WRITING = ".writing-"


@dataclass(frozen=True)
class Content:
    """What a checkpoint holds. weights: by their names. state: everything else, as `encode` takes it."""

    weights: Mapping[str, torch.Tensor]
    state: Mapping[str, Any]


# -- writing -------------------------------------------------------------------------------------------------
def prepare(folder: Path) -> None:
    """Make the folder, and see that it can be written to."""
    with _told(folder, "write a checkpoint to"):
        folder.mkdir(parents=True, exist_ok=True)
        trial = folder / f"{WRITING}{os.getpid()}"
        trial.mkdir()
        trial.rmdir()


def clear(folder: Path) -> None:
    """Remove what a writer left that was interrupted; to be called by the only writer."""
    with _told(folder, "write a checkpoint to"):
        for left in folder.glob(f"{WRITING}*"):
            shutil.rmtree(left)


def write(folder: Path, content: Content, keep: int) -> Path:
    """Add a checkpoint, the newest, and remove all but the newest `keep`.

    Raises ConvLoomError where the system refuses, a full disk for one; the earlier ones are then untouched.
    """
    from safetensors.torch import save_file

    tensors: dict[str, torch.Tensor] = {}
    text = json.dumps(encode(dict(content.state), tensors), indent=1, allow_nan=False)
    weights = {name: value.detach().to("cpu").contiguous() for name, value in content.weights.items()}
    number = max((number for number, _ in _numbered(folder)), default=0) + 1
    final, beside = folder / f"checkpoint-{number:06}", folder / f"{WRITING}{os.getpid()}"
    try:
        with _told(folder, "write a checkpoint to"):
            beside.mkdir()
            save_file(_apart(weights), beside / WEIGHTS)
            save_file(_apart(tensors), beside / TENSORS)
            (beside / STATE).write_text(text, encoding="utf-8")
            files = {name: _seal(beside / name) for name in (WEIGHTS, TENSORS, STATE)}
            manifest = {"format": FORMAT, "version": VERSION, "files": files}
            (beside / MANIFEST).write_text(json.dumps(manifest, indent=1), encoding="utf-8")
            _sync(beside / MANIFEST)
            _sync(beside)
            beside.rename(final)
            _sync(folder)
    except BaseException:
        shutil.rmtree(beside, ignore_errors=True)
        raise
    for _, path in _numbered(folder)[keep:]:
        shutil.rmtree(path, ignore_errors=True)
    return final


def _apart(tensors: Mapping[str, torch.Tensor]) -> dict[str, torch.Tensor]:
    """Each in memory of its own, as the file format wants them."""
    taken: set[int] = set()
    found = {}
    for name, value in tensors.items():
        place = value.untyped_storage().data_ptr()
        found[name] = value.clone() if place in taken else value
        taken.add(place)
    return found


def _seal(path: Path) -> dict[str, Any]:
    """Bring a file to the disk; its length, and the digest of what is there."""
    _sync(path)
    return {"bytes": path.stat().st_size, "sha256": _digest(path)}


def _digest(path: Path) -> str:
    with path.open("rb") as stream:
        return hashlib.file_digest(stream, "sha256").hexdigest()


def _sync(path: Path) -> None:
    handle = os.open(path, os.O_RDONLY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)


@contextmanager
def _told(folder: Path, what: str) -> Iterator[None]:
    """What the system, or the library that writes tensors, refuses, as one error of ours."""
    from safetensors import SafetensorError

    try:
        yield
    except (OSError, SafetensorError) as error:
        reason = getattr(error, "strerror", None) or str(error).rpartition("rror: ")[2]
        whole = newest(folder)
        still = f"; the last whole one is {whole}" if whole else ""
        raise ConvLoomError(
            f"cannot {what} {folder}: {reason}{still}. Make room or name another folder, and start again: "
            f"training goes on from the last whole checkpoint of the folder"
        ) from None


# -- reading -------------------------------------------------------------------------------------------------
def _numbered(folder: Path) -> list[tuple[int, Path]]:
    """The checkpoints of a folder, the newest first, whole or not."""
    try:
        found = [(int(m[1]), path) for path in folder.iterdir() if (m := NAME.fullmatch(path.name))]
    except OSError:
        return []
    return sorted(found, reverse=True)


def listed(folder: Path) -> list[Path]:
    """The checkpoints of a folder, the newest first."""
    return [path for _, path in _numbered(folder)]


def newest(folder: Path) -> Path | None:
    """The newest checkpoint that is whole, as far as the lengths of its files tell."""
    for path in listed(folder):
        try:
            _check_files(path, _manifest(path), digests=False)
        except ModelFormatError:
            continue
        return path
    return None


def read(path: Path) -> Content:
    """A checkpoint's content, all checked. Raises ModelFormatError where it is not whole or not ours."""
    from safetensors import SafetensorError
    from safetensors.torch import load_file

    _check_files(path, _manifest(path), digests=True)
    try:
        weights, tensors = load_file(path / WEIGHTS), load_file(path / TENSORS)
        state = decode(json.loads((path / STATE).read_text(encoding="utf-8")), tensors)
        if not isinstance(state, dict):
            raise ValueError("its state is no dictionary")
    except (OSError, ValueError, KeyError, TypeError, RuntimeError, RecursionError, SafetensorError) as error:
        raise ModelFormatError(f"checkpoint {path} cannot be read: {error}") from None
    return Content(weights, state)


def _manifest(path: Path) -> dict[str, Any]:
    """What a checkpoint says of its files; raises ModelFormatError where it is not of our format."""
    try:
        found = json.loads((path / MANIFEST).read_text(encoding="utf-8"))
    except FileNotFoundError:
        raise ModelFormatError(f"{path} is no ConvLoom checkpoint: it has no {MANIFEST}") from None
    except OSError as error:
        raise ModelFormatError(f"cannot read {path}: {error.strerror or error}") from None
    except (ValueError, RecursionError):
        raise ModelFormatError(f"checkpoint {path} is broken: its {MANIFEST} is no JSON") from None
    if not isinstance(found, dict) or found.get("format") != FORMAT:
        raise ModelFormatError(f"{path} is no ConvLoom checkpoint: its {MANIFEST} does not say so")
    version = found.get("version")
    if version != VERSION:
        raise ModelFormatError(
            f"checkpoint {path} is of version {version!r:.20} of the format, and this ConvLoom reads "
            f"{VERSION}; use the ConvLoom that wrote it, or name another folder"
        )
    return found


def _check_files(path: Path, manifest: Mapping[str, Any], digests: bool) -> None:
    files = manifest.get("files")
    for name in (WEIGHTS, TENSORS, STATE):
        said = files.get(name) if isinstance(files, dict) else None
        if not isinstance(said, dict):
            raise ModelFormatError(f"checkpoint {path} is broken: its {MANIFEST} does not speak of {name}")
        try:
            size = (path / name).stat().st_size
            if size != said.get("bytes"):
                raise ModelFormatError(
                    f"checkpoint {path} is broken: {name} has {size} bytes, not {said.get('bytes')!r:.30}"
                )
            if digests and _digest(path / name) != said.get("sha256"):
                raise ModelFormatError(
                    f"checkpoint {path} is broken: {name} has changed since it was written"
                )
        except OSError as error:
            raise ModelFormatError(f"checkpoint {path} is broken: {name}: {error.strerror}") from None


def find(folder: Path) -> tuple[Path, Content] | None:
    """The newest whole checkpoint of a folder and its content, None where the folder has none at all.

    Those that are broken are passed over with a warning each. Raises ModelFormatError where all of them are.
    """

    broken: list[str] = []
    for path in listed(folder):
        try:
            content = read(path)
        except ModelFormatError as error:
            broken.append(str(error))
            continue
        for reason in broken:
            warnings.warn(f"{reason}; training goes on from {path}, the one before", stacklevel=2)
        return path, content
    if broken:
        more = f" (and {len(broken) - 1} more)" if len(broken) > 1 else ""
        raise ModelFormatError(
            f"{broken[0]}{more}, and no whole checkpoint is in {folder}; remove them to start from the "
            f"beginning, or {words('give checkpoint= another folder', 'give --checkpoint another folder')}"
        )
    return None
