"""Masking: the zeros it makes, and the layers after it that would read its mask."""

from __future__ import annotations

import inspect
import pickle
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from convloom.frontends.layers import DECLARATIONS
from convloom.frontends.layers.masking import HANDS_ON, READS
from convloom.frontends.operations import OPERATIONS

import convloom as cl
from convloom import layers as L


def steps(value: float) -> np.ndarray:
    """Some steps whose features all equal `value`, and some of which one does."""
    x = np.random.default_rng(0).standard_normal((2, 5, 3), np.float32)
    x[:, ::2] = value
    x[:, 1, 0] = value
    x[0, 4, 2] += 1e-3
    return x


@pytest.mark.parametrize("backend", ["aten", "triton"])
@pytest.mark.parametrize("value", [0.0, 2.0, -0.3])
def test_masked_steps_are_zeros(value: float, backend: str) -> None:
    x = steps(value)
    model = cl.Sequential([cl.Input((5, 3)), L.Masking(value)])
    with torch.no_grad():
        y = cl.compile(model, device="cpu", backend=backend)(x).numpy()
    kept = np.any(x != np.float32(value), -1, keepdims=True)
    assert 0 < kept.sum() < kept.size
    np.testing.assert_array_equal(y, np.where(kept, x, 0))


@pytest.mark.parametrize("value", [0.0, 2.0])
def test_keras_masks_the_same(value: float, tmp_path: Path) -> None:
    import keras

    model = cl.Sequential([cl.Input((5, 3)), L.Masking(value), L.Dense(4), L.Dropout(0.5), L.ReLU()])
    model.save(tmp_path / "net.keras")
    x = steps(value)
    theirs = keras.ops.convert_to_numpy(keras.models.load_model(tmp_path / "net.keras")(x))
    again = cl.load(tmp_path / "net.keras")
    for network in (model, again):
        with torch.no_grad():
            y = cl.compile(network, device="cpu", backend="aten")(x).numpy()
        np.testing.assert_allclose(y, theirs, atol=1e-6)
    assert again.to_json() == model.to_json()


def test_no_gradient_passes_where_steps_are_masked() -> None:
    x = steps(2.0)
    model = cl.Sequential([cl.Input((5, 3)), L.Dense(3, name="d"), L.Masking(2.0)])
    model.set_weights([np.eye(3, dtype=np.float32), np.zeros(3, np.float32)])
    net = cl.compile(model, device="cpu", backend="aten").train()
    net(x).sum().backward()
    kept = np.any(x != 2, -1)
    bias = dict(net.named_parameters())
    grads = [p.grad.numpy() for p in bias.values() if p.grad is not None and p.grad.ndim == 1]
    np.testing.assert_allclose(grads[0], np.full(3, kept.sum()), rtol=1e-6)


def masked() -> Any:
    x = cl.Input((5, 3))
    return x, L.Masking()(x)


def test_a_layer_that_reads_the_mask_is_refused() -> None:
    x, h = masked()
    text = r"Softmax 's' comes after a Masking layer, .* and would read its mask, .*; remove the mask"
    with pytest.raises(cl.UnsupportedLayerError, match=text):
        cl.Model(x, L.Softmax(name="s")(L.ReLU()(L.Dense(3)(h))))
    with pytest.raises(cl.UnsupportedLayerError, match="BatchNormalization 'b' comes after"):
        cl.Model(x, L.BatchNormalization(name="b")(L.Add()([x, L.Dropout(0.1)(h)])))


def test_a_mask_goes_into_models_and_out_of_them() -> None:
    x, h = masked()
    inner = cl.Sequential([cl.Input((5, 3)), L.Dense(3), L.Softmax(name="s")], name="inner")
    with pytest.raises(cl.UnsupportedLayerError, match=r"Sequential 'inner': Softmax 's' comes after"):
        cl.Model(x, inner(h))
    assert cl.Model(x, inner(x)).outputs
    source = cl.Sequential([cl.Input((5, 3)), L.Masking(), L.Dense(3)], name="source")
    with pytest.raises(cl.UnsupportedLayerError, match=r"Softmax 't' comes after"):
        cl.Model(x, L.Softmax(name="t")(source(x)))


def test_what_drops_the_mask_lets_anything_follow() -> None:
    x, h = masked()
    assert cl.Model(x, L.Softmax()(L.Reshape((3, 5))(h))).outputs
    assert cl.Model(x, L.Softmax()(h * 2.0)).outputs
    assert cl.Model(x, OPERATIONS["Softmax"]()(h)).outputs


def test_an_output_with_a_mask_is_not_trained() -> None:
    """Keras leaves the masked steps out of the loss; in inference nothing differs."""
    ids, y = np.array([[1, 2, 0], [3, 0, 0]], np.int32), np.ones((2, 3, 1), np.float32)
    i = cl.Input((3,), dtype="int32")
    table = L.Embedding(5, 4, mask_zero=True, name="table")
    inner = cl.Sequential([table, L.Dense(1, name="d")], name="inner")
    model = cl.Model(i, L.ReLU(name="r")(inner(i)))
    net = cl.compile(model, device="cpu")
    assert net(ids).shape == (2, 3, 1)
    for trained in (model, net, pickle.loads(pickle.dumps(net))):
        with pytest.raises(cl.UnsupportedLayerError, match=r"fit: the output of 'r' has a mask.*mask_zero"):
            cl.fit(trained, (ids, y), "mse", verbose=False)
    dropped = cl.Model(i, L.Reshape((3,))(model(i)))
    cl.fit(dropped, (ids, y[..., 0]), "mse", verbose=False)
    table.mask_zero = False
    cl.fit(model, (ids, y), "mse", verbose=False)


ARGUMENTS: dict[str, Any] = {
    **dict.fromkeys(("Dropout", "GaussianNoise", "GaussianDropout", "AlphaDropout"), (0.1,)),
    **dict.fromkeys(("SpatialDropout1D", "SpatialDropout2D", "SpatialDropout3D"), (0.1,)),
    "Dense": (1,), "Activation": ("relu",), "Dot": (1,), "Rescaling": (1.0,), "Reshape": ((3, 5),),
    "Permute": ((2, 1),), "RepeatVector": (2,), "Conv2D": (1, 1), "Conv2DTranspose": (1, 1),
    "DepthwiseConv2D": (1,), "SeparableConv2D": (1, 1), "CenterCrop": (1, 1),
}


def test_the_tables_are_keras_own() -> None:
    """Of layers declared here: whether Keras's hands a mask on, and whether its call reads one."""
    import keras

    wrong, compared = [], 0
    for name in DECLARATIONS.keys() - {"InputLayer"}:
        theirs = getattr(keras.layers, name, None)
        if theirs is None:  # the applications' own
            continue
        taken = inspect.signature(theirs.call).parameters
        # Keras hands a call the masks of its arguments: mask, or query_mask beside query.
        reads = "mask" in taken or any(f"{argument}_mask" in taken for argument in taken)
        assert (name in READS) == reads, name
        try:
            layer = theirs(*ARGUMENTS.get(name, ()))
        except TypeError:  # needs arguments, as the layers with kernels do
            continue
        compared += 1
        if name not in READS and (name in HANDS_ON) != layer.supports_masking:
            wrong.append(name)
    assert wrong == []
    assert compared > 20
