"""`Model.save` and `Model.save_weights`: Keras 3's `.keras` archive and `.weights.h5`.

    layers/conv2d/vars/0, 1        one group a layer, named by class and counted, empty without weights
    layers/functional/layers/...   inside nested models
    ... vars, attribute name       the layer's own name, which is data here and never part of a path

A file appears under its name when it is complete: it is written beside its place and then moved there.
"""

from __future__ import annotations

import contextlib
import datetime
import json
import os
import tempfile
import zipfile
from collections import Counter
from collections.abc import Iterator
from pathlib import Path

import h5py

from ...graph.errors import ConvLoomError
from ..layers import Layer
from ..lowering import Block
from ..names import visible
from ..network import Network
from .export import file_name, file_names, to_json
from .weights import KERAS_3, group_stem, homes

KERAS_VERSION = "3.15.1"
"""Whose format is written."""

FIRST_DAY = (1980, 1, 1, 0, 0, 0)
"""The date of an archive's members: the earliest a zip can hold, so that equal models give equal members."""


def save(model: Network, path: str | os.PathLike[str]) -> None:
    """Write a `.keras` archive. Raises ConvLoomError for another suffix and where nothing can be written."""
    target = _target(path, ".keras", "a model", model)
    config = to_json(model)
    date = f"{datetime.datetime.now():%Y-%m-%d@%H:%M:%S}"
    with replacing(target) as unfinished, replacing(None, target.parent) as weights:
        _write_weights(model, weights)
        with zipfile.ZipFile(unfinished, "w", zipfile.ZIP_STORED) as archive:
            metadata = json.dumps({"keras_version": KERAS_VERSION, "date_saved": date})
            archive.writestr(zipfile.ZipInfo("metadata.json", FIRST_DAY), metadata)
            archive.writestr(zipfile.ZipInfo("config.json", FIRST_DAY), config)
            with (
                weights.open("rb") as stored,
                archive.open(zipfile.ZipInfo("model.weights.h5", FIRST_DAY), "w", force_zip64=True) as member,
            ):
                while block := stored.read(2**22):
                    member.write(block)


def save_weights(model: Network, path: str | os.PathLike[str]) -> None:
    """Write a `.weights.h5`. Raises ConvLoomError for another suffix and where nothing can be written."""
    with replacing(_target(path, ".weights.h5", "weights", model)) as unfinished:
        _write_weights(model, unfinished)


def _target(path: str | os.PathLike[str], suffix: str, what: str, model: Network) -> Path:
    target = Path(path)
    if not target.name.endswith(suffix) or target.name == suffix:
        raise ConvLoomError(
            f"{model.label}: {what} can be saved as *{suffix}, not as {target.name!r:.80}; "
            f"save() writes .keras, save_weights() .weights.h5, to_json() gives the description"
        )
    model.inputs  # noqa: B018  a Sequential without a shape says so here
    return target


@contextlib.contextmanager
def replacing(target: Path | None, folder: Path | None = None) -> Iterator[Path]:
    """A file to write, which takes the target's place at the end; where anything fails, nothing is left.

    Without a target it is removed at the end. Raises ConvLoomError where the system refuses.
    """
    place = target.parent if target is not None else folder
    unfinished: Path | None = None
    try:
        handle, name = tempfile.mkstemp(dir=place, prefix=".convloom-", suffix=".part")
        os.close(handle)
        unfinished = Path(name)
        yield unfinished
        if target is not None:
            os.chmod(unfinished, 0o666 & ~_umask())  # mkstemp lets nobody else read it
            unfinished.replace(target)
    except OSError as error:
        raise ConvLoomError(
            f"cannot write {target or place}: {error.strerror or str(error).splitlines()[0]}; "
            f"is there such a folder, may it be written to, and is there room?"
        ) from None
    finally:
        if unfinished is not None:
            unfinished.unlink(missing_ok=True)


def _umask() -> int:
    mask = os.umask(0o022)
    os.umask(mask)
    return mask


# -- weights -------------------------------------------------------------------------------------------------
def _write_weights(model: Network, path: Path) -> None:
    values = model.parameters
    for name in values:
        values[name]  # draws what has no value yet, all from one generator
    with h5py.File(path, "w") as file:
        file.create_group("vars").attrs["name"] = visible(file_name(model))
        _write_layers(model, file.create_group(KERAS_3))


def _write_layers(model: Network, group: h5py.Group) -> None:
    """The layers of a model, at each place where one stands: Keras reads a second place as a second layer."""
    counters: Counter[str] = Counter()
    for block, name in file_names(model).items():
        stem = group_stem(model, block)
        if stem is None:
            continue
        place = group.create_group(f"{stem}_{counters[stem]}" if counters[stem] else stem)
        counters[stem] += 1
        _write_block(block, name, place)


def _write_block(block: Block, name: str, place: h5py.Group) -> None:
    stored = place.create_group("vars")
    stored.attrs["name"] = visible(name)  # HDF5 takes no text with zeros in it
    if isinstance(block, Network):
        _write_layers(block, place.create_group(KERAS_3))
    elif isinstance(block, Layer):
        for home, weights in homes(block).items():
            if home:
                stored = place.require_group(home).create_group("vars")
            for position, weight in enumerate(weights):
                value = block.values[weight.name]
                stored.create_dataset(str(position), data=value.numpy().astype(weight.dtype, copy=False))
        if (inner := block.model_inside) is not None:
            _write_block(inner, file_name(inner), place.require_group(block.model_home))
