"""Finders of a learning rate and a batch size: they measure in throw-away processes, and verify what they return."""
