"""The passes, and the pipelines as visible lists: inference, training, unfused, and the backward pass."""

from .pipeline import (
    BACKWARD,
    FROM_INPUTS,
    INFERENCE,
    JOINED,
    JOINED_BACKWARD,
    RECOMPUTE,
    TRAINING,
    UNFUSED,
    Pass,
    PassReport,
    run_pipeline,
)

__all__ = [
    "BACKWARD",
    "FROM_INPUTS",
    "INFERENCE",
    "JOINED",
    "JOINED_BACKWARD",
    "RECOMPUTE",
    "TRAINING",
    "UNFUSED",
    "Pass",
    "PassReport",
    "run_pipeline",
]
