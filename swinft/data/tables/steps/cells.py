"""Values of other formats than CSV as text: the shortest text that is exactly the value."""

import datetime
import decimal
import math
from typing import Any

import numpy as np

from swinft.data.tables.text import strip

LARGEST_WHOLE = 10.0**15  # below it, a whole number that is stored as a fraction is written without one


def cell_text(value: Any) -> str | None:
    """A value as the text of a cell; None if it is not a single value.

    Numbers are written with as few digits as identify them, whole ones without a fraction; true and false as True and
    False; a missing value and NaN as the empty cell; times in ISO format.
    """
    if value is None:
        return ""
    if isinstance(value, str):
        return strip(value)
    if isinstance(value, bool | np.bool_):
        return str(bool(value))
    if isinstance(value, int | np.integer):
        return str(int(value))
    if isinstance(value, float | np.floating):
        return _number(value)
    if isinstance(value, decimal.Decimal):
        return format(value, "f") if value.is_finite() else ""
    if isinstance(value, bytes):
        try:
            return strip(value.decode())
        except UnicodeDecodeError:
            return None
    return value.isoformat() if isinstance(value, datetime.date | datetime.time) else None


def _number(value: Any) -> str:
    """The shortest text of a number with a fraction, in its own precision."""
    if math.isnan(value):
        return ""
    if float(value).is_integer() and abs(value) < LARGEST_WHOLE:
        return str(int(value))
    return repr(value) if type(value) is float else str(value)
