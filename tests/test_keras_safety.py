"""Files that mean harm: each known weakness of Keras's own loader, as a crafted file that is refused.

Identifiers are those of the public advisories. The files are loaded in one process of its own, which watches
what is executed, imported and opened, and how much memory is taken.
"""

from __future__ import annotations

import json
import re
import subprocess
import sys
import time
import warnings
import zipfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import h5py
import numpy as np
import pytest
from convloom.frontends import Limits, load, loads
from convloom.frontends.layers import DECLARATIONS
from convloom.graph.errors import ConvLoomError, ModelFormatError
from keras_files import (
    Json,
    called,
    chain,
    entry,
    functional,
    kernel,
    layer,
    small,
    tensor,
    write_json,
    write_keras,
    write_weights,
)

import convloom as cl

SECONDS, MEGABYTES = 1.0, 200.0
Files = tuple[Path, Path | None]
Maker = Callable[[Path], Path | Files]
CASES: dict[str, tuple[Maker, str, str]] = {}
"""Name -> (makes the file in a folder of its own, class of the error or "loaded", pattern of its text)."""


def case(name: str, kind: str, text: str = "") -> Callable[[Maker], Maker]:
    def add(make: Maker) -> Maker:
        CASES[name] = (make, kind, text)
        return make

    return add


def describe(name: str, kind: str, text: str, data: Any) -> None:
    """A case that is only a description."""
    CASES[name] = (lambda folder: write_json(folder / "net.json", data), kind, text)


def alone(class_name: str, /, module: str = "keras.layers", **config: Any) -> Json:
    """A network whose only layer is of this class."""
    bad = layer(class_name, "bad", called("x"), **config) | {"module": module}
    return functional(entry(3), bad)


# The first two load as they are: whatever is imported on first use is in memory after them.
describe("a good description", "loaded", "", small())
CASES["a good archive"] = (
    lambda folder: write_keras(folder / "a.keras", small(), write_weights(folder / "w.h5", **kernel())),
    "loaded",
    "",
)

# -- code, foreign classes, files and addresses in a configuration -------------------------------------------
CODE = {"class_name": "__lambda__", "config": {"code": "4wEAAAAA", "defaults": None, "closure": None}}
UNSAFE = "the model asks for code or files outside itself"

describe("CVE-2021-37678 yaml", "ModelFormatError", "not JSON", "!!python/object/apply:os.system ['true']")
describe("CVE-2024-3660 lambda of Keras 3", "UnsafeModelError", "__lambda__", alone("Lambda", function=CODE))
describe(
    "CVE-2024-3660 lambda of Keras 2", "UnsafeModelError", UNSAFE, alone("Lambda", function=["4wE", None])
)
describe(
    "PR 23165 lambda, safe mode unset",
    "UnsafeModelError",
    UNSAFE,
    alone("Lambda", function="f", safe_mode=None),
)
describe(
    "CVE-2025-1550 any module and function",
    "UnsupportedLayerError",
    r"layers\[1\] 'bad': class 'system' of module 'os'",
    alone("system", module="os", command="true"),
)
describe(
    "CVE-2025-1550 function as activation",
    "UnsupportedLayerError",
    "layers.1. 'bad'.*activation",
    alone("Activation", activation={"module": "builtins", "class_name": "function", "config": "eval"}),
)
describe(
    "CVE-2025-1550 object as regularizer is never made",
    "loaded",
    "",
    functional(
        entry(3),
        layer(
            "Dense",
            "d",
            called("x"),
            units=2,
            kernel_regularizer={"module": "os", "class_name": "system", "config": {"command": "true"}},
        ),
    ),
)
for gadget, module in {
    "get_file": "keras.utils",
    "enable_unsafe_deserialization": "keras.config",
    "load_model": "keras.saving",
    "load_model_": "keras.src.saving.saving_lib",
}.items():
    describe(
        f"CVE-2025-8747 CVE-2025-9906 {gadget}",
        "UnsupportedLayerError",
        f"class '{gadget.rstrip('_')}' of module '{module}'",
        alone(gadget.rstrip("_"), module=module, origin="http://localhost/x", fname="x"),
    )
