"""Imports of optional packages, which are extras of swinft."""

import importlib
from importlib.util import find_spec
from typing import Any

from swinft.errors import InputError


def import_extra(module: str, extra: str, what: str) -> Any:
    """Imports a module of an optional package when it is needed.

    Args:
        module: Its dotted name.
        extra: The extra of swinft that installs it.
        what: The package and its use, for the message: `h5py, which reads HDF5 files,`.

    Raises:
        InputError: It is not installed.
    """
    try:
        return importlib.import_module(module)
    except ImportError as error:
        raise InputError(f"{what} is not installed: pip install 'swinft[{extra}]'") from error


def check_extra(module: str, extra: str, what: str) -> None:
    """Checks that an optional package is installed, without importing it. Arguments and errors as of `import_extra`.

    Raises:
        InputError: It is not installed.
    """
    spec = find_spec(module)
    if spec is None or spec.origin is None:  # a folder of that name is no package
        raise InputError(f"{what} is not installed: pip install 'swinft[{extra}]'")


def import_parquet() -> Any:
    """Pyarrow's module for parquet; errors as of `import_extra`."""
    return import_extra("pyarrow.parquet", "parquet", "pyarrow, which reads parquet files,")
