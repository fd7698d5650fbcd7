"""Every image decoded once, in a file that folds, workers and runs share."""
