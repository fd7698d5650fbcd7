"""HTML pages that ask for nothing: templates whose values are escaped, images inside, hashes of styles and scripts."""

import base64
import hashlib
import io
from collections.abc import Callable
from functools import cache
from typing import Any

from jinja2 import Environment, PackageLoader, StrictUndefined
from PIL import Image

from swinft.printing import format_brief, format_score

FILTERS: dict[str, Callable[..., str]] = {"score": format_score, "brief": format_brief}


@cache
def templates(package: str, trims: bool = False) -> Environment:
    """The templates of a package: every value is escaped, and a name without a value is an error.

    Args:
        package: Its name, such as `swinft.tuning`.
        trims: Whether a line with nothing but a block leaves none on the page.
    """
    loader = PackageLoader(package, ".")
    found = Environment(
        loader=loader, autoescape=True, undefined=StrictUndefined, trim_blocks=trims, lstrip_blocks=trims
    )
    found.filters.update(FILTERS)
    return found


def policy_source(text: str) -> str:
    """What a Content-Security-Policy allows: an inline style or script with this hash."""
    return f"'sha256-{base64.b64encode(hashlib.sha256(text.encode()).digest()).decode()}'"


def data_uri(content: bytes, kind: str) -> str:
    """An image as text of a page.

    Args:
        content: The file.
        kind: `png`, `jpeg` or `gif`.
    """
    return f"data:image/{kind};base64,{base64.b64encode(content).decode()}"


def image_uri(image: Image.Image, kind: str, **options: Any) -> str:
    """The same of an image in memory.

    Args:
        image: The image.
        kind: `png` or `jpeg`.
        options: Those of Pillow's `save`.
    """
    buffer = io.BytesIO()
    image.save(buffer, kind, **options)
    return data_uri(buffer.getvalue(), kind)
