"""Searches settings: many trainings of one config, each a run, chosen by Optuna."""
