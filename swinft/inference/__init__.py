"""Prediction: test-time augmentation, compilation, OpenVINO, export; independent of run folders."""
