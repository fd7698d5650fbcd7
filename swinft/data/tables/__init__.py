"""Reads CSV files as checked tables of text cells."""
