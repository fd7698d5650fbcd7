"""Tensors in, tensors out: the network, its training, its metrics; nothing here knows a table or a folder."""
