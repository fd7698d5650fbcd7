"""Reads a YAML file and checks its keys, types, ranges and classes."""
