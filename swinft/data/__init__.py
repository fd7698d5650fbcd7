"""From CSV to batches: tables, images, folds, augmentation, cache, loaders."""
