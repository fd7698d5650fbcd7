"""Predicts rows with the weights of a run, on one device or several."""
