"""Heads, one per kind of target: features to logits, loss and predictions."""

from swinft.model.heads.base import Head, LinearHead
from swinft.model.heads.classification import ClassificationHead
from swinft.model.heads.loss import Loss
from swinft.model.heads.multilabel import MultilabelHead
from swinft.model.heads.regression import RegressionHead

__all__ = ["ClassificationHead", "Head", "LinearHead", "Loss", "MultilabelHead", "RegressionHead"]