for wrapper, advisory in {
    "TorchModuleWrapper": "CVE-2025-49655",
    "JaxLayer": "CVE-2025-49655",
    "FlaxLayer": "CVE-2025-49655",
    "StringLookup": "CVE-2025-12058",
    "IntegerLookup": "CVE-2025-12058",
    "TextVectorization": "CVE-2025-12058",
    "TFSMLayer": "CVE-2026-1462",
}.items():
    describe(
        f"{advisory} {wrapper}",
        "UnsafeModelError",
        rf"{UNSAFE}.*layers\[1\] 'bad': {wrapper}",
        alone(wrapper, filepath="/etc/passwd", vocabulary="/etc/passwd", module_="AAAA"),
    )


@case("CVE-2025-9905 lambda in an h5", "UnsafeModelError", "__lambda__")
def lambda_in_h5(folder: Path) -> Path:
    with h5py.File(folder / "net.h5", "w") as file:
        file.attrs["model_config"] = json.dumps(alone("Lambda", function=CODE))
        file.create_group("model_weights").attrs["layer_names"] = np.array([b"bad"])
    return folder / "net.h5"


@case("CVE-2024-3660 lambda in a .keras", "UnsafeModelError", "__lambda__")
def lambda_in_archive(folder: Path) -> Path:
    return write_keras(folder / "net.keras", alone("Lambda", function=CODE))


# -- names that pretend to be something ----------------------------------------------------------------------
for pretended, wrong in {
    "__main__": {"class_name": "__main__"},
    "__import__": {"class_name": "__import__", "module": "builtins"},
    "another's Dense": {"module": "__main__", "registered_name": "Dense"},
    "another's Dense, registered": {"module": "evil.layers", "registered_name": "Custom>Dense"},
    "keras in the name": {"module": "keras_evil.layers"},
    "a class with a path": {"class_name": "../../Dense"},
    "LayerScale of somebody": {"class_name": "LayerScale", "module": None, "registered_name": "a>LayerScale"},
}.items():
    network = alone("Dense", units=2)
    network["config"]["layers"][1] |= wrong
    describe(f"a name: {pretended}", "UnsupportedLayerError", r"layers\[1\] 'bad': class '", network)
for title, module in {
    "of the system": "os.ops.numpy",
    "of Keras's tools": "keras.src.ops.numpy.utils",
    "of another module of Keras": "keras.src.ops.nn",
}.items():
    described = alone("Add", module=module)
    describe(f"an operation {title}", "UnsupportedLayerError", r"'bad': operation 'Add'", described)
describe(
    "a function of Keras 2 that reads files",
    "UnsupportedLayerError",
    r"operation 'io\.read_file'",
    alone("TFOpLambda", function="io.read_file"),
)
describe(
    "code among the arguments of an operation",
    "UnsafeModelError",
    "__lambda__",
    functional(entry(3), layer("Add", "a", called("x", CODE)) | {"module": "keras.src.ops.numpy"}),
)


@case("10,000 levels in an attribute of an h5", "ModelFormatError", "201 levels of nesting")
def deep_attribute(folder: Path) -> Path:
    with h5py.File(folder / "net.h5", "w") as file:
        file.attrs["model_config"] = "[" * 10_000 + "]" * 10_000
    return folder / "net.h5"


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
        path = write_keras(folder / "net.keras", small())
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
CASES["weights as npz"] = (
    archive_with("model.weights.npz", b"PK"),
    "ModelFormatError",
    r"keeps its weights in 'model\.weights\.npz'",
)


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
    path = write_keras(folder / "net.keras", small(), packed=True)
    with zipfile.ZipFile(path, "a", zipfile.ZIP_DEFLATED) as archive:
        archive.writestr("assets/bomb", b"\0" * 100 * 2**20)
        archive.writestr("metadata.json", b"\0" * 50 * 2**20)
    return path


