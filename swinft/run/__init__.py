"""One experiment on disk: configuration, folds, training, prediction, submission and report."""
