"""Hooks of mkdocs: pages from outside docs/, the reference, and links between them.

The files of the repository link to each other as on a code host. On the site, a link to a file that is a page leads to
the page, and every other one to the file's place on the code host. A link to nothing fails the build.
"""

import contextlib
import inspect
import io
import logging
import posixpath
import re
from pathlib import Path
from typing import Any

import nbformat
from mkdocs.config.defaults import MkDocsConfig
from mkdocs.structure.files import File, Files
from mkdocs.structure.pages import Page
from nbconvert import MarkdownExporter

import swinft
from swinft.cli import COMMANDS, main

ROOT = Path(__file__).parent.parent
LOG = logging.getLogger("mkdocs.hooks")  # a warning of this logger fails a strict build
# Pages of the site from files elsewhere in the repository.
ELSEWHERE = {
    "README.md": "index.md",
    "benchmarks/README.md": "benchmarks.md",
    "CHANGELOG.md": "changelog.md",
    "CONTRIBUTING.md": "contributing.md",
}
ELSEWHERE |= {
    f"competitions/{path.parent.name}/README.md": f"competitions/{path.parent.name}.md"
    for path in sorted(ROOT.glob("competitions/*/README.md"))
}
ELSEWHERE |= {f"notebooks/{path.name}": f"notebooks/{path.stem}.md" for path in sorted(ROOT.glob("notebooks/*.ipynb"))}
# The pages of the Python reference: a title, and the packages whose public names it has.
REFERENCE = {
    "runs": ("Runs and commands", ("swinft.run", "swinft.kaggle", "swinft.propose", "swinft.tuning", "swinft.errors")),
    "data": ("Data", ("swinft.data",)),
    "model": ("Networks, heads, losses, training", ("swinft.model",)),
    "predictions": ("Predictions, views, rules", ("swinft.inference",)),
    "networks": ("Looking into networks", ("swinft.architecture", "swinft.attribution", "swinft.laboratory")),
}
# Code is not searched for links: fences, then code in a line.
CODE = re.compile(r"(^[ ]*```.*?^[ ]*```[ ]*$|`[^`\n]+`)", re.DOTALL | re.MULTILINE)
LINK = re.compile(r"(\]\()([^)\s]+)(\))")
FENCE = re.compile(r"[ ]*```")
# The first line of a list or of a table, and what such a line may follow directly.
STARTS = re.compile(r"([-*+]|\d+\.) |\|")
CONTINUES = re.compile(r"[ ]*([-*+]|\d+\.) |\||[ ]{2,}")


def on_config(config: MkDocsConfig) -> MkDocsConfig:
    """Fills the lists of the navigation that follow the files."""
    found = {
        "NOTEBOOKS": [page for page in ELSEWHERE.values() if page.startswith("notebooks/")],
        "COMPETITIONS": [page for page in ELSEWHERE.values() if page.startswith("competitions/")],
        "REFERENCE": [{title: f"reference/{name}.md"} for name, (title, _) in REFERENCE.items()],
    }
    config.nav = _filled(config.nav, found)
    return config


def _filled(nav: Any, found: dict[str, Any]) -> Any:
    if isinstance(nav, str):
        return found.get(nav, nav)
    if isinstance(nav, dict):
        return {title: _filled(below, found) for title, below in nav.items()}
    return [_filled(entry, found) for entry in nav]


def on_files(files: Files, config: MkDocsConfig) -> Files:
    """Adds the pages that are not files of docs/."""
    for source, page in ELSEWHERE.items():
        path = ROOT / source
        if path.suffix == ".ipynb":
            _add_notebook(files, config, path, page)
        else:
            files.append(File.generated(config, page, content=path.read_text(encoding="utf-8")))
    for name, text in _generated().items():
        files.append(File.generated(config, f"reference/{name}.md", content=text))
    for image in sorted((ROOT / "benchmarks" / "results").glob("*.png")):
        files.append(File.generated(config, f"results/{image.name}", content=image.read_bytes()))
    return files


