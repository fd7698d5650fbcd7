"""Masks: in files beside the images, or in columns of run lengths; what a pixel may be, and tiles of large images."""

import math
import os
from collections import Counter
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

from swinft.data.masks.files import read_mask
from swinft.data.masks.rle import classes_problem, parse
from swinft.data.sources.source import ImageError
from swinft.data.tables.text import MISSING_WORDS
from swinft.propose.facts import Facts
from swinft.propose.folders import purpose
from swinft.propose.images import Shown
from swinft.propose.listing import Group, spread
from swinft.propose.roles import Roles
from swinft.propose.shape import Reshaped, ToPredict
from swinft.propose.tables import TableFacts, made
from swinft.propose.targets import Target
from swinft.propose.templates import ENOUGH, TRIED_FILES, Template, is_aside

LOOKED_AT = 48  # mask files whose pixels are looked at
MOST_VALUES = 64  # of class numbers; more are grey levels, such as those of a lossy file
IGNORED = 255  # the usual value of pixels that nobody labelled, beside class numbers
LARGEST_NUMBER = 127  # of a class beside which 255 is taken for that; masks of 0, 128 and 255 have two classes
FEWEST_BESIDE = 10  # rows with masks of several classes, without which nothing tells that they exclude each other
TILED_FROM, TILE = 1024, 512  # pixels: of the shorter side of an image, from which tiles are proposed; of a tile's side
MOST_TILES = 16  # of an image in an epoch


def with_mask_files(facts: Facts, shape: Reshaped) -> Target | None:
    """The target of rows whose images have mask files of their name; None where there are none."""
    image = shape.image
    if image is None or image.container != "files" or not image.path.endswith(image.group.suffix):
        return None
    stem = os.path.basename(image.path).removesuffix(image.group.suffix)
    return None if "*" in stem else _beside(facts, image.group, stem)


def of_mask_files(facts: Facts, roles: Roles) -> Reshaped | None:
    """Rows of images without a table, which have mask files of their name; None where there are none."""
    groups = [each for each in facts.listing.groups if each.container == "files" and not is_aside(each.folder)]
    groups = [each for each in groups if "*" not in each.folder]
    for group in sorted(groups, key=lambda each: (purpose(each) == "test", -each.count)):
        if (target := _beside(facts, group, "{name}")) is None:
            continue
        stems = [os.path.basename(name).removesuffix(group.suffix) for name in group.names]
        cells, steps = {"name": stems, "path": list(group.names)}, ({"files": _pattern(group)},)
        table = made("", cells, group.count, is_whole=group.count == len(stems), steps=steps)
        tests = [each for each in groups if each is not group and purpose(each) == "test"]
        test = ToPredict(next(iter(roles.test_images), None), roles.sample_id)
        if roles.sample is None and tests:
            why = f"{tests[0].count:,} files"
            test = ToPredict(Template("{path}", tests[0], 1.0, 1.0), None, [{"files": _pattern(tests[0])}], why)
        return Reshaped(
            table, "there is no table of training rows: names of files make it", Template("{path}", group, 1.0, 1.0),
            test, id=("name", "the file's name is unique"), target=target, used=("path", "name"),
        )  # fmt: skip
    return None


def _pattern(group: Group) -> str:
    return f"{group.folder}/{{name}}{group.suffix}" if group.folder else f"{{name}}{group.suffix}"


def _beside(facts: Facts, images: Group, stem: str) -> Target | None:
    """The masks of a group's images: files of another folder with their names.

    Args:
        facts: What the folder holds.
        images: The images.
        stem: Their names in templates, without the suffix.
    """
    for masks in facts.listing.groups:
        if masks.container != "files" or not is_aside(masks.folder) or "*" in masks.folder:
            continue
        if (found := _ending(facts.root, images, masks)) is None:
            continue
        ending, share = found
        if (values := _values(facts.root, masks)) is not None:
            return _target(masks, f"{masks.folder}/{stem}{ending}{masks.suffix}", share, *values)
    return None


