"""One fold: its trainer, its checkpoints, its time, its out-of-fold predictions."""
