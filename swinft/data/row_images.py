"""What a row shows: one image, or several: files, parts of a file, or channels of one input.

Shapes: N rows, V images of a row at most, M distinct images, (H, W) image size.
"""

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, fields, replace
from typing import Any, Literal, get_args

import cv2
import numpy as np
from numpy.typing import NDArray

from swinft.data.image_paths import fields as columns_of
from swinft.errors import suggest
from swinft.ranges import SettingsError, is_whole, word_problems

Missing = Literal["error", "mask"]
Channels = Literal["grey", "rgb"]
Sharing = Literal["shared", "independent"]
Order = Literal["auto", "name"]

KEY = "data.image"
MOST = 16  # images of a row where nothing else limits them and nobody says how many
LEAST_TILE = 16  # pixels; of smaller ones an image has too many
WILDCARD = re.compile("[*?]")
OPTION = "{key} holds '{name}', an option of several images per row: write the template of the files as `path`."


@dataclass(frozen=True)
class RowImages:
    """The images of a row.

    Args:
        path: Template of the files, as `images/{id}.png`; several in a list, or by name (`{left: …, right: …}`). `*`
            and `?` in the last part of one template stand for any characters: its files come in the order of their
            names, numbers in them by value.
        delimiter: What stands between files in the cells of the template's last column; `path: "images/{files}"`.
        frames: The files are stacks (TIFF, GIF, WebP), whose frames are the images.
        grid: Rows and columns into which each file is cut: [1, 2] for two halves, [8, 1] for eight slices below one
            another.
        tile: Side in pixels of the square tiles into which each file is cut; the last ones end at its edge.
        overlap: Pixels that neighbouring tiles share.
        least_contrast: Parts whose grey levels have a smaller standard deviation are empty, and left out; 0 keeps all.
        max: Most files that wildcards or a cell give, frames or tiles, evenly spread over what there is; null for 16.
        missing: A file that is not there is an `error`, or is left out (`mask`), and so is one that cannot be used
            where `data.loading.on_bad_image` is `skip`. A row without any image follows `data.loading.on_bad_image`.
        channels: Stack the images as channels of one input, which the backbone's first layer is adapted to: `grey` for
            one channel of each, `rgb` for three; what is left out is black. Null for images that the network sees one
            by one, and fuses as `model.pooling.images` says.
        augment: The images of a row are augmented alike (`shared`), or each with numbers of its own (`independent`).
        order: Order of the files of wildcards: `auto` for DICOM files by their place in the series (position, else
            instance number) and for others by name; `name` for all.

    Raises:
        InputError: Settings are wrong or contradict each other; all of them are listed.
    """

    path: str | list[str] | dict[str, str]
    delimiter: str | None = None
    frames: bool = False
    grid: tuple[int, int] | None = None
    tile: int | None = None
    overlap: int = 0
    least_contrast: float = 0.0
    max: int | None = None
    missing: Missing = "error"
    channels: Channels | None = None
    augment: Sharing = "shared"
    order: Order = "auto"

    def __post_init__(self) -> None:
        """Checks what can be said without the tables."""
        problems = [*self._type_problems()] or [*self._contradictions()]
        if problems:
            raise SettingsError(problems)
        if self.grid is not None:
            object.__setattr__(self, "grid", (self.grid[0], self.grid[1]))

    def _type_problems(self) -> list[str]:
        found, given = [], self.path
        paths: Any = [given] if isinstance(given, str) else [*given.values()] if isinstance(given, Mapping) else given
        if not isinstance(paths, Sequence) or not paths or not all(isinstance(path, str) for path in paths):
            found.append(f"{KEY} is {given!r}; write a template like 'images/{{id}}.png', or several of them.")
        if self.delimiter is not None and not (isinstance(self.delimiter, str) and self.delimiter):
            found.append(f"{KEY}.delimiter is {self.delimiter!r}; write what stands between two files.")
        sides: Any = self.grid  # in a notebook nobody has checked the type
        is_pair = isinstance(sides, Sequence) and len(sides) == 2 and all(is_whole(n) and n >= 1 for n in sides)
        if sides is not None and not (is_pair and sides[0] * sides[1] > 1):
            found.append(f"{KEY}.grid is {sides!r}; write rows and columns, as [1, 2] for two halves.")
        for name, low in {"tile": LEAST_TILE, "max": 1, "overlap": 0}.items():
            value = getattr(self, name)
            if not (is_whole(value) and value >= low) and not (value is None and name != "overlap"):
                found.append(f"{KEY}.{name} is {value!r}. Allowed: a whole number from {low}.")
        contrast: Any = self.least_contrast
        if isinstance(contrast, bool) or not isinstance(contrast, int | float) or not 0 <= contrast <= 127.5:
            found.append(f"{KEY}.least_contrast is {contrast!r}. Allowed: a number from 0 to 127.5.")
        words: dict[str, Sequence[Any]] = {"missing": get_args(Missing), "augment": get_args(Sharing)}
        words |= {"order": get_args(Order)}
        words |= {"frames": (True, False)} | ({} if self.channels is None else {"channels": get_args(Channels)})
        return found + word_problems(KEY, vars(self), words)

    def _contradictions(self) -> list[str]:
        """Settings that cannot stand together, or do nothing; one sentence each."""
        cuts = [f"{KEY}.{name}" for name in ("frames", "grid", "tile") if getattr(self, name)]
        may_limit = self.is_open or self.frames or self.tile is not None
        in_folders = [path for path in self.templates if columns_of(path) and WILDCARD.search(path.rpartition("/")[0])]
        wrong = {
            f"{' and '.join(cuts)} each say how a file becomes several images: keep one.": len(cuts) > 1,
            f"{KEY}.path has several templates, and wildcards or a delimiter: write one template with these.": (
                self.is_open and len(self.templates) > 1
            ),
            f"{KEY}.path '{''.join(in_folders[:1])}': `*` and `?` may stand in its last part only.": bool(in_folders),
            f"{KEY}.delimiter and wildcards in {KEY}.path both say which files a row has: keep one.": (
                self.delimiter is not None and self.has_wildcards
            ),
            f"{KEY}.path has wildcards or a delimiter, and {cuts[0] if cuts else ''} makes any number of images of "
            f"each file: `max` would count both. Set {KEY}.grid, or name one file a row.": (
                self.is_open and (self.frames or self.tile is not None)
            ),
            f"{KEY}.overlap is {self.overlap}; it is for {KEY}.tile, and below it.": (
                self.overlap > 0 and not (self.tile is not None and self.overlap < self.tile)
            ),
            f"{KEY}.least_contrast is for parts of a file ({KEY}.grid, {KEY}.tile); remove it.": (
                self.least_contrast > 0 and self.grid is None and self.tile is None
            ),
            f"{KEY}.max does nothing where the number of images is fixed; remove it.": (
                self.max is not None and not may_limit
            ),
            f"{KEY}.missing is for several files a row; remove it: {KEY}.path names one.": (
                self.missing == "mask" and len(self.templates) == 1 and self.delimiter is None
            ),
            f"{KEY}.augment is for several images per row; remove it: a row has one.": (
                self.augment == "independent" and self.most == 1
            ),
            f"{KEY}.order is for wildcards in {KEY}.path; remove it.": self.order != "auto" and not self.has_wildcards,
            f"{KEY}.path names no image: {self.names}.": not all(self.names),
        }
        return [text for text, is_so in wrong.items() if is_so]

    @property
    def templates(self) -> list[str]:
        """The templates, in their order."""
        if isinstance(self.path, str):
            return [self.path]
        return list(self.path.values()) if isinstance(self.path, Mapping) else list(self.path)

    @property
    def names(self) -> list[str]:
        """Names of the images of a row, in their order; none where the setting names none."""
        return [*map(str, self.path)] if isinstance(self.path, Mapping) else []

    @property
    def columns(self) -> list[str]:
        """The columns that the templates name, each once."""
        return list(dict.fromkeys(name for path in self.templates for name in columns_of(path)))

    @property
    def has_wildcards(self) -> bool:
        """Whether a template stands for any number of files."""
        # Without braces it names columns of pixels, whose source has a `*` of its own.
        return any(WILDCARD.search(path) and columns_of(path) for path in self.templates)

    @property
    def is_open(self) -> bool:
        """Whether rows may have different numbers of files."""
        return self.delimiter is not None or self.has_wildcards

    @property
    def cuts(self) -> bool:
        """Whether a file becomes several images."""
        return self.frames or self.grid is not None or self.tile is not None

    @property
    def parts(self) -> int:
        """How many images a file gives at most."""
        if self.grid is not None:
            return self.grid[0] * self.grid[1]
        return (self.max or MOST) if self.cuts else 1

    @property
    def most(self) -> int:
        """V, how many images a row has at most."""
        return ((self.max or MOST) if self.is_open else len(self.templates)) * self.parts

    @property
    def is_plain(self) -> bool:
        """Whether a row has one image, a whole file in colour: there is nothing to mask, to fuse or to stack."""
        return self.most == 1 and not self.is_open and not self.cuts and self.channels is None

    @property
    def num_images(self) -> int | None:
        """V where the network sees several images of a row; None where it sees one."""
        return None if self.is_plain or self.channels else self.most

    @property
    def num_channels(self) -> int:
        """Channels of what the network sees at a time."""
        return self.most * {"grey": 1, "rgb": 3}[self.channels] if self.channels else 3

    @property
    def may_lack(self) -> bool:
        """Whether rows may have fewer images than others, so that batches differ in their number."""
        varies = self.missing == "mask" or self.is_open or self.frames or self.tile is not None
        return self.num_images is not None and varies

    @property
    def for_network(self) -> dict[str, Any]:
        """What a network must know of a row's images, as arguments of `swinft.TaskContext`."""
        is_plain = self.channels is None
        return {
            "num_images": self.num_images,
            "num_channels": None if is_plain else self.num_channels,
            "are_grey": self.channels == "grey",
        }

    def elsewhere(self, path: Any, key: str) -> "RowImages":
        """The same for rows of another table, whose files are elsewhere, as the setting `key` says.

        Raises:
            InputError: It names other images than `path` does.
        """
        made = replace(self, path=path)
        known = [list(each.path) if isinstance(each.path, Mapping) else len(each.templates) for each in (self, made)]
        if known[0] != known[1] or made.is_open != self.is_open:
            raise SettingsError([f"{key} is {path!r}; it must name as many images as {KEY}."])
        return made

    def to_channels(self, images: NDArray[Any]) -> NDArray[Any]:
        """Images of a row, uint8 or float32 (V, H, W, 3), as one of many channels, (H, W, C)."""
        if self.channels == "grey":
            return np.stack([cv2.cvtColor(image, cv2.COLOR_RGB2GRAY) for image in images], axis=-1)
        return np.ascontiguousarray(np.concatenate(list(images), axis=-1))


