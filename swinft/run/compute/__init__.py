"""The devices, precision and attention of a run."""
