"""Where children run, the option `--on`: on this machine, or on the nodes of a Ray cluster."""

import re

from swinft.errors import InputError

LOCAL = "local"
OWN = "ray"  # a cluster of this machine alone, which ends with the command
ADDRESS = re.compile(r"(ray://)?(\[[0-9a-fA-F:.]+\]|[\w.-]+):(\d{1,5})")


def check_place(on: str) -> str:
    """A value of `--on`, checked; nothing is connected.

    Raises:
        InputError: It is no place.
    """
    found = ADDRESS.fullmatch(on)
    if on not in (LOCAL, OWN) and not (found and 0 < int(found[3]) < 65536):
        raise InputError(
            f"--on is '{on}'. Allowed: local, ray (a cluster of this machine), HOST:PORT of a cluster that this "
            f"machine belongs to, or ray://HOST:PORT of a cluster's Ray Client."
        )
    return on
