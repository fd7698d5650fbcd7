"""Where Kaggle mounts data: `kaggle://SLUG` as a folder, and which mount that is."""

import os
from pathlib import Path

SCHEME = "kaggle://"


def find_mount(slug: str, owner: str | None = None, inputs: str | None = None) -> Path:
    """The folder of a competition or a dataset in a notebook on Kaggle, where mounts have changed over time.

    Args:
        slug: Slug of the competition or dataset.
        owner: Owner of the dataset; None for a competition, or for a dataset of any owner.
        inputs: Folder of all mounts; None for that of the variable SWINFT_KAGGLE_INPUT, or /kaggle/input.

    Returns:
        The first that is there of `SLUG`, `competitions/SLUG`, `datasets/OWNER/SLUG`.

    Raises:
        FileNotFoundError: There is none; the message lists what is mounted.
    """
    root = Path(inputs or os.environ.get("SWINFT_KAGGLE_INPUT") or "/kaggle/input")
    of_owners = sorted(root.glob(f"datasets/{owner or '*'}/{slug}"))
    of_all = [root / slug, *([] if owner else [root / "competitions" / slug]), *of_owners]
    found = [path for path in of_all if path.is_dir()]
    if len({path.resolve() for path in of_owners}) > 1 and found == of_owners:
        raise FileNotFoundError(f"{slug} is mounted from several owners: {', '.join(map(str, found))}: name the owner.")
    if found:
        return found[0]
    groups = {root / "competitions", root / "datasets"}
    mounted = [path for path in sorted(root.glob("*")) if path not in groups]
    mounted += [*sorted(root.glob("competitions/*")), *sorted(root.glob("datasets/*/*"))]
    listed = ", ".join(map(str, mounted)) or "nothing"
    what = f"{owner}/{slug}" if owner else slug
    raise FileNotFoundError(
        f"{what} is not mounted below {root}; there is {listed}. Add it to the notebook as an input (of a competition: "
        f"join it first), or correct the slug."
    )
