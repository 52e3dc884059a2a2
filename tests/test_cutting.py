"""Models cut where a layer ends, in Keras's words: layer.input, layer.output, get_layer, Sequential.pop."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from keras_networks import images, outputs, randomised

import convloom as cl
from convloom import layers as L


def network() -> cl.Model:
    """Two blocks, a branch around the second, and a head."""
    x = cl.Input((8, 7, 3), name="image")
    h = L.Conv2D(4, 3, padding="same", activation="relu", name="block1")(x)
    h = L.BatchNormalization(name="block2")(h)
    k = L.Conv2D(4, 3, padding="same", name="block3")(h)
    h = L.Add(name="joined")([h, k * 0.5])
    return randomised(cl.Model(x, L.Dense(3, name="head")(L.GlobalAveragePooling2D(name="mean")(h))))


def test_a_model_may_end_where_a_layer_does() -> None:
    model, x = network(), images(2, 8, 7, 3)
    short = cl.Model(model.input, model.get_layer("block3").output)
    assert [layer.name for layer in short.layers] == ["image", "block1", "block2", "block3"]
    both = cl.Model(model.input, [model.get_layer("block2").output, model.output])
    middle, whole = outputs(both, x)
    np.testing.assert_array_equal(whole, outputs(model, x)[0])
    again = cl.Model(model.inputs, model.layers[2].output)
    np.testing.assert_array_equal(outputs(again, x)[0], middle)
    assert model.get_layer(index=np.int64(-1)) is model.get_layer("head")  # type: ignore[arg-type]


@pytest.mark.parametrize("backend", ["aten", "triton"])
def test_a_model_may_begin_where_a_layer_ends(backend: str) -> None:
    model, x = network(), torch.from_numpy(images(2, 8, 7, 3))
    first = cl.Model(model.input, model.get_layer("block2").output)
    rest = cl.Model(model.get_layer("block2").output, model.output)
    assert [layer.name for layer in rest.layers][1::2] == ["block3", "joined", "head"]
    run = [cl.compile(m, device="cpu", backend=backend) for m in (model, first, rest)]
    with torch.no_grad():
        whole, halves = run[0](x), run[2](run[1](x))
    torch.testing.assert_close(whole, halves, rtol=0, atol=1e-6)
    rest.parameters["head/bias"] = np.float32([1, 2, 3])  # type: ignore[arg-type]  # the same layers, and so the same weights
    assert model.parameters["head/bias"].tolist() == [1, 2, 3]
    assert cl.Model(model.layers[1].output, model.output).get_layer("head") is model.get_layer("head")


def test_the_first_call_counts_as_in_keras() -> None:
    a, b = cl.Input((4,), name="a"), cl.Input((4,), name="b")
    shared = L.Dense(4, name="shared")
    first, second = shared(a), shared(b)
    assert (shared.input, shared.output) == (a, first)
    assert shared.output is not second
    joined = L.Concatenate()
    joined([first, second])
    assert joined.input == [first, second]
    model = cl.Model({"x": a, "y": b}, [first, second])
    assert model.input == {"x": a, "y": b}
    assert model.output == [first, second]


def test_a_mixture_of_inputs_and_cuts_is_saved_and_read(tmp_path: Path) -> None:
    model = network()
    x, other = cl.Input((8, 7, 4), name="x"), model.get_layer("block1").output
    mixed = cl.Model({"x": x, "cut": other}, model.get_layer("block2").output + x)
    given = [images(2, 8, 7, 4), images(2, 8, 7, 4)]
    (expected,) = outputs(mixed, *given)
    mixed.save(tmp_path / "net.keras")
    np.testing.assert_array_equal(outputs(cl.load(tmp_path / "net.keras"), *given)[0], expected)

    import keras

    theirs = keras.models.load_model(tmp_path / "net.keras")({"cut": given[0], "x": given[1]})
    np.testing.assert_allclose(keras.ops.convert_to_numpy(theirs), expected, atol=1e-5)


def test_a_loaded_model_is_cut_and_trained_on(tmp_path: Path) -> None:
    network().save(tmp_path / "net.keras")
    base = cl.load(tmp_path / "net.keras")
    base.trainable = False
    h = base.get_layer("block3").output
    model = cl.Model(base.input, L.Dense(1, name="new")(L.Flatten()(h)))
    net = cl.compile(model, device="cpu").train()
    net(images(2, 8, 7, 3)).sum().backward()
    assert {n for n, p in net.named_parameters() if p.grad is not None and p.grad.abs().sum() > 0} == {
        n for n, p in net.named_parameters() if p.requires_grad
    }
    assert len([p for p in net.parameters() if p.requires_grad]) == 2
    assert json.loads(model.to_json())["config"]["layers"][-1]["config"]["name"] == "new"


def test_models_inside_are_cut_at_their_own_ends() -> None:
    inner = network()
    outside = cl.Input((8, 7, 3))
    outer = cl.Model(outside, L.ReLU()(inner(outside)))
    assert inner.input is inner.inputs[0]  # its own, as of Keras's Functional
    np.testing.assert_array_equal(
        outputs(cl.Model(inner.input, inner.output), images(2, 8, 7, 3))[0],
        outputs(inner, images(2, 8, 7, 3))[0],
    )
    with pytest.raises(cl.ConvLoomError, match="depend on InputLayer 'image', which is not among the inputs"):
        cl.Model(outer.input, inner.get_layer("block3").output)


@pytest.mark.parametrize(
    ("wrong", "text"),
    [
        (lambda m: m.get_layer("blok3"), "no layer is named 'blok3'; did you mean 'block3'?"),
        (lambda m: m.get_layer("zzz"), "no layer is named 'zzz'; there are image, block1, block2"),
        (lambda m: m.get_layer(index=50), "has 8 layers, 0 to 7; there is no layer 50"),
        (lambda m: m.get_layer(), "takes a name or an index"),
        (lambda m: L.Dense(3, name="d").output, "Dense 'd': has no output: it has not been called"),
        (
            lambda m: cl.Model(m.get_layer("head").output, m.get_layer("block1").output),
            r"no output depends on the input <SymbolicTensor float32\[N,3\] from Dense 'head'>; leave it out",
        ),
        (
            lambda m: cl.Model(m.get_layer("block3").output, m.output),
            "depend on InputLayer 'image', which is not among the inputs",
        ),
        (lambda m: cl.Model([m.layers[1].output] * 2, m.output), "an input is listed twice"),
    ],
)
def test_wrong_cuts_are_named(wrong: Any, text: str) -> None:
    with pytest.raises(cl.ConvLoomError, match=text):
        wrong(network())


# -- Sequential ----------------------------------------------------------------------------------------------
def chain() -> cl.Sequential:
    return cl.Sequential([cl.Input((6, 5, 2)), L.Conv2D(3, 3, name="c"), L.Flatten(), L.Dense(4, name="d")])


def test_pop_takes_the_last_layer_and_more_may_follow(tmp_path: Path) -> None:
    model, x = randomised(chain()), images(2, 6, 5, 2)
    whole = outputs(model, x)[0]
    middle = outputs(cl.Model(model.input, model.get_layer("c").output), x)[0]
    dense = model.pop()  # type: ignore[attr-defined]
    assert (dense.name, model.layers[0].name, len(model.layers)) == ("d", "c", 2)
    assert model.output.shape == (None, 36)
    assert model.count_params() == 3 * 3 * 2 * 3 + 3
    np.testing.assert_array_equal(outputs(model, x)[0], middle.reshape(2, -1))
    model.add(dense)  # type: ignore[attr-defined]
    np.testing.assert_array_equal(outputs(model, x)[0], whole)
    model.pop()  # type: ignore[attr-defined]
    model.add(L.Dense(2, name="d"))  # type: ignore[attr-defined]  # the name is free again
    model.save(tmp_path / "net.keras")
    np.testing.assert_array_equal(outputs(cl.load(tmp_path / "net.keras"), x)[0], outputs(model, x)[0])


def test_pop_of_a_loaded_chain_and_of_one_without_a_shape(tmp_path: Path) -> None:
    chain().save(tmp_path / "net.keras")
    loaded = cl.load(tmp_path / "net.keras")
    assert isinstance(loaded, cl.Sequential)
    loaded.pop()
    assert cl.loads(loaded.to_json()).output.shape == (None, 36)
    bare = cl.Sequential([L.Dense(3), L.Dense(4)])
    bare.pop()
    assert bare(cl.Input((2,))).shape == (None, 3)


def test_pop_says_where_nothing_can_be_taken() -> None:
    with pytest.raises(cl.ConvLoomError, match="has no layers to take away"):
        cl.Sequential([cl.Input((2,))]).pop()
    model = chain()
    model(cl.Input((6, 5, 2)))
    for change in (model.pop, lambda: model.add(L.ReLU())):
        with pytest.raises(cl.ConvLoomError, match="another model is made with it"):
            change()
