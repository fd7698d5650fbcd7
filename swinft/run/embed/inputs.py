"""What models are fitted on: embeddings, scaled and reduced by the rows of the fit alone, and metadata.

Shapes: N rows, D dimensions, F metadata features, I inputs.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from swinft.errors import InputError
from swinft.model.metadata import MetadataNetwork

Array = NDArray[np.float64]
Arrays = dict[str, NDArray[Any]]  # what was learned, as in a .safetensors file
STATISTICS = ("mean", "scale", "has_gaps", "frequency")  # of metadata


@dataclass(frozen=True)
class Scaling:
    """How embeddings become inputs.

    Args:
        normalize: Whether each row is divided by its length first.
        standardize: Whether each dimension gets mean 0 and deviation 1 of the rows of the fit.
        pca: Number of principal components that are kept; None for all dimensions as they are.
    """

    normalize: bool = False
    standardize: bool = True
    pca: int | None = None

    def learn(self, values: NDArray[np.float32]) -> Arrays:
        """What is learned from the embeddings of the rows of the fit, (N, D).

        Raises:
            InputError: There are fewer rows or dimensions than components.
        """
        found, learned = self._normalized(values), Arrays()
        if self.standardize:
            deviation = found.std(0)
            learned["shift"] = found.mean(0)
            # A constant dimension says nothing: at prediction, another value of it must not be blown up.
            learned["factor"] = np.where(deviation > 1e-6 * max(deviation.max(initial=0.0), 1e-12), 1, 0) / np.maximum(
                deviation, 1e-12
            )
            found = (found - learned["shift"]) * learned["factor"]
        if self.pca is not None:
            if self.pca > min(found.shape):
                raise InputError(
                    f"pca is {self.pca}, and the fit has {found.shape[0]} rows of {found.shape[1]} dimensions: set it "
                    f"to {min(found.shape)} or less."
                )
            from sklearn.decomposition import PCA  # slow to import

            fitted = PCA(self.pca, svd_solver="full").fit(found)  # type: ignore[no-untyped-call]
            learned |= {"centre": fitted.mean_, "components": fitted.components_}
        return learned

    def apply(self, learned: Arrays, values: NDArray[np.float32]) -> Array:
        """The inputs (N, I) of any rows."""
        found = self._normalized(values)
        if self.standardize:
            found = (found - learned["shift"]) * learned["factor"]
        return (found - learned["centre"]) @ learned["components"].T if self.pca is not None else found

    def _normalized(self, values: NDArray[np.float32]) -> Array:
        found = values.astype(np.float64)
        return unit(found) if self.normalize else found


def unit(values: Array) -> Array:
    """Rows divided by their length; rows of 0 unchanged."""
    lengths = np.linalg.norm(values, axis=1, keepdims=True)
    found: Array = values / np.where(lengths > 0, lengths, 1)
    return found


@dataclass(frozen=True)
class Metadata:
    """Metadata columns as the network of a run reads them: standardised, with indicators of blanks, one-hot.

    Args:
        num_features: F.
        category_sizes: As of `MetadataNetwork`.
    """

    num_features: int
    category_sizes: Sequence[int]

    def learn(self, features: NDArray[np.float32]) -> Arrays:
        """The statistics of the rows of the fit."""
        network = self._network()
        network.initialize(torch.from_numpy(features))
        return {f"metadata.{name}": getattr(network, name).numpy() for name in STATISTICS}

    def apply(self, learned: Arrays, features: NDArray[np.float32]) -> Array:
        """The encoded metadata (N, E) of any rows."""
        network = self._network()
        for name in STATISTICS:
            getattr(network, name).copy_(torch.from_numpy(learned[f"metadata.{name}"]))
        with torch.inference_mode():
            return network.encode(torch.from_numpy(features)).numpy().astype(np.float64)

    def _network(self) -> MetadataNetwork:
        with torch.random.fork_rng([]):
            return MetadataNetwork(self.num_features, self.category_sizes, 1)
