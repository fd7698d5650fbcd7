"""Thumbnails of rows as data URIs; each image is decoded once for the whole report."""

from typing import Literal

from PIL import Image

from swinft.data.datamodule import CSVDataModule
from swinft.data.images.decode import decode
from swinft.data.images.depth import displayed
from swinft.data.row_images import spread
from swinft.data.sources.source import ImageError, Source
from swinft.pages.page import image_uri
from swinft.printing import visible

MAX_IMAGES = 4  # of a row
SIDE = 160  # pixels of the longer side: 5 to 8 kB each
QUALITY = 85
LOOKED_FOR = 1_000  # images: on a network disk each look takes a millisecond


class Thumbnails:
    """Thumbnails of the rows of a datamodule.

    Args:
        data: The datamodule after `setup`.
    """

    def __init__(self, data: CSVDataModule) -> None:
        self.data = data
        self._found: dict[tuple[str, int], str] = {}

    def of(self, row: int, stage: Literal["fit", "predict"] = "fit") -> str:
        """The first images of a row beside each other, as a data URI; empty if one is missing, which the page says.

        Args:
            row: Its position in the training table (`fit`), or among the rows to predict (`predict`).
            stage: Which of the two.
        """
        key = stage, int(row)
        if key not in self._found:
            self._found[key] = self._make(*key)
        return self._found[key]

    def _make(self, stage: Literal["fit", "predict"], row: int) -> str:
        images = self.data.images_of(stage, [row])
        try:
            paths = images.paths[:MAX_IMAGES]
            found = [Image.fromarray(displayed(decode(path, images.rules, images.source))) for path in paths]
        except ImageError:
            return ""
        if not found:
            return ""
        for each in found:
            each.thumbnail((SIDE, SIDE))
        image = Image.new("RGB", (sum(each.width for each in found), max(each.height for each in found)))
        for number, each in enumerate(found):
            image.paste(each, (sum(before.width for before in found[:number]), 0))
        return jpeg(image)


def lacking(data: CSVDataModule) -> str:
    """What is missing of the images of training rows, as a sentence; empty where up to 1,000 of them are all there.

    Args:
        data: The datamodule after `setup("fit")`.
    """
    rows = data.splits.train
    some = [rows.paths[place] for place in spread(len(rows.paths), LOOKED_FOR)]
    gone = [path for path in some if not _is_there(path, rows.source)]
    if not gone:
        return ""
    which = "The training images are" if len(gone) == len(some) else f"{len(gone):,} of {len(some):,} images are"
    return f"{which} not there, such as {visible(gone[0])}."


def _is_there(path: str, source: Source) -> bool:
    try:
        source.stat(path)
    except (OSError, LookupError, ValueError):
        return False
    return True


def jpeg(image: Image.Image) -> str:
    """An image as a data URI."""
    return image_uri(image, "jpeg", quality=QUALITY)
