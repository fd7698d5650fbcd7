"""What every node must have before anything is trained: the same code, the same folders and the same files."""

import os
import secrets
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from swinft.errors import InputError
from swinft.system.cluster.environment import SHARED, shared
from swinft.system.cluster.remote import connected
from swinft.system.cluster.runner import LOOK_SECONDS, look
from swinft.system.import_paths import child_environment

MOST_SHOWN = 8  # problems


def check_nodes(on: str, writes_to: Path, reads: Sequence[Path] = ()) -> None:
    """Compares what a child finds on every node of a cluster with what it finds here.

    Args:
        on: The cluster.
        writes_to: An existing folder that children write to: a file that is written here must be there.
        reads: Files and folders that children read.

    Raises:
        InputError: A node has another version of Python or of a package, or lacks a folder or a file; all are listed.
    """
    cluster = connected(on)
    probe = writes_to.absolute() / f".probe.{os.getpid()}.{secrets.token_hex(4)}"
    given: dict[str, Any] = {"environment": shared(child_environment()), "prefixes": list(SHARED)}
    given |= {"folder": os.getcwd(), "paths": [str(path.absolute()) for path in (probe, *reads)]}
    try:
        probe.write_text(secrets.token_hex(16))
        here = look(**given)
        found = cluster.ask({"do": "look", **given}, LOOK_SECONDS)
    finally:
        probe.unlink(missing_ok=True)
    problems = [f"{each['node']}: {problem}" for each in found for problem in _problems(each, here, probe)]
    if not found:
        problems = ["it has no node with CPUs or GPUs"]
    if problems:
        more = f"\n  and {len(problems) - MOST_SHOWN} more" if len(problems) > MOST_SHOWN else ""
        raise InputError(
            "\n  ".join([f"--on {on}: the nodes cannot run what runs here:", *problems[:MOST_SHOWN]]) + more
        )


def _problems(there: Mapping[str, Any], here: Mapping[str, Any], probe: Path) -> list[str]:
    """What differs on a node, as sentences."""
    if "problem" in there:
        return [there["problem"]]
    problems = [
        f"{name} is {there['versions'].get(name, 'not installed')}, here {version}: install the same"
        for name, version in here["versions"].items()
        if there["versions"].get(name) != version
    ]
    for path, content in here["files"].items():
        if there["files"][path] == content:
            continue
        if path == str(probe):
            problems.append(
                f"{probe.parent} is not the folder that it is here (a file written here is not there): --runs must "
                f"name a folder on a file system that every node shares"
            )
        else:
            what = "another file" if not there["files"][path].startswith("cannot") else there["files"][path]
            problems.append(f"{path} {'is ' + what if what == 'another file' else what}: data.root must be shared, too")
    return problems