def row_images(given: Any) -> RowImages:
    """The setting `data.image`: a template, a list of them, templates by name, or a mapping with `path`.

    Raises:
        InputError: It is something else, or wrong; all that is wrong is listed.
    """
    if isinstance(given, RowImages):
        return given
    if hasattr(given, "as_dict"):  # a section of a parsed config
        given = given.as_dict()
    options = [field.name for field in fields(RowImages)]
    if isinstance(given, Mapping) and "path" in given:
        unknown = [f"{KEY} has no '{name}'.{suggest(str(name), options)}" for name in given if name not in options]
        if unknown:
            raise SettingsError(unknown)
        return RowImages(**given)
    if isinstance(given, Mapping):
        known = [OPTION.format(key=KEY, name=name) for name in given if name in options]
        if known:
            raise SettingsError(known)
        return RowImages(dict(given))
    if isinstance(given, list | tuple):
        return RowImages(list(given))
    if not isinstance(given, str):
        raise SettingsError([f"{KEY} is {given!r}; write a template like 'images/{{id}}.png', or a list of them."])
    return RowImages(given)


def joined(parts: Sequence[tuple[Sequence[str], "Shown"]]) -> tuple[list[str], "Shown"]:
    """The distinct images of several tables, and which of them their rows show.

    Args:
        parts: Of each table its distinct images, and which of them its rows show.
    """
    places: dict[str, int] = {}
    files = []
    for paths, shown in parts:
        place_of = np.array([places.setdefault(path, len(places)) for path in paths] + [-1], dtype=np.int64)
        files.append(place_of[shown.files])
    return list(places), Shown(parts[0][1].images, np.concatenate(files))


