"""One experiment on disk: its config, its folder, its folds, its scores, its submission and report."""
