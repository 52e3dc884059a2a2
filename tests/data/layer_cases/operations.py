"""Operation nodes: keras.ops on symbolic tensors, and Python's own operators."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
from keras import ops

IMAGE = (4, 6, 3)
PAIR = [IMAGE, IMAGE]
LIST = np.array([0.5, -1.0, 2.0], "float32")


def positive(x: Any) -> Any:
    return abs(x) + 0.5


CASES: dict[str, tuple[Callable[[Any], Any], Any]] = {
    # arithmetic
    "add": (lambda xs: xs[0] + xs[1], PAIR),
    "add_number": (lambda x: x + 2, IMAGE),
    "add_array": (lambda x: ops.add(LIST, x), IMAGE),
    "add_array_of_rank_2": (lambda x: x + LIST[None], IMAGE),
    "subtract": (lambda xs: xs[0] - xs[1], PAIR),
    "number_minus": (lambda x: 1.0 - x, IMAGE),
    "minus_array": (lambda x: x - LIST, IMAGE),
    "multiply": (lambda xs: xs[0] * xs[1], PAIR),
    "multiply_channels": (lambda xs: xs[0] * xs[1], [IMAGE, (1, 1, 3)]),
    "multiply_pixels": (lambda xs: xs[0] * xs[1], [IMAGE, (4, 6, 1)]),
    "multiply_rows": (lambda xs: xs[0] * xs[1], [IMAGE, (4, 1, 3)]),
    "multiply_columns": (lambda xs: xs[0] - xs[1], [(1, 6, 3), IMAGE]),
    "multiply_outer": (lambda xs: xs[0] * xs[1], [(4, 1, 3), (1, 6, 1)]),
    "divide": (lambda xs: xs[0] / positive(xs[1]), PAIR),
    "divide_by_number": (lambda x: x / 3, IMAGE),
    "divide_by_array": (lambda x: ops.divide(x, LIST), IMAGE),
    "number_over": (lambda x: 2 / positive(x), IMAGE),
    "maximum": (lambda xs: ops.maximum(xs[0], xs[1]), PAIR),
    "maximum_number": (lambda x: ops.maximum(x, 0.25), IMAGE),
    "minimum_number": (lambda x: ops.minimum(0.25, x), IMAGE),
    **{f"power_{p}": (lambda x, p=p: positive(x) ** p, IMAGE) for p in (0, 0.5, 1, 2, 3, 7, -1, -2.5, 1.5)},
    "power_of_two": (lambda x: 2.0**x, IMAGE),
    **{
        name: (lambda x, name=name: getattr(ops, name)(x), IMAGE)
        for name in ("negative", "absolute", "square", "exp", "tanh", "relu", "relu6", "sigmoid", "silu")
    },
    **{
        name: (lambda x, name=name: getattr(ops, name)(x), IMAGE)
        for name in ("hard_silu", "hard_sigmoid", "softplus", "softsign", "elu", "selu", "gelu", "leaky_relu")
    },
    **{
        name: (lambda x, name=name: getattr(ops, name)(positive(x)), IMAGE)
        for name in ("sqrt", "log", "rsqrt", "reciprocal")
    },
    "elu_alpha": (lambda x: ops.elu(x, 0.3), IMAGE),
    "leaky_relu_slope": (lambda x: ops.leaky_relu(x, 0.1), IMAGE),
    "gelu_exact": (lambda x: ops.gelu(x, approximate=False), IMAGE),
    "clip": (lambda x: ops.clip(x, -0.5, 0.75), IMAGE),
    "matmul": (lambda xs: ops.matmul(xs[0], xs[1]), [(5, 7), (7, 3)]),
    "matmul_of_rank_4": (lambda xs: xs[0] @ xs[1], [(3, 5, 17), (3, 17, 2)]),
    # reductions
    **{
        f"{name}_{'_'.join(map(str, np.atleast_1d(axis)))}_{keep}": (
            lambda x, name=name, axis=axis, keep=keep: getattr(ops, name)(x, axis=axis, keepdims=keep),
            IMAGE,
        )
        for name, axis, keep in (
            ("mean", (1, 2), True),
            ("mean", (1, 2), False),
            ("mean", -1, True),
            ("sum", -1, False),
            ("sum", (1, 2, 3), False),
            ("sum", (1, 3), True),
            ("max", (1, 2), True),
            ("max", 1, False),
            ("max", (1, 3), True),
            ("max", -1, False),
            ("min", (2,), False),
            ("min", (1, 2, 3), True),
        )
    },
    "squeeze_and_excite": (lambda x: x * ops.sigmoid(ops.mean(x, axis=(1, 2), keepdims=True)), IMAGE),
    "softmax": (lambda x: ops.softmax(x), IMAGE),
    "softmax_rows": (lambda x: ops.softmax(x, axis=1), IMAGE),
    "log_softmax": (lambda x: ops.log_softmax(x, axis=-1), IMAGE),
    "log_softmax_columns": (lambda x: ops.log_softmax(x, axis=2), IMAGE),
    "normalize": (lambda x: ops.normalize(x), IMAGE),
    "normalize_rows": (lambda x: ops.normalize(x, axis=1), IMAGE),
    "normalize_first_order": (lambda x: ops.normalize(x, order=1), IMAGE),
    # joined and cut
    "concatenate": (lambda xs: ops.concatenate(xs, axis=1), [IMAGE, (2, 6, 3)]),
    "stack": (lambda xs: ops.stack(xs, axis=1), PAIR),
    "stack_last": (lambda xs: ops.stack(xs, axis=-1), PAIR),
    "split": (lambda x: ops.split(x, 3, axis=-1), IMAGE),
    "split_second_alone": (lambda x: ops.split(x, 2, axis=1)[1], IMAGE),
    "split_indices": (lambda x: ops.split(x, [1, 4], axis=2), IMAGE),
    "slice": (lambda x: x[:, 1:3], IMAGE),
    "slice_negative": (lambda x: x[:, -3:-1, :5], IMAGE),
    "slice_last": (lambda x: x[..., 1:], IMAGE),
    "slice_index": (lambda x: x[:, 1:3, ..., 0], IMAGE),
    "slice_index_negative": (lambda x: x[:, -1], IMAGE),
    "slice_new_axis": (lambda x: x[:, None, :2], IMAGE),
    "slice_steps": (lambda x: x[:, ::2, 1::2], IMAGE),
    "slice_steps_uneven": (lambda x: x[:, 1::2, ::4], (5, 6, 3)),
    "space_to_depth": (
        lambda x: ops.concatenate([x[:, ::2, ::2], x[:, 1::2, ::2], x[:, ::2, 1::2], x[:, 1::2, 1::2]], -1),
        IMAGE,
    ),
    # shapes and order
    "reshape": (lambda x: ops.reshape(x, (-1, 12, 6)), IMAGE),
    "transpose": (lambda x: ops.transpose(x, (0, 3, 1, 2)), IMAGE),
    "swapaxes": (lambda x: ops.swapaxes(x, 1, -1), IMAGE),
    "moveaxis": (lambda x: ops.moveaxis(x, 1, -1), IMAGE),
    "expand_dims": (lambda x: ops.expand_dims(x, 1), IMAGE),
    "expand_dims_last": (lambda x: ops.expand_dims(x, -1), IMAGE),
    "squeeze": (lambda x: ops.squeeze(x, 2), (4, 1, 3)),
    "pad": (lambda x: ops.pad(x, ((0, 0), (1, 2), (0, 0), (3, 0))), IMAGE),
    "pad_value": (lambda x: ops.pad(x, ((0, 0), (1, 2), (0, 0), (3, 0)), constant_values=1.5), IMAGE),
    "repeat": (lambda x: ops.repeat(x, 3, axis=2), IMAGE),
    "repeat_last": (lambda x: ops.repeat(x, 2, axis=-1), IMAGE),
    "flip": (lambda x: ops.flip(x, axis=2), IMAGE),
    "flip_two_axes": (lambda x: ops.flip(x, axis=(1, 3)), IMAGE),
    # pooling
    "max_pool": (lambda x: ops.max_pool(x, 2), IMAGE),
    "max_pool_same": (lambda x: ops.max_pool(x, 3, 2, "same"), (5, 6, 3)),
    "max_pool_channels_first": (lambda x: ops.max_pool(x, 2, data_format="channels_first"), (3, 4, 6)),
    "average_pool": (lambda x: ops.average_pool(x, (2, 3), 1), IMAGE),
    # images
    "resize": (lambda x: ops.image.resize(x, (7, 5)), IMAGE),
    "resize_nearest": (lambda x: ops.image.resize(x, (3, 9), "nearest"), IMAGE),
    "resize_antialias": (lambda x: ops.image.resize(x, (2, 3), antialias=True), (9, 7, 3)),
    "resize_crop": (lambda x: ops.image.resize(x, (5, 5), crop_to_aspect_ratio=True), IMAGE),
    "resize_pad": (lambda x: ops.image.resize(x, (5, 5), pad_to_aspect_ratio=True, fill_value=0.5), IMAGE),
    "resize_channels_first": (lambda x: ops.image.resize(x, (6, 7), data_format="channels_first"), (3, 4, 6)),
    # comparisons and logic
    "greater": (lambda xs: xs[0] > xs[1], PAIR),
    "greater_number": (lambda x: x > 0.25, IMAGE),
    "number_greater": (lambda x: x < 0.5, IMAGE),
    "greater_equal_channels": (lambda xs: xs[0] >= xs[1], [IMAGE, (1, 1, 3)]),
    "less_array": (lambda x: ops.less(LIST, x), IMAGE),
    "less_equal_outer": (lambda xs: xs[0] <= xs[1], [(4, 1, 3), (1, 6, 1)]),
    "equal": (lambda x: ops.equal(ops.relu(x), 0.0), IMAGE),
    "not_equal": (lambda x: ops.relu(x) != ops.minimum(x, 1.0), IMAGE),
    "greater_of_integers": (lambda xs: xs[0] > xs[1], [("int32", 9, IMAGE), ("int64", 9, IMAGE)]),
    "greater_of_bytes": (lambda x: x > 99, ("uint8", 200, IMAGE)),
    "less_of_bytes_and_more": (lambda x: ops.less(x, 150.5), ("uint8", 200, IMAGE)),
    "less_integers_floats": (lambda xs: xs[0] < xs[1], [("int32", 2, IMAGE), IMAGE]),
    "between": (lambda x: (x > -0.5) & (x < 0.5), IMAGE),
    "outside": (lambda x: (x < -0.5) | ~(x < 0.5), IMAGE),
    "either": (lambda xs: (xs[0] > 0) ^ (xs[1] > 0), PAIR),
    "logical_and_of_numbers": (lambda xs: ops.logical_and(ops.relu(xs[0]), ops.relu(xs[1])), PAIR),
    "logical_not_of_numbers": (lambda x: ops.logical_not(ops.relu(x)), IMAGE),
    "logical_or_constant": (lambda x: ops.logical_or(x > 0, [True, False, False]), IMAGE),
    # choices and conversions
    "where": (lambda xs: ops.where(xs[0] > xs[1], xs[0] * 2, -xs[1]), PAIR),
    "where_number": (lambda x: ops.where(x > 0, x, 0.1), IMAGE),
    "where_of_two_numbers": (lambda x: ops.where(x > 0, 1.0, -2.0) * x, IMAGE),
    "where_of_two_integers": (lambda x: ops.where(x > 0, 3, 7), IMAGE),
    "where_array": (lambda x: ops.where(ops.less(x, LIST), LIST, x), IMAGE),
    "where_condition_of_numbers": (lambda x: ops.where(ops.relu(x), x, 2.0), IMAGE),
    "where_broadcast": (lambda xs: ops.where(xs[0] > 0, xs[1], xs[2]), [(4, 1, 1), IMAGE, (1, 6, 3)]),
    "where_of_integers": (
        lambda xs: ops.where(xs[0] > 4, xs[0], xs[1]),
        [("int32", 9, IMAGE), ("uint8", 9, IMAGE)],
    ),
    "cast_truth": (lambda x: ops.cast(x > 0, "float32") * x, IMAGE),
    "cast_to_integers": (lambda x: ops.cast(x * 3, "int32"), IMAGE),
    "cast_to_truth": (lambda x: ops.cast(ops.relu(x), "bool"), IMAGE),
    "cast_integers": (lambda x: ops.cast(x, "float32") / 7, ("uint8", 200, IMAGE)),
    "stop_gradient": (lambda x: x + ops.stop_gradient(x * 2 - x), IMAGE),
}
