"""Long lists of columns as patterns, such as `tbp_lv_*`."""

from collections.abc import Iterable, Sequence
from fnmatch import fnmatchcase

LEAST = 4  # columns of one pattern


def patterns_of(names: Sequence[str], every: Iterable[str]) -> list[str]:
    """A list of columns, with a pattern in place of four or more that start alike and are all there are.

    Args:
        names: The columns.
        every: All columns of the table, and of others in which the patterns will be looked up.
    """
    known, left, found = {*names}, list(names), list[str]()
    others = [name for name in every if name not in known]
    while left:
        name = left[0]
        starts = [f"{name[:end]}*" for end in range(2, len(name)) if name[end - 1] in "_. -" and not {*"*?["} & {*name}]
        fitting = [
            (start, same)
            for start in starts
            if not any(fnmatchcase(other, start) for other in others)
            and len(same := [each for each in left if fnmatchcase(each, start)]) >= LEAST
        ]
        start, same = fitting[0] if fitting else (name, [name])
        found.append(start)
        left = [each for each in left if each not in same]
    return found
