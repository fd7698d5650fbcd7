"""Explains predictions of a run: the rows, the networks that predicted them, their maps, and a page of them."""
