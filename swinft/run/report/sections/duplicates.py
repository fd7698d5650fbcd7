"""Rows with equal or similar images and different targets."""

from typing import Any

import numpy as np
from numpy.typing import NDArray

from swinft.errors import number_of
from swinft.run.report.contents import ReportInput
from swinft.run.report.section import Section, render

NUM_CLUSTERS, NUM_MEMBERS = 8, 6
FAR = 1.0  # standard deviations of the target: numbers that differ by more are different


def section(report: ReportInput) -> Section | None:
    """The section; none where no such rows are known."""
    clusters = report.facts.clusters
    if clusters is None or not len(report.rows):
        return None
    found = differing(clusters[report.rows], report.targets, report.schema.base.are_classes)
    if not found:
        return None
    groups = [
        [
            {
                "id": report.ids[place],
                "lines": [report.captions[place], f"predicted: {report.prediction_text(place)}"],
                "note": f"fold {report.folds[place]}",
                "image": report.thumbnails.of(int(report.rows[place])),
            }
            for place in places[:NUM_MEMBERS].tolist()
        ]
        for places in found[:NUM_CLUSTERS]
    ]
    rows = sum(len(places) for places in found)
    lead = (
        f"{number_of(len(found), 'group')} of equal or similar images with different targets, "
        f"{number_of(rows, 'row')} in all: one target of a group is wrong, or the image does not decide it."
    )
    more = f"The first {NUM_CLUSTERS} groups are shown; " if len(found) > NUM_CLUSTERS else ""
    note = f"{more}errors.csv names for each row another one that looks alike (near_duplicate)."
    return Section(
        "duplicates",
        "Duplicates with different targets",
        lead,
        render("sections/duplicates.html", groups=groups, note=note),
    )


def differing(clusters: NDArray[np.int64], targets: NDArray[Any], are_classes: bool) -> list[NDArray[np.int64]]:
    """Positions of rows of each cluster whose targets differ, the clusters with most rows first.

    Args:
        clusters: The cluster of each of N rows, int64.
        targets: int64 (N,), or float (N, K); −1 and NaN are missing, and differ from nothing.
        are_classes: Whether any difference counts; numbers and labels differ by more than a standard deviation.
    """
    order = np.argsort(clusters, kind="stable")
    starts = np.flatnonzero(np.diff(clusters[order], prepend=-1))
    groups = [each for each in np.split(order, starts[1:]) if len(each) > 1]
    flat = targets.reshape(len(targets), -1).astype(np.float64)
    values = np.where(flat < 0, np.nan, flat) if are_classes and targets.ndim == 1 else flat
    least = np.zeros(values.shape[1])
    if targets.ndim > 1:
        deviation = np.nanstd(values, axis=0)
        are_labels = np.isin(values[np.isfinite(values)], (0, 1)).all()
        least = least if are_labels else FAR * deviation
    found = []
    for group in groups:
        own = values[group]
        there = own[np.isfinite(own).all(1)]
        if len(there) > 1 and (np.ptp(there, axis=0) > least).any():
            found.append(group)
    return sorted(found, key=len, reverse=True)
