"""Rows become batches: datasets, samplers, and loaders on the CPU and on the device."""
