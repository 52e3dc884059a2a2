"""Files that Keras saved: values equal to Keras's own, both dialects, and every way a file can be wrong."""

from __future__ import annotations

import copy
import json
import zipfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import h5py
import numpy as np
import pytest
from convloom.frontends import Model, Sequential, load, loads
from convloom.frontends import layers as L
from convloom.frontends.keras.limits import Limits
from convloom.graph.errors import ConvLoomError, ModelFormatError, UnsafeModelError, UnsupportedLayerError
from helpers import evaluate

DATA = Path(__file__).parent / "data"
LENET5 = Path(__file__).parents[1] / "examples" / "keras_lenet5"
Json = dict[str, Any]


def outputs(model: Model, *inputs: np.ndarray) -> list[np.ndarray]:
    given = {tensor.node.block.name: x for tensor, x in zip(model.inputs, inputs, strict=True)}
    return [y.numpy() for y in evaluate(model.to_graph(), model.parameters, given).values()]


# -- files in Keras's two dialects, written by hand ----------------------------------------------------------
def keras3(name: str, node: int = 0, tensor: int = 0) -> Json:
    return {"class_name": "__keras_tensor__", "config": {"shape": [], "keras_history": [name, node, tensor]}}


def layer(class_name: str, name: str, nodes: list[Any] | None = None, **config: Any) -> Json:
    return {
        "class_name": class_name,
        "name": name,
        "config": {"name": name, **config},
        "inbound_nodes": nodes or [],
    }


def called(*names: str | tuple[str, int], dialect: int = 3) -> Any:
    refs = [(name, 0) if isinstance(name, str) else name for name in names]
    if dialect == 2:
        return [[name, node, 0, {}] for name, node in refs]
    tensors = [keras3(name, node) for name, node in refs]
    return {"args": tensors if len(tensors) == 1 else [tensors], "kwargs": {}}


def functional(layers: list[Json], outputs: list[Any], inputs: list[Any] | None = None) -> Json:
    config = {
        "name": "net",
        "layers": layers,
        "input_layers": inputs or ["x", 0, 0],
        "output_layers": outputs,
    }
    return {"class_name": "Functional", "config": config}


def entry(*shape: int, name: str = "x") -> Json:
    return layer("InputLayer", name, batch_shape=[None, *shape])


def simple(*layers: Json, shape: tuple[int, ...] = (6, 5, 3)) -> Json:
    return {"class_name": "Sequential", "config": {"name": "net", "layers": [entry(*shape), *layers]}}


def conv(name: str = "c", nodes: list[Any] | None = None, **config: Any) -> Json:
    return layer("Conv2D", name, nodes, filters=3, kernel_size=[3, 3], padding="same", **config)


# -- values --------------------------------------------------------------------------------------------------
@pytest.mark.parametrize(
    ("description", "folder", "stem", "parameters"),
    [
        (LENET5 / "lenet5.json", LENET5, "lenet5", 61_706),
        (DATA / "lenet5_keras2.json", LENET5, "lenet5", 61_706),
        (DATA / "tiny_resnet.json", DATA, "tiny_resnet", 3_957),
    ],
    ids=lambda value: value.name if isinstance(value, Path) else str(value),
)
def test_outputs_equal_those_keras_stored(
    description: Path, folder: Path, stem: str, parameters: int
) -> None:
    model = load(description, weights=folder / f"{stem}.weights.h5")
    stored = np.load(folder / f"{stem}_io.npz")
    assert model.count_params() == parameters
    np.testing.assert_allclose(outputs(model, stored["x"])[0], stored["y"], atol=1e-5)


def test_names_and_layers_are_those_of_the_file() -> None:
    model = load(LENET5 / "lenet5.json")
    assert isinstance(model, Sequential)
    assert [block.name for block in model.layers] == ["c1", "s2", "c3", "s4", "flatten", "c5", "f6", "output"]
    assert model.inputs[0].node.block.name == "image"
    assert list(model.parameters)[:2] == ["c1/kernel", "c1/bias"]


def test_text_bytes_and_parsed_json_are_the_same() -> None:
    text = (DATA / "tiny_resnet.json").read_text()
    graphs = {str(loads(form).to_graph()) for form in (text, text.encode(), json.loads(text))}
    assert len(graphs) == 1