def _ending(root: Path, images: Group, masks: Group) -> tuple[str, float] | None:
    """What masks' names have after the image's, and the share of the images that have one; None for other files."""
    names = spread(masks.names, TRIED_FILES)
    endings: Counter[str] = Counter()
    for name in names:
        stem = os.path.basename(name).removesuffix(masks.suffix)
        starts = (stem[:end] for end in range(len(stem), 0, -1))
        image = next((each for each in starts if (root / images.folder / f"{each}{images.suffix}").is_file()), None)
        if image is not None:
            endings[stem.removeprefix(image)] += 1
    if not endings:
        return None
    ending, count = endings.most_common(1)[0]
    tried = spread(images.names, TRIED_FILES)
    stems = [os.path.basename(name).removesuffix(images.suffix) for name in tried]
    has = [(root / masks.folder / f"{each}{ending}{masks.suffix}").is_file() for each in stems]
    share = sum(has) / max(1, len(has))
    return (ending, share) if count >= ENOUGH * len(names) and share > 0.5 else None


def _values(root: Path, masks: Group) -> tuple[Counter[int], int] | None:
    """In how many of the files that were looked at each value is, and how many these were; None for other images."""
    counts: Counter[int] = Counter()
    names = spread(masks.names, LOOKED_AT)
    for name in names:
        try:
            counts.update(np.unique(read_mask(str(root / name))).tolist())
        except ImageError:
            return None
    return (counts, len(names)) if 1 < len(counts) <= MOST_VALUES else None


def _target(masks: Group, template: str, share: float, counts: Counter[int], looked_at: int) -> Target:
    values = sorted(counts)
    kinds: dict[str, Any] = {"files": template}
    weighed = []
    classes = [value for value in values if value]
    if len(classes) > 1 and IGNORED in classes and classes[-2] <= LARGEST_NUMBER:
        classes.remove(IGNORED)
        kinds["ignore"] = IGNORED
        weighed.append(
            f"ignore is a guess: {IGNORED} is in {counts[IGNORED]} of {looked_at} files beside numbers of classes, as "
            f"is usual for pixels that are not labelled; if it is a class, name it in values, and remove ignore"
        )
    columns = ["mask"] if len(classes) == 1 else [f"class_{value}" for value in classes]
    if len(classes) > 1:
        kinds |= {"values": dict(zip(columns, classes, strict=True)), "classes": "exclusive"}
        weighed.append("one file has one class for each pixel; 0 is background. The names of the classes are made up")
    if share < ENOUGH:
        kinds["missing"] = "empty"
        weighed.append(f"{share:.0%} of a sample of images have a mask file; the others are taken to have an empty one")
    shown = ", ".join(map(str, values[:12])) + (" …" if len(values) > 12 else "")
    why = f"{masks.pattern}: {looked_at} of {masks.count:,} files were looked at, whose pixels are {shown}"
    return Target(columns, "masks", "masks are files beside the images", why, masks=kinds, weighed=tuple(weighed))


def exclusive(train: TableFacts, columns: Sequence[str]) -> tuple[dict[str, Any], str]:
    """Arguments of the kind of target for run lengths of several classes, and why; none where nothing tells."""
    several = 0
    for cells in zip(*(train.columns[name].cells for name in columns), strict=True):
        try:
            runs = [parse(cell) for cell in cells if cell and cell.casefold() not in MISSING_WORDS]
        except ValueError:
            return {}, "not all cells are run lengths"
        if len(runs) > 1:
            several += 1
            if classes_problem(runs, (0, 0), False):
                return {}, "a pixel may be in several classes: there are rows whose masks overlap"
    if several < FEWEST_BESIDE:
        return {}, f"only {several} rows have masks of several classes: `classes: exclusive` if a pixel is in one only"
    return {"classes": "exclusive"}, f"no pixel is in two classes, in {several:,} rows that have masks of several"


def tile_of(target: Target, shown: Shown) -> tuple[dict[str, Any], str]:
    """The tiles of large images with masks, and why; none for smaller ones."""
    shorter = min(shown.width, shown.height)
    if target.what != "masks" or shorter < TILED_FROM:
        return {}, ""
    count = math.ceil(shown.width * shown.height / TILE**2)
    why = (
        f"images have {shown.width} × {shown.height} pixels (median of {shown.tried}) and would lose details as a "
        f"whole: tiles of {TILE} at the scale of the file, {min(count, MOST_TILES)} of each image in an epoch; without "
        f"`tile` whole images are resized"
    )
    return {"per_image": min(count, MOST_TILES)}, why
