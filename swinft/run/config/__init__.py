"""A YAML becomes a checked config: keys, types, ranges, and which classes it may name."""