def test_archive_holds_description_and_weights(tmp_path: Path) -> None:
    path = tmp_path / "net.keras"
    with zipfile.ZipFile(path, "w") as archive:
        archive.writestr("config.json", (LENET5 / "lenet5.json").read_text())
        archive.write(LENET5 / "lenet5.weights.h5", "model.weights.h5")
    stored = np.load(LENET5 / "lenet5_io.npz")
    np.testing.assert_allclose(outputs(load(path), stored["x"])[0], stored["y"], atol=1e-5)


# -- the graph of a file -------------------------------------------------------------------------------------
@pytest.mark.parametrize("dialect", [2, 3])
def test_shared_layers_are_ordered_by_call_not_by_layer(dialect: int) -> None:
    """a(b(a(x))): neither layer can come first."""
    data = functional(
        [
            layer("ReLU", "b", [called("a", dialect=dialect)]),
            conv("a", [called("x", dialect=dialect), called("b", dialect=dialect)]),
            entry(6, 5, 3),
        ],
        ["a", 1, 0],
    )
    graph = loads(data).to_graph()
    assert graph["b"].inputs == ("a",)
    assert graph["a/call_1"].inputs == ("b", "a/kernel", "a/bias")
    assert list(graph.outputs.values()) == ["a/call_1"]


def nested(dialect: int, first: int) -> Json:
    """sub(sub(x)), its calls counted from `first` inside the file."""
    inner = functional(
        [entry(4, name="i"), layer("Dense", "d", [called("i", dialect=dialect)], units=4)],
        ["d", 0, 0],
        ["i", 0, 0],
    )
    sub = inner | {
        "name": "sub",
        "inbound_nodes": [called("x", dialect=dialect), called(("sub", first), dialect=dialect)],
    }
    # Keras 3 counts a Functional among the outputs from 1 even where it counts from 0 elsewhere.
    return functional([entry(4), sub], ["sub", 2, 0])


@pytest.mark.parametrize(("dialect", "first"), [(2, 1), (3, 0)])
def test_nested_models_are_counted_as_each_keras_counts_them(dialect: int, first: int) -> None:
    model = loads(nested(dialect, first))
    assert list(model.parameters) == ["sub/d/kernel", "sub/d/bias"]
    graph = model.to_graph()
    assert graph["sub/call_1/d"].inputs == ("sub/d", "sub/d/kernel", "sub/d/bias")
    assert list(graph.outputs.values()) == ["sub/call_1/d"]


def test_operators_of_keras_3_and_keras_2() -> None:
    def operation(class_name: str, name: str, *args: Any) -> Json:
        node = {"args": list(args), "kwargs": {}}
        return layer(class_name, name, [node]) | {
            "module": "keras.src.ops.numpy",
            "registered_name": class_name,
        }

    def lambda_(function: str, name: str, node: list[Any]) -> Json:
        return layer("TFOpLambda", name, [node], function=function) | {"module": "keras.layers"}

    newer = [
        operation("Multiply", "m", keras3("x"), 3.0),
        operation("Subtract", "s", 1.0, keras3("m")),
        operation("Add", "a", keras3("s"), keras3("x")),
        operation("TrueDivide", "q", keras3("a"), 4.0),
    ]
    older = [
        lambda_("math.multiply", "m", ["x", 0, 0, {"y": 3.0, "name": None}]),
        lambda_("math.subtract", "s", ["_CONSTANT_VALUE", -1, 1.0, {"y": ["m", 0, 0], "name": None}]),
        lambda_("__operators__.add", "a", ["s", 0, 0, {"y": ["x", 0, 0], "name": None}]),
        lambda_("math.truediv", "q", ["a", 0, 0, {"y": 4.0, "name": None}]),
    ]
    x = np.array([[1.0, -2.0, 5.0]], dtype=np.float32)
    for layers in (newer, older):
        model = loads(functional([entry(3), *layers], ["q", 0, 0]))
        np.testing.assert_allclose(outputs(model, x)[0], (1 - 3 * x + x) / 4)
        assert [block.name for block in model.layers] == ["x", "m", "s", "a", "q"]