@case("a truncated archive", "ModelFormatError", "damaged archive")
def truncated(folder: Path) -> Path:
    path = write_keras(folder / "net.keras", small())
    path.write_bytes(path.read_bytes()[:-30])
    return path


# -- HDF5 ----------------------------------------------------------------------------------------------------
def weights(change: Callable[[h5py.File, Path], object]) -> Maker:
    """`small` with its weights, changed."""

    def make(folder: Path) -> Files:
        path = write_weights(folder / "w.weights.h5", **kernel())
        (folder / "secret").write_bytes(np.full((3, 2), 7, "f4").tobytes())
        write_weights(folder / "secret.h5", **kernel())
        with h5py.File(path, "a") as file:
            change(file, folder)
        return write_json(folder / "net.json", small()), path

    return make


PLACE = "layers/dense/vars/0"


def replaced(file: h5py.File, value: Any) -> None:
    del file[PLACE]
    file[PLACE] = value


def created(file: h5py.File, shape: tuple[int, ...], dtype: Any = "f4", **arguments: Any) -> None:
    del file[PLACE]
    file.create_dataset(PLACE, shape, dtype, **arguments)


def virtual(file: h5py.File, folder: Path) -> None:
    layout = h5py.VirtualLayout((3, 2), "f4")
    layout[:] = h5py.VirtualSource(str(folder / "secret.h5"), PLACE, (3, 2))
    del file[PLACE]
    file.create_virtual_dataset(PLACE, layout)


def user_filter(file: h5py.File, folder: Path) -> None:
    created_with = h5py.h5p.create(h5py.h5p.DATASET_CREATE)
    created_with.set_chunk((3, 2))
    created_with.set_filter(32_015, h5py.h5z.FLAG_OPTIONAL, (1,))
    del file[PLACE]
    group, space = file["layers/dense/vars"], h5py.h5s.create_simple((3, 2))
    h5py.h5d.create(group.id, b"0", h5py.h5t.IEEE_F32LE, space, created_with)


def huge_chunk(file: h5py.File, folder: Path) -> None:
    created(file, (3, 2), chunks=(2**14, 2**14), maxshape=(None, None), compression="gzip")


def group_link(file: h5py.File, folder: Path) -> None:
    del file["layers/dense"]
    file["layers/dense"] = h5py.ExternalLink(str(folder / "secret.h5"), "/layers/dense")


HDF5: dict[str, tuple[Callable[[h5py.File, Path], object], str, str]] = {
    "CVE-2026-1669 an external link": (
        lambda file, folder: replaced(file, h5py.ExternalLink(str(folder / "secret.h5"), f"/{PLACE}")),
        "UnsafeModelError",
        "is a ExternalLink",
    ),
    "CVE-2026-1669 an external link on the way": (group_link, "UnsafeModelError", "is a ExternalLink"),
    "PR 22976 a soft link": (
        lambda file, folder: replaced(file, h5py.SoftLink("/layers/dense/vars/1")),
        "UnsafeModelError",
        "is a SoftLink",
    ),
    "CVE-2026-1669 external storage": (
        lambda file, folder: created(file, (3, 2), external=[(str(folder / "secret"), 0, 24)]),
        "UnsafeModelError",
        "keeps its data outside the file",
    ),
    "CVE-2026-1669 a virtual data set": (virtual, "UnsafeModelError", "keeps its data outside the file"),
    "a filter that is a library": (user_filter, "UnsafeModelError", "packed by filter 32015"),
    "CVE-2026-0897 a shape of 4 TB": (
        lambda file, folder: created(file, (2**20, 2**20), chunks=(64, 64), compression="gzip"),
        "ModelFormatError",
        r"has shape \(1048576, 1048576\).*expected \(3, 2\)",
    ),
    "PR 22975 a chunk of 1 GB": (huge_chunk, "ModelFormatError", "in chunks of 1,073,741,824 bytes"),
    "a complex kernel": (
        lambda file, folder: replaced(file, np.ones((3, 2), "c8")),
        "ModelFormatError",
        "of complex64, expected",
    ),
    "text as a kernel": (
        lambda file, folder: created(file, (3, 2), h5py.string_dtype()),
        "ModelFormatError",
        "of object, expected",
    ),
    "references as a kernel": (
        lambda file, folder: created(file, (3, 2), h5py.ref_dtype),
        "ModelFormatError",
        "of object, expected",
    ),
    "no values at all": (
        lambda file, folder: replaced(file, h5py.Empty("f4")),
        "ModelFormatError",
        r"weight 'kernel'",
    ),
    "a group as a kernel": (
        lambda file, folder: (file.__delitem__(PLACE), file.create_group(PLACE)),
        "ModelFormatError",
        r"weight 'kernel' .* is missing",
    ),
    "groups in a circle": (
        lambda file, folder: (
            file.__delitem__("layers/dense"),
            file.__setitem__("layers/dense", file["layers"]),
        ),
        "ModelFormatError",
        r"weight 'kernel' .* is missing",
    ),
}
for title, (change, kind, text) in HDF5.items():
    CASES[title] = (weights(change), kind, text)

