"""Augmentation: presets, custom pipelines, and the evaluation pipeline."""
