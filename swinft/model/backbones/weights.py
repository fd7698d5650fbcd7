"""A backbone's weights inside those of a larger network: another run of swinft's, or anybody's LightningModule."""

from collections.abc import Collection
from pathlib import Path
from typing import Any

from swinft.errors import InputError


def without_prefix(state: dict[str, Any], names: Collection[str], file: Path) -> dict[str, Any]:
    """The tensors of a backbone by its own names, where all of them are there behind one prefix; said in a line.

    Args:
        state: Tensors by name, as they are in the file.
        names: Every name that the backbone has.
        file: Where they come from, for messages.

    Returns:
        The state itself where it needs no prefix to be removed, or where there is none that fits all names.

    Raises:
        InputError: Several prefixes fit, and none of them is that of averaged weights.
    """
    if not names or all(name in state for name in names):
        return state
    longest = max(names, key=len)
    found = {key.removesuffix(longest) for key in state if key.endswith(f".{longest}")}
    whole = sorted(prefix for prefix in found if all(f"{prefix}{name}" in state for name in names))
    averaged = [prefix for prefix in whole if "average" in prefix or "ema" in prefix.split(".")]
    if len(whole) > 1 and len(averaged) != 1:
        raise InputError(
            f"{file} holds the backbone more than once (model.pretrained), behind the prefixes {', '.join(whole)}. "
            f"Save the tensors behind one of them to a file of their own."
        )
    if not whole and len(found) != 1:
        return state
    prefix = (averaged or whole or list(found))[0]  # of one that does not fit, the loader says what is missing
    inside = {key.removeprefix(prefix): value for key, value in state.items() if key.startswith(prefix)}
    rest = f"; {len(state) - len(inside)} other tensors of the file are not" if len(state) > len(inside) else ""
    print(f"model.pretrained: {len(inside)} tensors '{prefix}*' of {file} are loaded into the backbone{rest}")
    return inside
