"""What a model on embeddings is compared with: the run whose rows it predicts."""

from collections.abc import Mapping
from typing import Any

from swinft.printing import format_interval, format_known, format_score, visible

OPTIMISTIC = (
    "each model was fitted on the embeddings of rows whose labels their network has seen, and is scored on rows that "
    "neither has seen: the score is honest, and the fit saw features that are better than those of new rows."
)
HONEST = "the backbone has seen no label: the embeddings of fitted and of scored rows are made alike."


def comparison_lines(found: Mapping[str, Any]) -> list[str]:
    """The lines that are printed, and that the report shows.

    Args:
        found: `embedding` of scores.json.
    """
    direction = "higher" if found["higher_is_better"] else "lower"
    lines = [
        f"{found['described']}",
        f"{found['metric']}, {direction} is better; {found['rows']:,} rows",
        f"  {visible(found['name'])}: {format_score(found['score'])}",
    ]
    if found["run_score"] is not None:
        gain, low_high = format_known(found["gain"], "+.4g"), format_interval(found["interval"])
        interval = f", 95 % interval of resampled rows {low_high}" if low_high else ""
        lines += [
            f"  {visible(found['run'])}: {format_score(found['run_score'])}",
            f"gain over {visible(found['run'])}, positive where it is better: {gain}{interval}",
            f"correlation of the two predictions: {found['correlation']:.3f}",
        ]
    lines += [f"searched: {line}" for line in found["searched"]]
    lines += found["warnings"]
    return [*lines, OPTIMISTIC if found["has_seen_labels"] else HONEST]
