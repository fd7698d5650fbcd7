"""Rows and pixels: tables, targets, folds, images, augmentation, batches. Knows nothing of models or runs."""
