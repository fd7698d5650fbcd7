"""Experiment trackers: W&B, TensorBoard, MLflow and Trackio get a record of each fold, and one of the whole run.

A record is a function of the run's files. An epoch is sent once it is saved, and what a service lacks, because it was
down or the process was killed, is sent later from `metrics.jsonl`: so a resumed run continues its records, without
gaps or repeated epochs. A service that fails stops no training.
"""
