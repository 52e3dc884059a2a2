"""The passes, and the two pipelines as visible lists."""

from .pipeline import BACKWARD, INFERENCE, RECOMPUTE, TRAINING, UNFUSED, Pass, PassReport, run_pipeline

__all__ = ["BACKWARD", "INFERENCE", "RECOMPUTE", "TRAINING", "UNFUSED", "Pass", "PassReport", "run_pipeline"]
