"""Which devices, precision and attention a run computes with."""
