"""The machine: what this process may use, its devices and precisions, its children."""
