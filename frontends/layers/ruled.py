"""The arguments that regularize and constrain weights, for the layers that have such weights."""

from __future__ import annotations

from .. import fields as f
from ..constraints import ConstraintLike, constraint
from ..regularizers import RegularizerLike, regularizer
from .base import Layer


class _Bias(Layer):
    """Base of the layers with a bias."""

    bias_regularizer: RegularizerLike = f.option(regularizer, default=None, kw_only=True)
    bias_constraint: ConstraintLike = f.option(constraint, default=None, kw_only=True)


class _KernelAndBias(_Bias):
    """Base of the layers with a kernel and a bias."""

    kernel_regularizer: RegularizerLike = f.option(regularizer, default=None, kw_only=True)
    kernel_constraint: ConstraintLike = f.option(constraint, default=None, kw_only=True)


class _GammaAndBeta(Layer):
    """Base of the layers that scale and shift what they normalise."""

    beta_regularizer: RegularizerLike = f.option(regularizer, default=None, kw_only=True)
    gamma_regularizer: RegularizerLike = f.option(regularizer, default=None, kw_only=True)
    beta_constraint: ConstraintLike = f.option(constraint, default=None, kw_only=True)
    gamma_constraint: ConstraintLike = f.option(constraint, default=None, kw_only=True)