# -- JSON ----------------------------------------------------------------------------------------------------
GOOD = json.dumps(small())
describe("10,000 levels", "ModelFormatError", "201 levels of nesting", "[" * 10_000 + "]" * 10_000)
describe("a million open brackets", "ModelFormatError", "201 levels|values of JSON", '{"a":' * 10**6)
describe("five million values", "ModelFormatError", "values of JSON", "[" + "[]," * 5_000_000 + "[]]")
describe("a number of 6,000 digits", "ModelFormatError", "6000 digits", GOOD.replace("2}", "9" * 6000 + "}"))
describe("NaN", "ModelFormatError", "holds NaN", GOOD.replace('"units": 2', '"units": NaN'))
describe("keys twice", "ModelFormatError", "'units' stands twice", GOOD.replace("2}", '2, "units": 3}'))
describe(
    "an integer beyond 64 bits",
    "ModelFormatError",
    r"config\.layers\[0\]\.config\.batch_shape\[1\]: 81 bits in a whole number; .*integer_bits",
    functional(entry(2**80), layer("Dense", "d", called("x"), units=2)),
)
describe("many keys twice", "ModelFormatError", "stands twice", "{" + ",".join(['"a":1'] * 300_000) + "}")

# -- networks that grow --------------------------------------------------------------------------------------
describe(
    "a billion filters",
    "ModelFormatError",
    r"layers\[1\] 'c': Conv2D 'c': .* weights so far; .*Limits\(parameters=",
    functional(entry(8, 8, 3), layer("Conv2D", "c", called("x"), filters=10**9, kernel_size=[3, 3])),
)
describe(
    "an input too large",
    "ModelFormatError",
    r"InputLayer 'x': 4,611,686,014,132,420,609 elements in one sample",
    functional(entry(2**31 - 1, 2**31 - 1, 1), layer("ReLU", "r", called("x"))),
)


def doubling(make: Callable[[str, str], Json], first: Json) -> Json:
    layers = [first]
    for i in range(60):
        layers.append(make(f"l{i}", layers[-1]["name"]))
    return functional(*layers)


describe(
    "doubling by concatenation",
    "ModelFormatError",
    r"Concatenate 'l\d+': .*elements in one sample.*tensor_elements",
    doubling(lambda name, last: layer("Concatenate", name, called(last, last)), entry(4, 4, 1)),
)
describe(
    "doubling by padding",
    "ModelFormatError",
    r"ZeroPadding2D 'l\d+': .*elements",
    doubling(lambda name, last: layer("ZeroPadding2D", name, called(last), padding=10**6), entry(4, 4, 1)),
)
if "UpSampling2D" in DECLARATIONS:
    describe(
        "doubling by upsampling",
        "ModelFormatError",
        r"UpSampling2D 'l\d+': .*elements",
        doubling(lambda name, last: layer("UpSampling2D", name, called(last), size=[2, 2]), entry(4, 4, 1)),
    )