def spread(count: int, most: int) -> list[int]:
    """At most so many of the numbers below `count`, evenly spread over them."""
    return list(range(count)) if count <= most else [int((k + 0.5) * count / most) for k in range(most)]


@dataclass(frozen=True, eq=False)
class Shown:
    """Which of the distinct images each row shows.

    Args:
        images: The setting.
        files: Their positions, int64 (N, V) in the order of the images; −1 where a row has none.
        every: The same with those that have been left out since; None where none have.
    """

    images: RowImages
    files: NDArray[np.int64]
    every: NDArray[np.int64] | None = None

    @property
    def found(self) -> NDArray[np.int64]:
        """The images that were found, int64 (N, V), also such as cannot be used."""
        return self.files if self.every is None else self.every

    def of_rows(self, counts: NDArray[np.bool_]) -> NDArray[np.int64]:
        """The images, int64 (N, V), of rows that count, bool (N,); of others none."""
        return np.where(counts[:, None], self.files, -1)

    def rows(self, count: int) -> list[list[int]]:
        """The rows that show each of `count` distinct images."""
        found: list[list[int]] = [[] for _ in range(count)]
        for row, slot in zip(*np.nonzero(self.found >= 0), strict=True):
            file = found[int(self.found[row, slot])]
            if not file or file[-1] != row:
                file.append(int(row))
        return found

    def bad_rows(self, bad: set[int], absent: set[int]) -> list[int]:
        """Rows that cannot be used.

        Args:
            bad: Images that cannot be used.
            absent: Parts that a file does not have.
        """
        is_bad, is_absent = (np.isin(self.found, list(some)) for some in (bad, absent))
        is_lost = ~((self.found >= 0) & ~is_bad & ~is_absent).any(1)
        return np.flatnonzero(is_lost if self.images.missing == "mask" else is_lost | is_bad.any(1)).tolist()

    def without(self, files: set[int]) -> "Shown":
        """The same without some of the images."""
        left = np.where(np.isin(self.files, list(files)), -1, self.files)
        return replace(self, files=left, every=self.found)
