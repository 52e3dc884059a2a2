"""Attention with several heads: of queries over keys and values that are projected first."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from math import prod, sqrt
from typing import Any, ClassVar

from ...graph import ops
from ...graph.types import TensorType
from .. import fields as f
from ..lowering import Builder
from ..regularizers import Regularizer
from .base import Weight
from .drawn import dropped
from .parts import ordered
from .ruled import _KernelAndBias

CALL_OPTIONS: Mapping[str, tuple[Any, ...]] = {
    "use_causal_mask": (False, True),
    "return_attention_scores": (False, True),
    "attention_mask": (None,),
    "query_mask": (None,),
    "value_mask": (None,),
    "key_mask": (None,),
}
"""Of masks, those known when a network is compiled."""


class _Attention(_KernelAndBias):
    """Base of the layers with heads: projections, scores, softmax, values mixed, projection back."""

    tensors: ClassVar[tuple[str, ...]] = ("query", "value", "key")
    arity: ClassVar[tuple[int, int | None]] = (2, 3)
    options: ClassVar[Mapping[str, tuple[Any, ...]]] = CALL_OPTIONS
    ignored: ClassVar[frozenset[str]] = frozenset(
        {"seed", "flash_attention", "query_shape", "value_shape", "key_shape"}
    )
    # How rows are treated of which every key is hidden; no mask here hides all.
    neutral: ClassVar[dict[str, tuple[Any, ...]]] = {"softmax_robust_masking": (False, True)}

    def check(self, inputs: Sequence[TensorType]) -> None:
        query, value, key = _three(inputs)
        if not query.rank == value.rank == key.rank or query.rank < 3:
            raise self.fail(
                f"takes query, value and key (N, places, features) of one rank, got {query}, {value}, {key}"
            )
        if value.shape[1:-1] != key.shape[1:-1]:
            raise self.fail(f"value {value} and key {key} must have the same places")

    # -- nodes -----------------------------------------------------------------------------------------------
    def _project(self, b: Builder, x: str, part: str, op: ops.Activation | None = None) -> str:
        """x with its last axes, as many as the kernel has rows, projected to the kernel's columns."""
        names = {weight.name: weight for weight in self.built}
        kernel = names[f"{part}/kernel"]
        columns = kernel.shape[2:] if part == "attention_output" else kernel.shape[1:]
        lead = b.type(x).size()[1 : b.type(x).rank - (len(kernel.shape) - len(columns))]
        x = b.add(ops.Reshape((*lead, kernel.matrix[0])), x, suffix=f"{part}/rows")
        matrix = ops.Reshape(kernel.matrix, batched=False)
        operands = [x, b.add(matrix, b.weight(kernel.name), suffix=f"{part}/matrix")]
        if f"{part}/bias" in names:
            flat = ops.Reshape((kernel.matrix[1],), batched=False)
            operands.append(b.add(flat, b.weight(f"{part}/bias"), suffix=f"{part}/columns"))
        y = b.add(ops.Dense(), *operands, suffix=f"{part}/product")
        y = y if op is None else b.add(op, y, suffix=f"{part}/{op.op_name()}")
        y = b.add(ops.Reshape((*lead, *columns)), y, suffix=part)
        b.penalize(y, super().activity_penalty)
        return y

    @staticmethod
    def _attend(
        b: Builder, query: str, key: str, value: str, dropout: float, window: int | None
    ) -> tuple[str, str]:
        """Values (N, ..., T, H, V) mixed by the softmax of the scores, and that softmax (N, ..., H, T, S).

        query (N, ..., T, H, C), key (N, ..., S, H, C), value (N, ..., S, H, V): the heads stay where the
        projections have put them.
        """
        factor = 1 / sqrt(b.type(query).channels)
        scores = b.add(ops.MatMul(False, True, True, True, factor=factor), query, key, suffix="scores")
        causal = b.options.get("use_causal_mask", False)
        if causal or window is not None:
            *_, places, keys = b.type(scores).size()
            mask = b.add(ops.AttentionMask(places, keys, causal, window), suffix="mask")
            scores = b.add(ops.Add(), scores, mask, suffix="masked")
        shares = b.add(ops.Softmax(), scores, suffix="softmax")
        kept = dropped(b.within("dropout"), shares, dropout)
        mixed = b.add(ops.MatMul(split_b=True, split_y=True), kept, value, suffix="mixed")
        return mixed, shares

    def _finish(self, b: Builder, mixed: str, query: str, shares: str) -> str | list[str]:
        """The gate, the projection back, and the results of the call. query: as it came in."""
        if any(weight.name == "gate/kernel" for weight in self.built):
            gate = self._project(b, query, "gate", ops.Sigmoid())
            mixed = b.add(ops.Multiply(), mixed, gate, suffix="gated")
        y = self._project(b, mixed, "attention_output")
        return [y, shares] if b.options.get("return_attention_scores") else y


