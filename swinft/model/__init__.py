"""Tensors in, tensors out: backbone, heads, metrics, training recipe, task. Knows nothing of data or runs."""
