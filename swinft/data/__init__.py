"""A CSV becomes batches: tables, images, folds, augmentation, cache, loaders."""
