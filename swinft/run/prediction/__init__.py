"""Checkpoints and rows become predictions, on one device or shared among several."""
