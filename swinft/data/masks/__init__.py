"""Masks of segmentation: run-length encoding, mask files, and masks in the geometry of their images."""
