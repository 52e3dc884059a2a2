"""Archives that expand, lead elsewhere or are damaged, and indices of weights that do."""

from __future__ import annotations

import json
import os
import warnings
import zipfile
from pathlib import Path
from typing import Any

import h5py
import numpy as np
from hostile_cases import CASES, CODE, Files, Maker, alone, case
from keras_files import (
    kernel,
    small,
    write_json,
    write_keras,
    write_weights,
)


# -- weights in several files --------------------------------------------------------------------------------
def shards(*names: str) -> Maker:
    def make(folder: Path) -> Files:
        write_weights(folder / "secret.weights.h5", **kernel())
        (folder / "link.weights.h5").symlink_to(folder / "secret.weights.h5")
        index = {"metadata": {}, "weight_map": {"/layers/dense/vars": list(names)}}
        return write_json(folder / "net.json", small()), write_json(folder / "w.weights.json", index)

    return make


for name in ("/etc/passwd", "../net.weights.h5", "a/b.weights.h5", "\\\\a\\b.weights.h5", "\x1b.weights.h5"):
    CASES[f"a shard named {name!r}"] = (shards(name), "UnsafeModelError", "beside the index are opened")
CASES["a shard that is a link"] = (shards("link.weights.h5"), "UnsafeModelError", "is a link, or no plain")
CASES["a shard twice"] = (shards("a.weights.h5", "a.weights.h5"), "ModelFormatError", "stands twice")
CASES["20,000 shards"] = (
    shards(*(f"{i}.weights.h5" for i in range(20_000))),
    "ModelFormatError",
    "20,000 files of weights; at most 1,000",
)


# -- archives ------------------------------------------------------------------------------------------------
def archive_with(name: str, data: bytes, attributes: int = 0) -> Maker:
    def make(folder: Path) -> Path:
        path = write_keras(folder / "net.keras", small(), write_weights(folder / "w.h5", **kernel()))
        member = zipfile.ZipInfo(name)
        member.external_attr = attributes << 16
        with zipfile.ZipFile(path, "a") as archive, warnings.catch_warnings():
            warnings.simplefilter("ignore")
            archive.writestr(member, data)
        return path

    return make


for member in ("../../outside", "/outside", "..\\outside", "C:\\outside", "assets/../../outside"):
    CASES[f"CVE-2025-12060 CVE-2025-12638 GHSA-hqp4-2352-xf5r {member}"] = (
        archive_with(member, b"x"),
        "UnsafeModelError",
        "leads out of the archive",
    )
CASES["CVE-2024-55459 a link in an archive"] = (
    archive_with("assets/passwd", b"/etc/passwd", 0o120777),
    "UnsafeModelError",
    "is a link",
)
CASES["a member twice"] = (archive_with("config.json", b"{}"), "UnsafeModelError", "stands twice")


@case("weights as npz", "ModelFormatError", r"keeps its weights in 'model\.weights\.npz'")
def npz_inside(folder: Path) -> Path:
    path = write_keras(folder / "net.keras", small())
    with zipfile.ZipFile(path, "a") as archive:
        archive.writestr("model.weights.npz", b"PK")
    return path


@case(
    "an archive without weights",
    "ModelFormatError",
    r"net\.keras: only the architecture is there, .*_only=True",
)
def without_weights(folder: Path) -> Path:
    return write_keras(folder / "net.keras", small())


@case("an archive inside the archive is not looked into", "loaded")
def nested_archive(folder: Path) -> Path:
    inner = write_keras(folder / "inner.keras", alone("Lambda", function=CODE))
    return archive_with("assets/inner.keras", inner.read_bytes())(folder)  # type: ignore[return-value]


@case("an encrypted member", "UnsafeModelError", "is encrypted")
def encrypted(folder: Path) -> Path:
    path = write_keras(folder / "net.keras", small())
    data = bytearray(path.read_bytes())
    for mark, offset in ((b"PK\x03\x04", 6), (b"PK\x01\x02", 8)):
        data[data.index(mark) + offset] |= 1
    path.write_bytes(data)
    return path


