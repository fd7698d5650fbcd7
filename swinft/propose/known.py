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
    submission: dict[str, Any] = field(default_factory=dict)
    notes: tuple[str, ...] = ()
    source: str = "its evaluation page"


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
    "happy-whale-and-dolphin": Known(({"map_at_k": {"k": 5, "new": "new_individual"}},)),
    "csiro-biomass": Known(
        (
            {
                "weighted_r2": {
                    "weights": {
                        "Dry_Green_g": 0.1,
                        "Dry_Dead_g": 0.1,
                        "Dry_Clover_g": 0.1,
                        "GDM_g": 0.2,
                        "Dry_Total_g": 0.5,
                    },
                    "column": "target_name",
                }
            },
            "r2",
        ),
        group="Sampling_Date",
        why_group="images of one day are alike: scores of random folds were far above the leaderboard's",
    ),
    "planttraits2024": Known(("r2", "rmse")),
    "paddy-disease-classification": Known(("accuracy", "macro_f1")),
    "dog-breed-identification": Known(("log_loss", "accuracy")),
    "digit-recognizer": Known(("accuracy", "log_loss")),
    "dogs-vs-cats-redux-kernels-edition": Known(("log_loss", "auc"), submission={"columns": {"label": "dog"}}),
    "tgs-salt-identification-challenge": Known(("mean_iou_precision",)),
    "rsna-2024-lumbar-spine-degenerative-classification": Known(("grouped_log_loss", "log_loss")),
    "rsna-intracranial-aneurysm-detection": Known(
        ({"weighted_auc": {"weights": {"Aneurysm Present": 13}}}, "mean_column_auc")
    ),
    "rsna-knee-abnormality-detection": Known(("mean_column_auc",)),
    "imagenette2": Known(("accuracy", "log_loss"), source="the dataset's leaderboard"),
    "imagewoof2": Known(("accuracy", "log_loss"), source="the dataset's leaderboard"),
    "fathomnet-2025": Known(("hierarchical_distance", "accuracy")),
    "hms-harmful-brain-activity-classification": Known(("kl_divergence", "log_loss")),
    "detect-ai-vs-human-generated-images": Known(("macro_f1", "accuracy")),
    "grand-xray-slam-division-a": Known(("mean_column_auc",)),
    "grand-xray-slam-division-b": Known(("mean_column_auc",)),
    "aerial-cactus-identification": Known(("auc", "accuracy")),
    "histopathologic-cancer-detection": Known(("auc", "accuracy")),
    "statoil-iceberg-classifier-challenge": Known(("log_loss", "auc")),
    "plant-seedlings-classification": Known(("accuracy", "macro_f1")),
    "UBC-OCEAN": Known(("balanced_accuracy",)),
    "humpback-whale-identification": Known(({"map_at_k": {"k": 5, "new": "new_whale"}},)),
    "whale-categorization-playground": Known(({"map_at_k": {"k": 5, "new": "new_whale"}},)),
    "invasive-species-monitoring": Known(("auc", "accuracy")),
    "hotel-id-2021-fgvc8": Known(({"map_at_k": {"k": 5}},)),
}
