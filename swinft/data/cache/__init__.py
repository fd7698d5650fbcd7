"""The pixel cache: each image decoded once, in a file shared by folds, workers and runs."""
