"""The interface of every source: lists images, reads their bytes, and detects changes."""

from abc import ABC, abstractmethod
from collections.abc import Collection
from pathlib import Path

from swinft.class_spec import errors_of
from swinft.data.image_paths import Flaw, fields, image_paths
from swinft.data.tables.table import Problem, Table
from swinft.errors import InputError


class ImageError(InputError):
    """An image cannot be read or decoded; the message names it and the reason."""


ABSENT = "there is no such part: "


class AbsentError(ImageError):
    """An image has no such part, or it is empty: nothing is wrong with it, and its row does without.

    Args:
        reference: The part.
    """

    def __init__(self, reference: str) -> None:
        super().__init__(f"{ABSENT}{reference}")


def is_absent(error: ImageError | str) -> bool:
    """Whether an error, or what was kept of it, says that there is no such part."""
    return str(error).startswith(ABSENT)


class Source(ABC):
    """Reads the bytes of images; only sources open image files.

    A reference names an image: `data.image` with the cells of its row filled in, under the data's folder. The parts of
    a reference act as folders, whether they are files, members of an archive or rows of an array.

    One source reads all images of a table, in every process. Workers get a copy by `pickle`, or inherit it when forked;
    threads share it. Open files must not be shared between processes: it is best to open them in `read`.
    """

    @abstractmethod
    def read(self, reference: str) -> bytes:
        """All bytes of an image, in any format that swinft decodes.

        The same reference returns the same bytes as long as `stat` returns the same numbers.

        Raises:
            OSError, LookupError, ValueError: The image is missing or damaged; its row is reported, or skipped if
                `on_bad_image` is `skip`.
            InputError: The source cannot be read any more; this ends the run.
        """

    @abstractmethod
    def stat(self, reference: str) -> tuple[int, ...]:
        """One to five whole numbers from 0 that change whenever the bytes change; it must not read the bytes.

        Raises:
            OSError, LookupError, ValueError: The image is missing.
        """

    @abstractmethod
    def names(self, folder: str) -> Collection[str] | None:
        """Names of the images in a folder, to find all missing images at once and to suggest similar names.

        Args:
            folder: A reference without its last part.

        Returns:
            None if there is no such folder.

        Raises:
            InputError: The file that contains the images is damaged.
        """

    def missing(self, folder: str) -> str:
        """How to fix a missing folder, as a sentence."""
        return f"There is no '{folder}'."

    def flaw(self, reference: str, inside: str) -> Flaw | None:
        """Why an image in `names` must not be read; None if it may.

        Args:
            reference: The image.
            inside: The folder that the template names before its first column; rows must not leave it.
        """
        return None

    def template_problem(self, template: str) -> str | None:
        """A problem with `data.image`, found before any table is read, as the end of a sentence."""
        return None if fields(template) else "names no column; write one in braces: 'images/{id}.jpg'."

    def references(
        self, table: Table, template: str, root: Path, problems: list[Problem], notes: list[str] | None = None
    ) -> list[str]:
        """The reference of every row's image; arguments and result as for `image_paths`."""
        return image_paths(self, table, template, root, problems, notes)

    @property
    def identity(self) -> str:
        """Text that identifies the source in cache keys: its class, and its attributes without a leading `_`.

        A class whose `read` changes its results needs a changed attribute, or old caches are used.
        """
        cls = type(self)
        settings = {name: value for name, value in vars(self).items() if not name.startswith("_")}
        return f"{cls.__module__}.{cls.__qualname__} {sorted(settings.items())}"


def read_image(path: str | Path, source: Source) -> bytes:
    """All bytes of an image.

    Args:
        path: The reference.
        source: Its source.

    Raises:
        ImageError: The image is missing or cannot be read.
        InputError: The source cannot be read any more, or does not return bytes.
    """
    with errors_of(f"data.loading.source: {type(source).__name__}.read fails for {path}"):
        try:
            content: object = source.read(str(path))
        except InputError:
            raise
        except (OSError, LookupError, ValueError) as error:
            reason = getattr(error, "strerror", None) or str(error) or type(error).__name__
            raise ImageError(f"{path} cannot be read: {reason}. Restore the file or remove its row.") from error
    if not isinstance(content, bytes):
        what = f"{type(source).__name__}.read returned a {type(content).__name__} for {path}"
        raise InputError(f"data.loading.source: {what}; it must return bytes.")
    return content
