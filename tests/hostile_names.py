"""Code, foreign classes, and files and addresses in a description."""

from __future__ import annotations

import json
from pathlib import Path

import h5py
import numpy as np
from hostile_cases import CODE, UNSAFE, alone, case, describe, graph
from keras_files import (
    called,
    entry,
    functional,
    layer,
    write_keras,
)

# -- code, foreign classes, files and addresses in a configuration -------------------------------------------

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
    "UnsupportedLayerError",
    "kernel_regularizer 'system' of module 'os' is not a known regularizer",
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


describe(
    "a terminal escape among open axes",
    "ModelFormatError",
    r"shape must be a positive integer, got",
    functional(entry(None, 4, "\x1b[31m"), layer("ReLU", "r", called("x"))),
)


# -- graphs --------------------------------------------------------------------------------------------------
for title, op, kind, text in (
    (
        "code as a number",
        {"op": "leaky_relu", "slope": "__import__('os')"},
        "ModelFormatError",
        "is no float",
    ),
    ("code as a word", {"op": "cast", "dtype": "f'{exec()}'"}, "ModelFormatError", "is no str"),
    ("another op", {"op": "os.system"}, "ModelFormatError", "unknown op 'os.system'"),
    (
        "a value of 4 TB",
        {"op": "pad", "padding": [[0, 2**40]], "value": 0.0},
        "ModelFormatError",
        "in one sample",
    ),
    ("a terminal escape", {"op": "relu", "name": "\x1b[31m"}, "ModelFormatError", "a name is printable text"),
):
    describe(f"a graph: {title}", kind, text, graph(**op))
describe(
    "a graph of 110,000 nodes",
    "ModelFormatError",
    "110,001 nodes; at most 100,000",
    {**graph(op="relu"), "nodes": [{}] * 110_001},
)