def test_keras_2_spellings() -> None:
    data = simple(
        layer("BatchNormalization", "n", axis=[3], epsilon=1e-5, fused=None),
        layer("LeakyReLU", "l", alpha=0.25),
        layer(
            "ReLU", "r", max_value={"class_name": "__numpy__", "config": {"value": 6.0, "dtype": "float32"}}
        ),
        conv(
            "c",
            kernel_initializer={"class_name": "HeNormal", "config": {"seed": None}},
            kernel_regularizer={"l2": 1},
        ),
    )
    data["config"]["layers"][0]["config"] = {
        "name": "x",
        "batch_input_shape": [None, 6, 5, 3],
        "sparse": False,
    }
    model = loads(data)
    graph = model.to_graph()
    assert graph["n"].op.epsilon == 1e-5
    assert graph["l"].op.slope == 0.25
    assert graph["r"].op.op_name() == "relu6"
    found = model.get_layer("c")
    assert isinstance(found, L.Conv2D)
    assert found.kernel_initializer == "he_normal"


def test_sequential_without_input_layer_takes_the_shape_from_where_the_writer_put_it() -> None:
    bare = {"name": "net", "layers": [layer("Dense", "d", units=2)]}
    first = copy.deepcopy(bare)
    first["layers"][0]["config"]["batch_input_shape"] = [None, 3]
    for config in (first, bare | {"build_input_shape": [None, 3]}):
        assert loads({"class_name": "Sequential", "config": config}).count_params() == 8
    with pytest.raises(ConvLoomError, match=r"Sequential 'net': has no input shape yet"):
        loads({"class_name": "Sequential", "config": bare})


# -- wrong descriptions --------------------------------------------------------------------------------------
def cyclic() -> Json:
    return functional(
        [
            entry(4),
            layer("Add", "a", [called("x", "b")]),
            layer("ReLU", "b", [called("c")]),
            layer("ReLU", "c", [called("a")]),
        ],
        ["c", 0, 0],
    )


def test_a_cycle_is_shown() -> None:
    with pytest.raises(
        ModelFormatError, match=r"^config: the layers form a cycle: 'a' <- 'b' <- 'c' <- 'a'$"
    ):
        loads(json.dumps(cyclic()))


def test_all_unsupported_layers_are_reported_together() -> None:
    data = simple(
        layer("Conv3D", "deep"),
        layer("Dense", "fine", units=2),
        layer("ReLU", "mine") | {"module": "my.package", "registered_name": "my>ReLU"},
        layer("Activation", "act", activation="mystery"),
    )
    with pytest.raises(UnsupportedLayerError) as caught:
        loads(data)
    text = str(caught.value)
    assert text.startswith("3 layer(s) are not supported by ConvLoom: layers[1] 'deep': class 'Conv3D'; ")
    assert "layers[3] 'mine': class 'ReLU' of module 'my.package'" in text
    assert "layers[4] 'act': Activation 'act': activation 'mystery' is not a known activation" in text
    assert "fine" not in text


@pytest.mark.parametrize("class_name", ["Lambda", "TFSMLayer", "TorchModuleWrapper", "StringLookup"])
def test_layers_that_carry_code_are_refused(class_name: str) -> None:
    with pytest.raises(
        UnsafeModelError, match=rf"never runs or opens: layers\[1\] 'f': {class_name}; replace"
    ):
        loads(simple(layer(class_name, "f", function=["4wEAAAAA", None, None])))


def test_code_is_refused_wherever_it_hides() -> None:
    hidden = {"class_name": "__lambda__", "config": {"code": "4wEAAAAA"}}
    with pytest.raises(UnsafeModelError, match="serialized Python function"):
        loads(simple(layer("Dense", "d", units=2, kernel_regularizer={"config": [hidden]})))


def changed(change: Callable[[list[Json], Json], object]) -> Json:
    """A small valid network with one thing changed."""
    layers = [entry(6, 5, 3), conv("c", [called("x")]), layer("Add", "a", [called("c", "x")])]
    data = functional(layers, ["a", 0, 0])
    loads(copy.deepcopy(data))
    change(data["config"]["layers"], data["config"])
    return data


