"""What every source answers: which images there are, what the bytes of one are, and whether it has changed."""

from abc import ABC, abstractmethod
from collections.abc import Collection
from pathlib import Path

from swinft.data.image_paths import Flaw, fields, image_paths
from swinft.data.tables.table import Problem, Table
from swinft.errors import InputError


class ImageError(InputError):
    """An image cannot be read or decoded; the message names it and says why."""


class Source(ABC):
    """Where the bytes of images come from; nothing else opens an image file.

    A reference names an image: `data.image` with the cells of its row filled in, under the data's folder. The parts of
    a reference are folders, whatever they are inside the source: files, members of an archive, rows of an array.

    One source serves all rows of a run's table, in every process. Loader processes get a copy by `pickle`, or inherit
    it when they are forked, and threads share it: what is open must not be shared with another process, and is best
    opened in `read` itself.
    """

    @abstractmethod
    def read(self, reference: str) -> bytes:
        """All bytes of an image, in any format that swinft decodes.

        The same reference gives the same bytes until `stat` gives other numbers.

        Raises:
            OSError, LookupError, ValueError: The image is not there or is damaged; rows of such images are named, and
                left out where `on_bad_image` is `skip`.
            InputError: Nothing can be read any more; this ends the run.
        """

    @abstractmethod
    def stat(self, reference: str) -> tuple[int, ...]:
        """At most five whole numbers from 0, of which one changes whenever the bytes change; it must not read them.

        Raises:
            OSError, LookupError, ValueError: The image is not there.
        """

    @abstractmethod
    def names(self, folder: str) -> Collection[str] | None:
        """Names of the images in a folder: all that are missing are found at once, each with the nearest name.

        Args:
            folder: A reference without its last part.

        Returns:
            None where there is no such folder.

        Raises:
            InputError: What holds the images is damaged; the message says what.
        """

    def missing(self, folder: str) -> str:
        """What to do about a folder that is not there, as a sentence."""
        return f"There is no '{folder}'."

    def flaw(self, reference: str, inside: str) -> Flaw | None:
        """Why an image that `names` has must not be read; None where nothing is known against it.

        Args:
            reference: The image.
            inside: The folder that the template opens before its first column; a row may not lead out of it.
        """
        return None

    def template_problem(self, template: str) -> str | None:
        """What is wrong with `data.image` before any table is read, as the end of a sentence."""
        return None if fields(template) else "names no column; write one in braces: 'images/{id}.jpg'."

    def references(
        self, table: Table, template: str, root: Path, problems: list[Problem], notes: list[str] | None = None
    ) -> list[str]:
        """The reference of every row's image; arguments and result as for `image_paths`."""
        return image_paths(self, table, template, root, problems, notes)

    @property
    def identity(self) -> str:
        """What besides `stat` decides what `read` gives: the class, and the attributes that do not start with `_`.

        Decoded images are kept under it: a class whose `read` has changed needs another attribute as well.
        """
        cls = type(self)
        settings = {name: value for name, value in vars(self).items() if not name.startswith("_")}
        return f"{cls.__module__}.{cls.__qualname__} {sorted(settings.items())}"


def read_image(path: str | Path, source: Source) -> bytes:
    """All bytes of an image.

    Args:
        path: The reference.
        source: Where it is.

    Raises:
        ImageError: The image is missing or cannot be read.
        InputError: The source can give no image any more, or gives something else than bytes.
    """
    try:
        content: object = source.read(str(path))
    except InputError:
        raise
    except (OSError, LookupError, ValueError) as error:
        reason = getattr(error, "strerror", None) or str(error) or type(error).__name__
        raise ImageError(f"{path} cannot be read: {reason}. Restore the file or remove its row.") from error
    if not isinstance(content, bytes):
        what = f"{type(source).__name__}.read gives a {type(content).__name__} for {path}"
        raise InputError(f"data.loading.source: {what}; it must give bytes.")
    return content
