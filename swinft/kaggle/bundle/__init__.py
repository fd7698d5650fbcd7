"""Notebooks that Kaggle runs without internet: the files of runs, wheels, and the notebook that predicts with them."""