@pytest.mark.parametrize(
    ("change", "text"),
    [
        (
            lambda ls, c: ls[1]["config"].update(strides=0),
            "layers[1] 'c': Conv2D 'c': strides must be positive integers, got 0",
        ),
        (
            lambda ls, c: ls[1]["config"].update(kernel_size="3"),
            "layers[1] 'c': Conv2D 'c': kernel_size must be",
        ),
        (
            lambda ls, c: ls[1]["config"].pop("filters"),
            "layers[1] 'c': Conv2D 'c': needs the argument 'filters'",
        ),
        (
            lambda ls, c: ls[1]["config"].update(magic=3),
            "layers[1] 'c': Conv2D with magic=3 is not supported",
        ),
        (
            lambda ls, c: ls[1].update(inbound_nodes=[called("y")]),
            "layers[1] 'c': inbound_nodes[0]: refers to a layer 'y', which the model does not have",
        ),
        (
            lambda ls, c: ls[1].update(inbound_nodes=[called(("x", 1))]),
            "inbound_nodes[0]: refers to call 1 of 'x', which has 1 call(s)",
        ),
        (
            lambda ls, c: ls[1].update(inbound_nodes=[called(("x", -1))]),
            "inbound_nodes[0]: an index must be an integer from 0 on, found -1",
        ),
        (
            lambda ls, c: ls[1].update(inbound_nodes=[]),
            "layers[2] 'a': inbound_nodes[0]: refers to call 0 of 'c', which has 0 call(s)",
        ),
        (
            lambda ls, c: ls[1].update(inbound_nodes={"a": 1}),
            "layers[1] 'c': inbound_nodes: must be a list, found {'a': 1}",
        ),
        (
            lambda ls, c: ls[1].update(inbound_nodes=[{"kwargs": {}}]),
            "layers[1] 'c': inbound_nodes[0]: args must be a list, found nothing",
        ),
        (
            lambda ls, c: ls[1]["inbound_nodes"][0].update(kwargs={"training": True}),
            "layers[1] 'c': inbound_nodes[0]: called with training=True, which is not supported",
        ),
        (lambda ls, c: ls[1].update(config=None), "layers[1]: config must be an object, found nothing"),
        (lambda ls, c: ls[1].update(name="x"), "layers[1] 'x': the name stands already at layers[0] 'x'"),
        (
            lambda ls, c: ls[0]["config"].update(batch_shape=[None, None, None, 3]),
            "layers[0] 'x': input 'x' has the shape (None, None, None, 3), which leaves axes open",
        ),
        (
            lambda ls, c: ls[0]["config"].update(batch_shape=[None, 6, 5, 4]),
            "layers[2] 'a': Add 'a': shapes float32[N,6,5,3] and float32[N,6,5,4] do not broadcast",
        ),
        (
            lambda ls, c: c.update(output_layers=[]),
            "config: output_layers: must name at least one tensor as [layer, node, tensor], found []",
        ),
        (
            lambda ls, c: c.update(output_layers=["a", 0, 1]),
            "config: output_layers: refers to output 1 of 'a', which has 1",
        ),
        (lambda ls, c: c.update(layers=7), "config: layers must be a list, found 7"),
    ],
)
def test_wrong_entries_are_named_by_place(change: Callable[[list[Json], Json], object], text: str) -> None:
    with pytest.raises(ConvLoomError) as caught:
        loads(changed(change))
    assert text in str(caught.value)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ('{"class_name": "Seq', "JSON: not JSON: Unterminated string starting at at line 1, column 16"),
        ("[1, 2]", "model: must be an object with class_name and config, found [1, 2]"),
        ('{"class_name": "Model"}', "model: config must be an object, found nothing"),
        ('{"a": NaN}', "JSON: holds NaN; numbers must be finite"),
        ('{"a": -Infinity}', "JSON: holds -Infinity; numbers must be finite"),
        ('{"a": 1e999}', "JSON: a: holds the number inf; numbers must be finite"),
        ('{"a": 1, "b": {"c": 1, "c": 2}}', "JSON: the key 'c' stands twice in one object"),
        ('{"a": ' + "9" * 6000 + "}", "JSON: holds a number of 6000 digits"),
        ("[" * 100_000, "JSON: character 200: 201 levels of nesting; at most 200 are read"),
        (b"\xff{}", "JSON: not UTF-8 text: byte 0"),
    ],
)
def test_malformed_json_is_refused(text: str | bytes, message: str) -> None:
    with pytest.raises(ConvLoomError) as caught:
        loads(text)
    assert message in str(caught.value)


def test_a_dictionary_that_holds_itself_is_refused() -> None:
    data: Json = {}
    data["config"] = data
    with pytest.raises(ModelFormatError, match="201 levels of nesting; at most 200 are read"):
        loads(data)


def test_long_texts_are_refused_before_they_are_parsed() -> None:
    with pytest.raises(ModelFormatError, match=r"101 bytes of JSON; at most 100 .*Limits\(json_bytes="):
        loads(" " * 101, limits=Limits(json_bytes=100))


