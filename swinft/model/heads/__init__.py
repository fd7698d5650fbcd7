"""Heads, one per kind of target: features to logits, loss and predictions."""

from swinft.model.heads.arcface import ArcFaceHead
from swinft.model.heads.base import Head, LinearHead
from swinft.model.heads.class_losses import (
    BalancedSoftmaxLoss,
    BiTemperedLoss,
    ClassBalancedLoss,
    FocalLoss,
    KLLoss,
    PolyLoss,
)
from swinft.model.heads.classification import ClassificationHead
from swinft.model.heads.label_distribution import LabelDistributionHead
from swinft.model.heads.label_losses import AsymmetricLoss, SigmoidFocalLoss, SigmoidPolyLoss
from swinft.model.heads.loss import Loss
from swinft.model.heads.mask_losses import (
    DiceLoss,
    FocalMaskLoss,
    LovaszLoss,
    SoftmaxDiceLoss,
    SoftmaxFocalMaskLoss,
    SoftmaxLovaszLoss,
)
from swinft.model.heads.multilabel import MultilabelHead
from swinft.model.heads.number_losses import ConcordanceLoss, HuberLoss, PearsonLoss, R2Loss
from swinft.model.heads.ordinal import OrdinalHead, OrdinalRegressionHead
from swinft.model.heads.regression import RegressionHead
from swinft.model.heads.segmentation import SegmentationHead, SoftmaxSegmentationHead

__all__ = [
    "ArcFaceHead",
    "AsymmetricLoss",
    "BalancedSoftmaxLoss",
    "BiTemperedLoss",
    "ClassBalancedLoss",
    "ClassificationHead",
    "ConcordanceLoss",
    "DiceLoss",
    "FocalLoss",
    "FocalMaskLoss",
    "Head",
    "HuberLoss",
    "KLLoss",
    "LabelDistributionHead",
    "LinearHead",
    "Loss",
    "LovaszLoss",
    "MultilabelHead",
    "OrdinalHead",
    "OrdinalRegressionHead",
    "PearsonLoss",
    "PolyLoss",
    "R2Loss",
    "RegressionHead",
    "SegmentationHead",
    "SigmoidFocalLoss",
    "SigmoidPolyLoss",
    "SoftmaxDiceLoss",
    "SoftmaxFocalMaskLoss",
    "SoftmaxLovaszLoss",
    "SoftmaxSegmentationHead",
]