@case(
    "PR 23010 a config of 100 MiB from 100 kB",
    "ModelFormatError",
    r"config\.json: 104,85\d,\d+ bytes; at most",
)
def config_bomb(folder: Path) -> Path:
    return write_keras(folder / "net.keras", json.dumps(small()) + " " * (100 * 2**20), packed=True)


@case("PR 23010 a config of 15 MiB from 15 kB", "UnsafeModelError", r"expands \d\d,\d+ bytes to 15,7")
def config_ratio_bomb(folder: Path) -> Path:
    return write_keras(folder / "net.keras", json.dumps(small()) + " " * (15 * 2**20), packed=True)


@case("PR 23101 weights of 150 MiB", "UnsafeModelError", r"expands to 157,\d+,\d+ bytes; this model and its")
def weights_bomb(folder: Path) -> Path:
    with h5py.File(folder / "w.h5", "w") as file:
        file["layers/dense/vars/0"] = np.zeros((150 * 2**18,), "f4")
    path = write_keras(folder / "net.keras", small(), folder / "w.h5", packed=True)
    (folder / "w.h5").unlink()
    return path


@case("PR 23212 a false size", "ModelFormatError", r"damaged archive|not of the size")
def false_size(folder: Path) -> Path:
    path = write_keras(folder / "net.keras", json.dumps(small()) + " " * (50 * 2**20), packed=True)
    data = bytearray(path.read_bytes())
    at = data.rindex(b"PK\x01\x02")
    data[at + 24 : at + 28] = (1000).to_bytes(4, "little")
    path.write_bytes(data)
    return path


@case("100,000 members", "ModelFormatError", "members")
def many_members(folder: Path) -> Path:
    with zipfile.ZipFile(folder / "net.keras", "w") as archive:
        for i in range(2_000):
            archive.writestr(f"assets/{i}", b"")
    return folder / "net.keras"


@case("HDF5 named .keras", "loaded")
def hdf5_named_keras(folder: Path) -> Path:
    path = folder / "net.keras"
    with h5py.File(path, "w") as file:
        file.attrs["model_config"] = json.dumps(small())
        group = file.create_group("model_weights")
        group.attrs["layer_names"] = np.array([b"x", b"d"])
        group.create_group("x").attrs["weight_names"] = np.array([], "f8")
        group.create_group("d").attrs["weight_names"] = np.array([b"d/kernel:0", b"d/bias:0"])
        group["d/d/kernel:0"], group["d/d/bias:0"] = kernel().values()
    return path


@case("PR 23212 a bomb among the assets is not read", "loaded")
def assets_bomb(folder: Path) -> Path:
    path = write_keras(folder / "net.keras", small(), write_weights(folder / "w.h5", **kernel()), packed=True)
    with zipfile.ZipFile(path, "a", zipfile.ZIP_DEFLATED) as archive:
        archive.writestr("assets/bomb", b"\0" * 100 * 2**20)
        archive.writestr("metadata.json", b"\0" * 50 * 2**20)
    return path


@case("a truncated archive", "ModelFormatError", "damaged archive")
def truncated(folder: Path) -> Path:
    path = write_keras(folder / "net.keras", small())
    path.write_bytes(path.read_bytes()[:-30])
    return path


# -- folders that were archives ------------------------------------------------------------------------------
def unpacked(folder: Path) -> Path:
    """`small` with its weights, as a folder beside a file that nobody may read through it."""
    place = folder / "net.keras"
    place.mkdir()
    write_json(place / "config.json", small())
    write_weights(place / "model.weights.h5", **kernel())
    write_json(folder / "secret.json", small())
    write_weights(folder / "secret.h5", **kernel())
    return place


CASES["a good folder"] = (unpacked, "loaded", "")


def linked(name: str, target: str) -> Maker:
    def make(folder: Path) -> Path:
        place = unpacked(folder)
        (place / name).unlink()
        (place / name).symlink_to(target)
        return place

    return make


for name, target in {
    "config.json": "../secret.json",
    "model.weights.h5": "../secret.h5",
    "a link to itself": "config.json",
}.items():
    member = name if "." in name else "config.json"
    CASES[f"a link in a folder: {name}"] = (
        linked(member, target),
        "UnsafeModelError",
        rf"net\.keras: {member} is a link, or no plain file",
    )