def test_custom_model_classes_are_refused() -> None:
    with pytest.raises(UnsupportedLayerError, match="class 'MyModel' is neither Functional nor Sequential"):
        loads({"class_name": "MyModel", "config": {}})


def test_mutations_of_a_real_file_raise_our_errors_only() -> None:
    """Values of a valid file replaced at random: it loads, or says why not."""
    source = json.loads((DATA / "tiny_resnet.json").read_text())
    junk = [
        None,
        True,
        -1,
        10**9,
        1.5,
        "",
        "relu",
        [],
        [None],
        {},
        [["stem", 0, 0]],
        {"class_name": "x", "config": {}},
    ]
    random = np.random.default_rng(7)

    def spots(value: Any) -> list[tuple[Any, Any]]:
        keys = (
            value.keys() if isinstance(value, dict) else range(len(value)) if isinstance(value, list) else ()
        )
        return [spot for key in keys for spot in [(value, key), *spots(value[key])]]

    refused = 0
    for _ in range(150):
        data = copy.deepcopy(source)
        places = spots(data)
        parent, key = places[random.integers(len(places))]
        parent[key] = junk[random.integers(len(junk))]
        try:
            loads(data).to_graph()
        except ConvLoomError:
            refused += 1
    assert 30 < refused < 150


# -- weights -------------------------------------------------------------------------------------------------
def write_weights(path: Path, **arrays: np.ndarray) -> Path:
    """A .weights.h5; keys are paths under layers/, "/" written as "__"."""
    with h5py.File(path, "w") as file:
        for key, value in arrays.items():
            file[f"layers/{key.replace('__', '/')}"] = value
    return path


def dense_pair() -> Model:
    return loads(simple(layer("Dense", "late", units=2), layer("Dense", "early", units=1), shape=(3,)))


def good() -> dict[str, np.ndarray]:
    random = np.random.default_rng(0)
    shapes = {
        "dense__vars__0": (3, 2),
        "dense__vars__1": (2,),
        "dense_1__vars__0": (2, 1),
        "dense_1__vars__1": (1,),
    }
    return {key: random.normal(size=shape).astype("float32") for key, shape in shapes.items()}


def test_weights_go_by_class_and_order_not_by_name(tmp_path: Path) -> None:
    model, arrays = dense_pair(), good()
    model.load_weights(write_weights(tmp_path / "w.weights.h5", **arrays))
    assert list(model.parameters) == ["late/kernel", "late/bias", "early/kernel", "early/bias"]
    for found, expected in zip(model.get_weights(), arrays.values(), strict=True):
        np.testing.assert_array_equal(found, expected)


def test_weights_in_the_layout_of_keras_2_12(tmp_path: Path) -> None:
    """There the counter moves by two past a layer that has weights."""
    model, arrays = dense_pair(), good()
    with h5py.File(tmp_path / "w.h5", "w") as file:
        for key, value in arrays.items():
            file["_layer_checkpoint_dependencies/" + key.replace("dense_1", "dense_2").replace("__", "/")] = (
                value
            )
    model.load_weights(tmp_path / "w.h5")
    np.testing.assert_array_equal(model.parameters["early/kernel"], arrays["dense_1__vars__0"])


def test_weights_that_do_not_fit_are_named_and_change_nothing(tmp_path: Path) -> None:
    model, arrays = dense_pair(), good()
    before = model.get_weights()
    del arrays["dense_1__vars__1"]
    arrays["dense__vars__1"] = np.zeros(4, dtype="float32")
    arrays["dense_1__vars__0"] = np.zeros((2, 1), dtype="complex64")
    arrays["conv2d__vars__0"] = np.zeros(1, dtype="float32")
    with pytest.raises(ModelFormatError) as caught:
        model.load_weights(write_weights(tmp_path / "w.weights.h5", **arrays))
    text = str(caught.value)
    assert text.startswith("w.weights.h5 does not fit Sequential 'net': ")
    assert (
        "Dense 'late': weight 'bias' (layers/dense/vars/1) has shape (4,) of float32, expected (2,)" in text
    )
    assert "Dense 'early': weight 'kernel' (layers/dense_1/vars/0) has shape (2, 1) of complex64" in text
    assert "Dense 'early': weight 'bias' (layers/dense_1/vars/1) is missing, expected shape (1,)" in text
    assert "the file holds 1 variables at layers/conv2d/vars, which no layer expects" in text
    assert all(np.array_equal(a, b) for a, b in zip(before, model.get_weights(), strict=True))