def operation(class_name: str, name: str, *args: Any, **config: Any) -> Json:
    node = {"args": [tensor(a) if isinstance(a, str) else a for a in args], "kwargs": {}}
    return layer(class_name, name, node, **config) | {"module": "keras.src.ops.numpy"}


describe(
    "doubling by stacking",
    "ModelFormatError",
    r"Stack 'l\d+': .*elements",
    doubling(
        lambda name, last: operation("Stack", name, [tensor(last)] * 8, axis=1), entry(4, 4, 1)
    ),
)
describe(
    "doubling by broadcasting",
    "ModelFormatError",
    r"Multiply 'm': .*elements in one sample",
    functional(
        entry(2**20, 1),
        operation("Transpose", "t", "x", axes=[0, 2, 1]),
        operation("Multiply", "m", "x", "t"),
    ),
)
describe(
    "two billion copies",
    "ShapeError",
    r"Repeat 'r': repeats 2,147,483,647 times; at most 1,000",
    functional(entry(4), operation("Repeat", "r", "x", repeats=2**31 - 1, axis=1)),
)
describe(
    "two billion parts",
    "ShapeError",
    r"Split 's': makes 2,147,483,647 parts; at most 1,000",
    functional(entry(2**31 - 1), operation("Split", "s", "x", indices_or_sections=2**31 - 1, axis=1)),
)
describe(
    "a power of two billion",
    "ShapeError",
    r"the exponent must be a multiple of 1/2",
    functional(entry(4), operation("Power", "p", "x", 2**31)),
)
describe(
    "100,000 axes of an input", "ShapeError|ModelFormatError", "has 100,000 entries",
    functional(entry(*[3] * 100_000), layer("ReLU", "r", called("x"))),
)
describe(
    "100,000 axes of a reshape", "ShapeError|ModelFormatError", "has 100,00[01] entries",
    functional(entry(4), layer("Reshape", "r", called("x"), target_shape=[3] * 100_000)),
)
describe(
    "100,000 new axes",
    "ShapeError",
    "gives 100,002 axes; a value has at most 32",
    functional(
        entry(4),
        operation(
            "GetItem",
            "g",
            "x",
            [{"class_name": "__slice__", "config": {}}, *[None] * 100_000],
        ),
    ),
)


def models_in_models(depth: int) -> Json:
    """Each calls the one inside twice."""
    model = functional(entry(4), layer("ReLU", "r", called("x")), name="m0")
    for level in range(1, depth):
        inner = model | {"name": "inner", "inbound_nodes": [called("x"), called("inner")]}
        model = functional(entry(4), inner, output=["inner", 2, 0], name=f"m{level}")
    return model


describe(
    "doubling by models",
    "ModelFormatError",
    r"Model 'inner': .* calls of layers so far; .*Limits\(nodes=",
    models_in_models(16),
)
describe("models in models", "ModelFormatError", "17 levels of models inside models", models_in_models(40))
describe(
    "a cycle",
    "ModelFormatError",
    "form a cycle: 'a' <- 'b' <- 'a'",
    functional(entry(3), layer("ReLU", "a", called("b")), layer("ReLU", "b", called("a"))),
)
describe(
    "a negative node index",
    "ModelFormatError",
    r"layers\[1\] 'r': inbound_nodes\[0\]: an index must be an integer from 0 on, found -1",
    functional(entry(3), layer("ReLU", "r", called(tensor("x", -1)))),
)
describe(
    "a negative tensor index",
    "ModelFormatError",
    "an index must be an integer from 0 on, found -1",
    functional(entry(3), layer("ReLU", "r", called(tensor("x", 0, -1)))),
)
describe(
    "a layer that is missing",
    "ModelFormatError",
    "refers to a layer 'y', which the model does not have",
    functional(entry(3), layer("ReLU", "r", called("y"))),
)
describe(
    "a name twice",
    "ModelFormatError",
    "the name stands already at",
    functional(entry(3), layer("ReLU", "r", called("x")), layer("ReLU", "r", called("x"))),
)
describe(
    "a negative size",
    "ModelFormatError",
    r"Dense 'd': units must be a positive integer, got -2",
    functional(entry(3), layer("Dense", "d", called("x"), units=-2)),
)
describe("a chain of 1,000 layers is no harm", "loaded", "", chain(1_000))


