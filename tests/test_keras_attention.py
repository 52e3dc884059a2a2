"""Attention, products of tensors and dense layers by equation: to Keras and back, trained, fused, refused."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import h5py
import keras
import numpy as np
import pytest
import torch
from keras_files import Json, called, entry, functional, layer, tensor

import convloom as cl
from convloom import layers as L

SHAPES = {"query": (5, 6), "value": (7, 6), "key": (7, 6)}
RELATIVE = 64 * 2.0**-23
"""Of the largest output or gradient: some ten sums of at most 100 float32 terms, one after another."""

Call = Callable[[Any, Any, Any], Any]

LAYERS: dict[str, Call] = {
    "heads": lambda q, v, k: L.MultiHeadAttention(2, 3, value_dim=5)(q, v, k),
    "heads_by_name": lambda q, v, k: L.MultiHeadAttention(2, 3)(key=k, value=v, query=q),
    "heads_causal": lambda q, v, k: L.MultiHeadAttention(2, 3, 4, 0.1)(q, v, use_causal_mask=True),
    "heads_gate": lambda q, v, k: L.MultiHeadAttention(2, 3, use_bias=False, use_gate=True)(q, v),
    "heads_window": lambda q, v, k: L.MultiHeadAttention(2, 3, sliding_window=3, output_shape=(2, 2))(q, v),
    "heads_scores": lambda q, v, k: L.MultiHeadAttention(2, 3)(q, q, return_attention_scores=True),
    "groups": lambda q, v, k: L.GroupQueryAttention(3, 4, 2)(q, v, key=k),
    "groups_gate": lambda q, v, k: L.GroupQueryAttention(3, 4, 2, use_gate=True)(q, v, use_causal_mask=True),
    "attention": lambda q, v, k: L.Attention(use_scale=True, score_mode="concat")([q, v, k]),
    "attention_causal": lambda q, v, k: L.Attention(dropout=0.2)([q, v], use_causal_mask=True),
    "attention_scores": lambda q, v, k: L.Attention()([q, v, k], return_attention_scores=True),
    "additive": lambda q, v, k: L.AdditiveAttention()([q, v, k]),
    "einsum": lambda q, v, k: L.EinsumDense("abc,dce->adbe", (2, None, 3), "relu", "de")(q),
    "einsum_ellipsis": lambda q, v, k: L.EinsumDense("...c,cd->...d", 4, bias_axes="d")(q),
    "dot": lambda q, v, k: L.Dot((2, 2), normalize=True)([q, v]),
}


def described(call: Call) -> cl.Model:
    """The layers of a call as a model of as many inputs as it reads, with weights of its own."""
    tensors = {name: cl.Input(shape, name=name) for name, shape in SHAPES.items()}
    result = call(*tensors.values())
    outputs = result if isinstance(result, list) else [result]
    read = [t for t in tensors.values() if any(t in node.inputs for node in network(outputs))]
    model = cl.Model(read, outputs)
    random = np.random.default_rng(0)
    model.set_weights([random.random(w.shape, np.float32) + 0.3 for w in model.get_weights()])
    return model


def network(outputs: list[Any]) -> list[Any]:
    nodes, stack = [], [t.node for t in outputs]
    while stack:
        nodes.append(stack.pop())
        stack += [t.node for t in nodes[-1].inputs]
    return nodes


def data(model: cl.Model, batch: int = 2) -> list[np.ndarray]:
    random = np.random.default_rng(1)
    return [random.standard_normal((batch, *t.shape[1:]), np.float32) for t in model.inputs]  # type: ignore[arg-type]


def results(value: Any) -> list[np.ndarray]:
    return [
        keras.ops.convert_to_numpy(v.detach() if isinstance(v, torch.Tensor) else v)
        for v in (value if isinstance(value, (list, tuple)) else [value])
    ]


def agree(found: Any, wanted: Any, relative: float = RELATIVE) -> None:
    for a, b in zip(results(found), results(wanted), strict=True):
        assert a.shape == b.shape
        assert np.abs(a - b).max() <= relative * np.abs(b).max()


def in_keras(model: Any, inputs: list[np.ndarray]) -> Any:
    return model(inputs if len(inputs) > 1 else inputs[0], training=False)


# -- files ---------------------------------------------------------------------------------------------------
@pytest.mark.parametrize("name", LAYERS)
def test_keras_opens_what_we_save_and_we_read_it_back_bit_for_bit(name: str, tmp_path: Path) -> None:
    model = described(LAYERS[name])
    inputs = data(model)
    ours = cl.compile(model, device="cpu")(*inputs)
    model.save(tmp_path / "net.keras")
    theirs = keras.models.load_model(tmp_path / "net.keras")
    agree(ours, in_keras(theirs, inputs))
    again = cl.load(tmp_path / "net.keras")
    for a, b in zip(again.get_weights(), model.get_weights(), strict=True):
        assert a.tobytes() == b.tobytes()
    for a, b in zip(results(cl.compile(again, device="cpu")(*inputs)), results(ours), strict=True):
        assert a.tobytes() == b.tobytes()
    assert json.loads(again.to_json())["config"]["layers"] == json.loads(model.to_json())["config"]["layers"]


@pytest.mark.parametrize("suffix", ["keras", "h5", "weights.h5"])
def test_every_kind_of_file_that_keras_writes(suffix: str, tmp_path: Path) -> None:
    """With dropout, whose state Keras keeps too, and gates, which it keeps elsewhere than the rest."""
    x = keras.Input((5, 6))
    y = keras.layers.MultiHeadAttention(2, 3, value_dim=4, dropout=0.2, use_gate=True, name="mine")(x, x)
    y = keras.layers.GroupQueryAttention(3, 4, 2, dropout=0.2, use_gate=True)(y, value=y, key=x)
    y = keras.layers.Attention(use_scale=True, dropout=0.2)([y, x, y], use_causal_mask=True)
    y = keras.layers.AdditiveAttention(name="other")([y, x])
    theirs = keras.Model(x, keras.layers.EinsumDense("abc,cd->ad", 3, bias_axes="d")(y))
    random = np.random.default_rng(2)
    for weight in theirs.weights:
        weight.assign(random.standard_normal(weight.shape, np.float32))
    path = tmp_path / f"net.{suffix}"
    if suffix == "weights.h5":
        theirs.save_weights(path)
        model = cl.loads(theirs.to_json())
        model.load_weights(path)
    else:
        theirs.save(path)
        model = cl.load(path)
    inputs = data(model)
    agree(cl.compile(model, device="cpu")(*inputs), in_keras(theirs, inputs))


def test_a_layer_called_twice_has_its_options_call_by_call(tmp_path: Path) -> None:
    shared = L.MultiHeadAttention(2, 3)
    x = cl.Input((5, 6))
    model = cl.Model(x, shared(shared(x, x, use_causal_mask=True), value=x))
    inputs = data(model)
    model.save(tmp_path / "net.keras")
    agree(
        cl.compile(model, device="cpu")(*inputs), keras.models.load_model(tmp_path / "net.keras")(inputs[0])
    )
    calls = json.loads(model.to_json())["config"]["layers"][1]["inbound_nodes"]
    assert [call["kwargs"] for call in calls] == [{"use_causal_mask": True}, {}]


def test_parts_of_a_layer_under_their_older_names(tmp_path: Path) -> None:
    model = described(LAYERS["heads"])
    model.save_weights(tmp_path / "net.weights.h5")
    wanted = model.get_weights()
    with h5py.File(tmp_path / "net.weights.h5", "r+") as file:
        group = file["layers/multi_head_attention"]
        for name in ("query_dense", "output_dense"):
            group.move(name, f"_{name}")
    model.set_weights([0 * w for w in wanted])
    model.load_weights(tmp_path / "net.weights.h5")
    for a, b in zip(model.get_weights(), wanted, strict=True):
        assert a.tobytes() == b.tobytes()
    with h5py.File(tmp_path / "net.weights.h5", "r+") as file:
        del file["layers/multi_head_attention/key_dense"]
    missing = r"weight 'key/kernel' \(layers/multi_head_attention/key_dense/vars/0\) is missing"
    with pytest.raises(cl.ModelFormatError, match=missing):
        model.load_weights(tmp_path / "net.weights.h5")


def mha(*nodes: Any, **config: Any) -> Json:
    return layer("MultiHeadAttention", "mha", *nodes, num_heads=2, key_dim=3, **config)


def keras_2(**named: Any) -> Any:
    return [["x", 0, 0, named]]


def test_nodes_of_keras_2_name_their_tensors() -> None:
    first = {"class_name": "InputLayer", "name": "x", "inbound_nodes": []}
    inputs = [{**first, "name": n, "config": {"name": n, "batch_input_shape": [None, 5, 4]}} for n in "xy"]
    ends = {"inputs": [["x", 0, 0], ["y", 0, 0]], "output": [["mha", 0, 0]]}

    def loaded(node: Any) -> cl.Model:
        heads = mha(node, query_shape=[None, 5, 4], softmax_robust_masking=True)
        return cl.loads(functional(*inputs, heads, **ends))  # type: ignore[arg-type]

    for node in (
        keras_2(value=["y", 0, 0], key=["x", 0, 0], training=False),
        [["x", 0, 0, {"key": ["x", 0, 0], "value": ["y", 0, 0], "attention_mask": None}]],
        [["x", 0, 0, {}], ["y", 0, 0, {}], ["x", 0, 0, {}]],
    ):
        model = loaded(node)
        query, value, key = model.outputs[0].node.inputs
        assert (query, value, key) == (model.inputs[0], model.inputs[1], model.inputs[0])
    assert loaded(keras_2(value=["y", 0, 0], use_causal_mask=True)).outputs[0].node.options == {
        "use_causal_mask": True
    }


def test_tensors_by_name_that_mean_nothing_are_refused() -> None:
    def loaded(**kwargs: Any) -> cl.Model:
        return cl.loads(functional(entry(5, 4), mha({"args": [tensor("x")], "kwargs": kwargs})))

    assert loaded(value=tensor("x")).count_params() == 2 * 3 * 4 * 4 + 3 * 6 + 4
    place = r"layers\[1\] 'mha': inbound_nodes\[0\]"
    with pytest.raises(cl.UnsupportedLayerError, match=place + r".* called with a tensor as attention_mask"):
        loaded(value=tensor("x"), attention_mask=tensor("x"))
    with pytest.raises(cl.ModelFormatError, match=place + r".* gives value several tensors"):
        loaded(value=[tensor("x"), tensor("x")])
    with pytest.raises(cl.UnsupportedLayerError, match=r"'mha': a call with query_mask=3 is not supported"):
        loaded(value=tensor("x"), query_mask=3)
    with pytest.raises(cl.UnsupportedLayerError, match=place + r".* called with training=True"):
        loaded(value=tensor("x"), training=True)
    dense = {"args": [tensor("x")], "kwargs": {"value": tensor("x")}}
    with pytest.raises(cl.UnsupportedLayerError, match=r"called with a tensor as value"):
        cl.loads(functional(entry(5, 4), layer("Dense", "d", dense, units=2)))
    named = {"args": [], "kwargs": {"inputs": tensor("x")}}
    assert cl.loads(functional(entry(4), layer("Dense", "d", named, units=2))).count_params() == 10
    with pytest.raises(cl.UnsupportedLayerError, match="rope=1 is not supported"):
        cl.loads(functional(entry(5, 4), mha(called("x", "x"), rope=1)))


# -- what users may ask for ----------------------------------------------------------------------------------
def test_errors_say_what_is_wrong_where_and_what_to_do() -> None:
    x, y = cl.Input((5, 6)), cl.Input((7, 4))
    grid = cl.Input((3, 5, 6))
    heads = L.MultiHeadAttention(2, 3, name="mha")
    for text, call in {
        r"MultiHeadAttention 'mha': a call needs a value; it takes query, value, key, one by one": lambda: (
            heads(x)
        ),
        r"'mha': query must be one tensor, got a list": lambda: heads([x, y], y),
        r"'mha': a call takes query, value, key, got 4 arguments": lambda: heads(x, x, x, x),
        r"'mha': value is given twice": lambda: heads(x, x, value=x),
        r"'mha': a call has no argument 'masks'; it takes query, value, key, use_causal": lambda: heads(
            x, x, masks=1
        ),
        r"'mha': a call with attention_mask=SymbolicTensor is not supported; attention_mask may be None": (
            lambda: heads(x, x, attention_mask=y)
        ),
        r"'mha': a call with use_causal_mask=1 is not .* False or True": lambda: heads(
            x, x, use_causal_mask=1
        ),
        r"'mha': takes query, value and key \(N, places, features\) of one rank": lambda: heads(x, grid),
        r"'mha': value .*\[N,7,4\] and key .*\[N,5,6\] must have the same places": lambda: heads(x, y, x),
        r"attention_axes must be of 1 to 2 of .*, got \(3,\)": lambda: L.MultiHeadAttention(
            1, 2, attention_axes=3
        )(grid, grid),
        r"a causal mask needs attention along axis 1 alone, got \(1, 2\)": lambda: L.MultiHeadAttention(1, 2)(
            grid, grid, use_causal_mask=True
        ),
        r"a window of 2 leaves some of 7 queries without any of 5 keys; widen it": lambda: (
            L.MultiHeadAttention(1, 2, sliding_window=2)(y, x)
        ),
        r"num_query_heads, 3, must be a multiple of num_key_value_heads, 2": lambda: L.GroupQueryAttention(
            4, 3, 2
        )(x, x),
        r"GroupQueryAttention .*: takes a sequence": lambda: L.GroupQueryAttention(4, 2, 2)(grid, grid),
        r"query .* and value .* must have as many features": lambda: L.GroupQueryAttention(4, 2, 2)(x, y),
        r"Attention .*: query .* and key .* must have as many features": lambda: L.Attention()([x, y]),
        r"Attention .*: score_mode must be 'dot' or 'concat'": lambda: L.Attention(score_mode="sum"),
        r"Attention .*: takes at least 2 input": lambda: L.Attention()(x),
        r"Dot .*: axes must be of 1 to 2 for .*, got 3": lambda: L.Dot(3)([x, y]),
        r"Dot .*: axes \(1, 1\) of .* have 5 and 7 elements": lambda: L.Dot((1, 1))([x, y]),
        r"Dot .*: axes must be an axis or a pair": lambda: L.Dot((1, 1, 1)),
        r"equation 'abc' must read 'ab,bc->ac'": lambda: L.EinsumDense("abc", 3)(x),
        r"names 2 axes of an input of rank 3": lambda: L.EinsumDense("ab,bc->ac", 3)(x),
        r"must leave the first axis, the batch": lambda: L.EinsumDense("abc,cd->bad", (None, 3))(x),
        r"has 'e' in the result alone": lambda: L.EinsumDense("abc,cd->abe", (None, 3))(x),
        r"has 'e' in the kernel alone": lambda: L.EinsumDense("abc,ced->abd", (None, 3))(x),
        r"a kernel of its own for each place of axis 'b'": lambda: L.EinsumDense("abc,bcd->abd", (None, 3))(
            x
        ),
        r"names an axis twice": lambda: L.EinsumDense("abb,bc->ac", 3)(x),
        r"output_shape \(3,\) must have 2 sizes, for the axes bd": lambda: L.EinsumDense("abc,cd->abd", 3)(x),
        r"output_shape gives axis 'b' 4, where .* has 5": lambda: L.EinsumDense("abc,cd->abd", (4, 3))(x),
        r"output_shape gives axis 'd' None, where .* has no size": lambda: L.EinsumDense(
            "abc,cd->abd", (None, None)
        )(x),
        r"bias_axes 'c' has 'c', not of the result's bd": lambda: L.EinsumDense(
            "abc,cd->abd", (None, 3), bias_axes="c"
        )(x),
    }.items():
        with pytest.raises(cl.ConvLoomError, match=text):
            call()


def test_initial_weights_vary_as_their_matrices_ask() -> None:
    """Glorot and Bengio's bound is of the features and all heads together, not of the kernel's last axes."""
    x = cl.Input((5, 30))
    model = cl.Model(x, L.MultiHeadAttention(10, 20)(x, x))
    for name, bound in (("query/kernel", 6 / (30 + 200)), ("attention_output/kernel", 6 / (200 + 30))):
        largest = model.parameters[f"{model.layers[1].name}/{name}"].abs().max()
        assert 0.98 * bound**0.5 < largest <= bound**0.5


# -- training ------------------------------------------------------------------------------------------------
def block(x: Any, layers: Any, heads: int = 2) -> Any:
    """A transformer's block, of our layers or of Keras's."""
    y = layers.LayerNormalization(epsilon=1e-5)(x)
    x = layers.Add()([x, layers.MultiHeadAttention(heads, 4)(y, y)])
    y = layers.EinsumDense("...a,ab->...b", 9, "gelu", "b")(layers.LayerNormalization(epsilon=1e-5)(x))
    return layers.Add()([x, layers.Dense(x.shape[-1])(y)])


def vision(layers: Any, start: Any) -> tuple[Any, Any]:
    """Patches by a convolution, a block, the classes by attention of a mean over the patches."""
    image = start((12, 8, 3))
    x = layers.Conv2D(6, 4, 4)(image)
    x = layers.Reshape((6, 6))(x)
    x = block(x, layers)
    x = layers.AdditiveAttention()([layers.Reshape((1, 6))(layers.Dense(6)(layers.Flatten()(x))), x])
    return image, layers.Dense(3, "softmax")(layers.Flatten()(x))


@pytest.mark.parametrize("name", LAYERS)
def test_gradcheck_in_float64(name: str) -> None:
    model = described(LAYERS[name])
    net = cl.compile(model, device="cpu", dtype="float64")
    inputs = [torch.from_numpy(x).double().requires_grad_() for x in data(model)]
    weights = [p for p in net.parameters() if p.requires_grad]

    def run(*given: torch.Tensor) -> Any:
        return net(*given[: len(inputs)])

    assert torch.autograd.gradcheck(run, (*inputs, *weights), eps=1e-6, atol=1e-6, fast_mode=True)


def test_gradients_are_those_of_keras() -> None:
    theirs = keras.Model(*vision(keras.layers, keras.Input))
    model = cl.loads(theirs.to_json())
    model.set_weights(theirs.get_weights())
    (x,) = data(model, 3)
    y = np.eye(3, dtype=np.float32)
    net = cl.compile(model, device="cpu").train()
    loss, _ = net.with_loss("categorical_crossentropy")(x, y)
    loss.backward()
    wanted = -(torch.from_numpy(y) * torch.log(theirs(x, training=True))).sum(-1).mean()
    assert abs(float(loss) - float(wanted)) <= RELATIVE
    wanted.backward()
    gradients = {weight.path: weight.value.grad for weight in theirs.trainable_weights}
    largest = max(float(g.abs().max()) for g in gradients.values())
    parameters = dict(net.named_parameters())
    assert parameters.keys() == gradients.keys()
    for name, gradient in gradients.items():
        assert float((parameters[name].grad - gradient).abs().max()) <= RELATIVE * largest, name


def test_a_network_trains_and_keras_opens_it_with_the_same_outputs(tmp_path: Path) -> None:
    theirs = keras.Model(*vision(keras.layers, keras.Input))
    theirs.save(tmp_path / "before.keras")
    model = cl.load(tmp_path / "before.keras")
    (x,) = data(model, 8)
    agree(cl.compile(model, device="cpu")(x), theirs(x))
    net = cl.compile(model, device="cpu")
    y = np.eye(3, dtype=np.float32)[np.arange(8) % 3]
    history = cl.fit(net, (x, y), loss="categorical_crossentropy", optimizer="adam", epochs=12, batch_size=4)
    losses = history.history["loss"]
    assert losses[-1] < 0.8 * losses[0]
    model.save(tmp_path / "after.keras")
    after = keras.models.load_model(tmp_path / "after.keras")
    agree(net.eval()(x), after(x))
    assert float((after(x) - theirs(x)).abs().max()) > 0.01


def trained(model: cl.Model, backend: str) -> list[torch.Tensor]:
    """Gradients of all weights after one pass through a network in training mode."""
    net = cl.compile(model, device="cpu", backend=backend).train()
    outputs = net(*map(torch.from_numpy, data(model)))
    outputs = outputs if isinstance(outputs, tuple) else (outputs,)
    generator = torch.Generator().manual_seed(3)
    sum((y * torch.randn(y.shape, generator=generator)).sum() for y in outputs).backward()
    return [p.grad for p in net.parameters() if p.grad is not None]


@pytest.mark.parametrize("name", ["heads_window", "attention", "einsum", "dot"])
def test_backward_kernels_agree_with_aten(name: str) -> None:
    def with_weights(q: Any, v: Any, k: Any) -> Any:
        return LAYERS[name](L.Dense(6)(q), v, k)

    model = described(with_weights)
    found, wanted = trained(model, "triton"), trained(model, "aten")
    largest = max(float(g.abs().max()) for g in wanted)
    for a, b in zip(found, wanted, strict=True):
        assert float((a - b).abs().max()) <= RELATIVE * largest


def test_dropout_falls_on_the_shares_in_training_alone() -> None:
    x = cl.Input((6, 4))
    layer = L.MultiHeadAttention(2, 3, dropout=0.5)
    model = cl.Model(x, layer(x, x, return_attention_scores=True))
    net = cl.compile(model, device="cpu")
    (given,) = data(model)
    still, shares = net(given)
    torch.manual_seed(0)
    with torch.no_grad():
        moved, same = net.train()(given)
    assert torch.allclose(shares, same), "the scores that a call gives are those before dropout"
    assert torch.allclose(shares.sum(-1), torch.ones(2, 2, 6))
    assert not torch.allclose(still, moved, atol=1e-3)


# -- kernels -------------------------------------------------------------------------------------------------
def encoder(causal: bool = False, dropout: float = 0.0, places: int = 7) -> cl.Model:
    x = cl.Input((places, 6))
    return cl.Model(x, L.MultiHeadAttention(2, 4, dropout=dropout)(x, x, use_causal_mask=causal))


@pytest.mark.parametrize("causal", [False, True])
def test_attention_is_six_kernels(causal: bool) -> None:
    kernels = cl.compile(encoder(causal, dropout=0.3), device="cpu").kernels
    scores = ["mat_mul", *(["add"] if causal else []), "softmax"]
    assert [k.ops for k in kernels if k.ops != ["dense"]] == [scores, ["mat_mul"]]
    assert len(kernels) == 6
    unfused = cl.compile(encoder(causal), device="cpu", fuse=False).kernels
    assert len(unfused) == 7 + causal


def test_attention_over_long_rows_has_a_softmax_of_its_own() -> None:
    net = cl.compile(encoder(places=130), device="cpu")
    assert len(net.kernels) == 7
    assert "a row of 130 does not fit into one tile of 128 columns" in net.explain()


def test_nothing_is_transposed_in_training() -> None:
    """Forward 6; backward 4 products of activations, the softmax's, an output's and 4 weights' gradients."""
    net = cl.compile(encoder(), device="cpu").train()
    ops = [op for kernel in net.kernels for op in kernel.ops]
    assert ops.count("mat_mul") == 2 + 4
    assert not {"transpose", "scale"} & {*ops}
    assert len(net.kernels) <= 16


@pytest.mark.parametrize("dtype", ["bfloat16", "float16"])
def test_half_precision(dtype: str) -> None:
    model = encoder(causal=True)
    (x,) = data(model)
    wanted = results(cl.compile(model, device="cpu")(x))[0]
    for backend in ("aten", "triton"):
        net = cl.compile(model, device="cpu", backend=backend, dtype=dtype)
        found = net(x)
        assert found.dtype == getattr(torch, dtype)
        eps = {"bfloat16": 2.0**-8, "float16": 2.0**-11}[dtype]
        assert np.abs(found.float().numpy() - wanted).max() <= 16 * eps * np.abs(wanted).max()
    products = [k for k in net.kernels if "mat_mul" in k.ops]
    assert {node.type.dtype for k in products for node in k.inputs} <= {dtype, "float32"}
    assert all(node.type.dtype == dtype for k in products for node in k.inputs if node.type.batched)
