"""Keys of a proposed config that say how to train: image size, folds, head, metrics."""

from collections import Counter
from typing import Any

from swinft.propose.facts import Facts
from swinft.propose.grouping import Group
from swinft.propose.images import Shown
from swinft.propose.known import Known
from swinft.propose.lines import Line
from swinft.propose.shape import Reshaped
from swinft.propose.tables import TableFacts
from swinft.propose.targets import Target

BACKBONE = "swin_tiny_patch4_window7_224"
NUM_FOLDS = 5
TAXONOMY = "hierarchical_distance"
HEADS = {
    "classes": "ClassificationHead",
    "binary": "ClassificationHead",
    "grades": "RegressionHead",
    "labels": "MultilabelHead",
    "label_sets": "MultilabelHead",
    "one_hot": "ClassificationHead",
    "votes": "ClassificationHead",
    "shares": "ClassificationHead",
    "number": "RegressionHead",
    "numbers": "RegressionHead",
    "ranked": "ClassificationHead",
    "masks": "SegmentationHead",
}
KINDS = {
    "classes": "classification",
    "binary": "classification",
    "grades": "regression",
    "labels": "multilabel",
    "label_sets": "multilabel",
    "one_hot": "classification",
    "votes": "classification",
    "shares": "classification",
    "number": "regression",
    "numbers": "regression",
    "ranked": "classification",
    "masks": "segmentation",
}
# The metrics that most competitions of a kind have, and why.
METRICS = {
    "classes": (["accuracy", "macro_f1"], "the sample submission wants a class"),
    "binary": (["auc", "log_loss"], "the sample submission has one number for two classes"),
    "grades": (["quadratic_kappa", "mae"], "usual for grades"),
    "labels": (["mean_column_auc"], "usual for a probability of each label"),
    "label_sets": (["samples_f1"], "usual for sets of labels"),
    "one_hot": (["log_loss", "accuracy"], "usual for a probability of each class"),
    "votes": (["kl_divergence", "log_loss"], "usual for shares of votes"),
    "shares": (["kl_divergence", "log_loss"], "usual for shares"),
    "number": (["rmse", "mae"], "usual for a number"),
    "numbers": (["rmse", "r2"], "usual for several numbers"),
    "ranked": ([{"map_at_k": {"k": 5}}, "accuracy"], "the sample submission's cells are ranked classes"),
    "masks": (["dice", "iou"], "usual for masks"),
}


