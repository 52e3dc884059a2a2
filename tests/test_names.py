"""Names of layers that nobody named: counted anew in each model."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch
from convloom.frontends import Input, Model, Sequential, names
from convloom.frontends import layers as L
from convloom.graph import ops
from convloom.graph.errors import ConvLoomError
from convloom.runtime.compile import compile

import convloom as cl


@pytest.fixture(autouse=True)
def _fresh_names() -> None:
    names.reset()


def recipe() -> Model:
    image = Input((8, 8, 1))
    h = L.Conv2D(2, 3)(image)
    h = L.Add()([h, L.Conv2D(2, 3, padding="same")(h)])
    inner = Sequential([Input((6, 6, 2)), L.Conv2D(3, 3), L.Flatten()])
    return Model(image, L.Dense(2)(inner(h)))


def test_names_start_anew_with_each_model() -> None:
    first, second = recipe(), recipe()
    assert list(first.parameters) == [
        f"{layer}/{weight}"
        for layer in ("conv2d", "conv2d_1", "sequential/conv2d", "dense")
        for weight in ("kernel", "bias")
    ]
    assert first.to_json() == second.to_json()
    assert str(first.to_graph()) == str(second.to_graph())
    nets = [compile(model, device="cpu") for model in (first, second)]
    nets[1].load_state_dict(nets[0].state_dict())
    x = torch.randn(2, 8, 8, 1)
    assert torch.equal(nets[0](x), nets[1](x))


def test_names_follow_the_order_in_which_layers_were_made() -> None:
    late, early = L.Dense(2), L.Dense(3)
    vector = Input((4,))
    model = Model(vector, late(early(vector)))
    assert [layer.name for layer in model.layers] == ["input_layer", "dense_1", "dense"]
    # Cut short, the layers keep their names; what is put behind them goes on from there.
    features = Model(vector, model.get_layer("dense_1")(vector))
    assert list(features.parameters) == ["dense_1/kernel", "dense_1/bias"]
    longer = Model(vector, L.Dense(1)(L.Dense(1)(model.outputs[0])))
    assert [layer.name for layer in longer.layers[1:]] == ["dense_1", "dense", "dense_3", "dense_2"]


def test_given_names_come_first_and_stay() -> None:
    vector = Input((4,))
    renamed, unnamed, given = L.Dense(2), L.Dense(2), L.Dense(2, name="dense")
    renamed.name = "mine"
    model = Model(vector, given(unnamed(renamed(vector))))
    assert [layer.name for layer in model.layers[1:]] == ["mine", "dense_1", "dense"]
    unnamed.name = "now"
    assert model.get_layer("now") is unnamed
    with pytest.raises(ConvLoomError, match=r"two layers are named 'dense' .*give each layer its own name"):
        Model(vector, L.Dense(2, name="dense")(model.outputs[0]))


def test_layers_of_two_models_that_meet_in_a_third_are_told_apart(tmp_path: Path) -> None:
    """Each model goes on calling them what it called them, in its files too."""
    towers = [Sequential([Input((4,)), L.Dense(3), L.Dense(2)]) for _ in range(2)]
    joint = Model([t.inputs[0] for t in towers], L.Concatenate()([t.outputs[0] for t in towers]))
    names = ["dense", "dense_2", "dense_1", "dense_3"]
    assert list(joint.parameters) == [f"{name}/{weight}" for name in names for weight in ("kernel", "bias")]
    assert [list(t.parameters) for t in towers] == [
        ["dense/kernel", "dense/bias", "dense_1/kernel", "dense_1/bias"]
    ] * 2
    second = towers[1].layers[0]
    assert joint.name_of(second) == "dense_2"
    assert joint.get_layer("dense_2") is second
    assert [node.name for node in joint.to_graph().sources(ops.Input)] == ["input_layer", "input_layer_1"]
    joint.save(tmp_path / "joint.keras")
    again = cl.load(tmp_path / "joint.keras")
    assert list(again.parameters) == list(joint.parameters)
    for a, b in zip(joint.get_weights(), again.get_weights(), strict=True):
        np.testing.assert_array_equal(a, b)
