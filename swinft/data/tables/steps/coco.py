"""The step `coco`: reads a JSON file of the COCO format."""

from collections.abc import Mapping, Sequence
from typing import Any

from swinft.data.tables.steps.cells import cell_text
from swinft.data.tables.steps.frame import Context, Frame
from swinft.data.tables.steps.located import read_json
from swinft.data.tables.steps.step import BuiltinStep, name, word

BOX = ("x", "y", "width", "height")
LISTS = ("images", "annotations", "categories")
Record = Mapping[str, Any]


class COCOStep(BuiltinStep):
    """Reads a JSON file of the COCO format: a row for each annotation, or each image.

    Args:
        path: The file, relative to `data.root`.
        rows: `annotations`: `annotation_id`, `image_id`, `file_name`, `category`, the box as `x`, `y`, `width`,
            `height`, then `image_width`, `image_height` and other single values of both; or `images`: `image_id`,
            `file_name`, `image_width`, `image_height` and other single values.
    """

    word, position = "coco", "first"

    def __init__(self, path: Any, rows: Any = "annotations") -> None:
        self.path, self.rows = name("path", path), word("rows", rows, ("annotations", "images"))

    def run(self, frame: Frame, context: Context) -> Frame:
        """The rows in the order of the file; each is named by its number in its list, from 1."""
        given, file = read_json(self.path, context), context.path(self.path)
        if given is None:
            return frame
        known = given if isinstance(given, Mapping) else {}
        lists = {key: known.get(key) or [] for key in LISTS}
        missing = [key for key, each in lists.items() if not _are_records(each) or (key == self.rows and not each)]
        if missing:
            fix = "It needs the lists `images`, `annotations` and `categories` of the COCO format."
            context.fail(f"it has no list `{missing[0]}` of mappings", fix, file)
            return frame
        images = _by_id(lists["images"], "images", file, context)
        if self.rows == "images":
            records = [_image(each) for each in lists["images"]]
        else:
            categories = _by_id(lists["categories"], "categories", file, context)
            _check(lists["annotations"], images, categories, file, context)
            records = [_annotation(each, images, categories) for each in lists["annotations"]]
        names = dict.fromkeys(key for each in records for key in each)
        columns = {key: [each.get(key, "") for each in records] for key in names}
        return Frame(columns, context.places(file, range(1, len(records) + 1)))


def _are_records(given: Any) -> bool:
    return isinstance(given, list) and all(isinstance(each, Mapping) for each in given)


def _cell(record: Record, key: str) -> str:
    """A value as text; empty if it is missing or no single value."""
    return cell_text(record.get(key)) or ""


def _by_id(records: Sequence[Record], what: str, file: str, context: Context) -> dict[str, Record]:
    """Records by their id; one that is missing or there twice is a problem."""
    found: dict[str, Record] = {}
    for number, each in enumerate(records, start=1):
        id = _cell(each, "id")
        if not id or found.setdefault(id, each) is not each:
            context.fail(f"the id in `{what}` is missing or doubled", "Correct the file.", file, number, value=id)
    return found


def _check(
    annotations: Sequence[Record],
    images: Mapping[str, Record],
    categories: Mapping[str, Record],
    file: str,
    context: Context,
) -> None:
    """Appends annotations of an image or a category that the file lacks, or whose box is no box."""
    for number, each in enumerate(annotations, start=1):
        image, category, box = _cell(each, "image_id"), _cell(each, "category_id"), each.get("bbox")
        if image not in images:
            context.fail("the annotation's image is not in `images`", "Add it.", file, number, value=image)
        if category and category not in categories:
            context.fail("the annotation's category is not in `categories`", "Add it.", file, number, value=category)
        if box and (not isinstance(box, list) or len(box) != len(BOX)):
            context.fail("`bbox` is not x, y, width and height", "Correct it.", file, number, value=str(box))


def _image(given: Record) -> dict[str, str]:
    """The cells of an image."""
    sizes = {f"image_{key}": _cell(given, key) for key in ("width", "height") if key in given}
    found = {"image_id": _cell(given, "id"), "file_name": _cell(given, "file_name"), **sizes}
    return found | _others(given, {*found, "id", "width", "height"})


def _annotation(given: Record, images: Mapping[str, Record], categories: Mapping[str, Record]) -> dict[str, str]:
    """The cells of an annotation, and of its image."""
    image = images.get(_cell(given, "image_id"), {})
    box = given.get("bbox") or [None] * len(BOX)
    found = {
        "annotation_id": _cell(given, "id"),
        "image_id": _cell(given, "image_id"),
        "file_name": _cell(image, "file_name"),
        "category": _cell(categories.get(_cell(given, "category_id"), {}), "name"),
        **{key: cell_text(value) or "" for key, value in zip(BOX, box, strict=False)},
    }
    found |= _others(given, {*found, "id", "bbox"})
    return found | {key: cell for key, cell in _image(image).items() if key not in found}


def _others(given: Record, known: set[str]) -> dict[str, str]:
    """The other single values of a record; lists and mappings, such as masks, are left out."""
    single = {key: cell_text(value) for key, value in given.items() if key not in known}
    return {key: cell for key, cell in single.items() if cell is not None}
