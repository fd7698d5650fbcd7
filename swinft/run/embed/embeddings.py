"""Embeddings on disk as arrays and DataFrames."""

from pathlib import Path

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from swinft.errors import InputError, listed
from swinft.run.embed.files import FOLD, ID, IS_TRAINED_ON, Table
from swinft.run.embed.make import TEST, TRAIN, current_table, folder_of
from swinft.run.embed.makers import Maker


class Embeddings:
    """Embeddings of a run's rows; `swinft.embed` returns them.

    Those of different networks are of different spaces: what is fitted on them reads those of one network.

    Args:
        maker: What made them.
    """

    def __init__(self, maker: Maker) -> None:
        self._maker = maker

    def __repr__(self) -> str:
        return f"embeddings of {self._maker.run.root}: {self._maker.describe()}"

    @property
    def folder(self) -> Path:
        """The folder of their parquet files."""
        return folder_of(self._maker)

    @property
    def networks(self) -> list[str]:
        """Names of the networks: `fold_0`, …; of a backbone, `backbone`."""
        return list(self._maker.weights)

    def values(self, network: str | int, rows: str = TRAIN) -> NDArray[np.float32]:
        """A network's embeddings (N, D), in the order of `frame`; arguments and errors as of `frame`.

        Raises:
            InputError: There are none of these rows, or by this network.
        """
        return self._table(network, rows).values

    def frame(self, network: str | int, rows: str = TRAIN) -> pd.DataFrame:
        """A network's embeddings: `id`, of training rows `fold` and `is_trained_on`, and a column per dimension.

        Args:
            network: Its name, or the number of its fold.
            rows: `train` or `test`.

        Raises:
            InputError: There is no such network; or they are missing, or out of date.
        """
        table = self._table(network, rows)
        columns = {ID: pd.Series(table.ids, dtype=str)}
        given = {FOLD: table.fold, IS_TRAINED_ON: table.is_trained_on}
        columns |= {name: pd.Series(values) for name, values in given.items() if values is not None}
        names = [f"e{k}" for k in range(table.values.shape[1])]
        return pd.concat([pd.DataFrame(columns), pd.DataFrame(table.values, columns=names)], axis=1)

    def _table(self, network: str | int, rows: str) -> Table:
        name = f"fold_{network}" if isinstance(network, int) else network
        if name not in self.networks or rows not in (TRAIN, TEST):
            raise InputError(
                f"there are no embeddings of '{rows}' rows by '{network}': rows are train or test, and the networks "
                f"{listed(self.networks)}."
            )
        return current_table(self._maker, name, rows)