# -- what happened -------------------------------------------------------------------------------------------
@pytest.fixture(scope="module")
def happened(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Any]:
    rows = []
    root = tmp_path_factory.mktemp("hostile")
    for number, (name, (make, _, _)) in enumerate(CASES.items()):
        folder = root / "net" / str(number)
        folder.mkdir(parents=True)
        made = make(folder)
        model, stored = made if isinstance(made, tuple) else (made, None)
        rows.append([name, str(model), str(stored) if stored else None])
    existing = sorted(path for path in root.rglob("*"))
    script = Path(__file__).with_name("hostile_loads.py")
    finished = subprocess.run(
        [sys.executable, str(script)], input=json.dumps(rows), capture_output=True, text=True, cwd=root
    )
    assert finished.returncode == 0, finished.stderr[-2000:]
    assert sorted(path for path in root.rglob("*")) == existing
    result: dict[str, Any] = json.loads(finished.stdout)
    return result


@pytest.mark.parametrize("name", CASES)
def test_a_crafted_file_is_refused_and_nothing_else_happens(name: str, happened: dict[str, Any]) -> None:
    _, kind, text = CASES[name]
    found = happened[name]
    assert re.fullmatch(kind, found["kind"]), found
    assert re.search(text, found["text"]), found["text"]
    assert len(found["text"]) < 3_000
    assert found["text"].isprintable()
    assert found["events"] == []
    assert found["seconds"] < SECONDS


def test_all_of_them_together_take_little_memory(happened: dict[str, Any]) -> None:
    assert happened["memory"] < MEGABYTES


# -- limits --------------------------------------------------------------------------------------------------
def test_limits_are_checked_and_can_be_raised() -> None:
    data = chain(30)
    with pytest.raises(ModelFormatError, match=r"config: 31 layers; at most 30 .*Limits\(layers=\.\.\.\)"):
        loads(data, limits=Limits(layers=30))
    assert len(loads(data, limits=Limits(layers=31)).layers) == 31
    with pytest.raises(ModelFormatError, match=r"JSON: name: 300 characters of text; at most 200"):
        loads({"name": "n" * 300, **small()}, limits=Limits(text=200))
    with pytest.raises(ModelFormatError, match=r"Dense 'd': 8 weights so far; at most 7"):
        loads(small(), limits=Limits(parameters=7))
    with pytest.raises(ModelFormatError, match=r"elements in all values so far; at most 4"):
        loads(small(), limits=Limits(total_elements=4))
    with pytest.raises(ConvLoomError, match=r"Limits: layers must be a positive integer, got -1"):
        Limits(layers=-1)


def test_limits_of_files(tmp_path: Path) -> None:
    model, stored = weights(lambda file, folder: None)(tmp_path)  # type: ignore[misc]
    with pytest.raises(ModelFormatError, match=r"w\.weights\.h5: .*bytes of HDF5; at most 1,000 "):
        load(model, weights=stored, limits=Limits(hdf5_bytes=1_000))
    packed = write_keras(tmp_path / "n.keras", small(), stored)
    with pytest.raises(
        ModelFormatError, match=r"n\.keras: model\.weights\.h5: .*at most 100 .*archive_bytes"
    ):
        load(packed, limits=Limits(archive_bytes=100))
    with pytest.raises(ModelFormatError, match=r"n\.keras: 2 members; at most 1 "):
        load(packed, limits=Limits(archive_members=1))


def test_a_long_chain_is_loaded_and_compiled_in_time() -> None:
    """In time that grows with its length: anything quadratic takes far longer than this."""
    start = time.process_time()
    net = cl.compile(loads(chain(1_000)), device="cpu", backend="aten")
    result = net(np.zeros((1, 8, 8, 4), np.float32))
    assert tuple(result.shape) == (1, 8, 8, 4)
    assert time.process_time() - start < 12
