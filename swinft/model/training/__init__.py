"""Optimiser, learning-rate schedule, averaged weights (EMA), mixup and cutmix, loss scaling."""