@case("a pipe in a folder", "UnsafeModelError", r"net\.keras: config\.json is a link, or no plain file")
def pipe(folder: Path) -> Path:
    place = unpacked(folder)
    (place / "config.json").unlink()
    os.mkfifo(place / "config.json")
    return place


@case("a folder in a folder", "UnsafeModelError", r"model\.weights\.h5 is a link, or no plain file")
def folder_as_weights(folder: Path) -> Path:
    place = unpacked(folder)
    (place / "model.weights.h5").unlink()
    (place / "model.weights.h5").mkdir()
    return place


@case(
    "a description of 100 MiB in a folder", "ModelFormatError", r"config\.json: 104,8\d+,\d+ bytes; at most"
)
def large_folder(folder: Path) -> Path:
    place = unpacked(folder)
    with (place / "config.json").open("r+b") as file:
        file.truncate(100 * 2**20)
    return place


@case("an external link in the weights of a folder", "UnsafeModelError", "is a ExternalLink")
def external_link_in_folder(folder: Path) -> Path:
    place = unpacked(folder)
    with h5py.File(place / "model.weights.h5", "a") as file:
        del file["layers/dense"]
        file["layers/dense"] = h5py.ExternalLink(str(folder / "secret.h5"), "/layers/dense")
    return place


# -- weights inside archives ---------------------------------------------------------------------------------
def as_weights(make: Maker) -> Maker:
    """A file as the weights of `small`."""

    def both(folder: Path) -> Files:
        made = make(folder)
        assert isinstance(made, Path)
        return write_json(folder / "net.json", small()), made

    return both


CASES["a link in a folder of weights"] = (
    as_weights(linked("model.weights.h5", "../secret.h5")),
    "UnsafeModelError",
    "is a link, or no plain file",
)
CASES["weights of an archive: a bomb"] = (
    as_weights(weights_bomb),
    "UnsafeModelError",
    r"expands to 157,\d+,\d+ bytes; this model and its",
)
CASES["weights of an archive: a member that leads out"] = (
    as_weights(archive_with("../../outside", b"x")),
    "UnsafeModelError",
    "leads out of the archive",
)


def arrays(**values: Any) -> Maker:
    """An .npz of `small`'s weights, with others in their places: arrays, or headers that only claim to be."""

    def make(folder: Path) -> Files:
        path = folder / "w.npz"
        named = {"d/kernel": np.ones((3, 2), "f4"), "d/bias": np.ones(2, "f4"), **values}
        with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as archive:
            value: Any
            for name, value in named.items():
                with archive.open(f"{name}.npy", "w") as member:
                    if isinstance(value, np.ndarray):
                        np.lib.format.write_array(member, value)
                    else:
                        text = repr({"descr": value[1], "fortran_order": False, "shape": value[0]}).encode()
                        member.write(
                            b"\x93NUMPY\x01\x00" + len(text).to_bytes(2, "little") + text + b"12345678"
                        )
        return write_json(folder / "net.json", small()), path

    return make


CASES["weights by name"] = (arrays(), "loaded", "")
CASES["a pickle among weights by name"] = (
    arrays(**{"d/bias": np.array([{}, {}], dtype=object)}),
    "ModelFormatError",
    r"array of object, shape \(2,\)",
)
for title, shape, dtype, text in (
    ("CVE-2026-0897 an array of 4 TB", (2**20, 2**20), "<f4", r"shape \(1048576, 1048576\); at most 1,"),
    ("an array of more than it has", (50,), "<f4", r"shape \(50,\); .* no more than the file has"),
    ("complex numbers", (2,), "<c8", "array of complex64"),
    ("an array that ends early", (2,), "<f8", "ends before its 16 bytes"),
):
    CASES[f"by name: {title}"] = (arrays(**{"d/bias": (shape, dtype)}), "ModelFormatError", text)
CASES["an array that expands"] = (
    arrays(**{"d/kernel": np.zeros((10**7, 2), "f4")}),
    "ModelFormatError",
    r"shape \(10000000, 2\); at most 1,\d+ bytes",
)
