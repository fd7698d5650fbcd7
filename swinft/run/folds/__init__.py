"""One fold: its Trainer, checkpoints, time limit and out-of-fold predictions."""
