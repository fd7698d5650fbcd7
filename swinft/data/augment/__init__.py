"""Pixels become training pixels: presets, a user's own pipeline, and the evaluation pipeline."""
