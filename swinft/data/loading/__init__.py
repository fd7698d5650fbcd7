"""Rows become batches: datasets, samplers, loaders on the CPU and on the device."""