def size_lines(size: Shown, num_rows: int, tile: int = 0) -> list[Line]:
    """Image size, augmentation and batch; with the side of a tile, if there are tiles."""
    if tile:
        image = Line("data.image_size", tile, "of a tile")
    elif not size.tried:
        image = Line("data.image_size", 224, "the size of the images could not be read; 224 is the backbone's")
    else:
        shorter = min(size.width, size.height)
        side = 224 if shorter >= 112 else 128 if shorter >= 80 else 64
        shown = f"images have {size.width} × {size.height} pixels (median of {size.tried})"
        others = (
            ["a larger size, such as 384, often scores higher, and takes about three times as long"]
            if shorter >= 380 and side == 224
            else []
        )
        if max(size.width, size.height) >= 1.8 * shorter:
            others.append("they are far from square: `grid` in data.image cuts them, [height, width] keeps their shape")
        image = Line("data.image_size", side, shown, tuple(others))
    batch = 32 if num_rows >= 640 else max(4, min(32, num_rows // 20))
    why = "" if batch == 32 else f"few rows ({num_rows:,}): a fold still has several steps an epoch"
    return [
        image,
        Line("data.augment", "light", "flips and small changes; `medium` and `heavy` do more"),
        Line("data.batch_size", batch, why),
    ]


def fold_lines(shape: Reshaped, target: Target, group: Group | None) -> list[Line]:
    """The folds: their number, groups and rare classes."""
    if shape.has_split:
        why = "the given validation split is the one fold that is held out; remove it for folds of all rows"
        return [Line("data.folds.column", "fold", why)]
    num, why = _num_folds(shape, target, group)
    lines = [Line("data.folds.num", num, why)]
    if group is not None:
        weighed = tuple(f"weighed: {each}" for each in group.others)
        lines.append(Line("data.folds.group", group.column, group.why, weighed))
    rare = _rare(shape, target, group, num)
    if rare:
        shown = ", ".join(f"{name} ({count})" for name, count in rare[:4])
        why = f"{len(rare):,} classes with fewer rows than folds, or of one group: {shown}{' …' if rare[4:] else ''}"
        lines.append(Line("data.folds.rare_classes", "train", why))
    return lines


def _num_folds(shape: Reshaped, target: Target, group: Group | None) -> tuple[int, str]:
    """The number of folds, and why."""
    why = "stratified by the target" + (", within groups" if group else "")
    groups = len(shape.train.columns[group.column].values) if group else 2 * NUM_FOLDS
    if groups < 2 * NUM_FOLDS:
        return max(2, groups // 2), f"{why}; there are {groups} groups only"
    rare = _rare(shape, target, None, NUM_FOLDS)
    rows, few = sum(count for _, count in rare), [count for _, count in rare if count > 1]
    if few and rows > 0.2 * shape.train.num_rows:  # so many rows could not be scored
        return max(2, min(few)), f"{why}; many classes have {min(few)} rows only"
    return NUM_FOLDS, why


def _rare(shape: Reshaped, target: Target, group: Group | None, num: int) -> list[tuple[str, int]]:
    """Classes that cannot be in every fold, with their rows."""
    if target.what not in ("classes", "binary", "ranked"):
        return []
    cells = shape.train.column(target.columns[0])
    counts = shape.counts or Counter(cell for cell in cells if cell)
    found = {name: count for name, count in counts.items() if count < num}
    if group is not None:
        owners: dict[str, set[str]] = {}
        for cell, owner in zip(cells, shape.train.column(group.column), strict=True):
            owners.setdefault(cell, set()).add(owner)
        found |= {name: counts[name] for name, of in owners.items() if len(of) == 1 and name in counts}
    return sorted(found.items(), key=lambda each: each[1])


def model_lines(target: Target, known: Known | None) -> list[Line]:
    """Backbone and head."""
    larger = "on a GPU with 16 GB or more: swin_base_patch4_window7_224, or a convnext or swinv2 model of timm"
    lines = [
        Line("model.backbone", BACKBONE, "the default: small enough for a first run on any device", (larger,)),
        Line("model.pretrained", True, "timm's weights, which are downloaded once; false to train from scratch"),
    ]
    head: dict[str, Any] = {"class_path": f"swinft.{HEADS[target.what]}"}
    why = ""
    if target.what == "masks":
        is_exclusive = target.masks.get("classes") == "exclusive"
        head["class_path"] = f"swinft.{'SoftmaxSegmentationHead' if is_exclusive else HEADS['masks']}"
        head["init_args"] = {"decoder": "unet", "loss": {"ce" if is_exclusive else "bce": 1, "dice": 1}}
        why = "a decoder on the backbone's stages; it needs pip install 'swinft[segmentation]'"
    if target.what == "ranked":
        why = "with thousands of classes of few rows each, try swinft.ArcFaceHead"
    if known and known.head:
        head["init_args"] = known.head
    return [*lines, Line("model.head", head, why)]


def metric_line(
    target: Target, train: TableFacts, facts: Facts, known: Known | None, slug: str, sample: TableFacts | None
) -> Line:
    """The metrics; the first one selects epochs and formats."""
    names, why = METRICS.get(target.what, (["rmse"], ""))
    cells = [cell for column in [*sample.columns.values()][1:] for cell in column.values] if sample else []
    has_whole = bool(cells) and all(cell in ("0", "1") for cell in cells)
    if target.what == "label_sets" and sample is None:
        names, why = METRICS["labels"]
    if target.what in ("classes", "binary") and sample is not None and len(sample.columns) > 2:
        names, why = METRICS["one_hot"]
    if known and known.metrics:
        official, *rest = known.metrics
        if official == TAXONOMY:
            path = _taxonomy(target, train, facts)
            if path is None:
                missing = f"the official metric {TAXONOMY} needs the taxonomy of the classes, which is not here"
                return Line("model.metrics", names, f"{missing}; then: {{{TAXONOMY}: {{taxonomy: FILE}}}}")
            official = {TAXONOMY: {"taxonomy": path}}
        return Line("model.metrics", [official, *rest], f"the first is the official metric of {slug} ({known.source})")
    if target.what == "binary" and has_whole:
        why = "the sample submission's cells are 0 or 1: if it wants classes, put accuracy or f1 first"
    advice = "Put the competition's official metric first; `swinft metrics` lists them"
    return Line("model.metrics", names, f"a guess: {why}. {advice}")


def _taxonomy(target: Target, train: TableFacts, facts: Facts) -> str | None:
    """The table that has a row of ranks for each class."""
    classes = {*train.columns[target.columns[0]].values}
    for table in facts.tables:
        first, *ranks = table.columns
        if (
            table is not train
            and table.is_unique(first)
            and classes <= {*table.columns[first].values}
            and len(ranks) > 1
        ):
            return table.path
    return None
