"""Attention without projections: scores of two sequences, and the values mixed by their softmax."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, ClassVar

from ...graph import ops
from ...graph.types import TensorType
from .. import fields as f
from ..lowering import Builder
from .base import Layer, Weight
from .drawn import dropped


class _ScoreAttention(Layer):
    """Base: a call takes [query (N, T, C), value (N, S, V)] or [query, value, key (N, S, C)]."""

    said_training = False
    arity: ClassVar[tuple[int, int | None]] = (2, 3)
    ignored: ClassVar[frozenset[str]] = frozenset({"seed"})
    neutral: ClassVar[dict[str, tuple[Any, ...]]] = {"causal": (False,)}
    options: ClassVar[Mapping[str, tuple[Any, ...]]] = {
        "use_causal_mask": (False, True),
        "return_attention_scores": (False, True),
    }

    dropout: float

    def check(self, inputs: Sequence[TensorType]) -> None:
        query, value, key = inputs[0], inputs[1], inputs[-1]
        if any(kind.rank < 3 or kind.shape[:-2] != query.shape[:-2] for kind in inputs):
            raise self.fail(
                f"takes sequences (N, places, features), found {', '.join(map(str, inputs))}; "
                f"make them alike on all axes before those two"
            )
        if query.channels != key.channels:
            raise self.fail(f"query {query} and key {key} must have as many features")
        if key.shape[-2] != value.shape[-2]:
            raise self.fail(f"value {value} and key {key} must have the same places")

    def score(self, b: Builder, query: str, key: str) -> str:
        """(N, ..., T, S)"""
        raise NotImplementedError

    def build(self, b: Builder, *inputs: str) -> str | list[str]:
        query, value, key = inputs[0], inputs[1], inputs[-1]
        scores = self.score(b, query, key)
        if b.options.get("use_causal_mask"):
            *_, places, keys = b.type(scores).size()
            mask = b.add(ops.AttentionMask(places, keys), suffix="mask")
            scores = b.add(ops.Add(), scores, mask, suffix="masked")
        shares = b.add(ops.Softmax(), scores, suffix="softmax")
        kept = dropped(b.within("dropout"), shares, self.dropout)
        y = b.add(ops.MatMul(), kept, value)
        return [y, shares] if b.options.get("return_attention_scores") else y

    @staticmethod
    def nonlinear(b: Builder, query: str, key: str, before: str | None, after: str | None) -> str:
        """Sum over the features of after * tanh(before * (query + key)), for every pair of places."""
        *lead, places, width = b.type(query).size()[1:]
        query = b.add(ops.Reshape((*lead, places, 1, width)), query, suffix="query")
        keys = int(b.type(key).shape[-2])
        key = b.add(ops.Reshape((*lead, 1, keys, width)), key, suffix="key")
        x = b.add(ops.Add(), query, key, suffix="sum")
        x = x if before is None else b.add(ops.Multiply(), x, before, suffix="scaled")
        x = b.add(ops.Tanh(), x, suffix="tanh")
        x = x if after is None else b.add(ops.Multiply(), x, after, suffix="weighted")
        x = b.add(ops.Reduce((b.type(x).rank - 1,), keepdims=True), x, suffix="total")
        return b.add(ops.Reshape((*lead, places, keys)), x, suffix="scores")


class Attention(_ScoreAttention):
    """softmax(scores) value (Luong et al. 2015).

    score_mode: "dot" has the products of query and key as scores, "concat" the sum of tanh(query + key) times
    a weight. use_scale: products, or sums within tanh, times a weight.
    """

    use_scale: bool = f.option(f.flag, default=False)
    score_mode: str = f.option(f.choice("dot", "concat"), default="dot")
    dropout: float = f.option(f.fraction, default=0.0)
    seed: int | None = f.option(f.maybe(f.integer), default=None)

    def weights(self, inputs: Sequence[TensorType]) -> list[Weight]:
        scale = [Weight("scale", (), "ones")] if self.use_scale else []
        return [*scale, *([Weight("concat_score_weight", (), "ones")] if self.score_mode == "concat" else [])]

    def score(self, b: Builder, query: str, key: str) -> str:
        scale = b.weight("scale") if self.use_scale else None
        if self.score_mode == "concat":
            scores = self.nonlinear(b, query, key, scale, None)
            return b.add(ops.Multiply(), scores, b.weight("concat_score_weight"), suffix="weighted")
        scores = b.add(ops.MatMul(transpose_b=True), query, key, suffix="products")
        return scores if scale is None else b.add(ops.Multiply(), scores, scale, suffix="scaled")


class AdditiveAttention(_ScoreAttention):
    """softmax(scores) value, scores being the sum over features of tanh(query + key) (Bahdanau et al. 2015).

    use_scale: the sum's terms are multiplied by a weight each.
    """

    use_scale: bool = f.option(f.flag, default=True)
    dropout: float = f.option(f.fraction, default=0.0)
    seed: int | None = f.option(f.maybe(f.integer), default=None)

    def weights(self, inputs: Sequence[TensorType]) -> list[Weight]:
        return [Weight("scale", (inputs[0].channels,), "glorot_uniform")] if self.use_scale else []

    def score(self, b: Builder, query: str, key: str) -> str:
        return self.nonlinear(b, query, key, None, b.weight("scale") if self.use_scale else None)