def _add_notebook(files: Files, config: MkDocsConfig, path: Path, page: str) -> None:
    """A notebook with its outputs as a page, and its figures beside it."""
    notebook = nbformat.read(path, as_version=4)
    exporter = MarkdownExporter()
    text, resources = exporter.from_notebook_node(notebook, {"output_files_dir": path.stem})
    files.append(File.generated(config, page, content=text))
    for name, figure in resources["outputs"].items():
        files.append(File.generated(config, f"notebooks/{name}", content=figure))


def _generated() -> dict[str, str]:
    """The pages of the reference by name."""
    pages = {"commands": _commands()}
    packages = tuple(package for _, several in REFERENCE.values() for package in several)
    for public in swinft.__all__:
        if not inspect.getmodule(getattr(swinft, public)).__name__.startswith(packages):
            LOG.warning(f"swinft.{public} is on no page of the reference: add its package to REFERENCE")
    for name, (title, packages) in REFERENCE.items():
        lines = [f"# {title}", ""]
        for public in swinft.__all__:
            found = getattr(swinft, public)
            where = inspect.getmodule(found).__name__
            if where.startswith(packages):
                options = f"    options:\n      heading: swinft.{public}\n      toc_label: {public}\n"
                lines.append(f"::: {where}.{found.__name__}\n{options}")
        pages[name] = "\n".join(lines)
    return pages


def _commands() -> str:
    """What `--help` prints of every command."""
    parts = ["# Commands\n"]
    for name, command in COMMANDS.items():
        printed = io.StringIO()
        with contextlib.redirect_stdout(printed), contextlib.suppress(SystemExit):
            main([name, "--help"])
        parts.append(f"## swinft {name}\n\n{command.help}\n\n```text\n{printed.getvalue().rstrip()}\n```\n")
    return "\n".join(parts)


def on_page_markdown(markdown: str, page: Page, config: MkDocsConfig, files: Files) -> str:
    """Directs the links of a page to pages, or to the code host."""
    uri = page.file.src_uri
    source = next((source for source, of in ELSEWHERE.items() if of == uri), f"docs/{uri}")
    parts = CODE.split(apart(markdown))
    for k in range(0, len(parts), 2):
        parts[k] = LINK.sub(lambda link: _directed(link, source, uri, str(config.repo_url)), parts[k])
    return "".join(parts)


def apart(markdown: str) -> str:
    """The text with an empty line before each list and table.

    On a code host they may follow a paragraph or a block of code directly; here they would become a part of it.

    Args:
        markdown: Text of a page.
    """
    lines: list[str] = []
    in_code = False
    for line in markdown.split("\n"):
        before = lines[-1] if lines else ""
        if not in_code and STARTS.match(line) and before.strip() and not CONTINUES.match(before):
            lines.append("")
        if FENCE.match(line):
            in_code = not in_code
        lines.append(line)
    return "\n".join(lines)


def _directed(link: re.Match[str], source: str, uri: str, repository: str) -> str:
    """One link."""
    target, _, anchor = link[2].partition("#")
    if not target or ":" in target or (source.endswith(".ipynb") and target.startswith(Path(source).stem)):
        return link[0]
    path = posixpath.normpath(posixpath.join(posixpath.dirname(source), target))
    page = ELSEWHERE.get(path, path.removeprefix("docs/") if path.startswith("docs/") else None)
    if path.startswith("benchmarks/results/") and path.endswith(".png"):
        page = path.removeprefix("benchmarks/")
    if not (ROOT / path).exists():
        LOG.warning(f"{source} links to {target}, which does not exist")
    if page is None:
        place = f"{repository}/{'tree' if (ROOT / path).is_dir() else 'blob'}/main/{path}"
    else:
        place = posixpath.relpath(page, posixpath.dirname(uri) or ".")
    return f"{link[1]}{place}{'#' + anchor if anchor else ''}{link[3]}"
