"""The folder of the data: a path, or a mount on Kaggle."""

from swinft.errors import InputError
from swinft.printing import print_line
from swinft.system.mounts import SCHEME, find_mount

_printed: set[str] = set()


def resolved_root(root: str) -> str:
    """The folder of the data.

    Args:
        root: A path, which is returned unchanged; or `kaggle://SLUG` of a competition, `kaggle://OWNER/SLUG` of a
            dataset, whose mount is looked for and printed.

    Raises:
        InputError: It is not mounted.
    """
    if not root.startswith(SCHEME):
        return root
    owner, _, slug = root.removeprefix(SCHEME).strip("/").rpartition("/")
    if not slug or "/" in owner:
        raise InputError(f"'{root}' is no mount: write kaggle://COMPETITION, or kaggle://OWNER/DATASET.")
    try:
        found = str(find_mount(slug, owner or None))
    except FileNotFoundError as error:
        raise InputError(f"{root}: {error} Elsewhere than on Kaggle give the folder itself.") from None
    if (line := f"{root}: {found}") not in _printed:  # several parts of a command ask
        _printed.add(line)
        print_line(line)
    return found
