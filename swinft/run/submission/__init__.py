"""Turns predictions into a file that Kaggle accepts: sample submission, plan, formats and checks."""
