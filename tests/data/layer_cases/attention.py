"""Attention with and without heads, dense layers by equation, and products of two tensors."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import keras
from keras import layers as L

QUERY, VALUE, KEY = (5, 6), (7, 3), (7, 4)
GRID = (3, 4, 5)
SEQUENCE = (5, 6)

Layer = keras.Layer | Callable[[Any], Any]


def called(layer: keras.Layer, **options: Any) -> Callable[[list[Any]], Any]:
    """The layer on query, value and key, one by one."""
    return lambda x: layer(*x, **options)


def alone(layer: keras.Layer, **options: Any) -> Callable[[Any], Any]:
    """The layer on one tensor as query, value and key."""
    return lambda x: layer(x, x, **options)


def listed(layer: keras.Layer, **options: Any) -> Callable[[list[Any]], Any]:
    return lambda x: layer(x, **options)


def heads(*arguments: Any, **named: Any) -> keras.Layer:
    return L.MultiHeadAttention(*arguments, **named)


CASES: dict[str, tuple[Layer, Any]] = {
    "heads_of_itself": (alone(heads(2, 3)), SEQUENCE),
    "heads_one": (alone(heads(1, 5)), (17, 1)),
    "heads_cross": (called(heads(3, 4)), [QUERY, VALUE]),
    "heads_of_three": (called(heads(2, 3, value_dim=5)), [QUERY, VALUE, KEY]),
    "heads_by_name": (lambda x: heads(2, 3)(key=x[2], value=x[1], query=x[0]), [QUERY, VALUE, KEY]),
    "heads_without_bias": (alone(heads(2, 3, use_bias=False)), SEQUENCE),
    "heads_dropout": (alone(heads(2, 3, dropout=0.3)), SEQUENCE),
    "heads_output_shape": (called(heads(2, 3, output_shape=7)), [QUERY, VALUE]),
    "heads_output_axes": (called(heads(2, 3, output_shape=(2, 5))), [QUERY, VALUE]),
    "heads_causal": (alone(heads(2, 3), use_causal_mask=True), SEQUENCE),
    "heads_causal_cross": (called(heads(2, 3), use_causal_mask=True), [QUERY, VALUE]),
    "heads_causal_few_keys": (called(heads(2, 3), use_causal_mask=True), [(7, 3), (4, 2)]),
    "heads_causal_dropout": (alone(heads(2, 3, dropout=0.2), use_causal_mask=True), SEQUENCE),
    "heads_window": (alone(heads(2, 3, sliding_window=2)), SEQUENCE),
    "heads_window_causal": (alone(heads(2, 3, sliding_window=3), use_causal_mask=True), SEQUENCE),
    "heads_gate": (called(heads(2, 3, value_dim=5, use_gate=True)), [QUERY, VALUE]),
    "heads_scores": (called(heads(2, 3), return_attention_scores=True), [(5, 6), (5, 4)]),
    "heads_scores_causal": (
        alone(heads(2, 3, dropout=0.2), return_attention_scores=True, use_causal_mask=True),
        SEQUENCE,
    ),
    "heads_grid": (alone(heads(2, 3)), GRID),
    "heads_grid_rows": (alone(heads(2, 3, attention_axes=1)), GRID),
    "heads_grid_columns": (alone(heads(2, 3, attention_axes=(2,))), GRID),
    "heads_grid_cross": (called(heads(2, 3, 2, attention_axes=(-2,))), [(3, 4, 5), (3, 6, 2)]),
    "heads_grid_swapped": (alone(heads(2, 3, attention_axes=(2, 1))), GRID),
    "heads_grid_rows_causal": (alone(heads(2, 3, attention_axes=1), use_causal_mask=True), GRID),
    "groups": (alone(L.GroupQueryAttention(3, 4, 2)), SEQUENCE),
    "groups_one_head": (alone(L.GroupQueryAttention(3, 3, 1, use_bias=False)), SEQUENCE),
    "groups_as_many": (called(L.GroupQueryAttention(5, 2, 2)), [(5, 6), (7, 6)]),
    "groups_of_three": (called(L.GroupQueryAttention(2, 6, 2, dropout=0.3)), [(5, 6), (7, 6), (7, 4)]),
    "groups_causal": (alone(L.GroupQueryAttention(3, 4, 2), use_causal_mask=True), SEQUENCE),
    "groups_window_gate": (alone(L.GroupQueryAttention(3, 4, 2, sliding_window=2, use_gate=True)), SEQUENCE),
    "groups_scores": (
        alone(L.GroupQueryAttention(3, 4, 2), return_attention_scores=True),
        SEQUENCE,
    ),
    "dot_attention": (L.Attention(), [(5, 4), (7, 3), (7, 4)]),
    "dot_attention_scale": (L.Attention(use_scale=True, dropout=0.4), [(5, 4), (7, 4)]),
    "dot_attention_causal": (listed(L.Attention(), use_causal_mask=True), [(5, 4), (7, 4)]),
    "dot_attention_scores": (listed(L.Attention(), return_attention_scores=True), [(5, 4), (7, 4)]),
    "dot_attention_grid": (L.Attention(), [(2, 5, 4), (2, 7, 4)]),
    "concat_attention": (L.Attention(score_mode="concat"), [(5, 4), (7, 3), (7, 4)]),
    "concat_attention_scale": (L.Attention(True, "concat"), [(5, 4), (7, 4)]),
    "additive_attention": (L.AdditiveAttention(), [(5, 4), (7, 3), (7, 4)]),
    "additive_attention_plain": (L.AdditiveAttention(use_scale=False, dropout=0.1), [(5, 4), (7, 4)]),
    "additive_attention_causal": (listed(L.AdditiveAttention(), use_causal_mask=True), [(5, 4), (7, 4)]),
    "einsum_dense": (L.EinsumDense("ab,bc->ac", output_shape=5, bias_axes="c"), (6,)),
    "einsum_sequence": (
        L.EinsumDense("abc,cd->abd", output_shape=(None, 3), bias_axes="d", activation="relu"),
        SEQUENCE,
    ),
    "einsum_heads": (L.EinsumDense("abc,cde->abde", output_shape=(5, 2, 3), bias_axes="de"), SEQUENCE),
    "einsum_from_heads": (L.EinsumDense("abcd,cde->abe", output_shape=(None, 3), bias_axes="e"), GRID),
    "einsum_ellipsis": (L.EinsumDense("...x,xy->...y", output_shape=4, bias_axes="y"), GRID),
    "einsum_ellipsis_softmax": (L.EinsumDense("...bc,cd->...bd", (4, 3), "softmax", "bd"), (2, 4, 5)),
    "einsum_ellipsis_behind": (L.EinsumDense("ab...,bc->ac...", output_shape=4), GRID),
    "einsum_ellipsis_behind_bias": (L.EinsumDense("ab...,bc->ac...", 4, bias_axes="c"), GRID),
    "einsum_kernel_transposed": (L.EinsumDense("abc,dc->abd", (None, 3), bias_axes="d"), SEQUENCE),
    "einsum_kernel_mixed": (L.EinsumDense("abcd,ecfb->adfe", (None, 2, 3), "tanh", "fe"), GRID),
    "einsum_result_transposed": (L.EinsumDense("abc,cd->adb", (3, None), "softmax", "d"), SEQUENCE),
    "einsum_axes_between": (L.EinsumDense("abcd,bde->ace", (4, 3), bias_axes="ce"), GRID),
    "einsum_summed": (L.EinsumDense("abcd,de->ace", (None, 3)), GRID),
    "einsum_outer": (L.EinsumDense("ab,cd->abcd", (None, 2, 3), bias_axes="c"), (6,)),
    "einsum_inner": (L.EinsumDense("abc,c->ab", (None,)), SEQUENCE),
    "product_vectors": (L.Dot(1), [(6,), (6,)]),
    "product_cosine": (L.Dot(-1, normalize=True), [(6,), (6,)]),
    "product_matrices": (L.Dot((2, 1)), [(5, 6), (6, 3)]),
    "product_same_axis": (L.Dot(1), [(6, 5), (6, 3)]),
    "product_last_axes": (L.Dot(axes=(-1, -1), normalize=True), [(5, 6), (3, 6)]),
    "product_first_and_last": (L.Dot((1, 2), normalize=True), [(6, 5), (3, 6)]),
    "product_matrix_vector": (L.Dot((2, 1)), [(5, 6), (6,)]),
    "product_vector_matrix": (L.Dot((1, 2)), [(6,), (5, 6)]),
    "product_volumes": (L.Dot((2, 2)), [(2, 6, 3), (4, 6, 5)]),
    "product_volume_matrix": (L.Dot((3, 1)), [(2, 4, 6), (6, 5)]),
    "product_of_itself": (lambda x: L.Dot((2, 2))([x, x]), SEQUENCE),
}