def projection(
    part: str,
    home: str,
    rows: Sequence[int],
    columns: Sequence[int],
    kernel: f.InitializerLike,
    bias: f.InitializerLike | None,
) -> list[Weight]:
    """Kernel and bias of a projection from axes of sizes `rows` to axes of sizes `columns`.

    home: where Keras keeps it. kernel, bias: their initializers; None for no bias.
    """
    matrix = (prod(rows), prod(columns))
    weights = [Weight(f"{part}/kernel", (*rows, *columns), kernel, home=home, matrix=matrix)]
    return weights if bias is None else [*weights, Weight(f"{part}/bias", tuple(columns), bias, home=home)]


def _three(inputs: Sequence[Any]) -> tuple[Any, Any, Any]:
    """Query, value and key, which is the value where it is not given."""
    return inputs[0], inputs[1], inputs[2] if len(inputs) > 2 else inputs[1]


class MultiHeadAttention(_Attention):
    """softmax(query key^T / sqrt(key_dim)) value for each head, the heads side by side in the projections.

    Vaswani et al. 2017, "Attention is all you need". A call takes query (N, T, ...), value (N, S, ...) and
    key, which is the value where it is not given. use_causal_mask: a query sees no key behind its own place.
    return_attention_scores: also give the softmax, (N, heads, T, S). attention_axes: those that T and S stand
    for, all but batch and features by default. sliding_window: a query sees keys fewer than so many places
    away. use_gate: the mixed values are multiplied by sigmoid of a projection of the query.
    """

    num_heads: int = f.option(f.count)
    key_dim: int = f.option(f.count)
    value_dim: int | None = f.option(f.maybe(f.count), default=None)
    dropout: float = f.option(f.fraction, default=0.0)
    use_bias: bool = f.option(f.flag, default=True)
    output_shape: int | Sequence[int] | None = f.option(f.maybe(f.some_counts), default=None)
    attention_axes: int | Sequence[int] | None = f.option(f.maybe(f.axes), default=None)
    sliding_window: int | None = f.option(f.maybe(f.count), default=None)
    kernel_initializer: f.InitializerLike = f.option(f.initializer, default="glorot_uniform")
    bias_initializer: f.InitializerLike = f.option(f.initializer, default="zeros")
    use_gate: bool = f.option(f.flag, default=False)
    seed: int | None = f.option(f.maybe(f.integer), default=None)

    @property
    def activity_penalty(self) -> Regularizer | None:
        """In Keras each projection has the regularizer, not the layer."""
        return None

    def check(self, inputs: Sequence[TensorType]) -> None:
        super().check(inputs)
        query, value, _ = _three(inputs)
        axes = self._axes(query.rank)
        if len(set(axes)) < len(axes) or any(not 1 <= axis <= query.rank - 2 for axis in axes):
            raise self.fail(
                f"attention_axes must be of 1 to {query.rank - 2} of {query}, got {self.attention_axes}"
            )
        for axis in range(1, query.rank - 1):
            if axis not in axes and query.shape[axis] != value.shape[axis]:
                raise self.fail(f"query {query} and value {value} must be alike on axis {axis}")
        if self.sliding_window is not None and axes != (1,):
            raise self.fail(f"a sliding_window needs attention along axis 1 alone, got {axes}")

    def _axes(self, rank: int) -> tuple[int, ...]:
        """Axes that are attended over: all between batch and features, unless some are named."""
        if self.attention_axes is None:
            return tuple(range(1, rank - 1))
        return tuple(axis if axis >= 0 else axis + rank for axis in f.axes(self.attention_axes))

    def weights(self, inputs: Sequence[TensorType]) -> list[Weight]:
        query, value, key = (kind.channels for kind in _three(inputs))
        width = self.value_dim or self.key_dim
        out = (query,) if self.output_shape is None else f.some_counts(self.output_shape)
        heads, mixed = (self.num_heads, self.key_dim), (self.num_heads, width)
        initial = self.kernel_initializer, self.bias_initializer if self.use_bias else None
        return [
            *projection("query", "query_dense", (query,), heads, *initial),
            *projection("key", "key_dense", (key,), heads, *initial),
            *(projection("gate", "_gate_dense", (query,), mixed, *initial) if self.use_gate else []),
            *projection("value", "value_dense", (value,), mixed, *initial),
            *projection("attention_output", "output_dense", mixed, out, *initial),
        ]

    def build(self, b: Builder, *inputs: str) -> str | list[str]:
        axes = self._axes(b.type(inputs[0]).rank)
        if b.options.get("use_causal_mask") and axes != (1,):
            raise self.fail(f"a causal mask needs attention along axis 1 alone, got {axes}")
        parts = zip(("query", "value", "key"), _three(inputs), strict=True)
        query, value, key = (self._places(b, self._project(b, x, part), axes, part) for part, x in parts)
        mixed, shares = self._attend(b, query, key, value, self.dropout, self.sliding_window)
        sizes = [[int(b.type(x).shape[axis]) for axis in axes] for x in _three(inputs)[:2]]
        if len(axes) > 1:
            lead = b.type(shares).size()[1:-2]
            shares = b.add(ops.Reshape((*lead, *sizes[0], *sizes[1])), shares, suffix="shares")
        mixed = self._places_back(b, mixed, axes, sizes[0])
        return self._finish(b, mixed, inputs[0], shares)

    @staticmethod
    def _order(rank: int, axes: tuple[int, ...]) -> list[int]:
        """Axes of a projection in the order batch, those not attended over, those that are, heads, width."""
        others = [axis for axis in range(1, rank - 2) if axis not in axes]
        return [0, *others, *axes, rank - 2, rank - 1]

    def _places(self, b: Builder, x: str, axes: tuple[int, ...], part: str) -> str:
        """A projection with the axes that are attended over as one, next to the heads."""
        x = ordered(b, x, self._order(b.type(x).rank, axes), f"{part}/ordered")
        *lead, heads, width = b.type(x).size()[1:]
        others = lead[: len(lead) - len(axes)]
        shape = (*others, prod(lead) // prod(others), heads, width)
        return b.add(ops.Reshape(shape), x, suffix=f"{part}/places")

    def _places_back(self, b: Builder, x: str, axes: tuple[int, ...], sizes: Sequence[int]) -> str:
        """The inverse of `_places`."""
        *others, _, heads, width = b.type(x).size()[1:]
        x = b.add(ops.Reshape((*others, *sizes, heads, width)), x, suffix="mixed/axes")
        order = self._order(b.type(x).rank, axes)
        return ordered(b, x, [order.index(axis) for axis in range(len(order))], "mixed/ordered")


class GroupQueryAttention(_Attention):
    """Attention in which several heads of queries share one head of keys and values.

    Ainslie et al. 2023, "GQA: training generalized multi-query transformer models". A call is that of
    MultiHeadAttention, for sequences.
    """

    inner_class: ClassVar[str] = "GroupedQueryAttention"
    rank = 3

    head_dim: int = f.option(f.count)
    num_query_heads: int = f.option(f.count)
    num_key_value_heads: int = f.option(f.count)
    dropout: float = f.option(f.fraction, default=0.0)
    use_bias: bool = f.option(f.flag, default=True)
    sliding_window: int | None = f.option(f.maybe(f.count), default=None)
    kernel_initializer: f.InitializerLike = f.option(f.initializer, default="glorot_uniform")
    bias_initializer: f.InitializerLike = f.option(f.initializer, default="zeros")
    use_gate: bool = f.option(f.flag, default=False)
    seed: int | None = f.option(f.maybe(f.integer), default=None)

    def check(self, inputs: Sequence[TensorType]) -> None:
        super().check(inputs)
        if self.num_query_heads % self.num_key_value_heads:
            raise self.fail(
                f"num_query_heads, {self.num_query_heads}, must be a multiple of num_key_value_heads, "
                f"{self.num_key_value_heads}"
            )
        query, value, _ = _three(inputs)
        if query.channels != value.channels:
            raise self.fail(f"query {query} and value {value} must have as many features")

    def weights(self, inputs: Sequence[TensorType]) -> list[Weight]:
        query, value, key = (kind.channels for kind in _three(inputs))
        many, few = ((n, self.head_dim) for n in (self.num_query_heads, self.num_key_value_heads))
        initial = self.kernel_initializer, self.bias_initializer if self.use_bias else None
        return [
            *projection("query", "_query_dense", (query,), many, *initial),
            *projection("key", "_key_dense", (key,), few, *initial),
            *(projection("gate", "_gate_dense", (query,), many, *initial) if self.use_gate else []),
            *projection("value", "_value_dense", (value,), few, *initial),
            *projection("attention_output", "_output_dense", many, (query,), *initial),
        ]

    def build(self, b: Builder, *inputs: str) -> str | list[str]:
        parts = zip(("query", "value", "key"), _three(inputs), strict=True)
        query, value, key = (self._project(b, x, part) for part, x in parts)
        key, value = (self._repeated(b, x, part) for x, part in ((key, "key"), (value, "value")))
        mixed, shares = self._attend(b, query, key, value, self.dropout, self.sliding_window)
        return self._finish(b, mixed, inputs[0], shares)

    def _repeated(self, b: Builder, x: str, part: str) -> str:
        """Each head of keys or values as often as there are heads of queries to it."""
        repeats = self.num_query_heads // self.num_key_value_heads
        if repeats == 1:
            return x
        batch, places, heads, width = b.type(x).shape
        single = ops.Reshape((int(places), int(heads), 1, int(width)))
        spread = ops.BroadcastTo((batch, places, heads, repeats, width))
        x = b.add(spread, b.add(single, x, suffix=f"{part}/heads"), suffix=f"{part}/repeated")
        return b.add(ops.Reshape((int(places), self.num_query_heads, int(width))), x, suffix=f"{part}/spread")
