"""Checkpoints: a training run on disk, whole or not at all, and how it goes on from there."""
