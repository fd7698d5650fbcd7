"""One experiment on disk: its config, folder, folds, scores, submission and report."""