def test_a_variable_too_many_is_reported(tmp_path: Path) -> None:
    arrays = good() | {"dense__vars__2": np.zeros(1, dtype="float32")}
    with pytest.raises(ModelFormatError, match=r"Dense 'late': the file holds 3 variables .*, expected 2"):
        dense_pair().load_weights(write_weights(tmp_path / "w.weights.h5", **arrays))


@pytest.mark.parametrize("kind", ["soft", "external", "storage", "virtual", "group"])
def test_weights_outside_the_file_are_refused(tmp_path: Path, kind: str) -> None:
    arrays = good()
    secret = arrays.pop("dense__vars__0")
    other = write_weights(tmp_path / "other.h5", dense__vars__0=secret)
    (tmp_path / "raw").write_bytes(secret.tobytes())
    path = write_weights(tmp_path / "w.weights.h5", **arrays)
    place = "layers/dense/vars/0"
    with h5py.File(path, "a") as file:
        if kind == "soft":
            file["real"] = secret
            file[place] = h5py.SoftLink("/real")
        elif kind == "external":
            file[place] = h5py.ExternalLink(str(other), f"/{place}")
        elif kind == "storage":
            file.create_dataset(place, (3, 2), "f4", external=[(str(tmp_path / "raw"), 0, 24)])
        elif kind == "virtual":
            layout = h5py.VirtualLayout((3, 2), "f4")
            layout[:] = h5py.VirtualSource(str(other), place, (3, 2))
            file.create_virtual_dataset(place, layout)
        else:
            del file["layers/dense"]
            file["layers/dense"] = h5py.ExternalLink(str(other), "/layers/dense")
    with pytest.raises(UnsafeModelError, match=r"^w\.weights\.h5: \S+ (is a \w+Link|keeps its data outside)"):
        dense_pair().load_weights(path)


@pytest.mark.parametrize(
    ("path", "message"),
    [
        ("missing.h5", "missing.h5: there is no such file"),
        ("tiny_resnet.json", "tiny_resnet.json: not a readable HDF5 file"),
        ("tiny_resnet.weights.h5", "does not fit Sequential 'net': Dense 'late': weight 'kernel'"),
    ],
)
def test_other_files_as_weights(path: str, message: str) -> None:
    with pytest.raises(ModelFormatError) as caught:
        dense_pair().load_weights(DATA / path)
    assert message in str(caught.value)


def test_truncated_weights_are_refused(tmp_path: Path) -> None:
    data = (LENET5 / "lenet5.weights.h5").read_bytes()
    for size in (100, 2000, len(data) // 2):
        (tmp_path / "cut.h5").write_bytes(data[:size])
        with pytest.raises(ModelFormatError, match=r"cut\.h5: "):
            load(LENET5 / "lenet5.json", weights=tmp_path / "cut.h5")


# -- archives and paths --------------------------------------------------------------------------------------
def test_archives_that_mean_harm_are_refused(tmp_path: Path) -> None:
    bomb, double = tmp_path / "bomb.keras", tmp_path / "double.keras"
    with zipfile.ZipFile(bomb, "w", zipfile.ZIP_DEFLATED) as archive:
        archive.writestr("config.json", " " * 10_000_000)
    with pytest.raises(UnsafeModelError, match=r"bomb\.keras: config\.json: expands"):
        load(bomb)
    with zipfile.ZipFile(double, "w") as archive:
        archive.writestr("config.json", "{}")
        with pytest.warns(UserWarning, match="Duplicate name"):
            archive.writestr("config.json", "{}")
    with pytest.raises(UnsafeModelError, match=r"member 'config\.json' stands twice"):
        load(double)


def test_other_files_as_models(tmp_path: Path) -> None:
    with pytest.raises(ModelFormatError, match=r"missing\.json: cannot be read: No such file"):
        load(tmp_path / "missing.json")
    with pytest.raises(
        ModelFormatError, match=r"lenet5\.weights\.h5: is an HDF5 file; pass the model's \.json"
    ):
        load(LENET5 / "lenet5.weights.h5")
    (tmp_path / "empty.keras").write_bytes(b"PK\x03\x04 and no more")
    with pytest.raises(ModelFormatError, match=r"empty\.keras: damaged archive"):
        load(tmp_path / "empty.keras")
