"""Predictions become a file that Kaggle accepts: the sample, the plan, the formats, the checks."""
