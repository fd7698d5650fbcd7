"""Names on Kaggle: the slug of a competition, also from its address, and `owner/notebook`."""

import re
from urllib.parse import urlsplit

from swinft.errors import InputError

SITE = "https://www.kaggle.com"
SLUG = re.compile(r"[A-Za-z0-9][A-Za-z0-9-]*")


def competition_slug(text: str) -> str:
    """The slug of a competition: `petfinder-pawpularity-score`, also from the address of one of its pages.

    Raises:
        InputError: It is neither.
    """
    word = text.strip()
    has_host = "kaggle.com" in word.casefold()
    path = urlsplit(word if "://" in word else f"https://{word}").path if has_host else word
    parts = [part for part in path.split("/") if part]
    if parts[:1] in (["c"], ["competitions"]) and len(parts) > 1:
        parts = parts[1:] if has_host else parts[1:2]
    elif has_host or len(parts) > 1:
        raise InputError(
            f"'{text}' is not the address of a competition. Give its slug, or {SITE}/competitions/SLUG with any page."
        )
    if not parts or not SLUG.fullmatch(parts[0]):
        raise InputError(
            f"'{text}' is not the slug of a competition: letters, digits and hyphens, as in its address "
            f"{SITE}/competitions/SLUG."
        )
    return parts[0]


def kernel_name(text: str) -> tuple[str, str]:
    """Owner and slug of a notebook: `owner/notebook`, also from its address.

    Raises:
        InputError: It is neither.
    """
    word = text.strip()
    if "kaggle.com" in word.casefold():
        word = "/".join(urlsplit(word if "://" in word else f"https://{word}").path.split("/")[2:4])
    owner, _, slug = word.partition("/")
    if not SLUG.fullmatch(owner) or not SLUG.fullmatch(slug):
        raise InputError(f"--kernel is '{text}'. Give owner and notebook: --kernel OWNER/NOTEBOOK.")
    return owner, slug


def page(slug: str, name: str = "") -> str:
    """The address of a competition, or of one of its pages: `rules`, `data`, `submissions`."""
    return f"{SITE}/competitions/{slug}{f'/{name}' if name else ''}"
