"""Competitions whose page says what their data cannot: the official metric, the honest group."""

from dataclasses import dataclass, field
from typing import Any


@dataclass(frozen=True)
class Known:
    """What a competition's page says.

    Args:
        source: Where it says so.
        metrics: `model.metrics`; the first is the official one.
        target: The target's columns, where names do not tell.
        what: What the target is, as in `swinft.propose.targets`.
        delimiter: Between labels in a cell.
        group: Column of the folds' groups, where the data does not tell.
        why_group: Why.
        features: Whether metadata columns are used.
        head: Keys of the head's `init_args`.
        loading: Keys of `data.loading`.
        image: A part of the images' path, where several kinds of images fit.
        submission: Keys of `submission`.
        notes: More to know, one line each.
    """

    metrics: tuple[Any, ...] = ()
    target: tuple[str, ...] = ()
    what: str = ""
    delimiter: str | None = None
    group: str | None = None
    why_group: str = ""
    features: bool = True
    head: dict[str, Any] = field(default_factory=dict)
    loading: dict[str, Any] = field(default_factory=dict)
    image: str = ""
    submission: dict[str, Any] = field(default_factory=dict)
    notes: tuple[str, ...] = ()
    source: str = "its evaluation page"


MASSES = {"Dry_Green_g": 0.1, "Dry_Dead_g": 0.1, "Dry_Clover_g": 0.1, "GDM_g": 0.2, "Dry_Total_g": 0.5}
LEVELS = ("l1_l2", "l2_l3", "l3_l4", "l4_l5", "l5_s1")
SPINE = {
    "column": "column",
    "weights": {"Normal/Mild": 1, "Moderate": 2, "Severe": 4},
    "groups": {
        "spinal": [f"spinal_canal_stenosis_{level}" for level in LEVELS],
        "foraminal": [f"{side}_neural_foraminal_narrowing_{level}" for side in ("left", "right") for level in LEVELS],
        "subarticular": [f"{side}_subarticular_stenosis_{level}" for side in ("left", "right") for level in LEVELS],
    },
    "any_class": "Severe",
    "any_group": "spinal",
    "any_by": "study_id",
}


def _with_new(word: str) -> Known:
    """A competition of ranked individuals, of which some are new: below a fitted threshold, `word` comes first."""
    submission = {"format": {"top_k": {"k": 5, "new": word}}, "rules": ["new_class"]}
    return Known(({"map_at_k": {"k": 5, "new": word, "threshold": 0.5}},), submission=submission)


KNOWN: dict[str, Known] = {
    "petfinder-pawpularity-score": Known(
        ("rmse", "mae"),
        features=False,
        head={"loss": "bce", "low": 1, "high": 100},
        notes=("the winner left the metadata out",),
    ),
    "cassava-leaf-disease-classification": Known(("accuracy", "macro_f1")),
    "plant-pathology-2020-fgvc7": Known(("auc", "log_loss")),
    "plant-pathology-2021-fgvc8": Known(("samples_f1",)),
    "aptos2019-blindness-detection": Known(("quadratic_kappa", "mae"), what="grades"),
    "ranzcr-clip-catheter-line-classification": Known(("mean_column_auc",)),
    "siim-isic-melanoma-classification": Known(("auc", "log_loss")),
    "isic-2024-challenge": Known(({"partial_auc": {"min_tpr": 0.8}}, "auc")),
    "happy-whale-and-dolphin": _with_new("new_individual"),
    "csiro-biomass": Known(
        ({"weighted_r2": {"weights": MASSES}}, "r2"),
        group="Sampling_Date",
        why_group="images of one day are alike: scores of random folds were far above the leaderboard's",
        notes=("the masses add up (GDM is green and clover, the total is GDM and dead): see the rule `sum`",),
    ),
    "planttraits2024": Known(("r2", "rmse")),
    "paddy-disease-classification": Known(("accuracy", "macro_f1")),
    "dog-breed-identification": Known(("kaggle_log_loss", "accuracy")),
    "digit-recognizer": Known(("accuracy", "log_loss")),
    "dogs-vs-cats-redux-kernels-edition": Known(("kaggle_log_loss", "auc"), submission={"columns": {"label": "dog"}}),
    "tgs-salt-identification-challenge": Known(("map_over_iou",)),
    "rsna-2024-lumbar-spine-degenerative-classification": Known(({"grouped_log_loss": SPINE}, "log_loss")),
    "rsna-intracranial-aneurysm-detection": Known(
        ({"weighted_auc": {"weights": {"Aneurysm Present": 13}}}, "mean_column_auc")
    ),
    "rsna-knee-abnormality-detection": Known(("mean_column_auc",)),
    "imagenette2": Known(("accuracy", "log_loss"), source="the dataset's leaderboard"),
    "imagewoof2": Known(("accuracy", "log_loss"), source="the dataset's leaderboard"),
    "fathomnet-2025": Known(("hierarchical_distance", "accuracy")),
    "hms-harmful-brain-activity-classification": Known(
        ("kl_divergence", "log_loss"),
        loading={"image_rules": {"keep": "float32", "range": [0.0183, 2981], "scale": "log", "fill_nan": 0}},
        image="spectrogram",
    ),
    "detect-ai-vs-human-generated-images": Known(("macro_f1", "accuracy")),
    "grand-xray-slam-division-a": Known(("mean_column_auc",)),
    "grand-xray-slam-division-b": Known(("mean_column_auc",)),
    "aerial-cactus-identification": Known(("auc", "accuracy")),
    "histopathologic-cancer-detection": Known(("auc", "accuracy")),
    "statoil-iceberg-classifier-challenge": Known(("kaggle_log_loss", "auc")),
    "plant-seedlings-classification": Known(("accuracy", "macro_f1")),
    "UBC-OCEAN": Known(("balanced_accuracy",)),
    "humpback-whale-identification": _with_new("new_whale"),
    "whale-categorization-playground": _with_new("new_whale"),
    "invasive-species-monitoring": Known(("auc", "accuracy")),
    "hotel-id-2021-fgvc8": Known(({"map_at_k": {"k": 5}},)),
    "state-farm-distracted-driver-detection": Known(("kaggle_log_loss", "accuracy")),
    "leaf-classification": Known(("kaggle_log_loss", "accuracy")),
    "diabetic-retinopathy-detection": Known(("quadratic_kappa", "mae"), what="grades"),
    "planet-understanding-the-amazon-from-space": Known(({"samples_f1": {"beta": 2}},)),
    "imet-2019-fgvc6": Known(({"samples_f1": {"beta": 2}},)),
    "human-protein-atlas-image-classification": Known(("macro_f1",)),
    "galaxy-zoo-the-galaxy-challenge": Known(("pooled_rmse", "rmse")),
    "facial-keypoints-detection": Known(("pooled_rmse", "rmse")),
    "rsna-intracranial-hemorrhage-detection": Known(({"mean_column_log_loss": {"weights": {"any": 2}}},)),
    "sorghum-id-fgvc-9": Known(("accuracy", "macro_f1")),
    "carvana-image-masking-challenge": Known(("dice", "iou")),
    "ultrasound-nerve-segmentation": Known(("dice", "iou")),
    "understanding_cloud_organization": Known(("dice", "iou")),
}
