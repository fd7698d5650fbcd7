"""Titles, slugs and the metadata files of datasets and notebooks, by the rules of Kaggle's client."""

import json
import re
import unicodedata
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from swinft.errors import InputError
from swinft.store import replace

DATASET, KERNEL = "dataset-metadata.json", "kernel-metadata.json"
SHORTEST, LONGEST = 6, 50  # characters of a dataset's title and of its slug
SUFFIXES = ("weights", "wheels")
T4 = "NvidiaTeslaT4"  # two of them, in one session
OWNER = re.compile(r"[a-z0-9][a-z0-9-]*")


def slug_of(title: str) -> str:
    """The slug that Kaggle makes of a title: lower-case letters, digits, and hyphens between words."""
    plain = unicodedata.normalize("NFKD", title).encode("ascii", "ignore").decode().lower()
    return re.sub(r"[^a-z0-9]+", "-", plain.replace("'", "")).strip("-")


def check_title(title: str) -> None:
    """Checks a title, from which those of two datasets and a notebook are made.

    Raises:
        InputError: They or their slugs would be too short or too long.
    """
    longest = LONGEST - 1 - max(map(len, SUFFIXES))
    slug = slug_of(title)
    if not (len(slug) >= SHORTEST - 1 and len(title) <= longest and len(slug) <= longest):
        raise InputError(
            f"--title {title!r}: its slug is '{slug}'. Both need {SHORTEST - 1} to {longest} characters, so that "
            f"'{title} {SUFFIXES[0]}' has at most {LONGEST}. Give another --title, of letters and digits."
        )


def check_owner(owner: str) -> None:
    """Checks a user's name.

    Raises:
        InputError: It is empty, or not that of a user.
    """
    if not OWNER.fullmatch(owner):
        given = f"--owner {owner!r}: a user's name has lower-case letters, digits and hyphens." if owner else ""
        raise InputError(f"{given or '--owner is missing.'} Give your name on Kaggle, as in your profile's address.")


def write_dataset(folder: Path, owner: str, title: str, subtitle: str, license_name: str) -> str:
    """Writes a dataset's metadata; returns `owner/slug`."""
    name = f"{owner}/{slug_of(title)}"
    _write(
        folder / DATASET,
        {"title": title, "id": name, "subtitle": subtitle, "licenses": [{"name": license_name}], "keywords": []},
    )
    return name


def write_kernel(
    folder: Path, owner: str, title: str, code_file: str, datasets: Sequence[str], competition: str | None
) -> str:
    """Writes a notebook's metadata: private, two T4, no internet; returns `owner/slug`."""
    name = f"{owner}/{slug_of(title)}"
    about: dict[str, Any] = {
        "id": name,
        "title": title,
        "code_file": code_file,
        "language": "python",
        "kernel_type": "notebook",
        "is_private": True,
        "enable_gpu": True,
        "enable_tpu": False,
        "enable_internet": False,
        "machine_shape": T4,
        "dataset_sources": list(datasets),
        "competition_sources": [competition] if competition else [],
        "kernel_sources": [],
        "model_sources": [],
        "keywords": [],
    }
    _write(folder / KERNEL, about)
    return name


def _write(path: Path, about: dict[str, Any]) -> None:
    replace(path, (json.dumps(about, indent=1) + "\n").encode())
