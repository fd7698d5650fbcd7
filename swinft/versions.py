"""Versions of packages. That of swinft is its code's, which also runs from a folder where nothing was installed."""

from importlib import metadata

VERSION = "0.1.0"  # `pyproject.toml` reads it


def version(package: str) -> str:
    """The version of a package: that of swinft, or of an installed one.

    Raises:
        PackageNotFoundError: It is not installed.
    """
    return VERSION if package == "swinft" else metadata.version(package)
