"""cl.ops: Keras's functions on tensors, by their names and arguments."""

from __future__ import annotations

import inspect
from typing import Any

import numpy as np
import pytest
import torch
from convloom.frontends.ops import FUNCTIONS, image
from keras_networks import images, outputs

import convloom as cl

NOT_IN_KERAS = {"get_item"}


def test_names_and_arguments_are_keras_own() -> None:
    import keras

    homes = [(keras.ops, FUNCTIONS), (keras.ops.image, vars(image))]
    for home, functions in homes:
        for name, function in functions.items():
            if name in NOT_IN_KERAS:
                continue
            theirs = list(inspect.signature(getattr(home, name)).parameters.values())
            mine = list(inspect.signature(function).parameters.values())
            assert [p.name for p in mine] == [p.name for p in theirs][: len(mine)], name
            required = [p.name for p in theirs if p.default is p.empty]
            assert [p.name for p in mine if p.default is p.empty] == required, name


@pytest.mark.parametrize(
    ("describe", "expected"),
    [
        (lambda o, x: o.where(o.greater(x, 0.0), x, 0.1 * x), lambda x: torch.where(x > 0, x, 0.1 * x)),
        (lambda o, x: o.mean(x, axis=(1, 2), keepdims=True) * x, lambda x: x.mean((1, 2), keepdim=True) * x),
        (lambda o, x: o.concatenate([x, o.relu(x)], axis=-1), lambda x: torch.cat([x, x.relu()], -1)),
        (lambda o, x: o.pad(x, ((0, 0), (1, 0), (0, 0), (0, 2)), constant_values=1.5), None),
        (lambda o, x: o.split(x, 3, axis=-1)[1], lambda x: x[..., 1:2]),
        (lambda o, x: o.clip(x, -0.5, x_max=0.5), lambda x: x.clamp(-0.5, 0.5)),
        (lambda o, x: o.image.resize(x, (8, 10), "nearest"), None),
        (lambda o, x: o.logical_not(o.logical_and(x > 0, o.less(x, 1))), lambda x: ~((x > 0) & (x < 1))),
        (lambda o, x: o.max_pool(x, 2, strides=1), None),
        (lambda o, x: o.cast(x * 4, "int32"), lambda x: (x * 4).int()),
    ],
)
def test_functions_do_what_keras_s_do(describe: Any, expected: Any) -> None:
    import keras

    x = images(2, 4, 5, 3)
    here = cl.Input((4, 5, 3))
    (found,) = outputs(cl.Model(here, describe(cl.ops, here)), x)
    theirs = keras.ops.convert_to_numpy(describe(keras.ops, keras.ops.convert_to_tensor(x)))
    assert found.dtype == theirs.dtype
    np.testing.assert_allclose(found, theirs, atol=1e-6)
    if expected is not None:
        np.testing.assert_allclose(found, expected(torch.from_numpy(x)).numpy(), atol=1e-6)


@pytest.mark.parametrize(
    ("wrong", "text"),
    [
        (lambda x: cl.ops.wher, "no operation is called 'wher'; did you mean 'where'?"),
        (lambda x: cl.ops.scan, "no operation is called 'scan'; docs/keras.md lists those there are"),
        (lambda x: cl.ops.mean(x, axes=1), "ops.mean: unknown argument 'axes'; did you mean 'axis'?"),
        (lambda x: cl.ops.relu(x, 1, 2), "ops.relu: takes 1 arguments (x), got 3"),
        (lambda x: cl.ops.mean(x, 1, axis=1), "ops.mean: axis is given twice"),
        (lambda x: cl.ops.add(x), "x2 is missing"),
        (lambda x: cl.ops.add(1.0, 2.0), "takes at least one symbolic tensor"),
        (lambda x: cl.ops.cast(x, "flaot32"), "did you mean 'float32'?"),
    ],
)
def test_wrong_calls_are_named(wrong: Any, text: str) -> None:
    with pytest.raises(cl.ConvLoomError) as caught:
        wrong(cl.Input((4, 5, 3)))
    assert text in str(caught.value)
    assert not hasattr(cl.ops, "wher")
    assert "where" in dir(cl.ops)
