"""Tensors in, tensors out: the network, its training and its metrics, independent of tables and folders."""
