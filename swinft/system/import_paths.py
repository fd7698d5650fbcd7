"""What a child process imports: the same `swinft` as its parent, and the modules of its parent's paths."""

import os
import sys
from pathlib import Path

# Environment variable of a child: the `sys.path` of its parent, a notebook or a user's program.
IMPORT_PATHS = "SWINFT_IMPORT_PATHS"


def child_environment() -> dict[str, str]:
    """The environment of a child process that must import the same `swinft` as this one.

    By default, `python -m swinft` would prefer a folder `swinft` in the working folder, such as a clone.
    """
    package = str(Path(__file__).parents[2])
    environment = {**os.environ, "PYTHONSAFEPATH": "1"}
    if Path(package).name not in ("site-packages", "dist-packages"):  # those are on the path anyway
        before = os.environ.get("PYTHONPATH")
        environment["PYTHONPATH"] = os.pathsep.join([package, before] if before else [package])
    return environment


def add_parent_import_paths() -> None:
    """Appends the parent's `sys.path` and the working folder to this process's.

    They come last, so that nothing there hides an installed package.
    """
    for path in [*os.environ.get(IMPORT_PATHS, "").split(os.pathsep), os.getcwd()]:
        if path and path not in sys.path:
            sys.path.append(path)
