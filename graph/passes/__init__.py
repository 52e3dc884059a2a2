"""The passes, and the pipelines as visible lists: inference, training, unfused, and the backward pass."""

from .pipeline import BACKWARD, INFERENCE, RECOMPUTE, TRAINING, UNFUSED, Pass, PassReport, run_pipeline

__all__ = ["BACKWARD", "INFERENCE", "RECOMPUTE", "TRAINING", "UNFUSED", "Pass", "PassReport", "run_pipeline"]
