"""HTML pages: templates whose values are escaped, images inside, hashes of the style and the script."""

import base64
import hashlib
import io
from collections.abc import Callable, Sequence
from functools import cache
from importlib.resources import files
from typing import Any

from jinja2 import ChoiceLoader, Environment, PackageLoader, PrefixLoader, StrictUndefined
from markupsafe import Markup, escape
from PIL import Image

from swinft.pages.bidi import isolated, marked
from swinft.printing import format_score

OWN = "swinft.pages"
POLICY = "default-src 'none'; img-src data:; style-src {}; script-src {}; base-uri 'none'; form-action 'none'"


def coded(text: str) -> Markup:
    """Text whose parts between backticks are code; one with an odd backtick stays as it is."""
    parts = text.split("`")
    if len(parts) % 2 == 0:
        return isolated(text)
    return Markup("").join(
        Markup("<code>{}</code>").format(isolated(each)) if k % 2 else isolated(each) for k, each in enumerate(parts)
    )


def attribute(text: str) -> Markup:
    """A text in an attribute, or in an element that holds no others."""
    return escape(marked(text))


def _finished(value: Any) -> Any:
    """What a template shows of a value."""
    return isolated(value) if type(value) is str else value


FILTERS: dict[str, Callable[..., str]] = {"score": format_score, "coded": coded, "attribute": attribute}


@cache
def templates(package: str) -> Environment:
    """The templates of a package, and those of this one as `pages/NAME`: every value is escaped, see `bidi` as well.

    A name without a value is an error. A line with nothing but a block leaves none on the page.

    Args:
        package: Its name, such as `swinft.tuning`.
    """
    loader = ChoiceLoader([PackageLoader(package, "."), PrefixLoader({"pages": PackageLoader(OWN, ".")})])
    found = Environment(
        loader=loader,
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
        finalize=_finished,
    )
    found.filters.update(FILTERS)
    return found


def render(
    package: str,
    title: str,
    *,
    styles: Sequence[str] = (),
    scripts: Sequence[str] = (),
    classes: str = "",
    **values: Any,
) -> str:
    """A page from the template `page.html` of a package, which extends `pages/base.html`.

    Args:
        package: Its name.
        title: Heading of the page.
        styles: Files of the package that follow the style of all pages.
        scripts: Files of the package that follow the script of all pages, and may use its `page`.
        classes: More rules of the style, such as those of `Drawing`.
        values: What the other names of the template stand for.
    """
    style = "\n".join([_text(OWN, "base.css"), *(_text(package, name) for name in styles), classes]).strip()
    script = "\n".join([_text(OWN, "base.js"), *(_text(package, name) for name in scripts)])
    made = (
        templates(package)
        .get_template("page.html")
        .render(
            title=title,
            policy=Markup(POLICY.format(_source(style), _source(script))),
            style=Markup(style),
            script=Markup(script),
            **values,
        )
    )
    return str(made)


def _text(package: str, name: str) -> str:
    return files(package).joinpath(name).read_text(encoding="utf-8").strip()


def _source(text: str) -> str:
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
