"""Segmentation: masks as targets, from run-length encoding in columns or from image files.

Shapes: N rows, K classes.
"""

from collections.abc import Mapping, Sequence
from typing import Any, Literal, get_args

import numpy as np
from numpy.typing import NDArray

from swinft.class_spec import InitArgsMixin
from swinft.data.image_paths import fields
from swinft.data.masks.rle import Order, Runs, area, parse
from swinft.data.masks.tiles import KEY as TILE_KEY
from swinft.data.masks.tiles import TileConfig
from swinft.data.tables.table import Problem
from swinft.data.target.base import Target, TargetCells
from swinft.errors import InputError, listed, together
from swinft.printing import visible
from swinft.ranges import is_whole, settings_of

MissingMask = Literal["error", "empty"]
PixelClasses = Literal["independent", "exclusive", "complete"]
KEY = "data.target_kind: Segmentation"
RLE_FIX = "Write pairs of start and length, sorted, with starts from 1, as '1 3 10 5'; an empty cell is an empty mask."


class Segmentation(InitArgsMixin, Target):
    """A mask of each of K classes. The targets of the table are their areas (N, K).

    Args:
        files: Template of the mask files, `masks/{id}.png`, relative to `data.root`; or one for each class, by the
            names of `data.target`. Null for run-length encoding in the columns of `data.target`, one for each class.
        values: Pixel value of each class in files of one template, by the names of `data.target`; null where all that
            is not 0 is the mask of the one class.
        order: How run-length encoding counts pixels, in the table and in the submission: down the `columns`, one after
            another, as on Kaggle, or along the `rows`.
        missing: A mask file that is not there is an `error`, or an `empty` mask.
        classes: Of each pixel: `independent`, several or none; `exclusive`, at most one, else it is background;
            `complete`, exactly one. The last two are predicted by `swinft.SoftmaxSegmentationHead`.
        ignore: Pixel value of mask files, or several, from 0 to 65535: pixels that count neither in the loss nor in any
            score, such as `255`; null if all count. In files of exclusive classes a pixel that one file ignores is
            ignored in all of them, in those of independent classes only in the class of that file.
        tile: Images are predicted as overlapping tiles of `data.image_size`, and trained on random ones; null to resize
            whole images. As in `swinft.TileConfig`.

    Raises:
        InputError: A value is wrong.
    """

    kind = "segmentation"
    formats = ("rle",)
    are_maps = True

    def __init__(
        self,
        files: str | dict[str, str] | None = None,
        values: dict[str, int] | None = None,
        order: Order = "columns",
        missing: MissingMask = "error",
        classes: PixelClasses = "independent",
        tile: TileConfig | None = None,
        ignore: int | list[int] | None = None,
    ) -> None:
        self.ignore = ignore
        self.files, self.values, self.order, self.missing, self.classes = files, values, order, missing, classes
        self.tile = None if tile is None else settings_of(TileConfig, TILE_KEY, tile)
        found = [
            f"{KEY}: {name} is {given!r}. Allowed: {', '.join(allowed)}."
            for name, given, allowed in (
                ("order", order, get_args(Order)),
                ("missing", missing, get_args(MissingMask)),
                ("classes", classes, get_args(PixelClasses)),
            )
            if given not in allowed
        ]
        if missing == "empty" and files is None:
            found.append(f"{KEY}: missing is for mask files (files); an empty cell is an empty mask. Remove it.")
        if values is not None and not isinstance(files, str):
            found.append(f"{KEY}: values are for files of one template; set files to it, or remove values.")
        least = 0 if classes == "complete" else 1  # what is in no class is 0
        if wrong := [
            name for name, value in (values or {}).items() if not is_whole(value) or not least <= value < 65536
        ]:
            found.append(f"{KEY}: values has '{wrong[0]}': {(values or {})[wrong[0]]!r}. Allowed: {least} to 65535.")
        if values is not None and len(set(values.values())) < len(values):
            found.append(f"{KEY}: values {values} give two classes one value.")
        found += self._ignore_problems()
        if wrong := [path for path in self.templates.values() if not isinstance(path, str) or not fields(path)]:
            found.append(f"{KEY}: files '{wrong[0]}' names no column; write one in braces: 'masks/{{id}}.png'.")
        if found:
            raise together(found)

    def _ignore_problems(self) -> list[str]:
        """What is wrong with `ignore`, a sentence each."""
        if self.ignore is None:
            return []
        given = self.ignore if isinstance(self.ignore, list) else [self.ignore]
        if self.files is None:
            return [
                f"{KEY}: ignore is a value of mask files (files), and run-length encoding has no values: remove it, or "
                f"give the masks as files."
            ]
        if not given or (wrong := [value for value in given if not is_whole(value) or not 0 <= value < 65536]):
            return [f"{KEY}: ignore is {self.ignore!r}. Allowed: 0 to 65535, one or several, as in `ignore: 255`."]
        named = {value: name for name, value in (self.values or {}).items() if is_whole(value)}
        if wrong := [value for value in given if value in named]:
            return [f"{KEY}: ignore has {wrong[0]}, which is the value of the class '{named[wrong[0]]}': remove one."]
        if 0 in given and self.values is None:
            return [
                f"{KEY}: ignore has 0, and without values all that is not 0 is the mask: no pixel would be outside of "
                f"it. Remove 0, or name the value of each class as values."
            ]
        return []

    @property
    def ignored_values(self) -> list[int]:
        """The values of pixels that do not count."""
        if self.ignore is None:
            return []
        return list(self.ignore) if isinstance(self.ignore, list) else [self.ignore]

    @property
    def templates(self) -> dict[str, str]:
        """Templates of the files by class; one without a name for all of them."""
        if self.files is None:
            return {}
        return dict(self.files) if isinstance(self.files, Mapping) else {"": self.files}

    def check_columns(self, columns: list[str], delimiter: str | None) -> None:
        """Files and values must name the classes of `data.target`, of which `complete` needs several.

        Raises:
            InputError: Classes, files and values do not fit the columns.
        """
        if self.classes == "complete" and len(columns) < 2:
            raise InputError(
                f"{KEY}: classes is complete, and data.target names one class: every pixel would be in it. Name all "
                f"classes, or set classes to independent."
            )
        named = {"values": self.values, "files": self.files if isinstance(self.files, Mapping) else None}
        for key, given in named.items():
            if given is not None and list(given) != columns:
                raise InputError(
                    f"{KEY}: {key} names {listed(given)}, and data.target {listed(columns)}: name the same classes, in "
                    f"the same order."
                )
        if isinstance(self.files, str) and self.values is None and len(columns) > 1:
            raise InputError(
                f"{KEY}: files is one template, and data.target names {len(columns)} classes: give the pixel value of "
                f"each as values, or a template of each as files."
            )

    def table_columns(self, columns: Sequence[str]) -> list[str]:
        """The columns of cells, or those in the templates of files."""
        if self.files is None:
            return list(columns)
        return list(dict.fromkeys(name for path in self.templates.values() for name in fields(path)))

    def runs(self, cells: TargetCells, problems: list[Problem]) -> list[list[Runs]]:
        """The masks in the cells, a list of K for each row; cells that are wrong are appended as problems."""
        rows = []
        for row, given in enumerate(zip(*(cells.table.column(name) for name in cells.columns), strict=True)):
            found = []
            for name, cell in zip(cells.columns, given, strict=True):
                try:
                    found.append(parse("" if cells.rules.is_missing(cell.strip()) else cell))
                except ValueError as error:
                    problems.append(cells.table.problem(row, f"the mask {error}", RLE_FIX, name))
                    found.append(parse(""))
            rows.append(found)
        return rows

    def encode(
        self, cells: TargetCells, outputs: Sequence[str], problems: list[Problem], notes: list[str] | None = None
    ) -> NDArray[Any]:
        """Areas of the masks in pixels, float32 (N, K); of files, which are read later, 0."""
        if self.files is not None:
            return np.zeros((len(cells.table), len(outputs)), np.float32)
        found = [[area(runs) for runs in row] for row in self.runs(cells, problems)]
        return np.array(found, np.float32).reshape(len(cells.table), len(outputs))

    def training_problems(self, cells: TargetCells, targets: NDArray[Any], outputs: Sequence[str]) -> list[Problem]:
        """Classes without any mask."""
        empty = [] if self.files is not None else np.flatnonzero(targets.sum(0) == 0).tolist()
        message, fix = "all masks are empty", "Remove the class from data.target."
        return [Problem(str(cells.table.path), message, fix, column=outputs[k]) for k in empty]

    def hardened(self, predictions: NDArray[np.float32]) -> NDArray[Any]:
        """The coverage as it is."""
        return predictions

    def counts(self, targets: NDArray[Any], num_outputs: int) -> list[float]:
        """Rows with a mask that is not empty."""
        found: list[float] = (targets > 0).sum(0).tolist()
        return found

    def summary(self, targets: NDArray[Any], outputs: Sequence[str]) -> dict[str, Any]:
        """Rows with a mask, and the mean coverage."""
        rows = dict(zip(outputs, self.counts(targets, len(outputs)), strict=True))
        return {
            name: {"rows with a mask": rows[name], "mean coverage": float(targets[:, k].mean())}
            for k, name in enumerate(outputs)
        }

    def captions(self, targets: NDArray[Any], outputs: Sequence[str]) -> list[str]:
        """The coverage of each class in percent."""
        names = [visible(name) for name in outputs]
        return [
            "\n".join(f"{name} {100 * value:.1f} %" for name, value in zip(names, row, strict=True)) for row in targets
        ]

    def prediction_text(self, prediction: NDArray[np.float32], outputs: Sequence[str]) -> str:
        """The same of a prediction."""
        return self.captions(prediction[None], outputs)[0].replace("\n", ", ")
