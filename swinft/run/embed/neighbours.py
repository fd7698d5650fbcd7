"""Predictions from the most similar rows: their mean target, or the class of the most similar one.

Shapes: N rows, I inputs, K outputs.
"""

from dataclasses import dataclass
from typing import Literal

import numpy as np
from sklearn.neighbors import NearestNeighbors

from swinft.data.target.base import Target
from swinft.ranges import POSITIVE, Range, check_ranges, check_whole
from swinft.run.embed.inputs import Array, Arrays, unit
from swinft.run.embed.model import CHUNK, Learnt, Model, short


@dataclass(frozen=True)
class KNN(Model):
    """The mean target of the nearest rows.

    Args:
        normalize: As of `Scaling`.
        standardize: As of `Scaling`.
        pca: As of `Scaling`.
        k: Number of rows, 1 or more; of fewer rows all.
        weights: `distance`: each counts one over its distance; or `uniform`.
        metric: `cosine` or `euclidean`.
    """

    name = "knn"

    k: int = 15
    weights: Literal["distance", "uniform"] = "distance"
    metric: Literal["cosine", "euclidean"] = "cosine"

    def __post_init__(self) -> None:
        super().__post_init__()
        check_whole(self.name, "k", self.k)

    def fit(self, inputs: Array, rows: Learnt) -> Arrays:
        """The rows themselves."""
        return {"rows": short(inputs), "targets": rows.targets, "weights": rows.weights}

    def apply(self, learned: Arrays, inputs: Array) -> Array:
        """Weighted means of the targets that are there; where no neighbour has one, of all rows."""
        targets, counts = learned["targets"], learned["weights"]
        near = NearestNeighbors(n_neighbors=min(self.k, len(targets)), metric=self.metric, algorithm="brute")  # type: ignore[no-untyped-call]
        distances, found = near.fit(learned["rows"]).kneighbors(inputs)
        # Of a row at distance 0 nothing but its own target is left.
        shares = counts[found] / np.maximum(distances, 1e-9) if self.weights == "distance" else counts[found]
        known = ~np.isnan(targets)
        values = np.where(known, targets, 0.0)
        total = (shares[..., None] * known[found]).sum(1)
        everywhere = (counts[:, None] * values).sum(0) / np.maximum((counts[:, None] * known).sum(0), 1e-12)
        sums = (shares[..., None] * values[found]).sum(1)
        result: Array = np.where(total > 0, sums / np.where(total > 0, total, 1), everywhere)
        return result


@dataclass(frozen=True)
class Retrieval(Model):
    """The most similar training row of each class, by the cosine of embeddings, as of networks with an ArcFaceHead.

    Predictions are the softmax of `scale` times the cosines. With `new_class`, a class that no row has competes at this
    cosine, and its probability is divided among all classes: where no class is as similar, the highest probability is
    low, for the rule `new_class` of a submission.

    Args:
        normalize: As of `Scaling`; cosines have no use of it.
        standardize: As of `Scaling`.
        pca: As of `Scaling`.
        scale: Factor on the cosines, above 0.
        new_class: The cosine at which a row is as likely to be of a new class, from −1 to 1; None without new classes.
    """

    name = "retrieval"

    standardize: bool = False
    scale: float = 30.0
    new_class: float | None = None

    def __post_init__(self) -> None:
        super().__post_init__()
        given = {"scale": self.scale, "new_class": self.new_class}
        check_ranges(self.name, given, {"scale": POSITIVE, "new_class": Range(-1, 1)})

    def refusal(self, target: Target, has_metadata: bool) -> str:
        """Other targets than classes, and metadata, of which a cosine says nothing."""
        if has_metadata:
            return "it compares embeddings, and metadata is none: remove --metadata"
        return "" if target.are_classes else "it finds the class of the most similar row, and the target is no class"

    def fit(self, inputs: Array, rows: Learnt) -> Arrays:
        """The rows, sorted by class; a row of soft targets is of its likeliest class."""
        classes = rows.targets.argmax(1)
        order = np.argsort(classes, kind="stable")
        return {"rows": short(unit(inputs)[order]), "classes": classes[order], "size": np.array(rows.targets.shape[1])}

    def apply(self, learned: Arrays, inputs: Array) -> Array:
        """The softmax of the scaled cosines."""
        gallery, given = learned["rows"], unit(inputs)
        present, starts = np.unique(learned["classes"], return_index=True)
        parts = []
        for start in range(0, len(given), CHUNK):
            cosines = np.full((len(given[start : start + CHUNK]), learned["size"].item()), -1.0)
            cosines[:, present] = np.maximum.reduceat(given[start : start + CHUNK] @ gallery.T, starts, axis=1)
            parts.append(self._shares(cosines))
        return np.concatenate(parts)

    def _shares(self, cosines: Array) -> Array:
        best = cosines.max(1, keepdims=True)
        best = best if self.new_class is None else np.maximum(best, self.new_class)
        powers = np.exp(self.scale * (cosines - best))
        new = 0.0 if self.new_class is None else np.exp(self.scale * (self.new_class - best))
        found: Array = (powers + new / cosines.shape[1]) / (powers.sum(1, keepdims=True) + new)
        return found
