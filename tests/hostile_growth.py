"""JSON that is too much, and networks that grow beyond all bounds."""

from __future__ import annotations

import json
from collections.abc import Callable
from typing import Any

from hostile_cases import describe
from keras_files import (
    Json,
    called,
    chain,
    entry,
    functional,
    layer,
    small,
    tensor,
)

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
describe(
    "doubling by upsampling",
    "ModelFormatError",
    r"UpSampling2D 'l\d+': .*elements",
    doubling(lambda name, last: layer("UpSampling2D", name, called(last), size=[2, 2]), entry(4, 4, 1)),
)

LARGE = 2**31 - 1
VECTOR, STEPS, IMAGE, VOLUME = (3,), (4, 3), (4, 4, 3), (4, 4, 4, 3)
for shape, class_name, config in (
    (VECTOR, "RepeatVector", {"n": LARGE}),
    (VECTOR, "Dense", {"units": LARGE}),
    (STEPS, "UpSampling1D", {"size": LARGE}),
    (IMAGE, "UpSampling2D", {"size": [LARGE, 1]}),
    (IMAGE, "UpSampling2D", {"size": [LARGE, 1], "interpolation": "bilinear"}),
    (VOLUME, "UpSampling3D", {"size": [1, LARGE, 1]}),
    (STEPS, "ZeroPadding1D", {"padding": [LARGE, LARGE]}),
    (VOLUME, "ZeroPadding3D", {"padding": [[0, LARGE], [0, 0], [0, 0]]}),
    (IMAGE, "Resizing", {"height": LARGE, "width": 2}),
    (IMAGE, "Resizing", {"height": LARGE, "width": 2, "interpolation": "nearest"}),
    (IMAGE, "CenterCrop", {"height": LARGE, "width": LARGE}),
    (IMAGE, "RandomCrop", {"height": LARGE, "width": LARGE}),
    (IMAGE, "AdaptiveMaxPooling2D", {"output_size": [LARGE, 1]}),
    (VOLUME, "AdaptiveAveragePooling3D", {"output_size": [3, LARGE, 1]}),
    (STEPS, "Conv1D", {"filters": LARGE, "kernel_size": [1]}),
    (VOLUME, "Conv3D", {"filters": 1, "kernel_size": [LARGE, 1, 1], "padding": "same"}),
    (VOLUME, "Conv3DTranspose", {"filters": 1, "kernel_size": [LARGE, 1, 1]}),
    (VOLUME, "Conv3D", {"filters": 1, "kernel_size": [10**6, 1, 1], "padding": "same"}),
    (VOLUME, "Conv3DTranspose", {"filters": 1, "kernel_size": [10**6, 1, 1]}),
    (VOLUME, "Conv3DTranspose", {"filters": 1, "kernel_size": [1, 1, 1], "strides": [LARGE, 1, 1]}),
    (IMAGE, "DepthwiseConv2D", {"kernel_size": [1, 1], "depth_multiplier": LARGE}),
    (STEPS, "EinsumDense", {"equation": "abc,cd->abd", "output_shape": [None, LARGE]}),
    (STEPS, "MultiHeadAttention", {"num_heads": LARGE, "key_dim": LARGE}),
    (STEPS, "GroupQueryAttention",
     {"head_dim": LARGE, "num_query_heads": LARGE, "num_key_value_heads": 1}),
):  # fmt: skip
    twice = class_name.endswith("Attention")
    node = {"args": [tensor("x")] * (1 + twice), "kwargs": {}}
    describe(
        f"growth by {class_name} with {', '.join(f'{key}={value}' for key, value in config.items())}",
        "ModelFormatError|ShapeError",
        rf"{class_name} 'l'",
        functional(entry(*shape), layer(class_name, "l", node, **config)),
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
    "ModelFormatError",
    r"Repeat 'r': 8,589,934,588 elements in one sample of a value; at most",
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
    "100,000 indices", "ShapeError", r"Split 's': makes 100,001 parts; at most 1,000",
    functional(entry(4), operation("Split", "s", "x", indices_or_sections=[3] * 100_000, axis=1)),
)
for kind, config in (
    ("Dropout", {"rate": 0.5, "noise_shape": [3] * 100_000}),
    ("EinsumDense", {"equation": "ab,bc->ac", "output_shape": [3] * 100_000}),
    ("MultiHeadAttention", {"num_heads": 1, "key_dim": 1, "output_shape": [2**31 - 1] * 100_000}),
):
    describe(
        f"100,000 axes of {kind}", "ModelFormatError", "has 100,000 entries",
        functional(entry(4), layer(kind, "r", called("x"), **config)),
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
