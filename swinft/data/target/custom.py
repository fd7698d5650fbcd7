"""Checks the results of a custom kind of target; errors in its code name class and method.

Shapes: N rows, K outputs.
"""

import copy
import inspect
import traceback
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any, cast

import numpy as np
from numpy.typing import NDArray

from swinft.class_spec import errors_of
from swinft.data.tables.table import Problem
from swinft.data.target.base import Target, TargetCells
from swinft.errors import InputError, number_of

TRIED_ROWS = 16  # rows whose captions are tried before training
CLOSE = 1e-6  # allowed rounding difference between machines, relative to the sum of all targets
Arguments = Mapping[str, Any]


def class_path_of(target: Target) -> str:
    """Class path of a kind."""
    return f"{type(target).__module__}.{type(target).__qualname__}"


def checked(given: Target, base: Target) -> Target:
    """Wraps a custom kind: its methods raise an `InputError` if they fail or return something invalid.

    Args:
        given: The custom kind; it is copied.
        base: The built-in kind that it derives from.
    """
    with errors_of(f"data.target_kind: {class_path_of(given)} cannot be copied"):
        return cast(Target, _CheckedTarget(copy.deepcopy(given), base))


class _CheckedTarget:
    """A proxy for a custom kind, with all of its methods."""

    def __init__(self, custom: Target, base: Target) -> None:
        self.custom, self.base, self.path = custom, base, class_path_of(custom)

    def __getattr__(self, name: str) -> Any:
        if name.startswith("__") or name == "custom":  # copy and pickle ask for these before __init__
            raise AttributeError(name)
        found = getattr(self.custom, name)
        return _Method(self, name, found) if name in CHECKS else found

    def error(self, name: str, reason: str) -> InputError:
        return InputError(f"data.target_kind: {self.path}.{name} {reason}.")


class _Method:
    """One method of a custom kind."""

    def __init__(self, owner: _CheckedTarget, name: str, function: Callable[..., Any]) -> None:
        self.owner, self.name, self.function = owner, name, function

    def __call__(self, *args: Any, **kwargs: Any) -> Any:
        signature = inspect.signature(getattr(Target, self.name))
        given = signature.bind(self.owner, *args, **kwargs)
        given.apply_defaults()
        known = dict(given.arguments)
        # Copies: changes in place must not affect the caller.
        copies = {name: each.copy() if isinstance(each, np.ndarray) else each for name, each in known.items()}
        copies |= {"outputs": list(known["outputs"])} if "outputs" in known else {}
        del copies["self"]
        before = len(known["problems"]) if "problems" in known else 0
        try:
            found = self.function(*copies.values())  # its parameters may have other names
            if self.name in ("encode", "encode_answers"):
                found = _converted(found, self.owner.base)
            reason = CHECKS[self.name](found, {**known, "base": self.owner.base, "before": before})
            if self.name in ("prior", "ranges") and not reason:  # they are stored as JSON, without NumPy
                found = np.asarray(found, dtype=np.float64).tolist()
        except InputError:
            raise
        except Exception as error:  # custom code raises anything
            frame = traceback.extract_tb(error.__traceback__)[-1]
            where = "" if frame.filename == __file__ else f" ({Path(frame.filename).name}:{frame.lineno})"
            raise self.owner.error(self.name, f"fails: {type(error).__name__}: {error}{where}") from error
        if reason:
            raise self.owner.error(self.name, reason)
        return found


def try_kind(target: Target, cells: TargetCells, targets: NDArray[Any], outputs: Sequence[str]) -> None:
    """Calls all methods of a custom kind on the training rows, so that errors appear before training.

    Args:
        target: Any kind; built-in ones are skipped.
        cells: Cells of the N training rows.
        targets: From `encode`, without problems.
        outputs: Names of the K outputs.

    Raises:
        InputError: A method fails, or returns different targets for the same cells in a second call, as with an object
            that stores state.
    """
    if not isinstance(target, _CheckedTarget):
        return
    for name, again in (("encode", target), ("encode_answers", checked(target.custom, target.base))):
        problems: list[Problem] = []
        found = getattr(again, name)(cells, outputs, problems)
        if problems or not np.array_equal(found, targets):
            raise target.error(
                name,
                "returned other targets than the first call of encode for the same cells: the result must depend only "
                "on the class's arguments and the table",
            )
    prior = np.array(target.prior(targets, len(outputs)), dtype=np.float32)
    target.ranges(targets)
    target.summary(targets, outputs)
    target.counts(targets, len(outputs))
    target.notes(targets, outputs)
    target.captions(targets[:TRIED_ROWS], outputs)
    target.prediction_text(prior, outputs)
    values = np.tile(prior, (len(targets), 1))
    target.row_errors(values, targets)
    target.error_columns(values, targets, outputs)


def fingerprint(targets: NDArray[Any]) -> list[float]:
    """Numbers that change with any row's target: for each output, a sum with a different weight per row."""
    columns = targets.reshape(len(targets), -1).astype(np.float64)
    weights = 1.5 + np.cos(np.arange(len(targets)))
    found: list[float] = (weights @ columns).tolist()
    return [*found, float(np.abs(columns).sum())]


def is_same(one: Sequence[float], other: Sequence[float]) -> bool:
    """Whether two fingerprints are equal up to rounding."""
    if len(one) != len(other):
        return False
    return bool(np.allclose(one, other, rtol=0, atol=CLOSE * (abs(one[-1]) + 1e-30)))


def _converted(found: Any, base: Target) -> NDArray[Any]:
    """Targets in the data type of their kind, if the conversion is safe."""
    array = np.asarray(found)
    if base.are_classes:
        return array.astype(np.int64) if array.dtype.kind in "iu" else array
    return array.astype(np.float32) if array.dtype.kind in "fiub" else array


def _targets(found: NDArray[Any], given: Arguments) -> str:
    base, outputs, num_rows = given["base"], given["outputs"], len(given["cells"].table)
    expected = (num_rows,) if base.are_classes else (num_rows, len(outputs))
    what = "class indices, whole numbers" if base.are_classes else "numbers"
    if found.dtype != (np.int64 if base.are_classes else np.float32) or found.shape != expected:
        return (
            f"returned {found.dtype} {found.shape}; for {number_of(num_rows, 'row')} and the outputs that it names, "
            f"{len(outputs)}, it must return {what} {expected}"
        )
    if len(given["problems"]) > given["before"]:  # already reported
        return ""
    wrong = ~np.isfinite(found) if not base.are_classes else (found < 0) | (found >= len(outputs))
    allowed = f"from 0 to {len(outputs) - 1}" if base.are_classes else "finite"
    if base.are_probabilities and not base.are_classes:
        wrong, allowed = ~((found >= 0) & (found <= 1)), "from 0 to 1"
    rows = np.flatnonzero(wrong if wrong.ndim == 1 else wrong.any(1))
    if not len(rows):
        return ""
    first = given["cells"].table.ids[int(rows[0])]
    value = found[rows[0]].tolist()
    return (
        f"returned targets not {allowed} for {number_of(len(rows), 'row')}, the first of id '{first}', {value}; "
        f"for a wrong cell, append cells.table.problem(row, message, fix, column) to problems"
    )


def _outputs(found: Any, given: Arguments) -> str:
    names = list(found) if isinstance(found, Sequence) and not isinstance(found, str) else []
    if not names or not all(isinstance(name, str) and name for name in names) or len(set(names)) < len(names):
        return f"returned {found!r}; it must return a list of names, each a text and each once"
    return ""


def _per_output(found: Any, given: Arguments) -> str:
    num_outputs = given.get("num_outputs", 0)
    array = np.asarray(found, dtype=np.float64)
    is_right = array.shape == (num_outputs,) and np.isfinite(array).all()
    return (
        ""
        if is_right
        else f"returned {found!r}; it must return {number_of(num_outputs, 'finite number')}, one per output"
    )


def _ranges(found: Any, given: Arguments) -> str:
    if not given["base"].ranges(given["targets"]):
        return "" if found == [] else f"returned {found!r}; predictions of {given['base'].kind} have a fixed range"
    array, num_outputs = np.asarray(found, dtype=np.float64), given["targets"].shape[1]
    is_right = array.shape == (num_outputs, 2) and np.isfinite(array).all() and (array[:, 0] <= array[:, 1]).all()
    return "" if is_right else f"returned {found!r}; it must return [lowest, highest] for each of {num_outputs} outputs"


def _problems(found: Any, given: Arguments) -> str:
    is_right = isinstance(found, list) and all(isinstance(each, Problem) for each in found)
    return "" if is_right else f"returned {found!r}; it must return a list of cells.table.problem(…)"


def _lines(found: Any, given: Arguments) -> str:
    is_right = isinstance(found, list) and all(isinstance(each, str) for each in found)
    return "" if is_right else f"returned {found!r:.200}; it must return a list of texts"


def _captions(found: Any, given: Arguments) -> str:
    num_rows = len(given["targets"])
    is_right = not _lines(found, given) and len(found) == num_rows
    return "" if is_right else f"returned {found!r:.200}; it must return a list of {number_of(num_rows, 'text')}"


def _text(found: Any, given: Arguments) -> str:
    return "" if isinstance(found, str) else f"returned {found!r}; it must return a text"


def _summary(found: Any, given: Arguments) -> str:
    return "" if isinstance(found, dict) else f"returned {found!r}; it must return a dictionary"


def _errors(found: Any, given: Arguments) -> str:
    array, num_rows = np.asarray(found), len(given["targets"])
    if array.shape != (num_rows,) or array.dtype.kind not in "fiu" or not np.isfinite(array).all():
        return (
            f"returned {array.dtype} {array.shape}; it must return {number_of(num_rows, 'finite number')}, one per row"
        )
    return ""


def _error_columns(found: Any, given: Arguments) -> str:
    num_rows = len(given["targets"])
    if not isinstance(found, dict) or {len(column) for column in found.values()} - {num_rows}:
        return f"returned {found!r:.200}; it must return columns of {number_of(num_rows, 'cell')} by their names"
    taken = {"id", "fold", "error"} & set(found)
    return f"returned a column '{min(taken)}', which errors.csv has already" if taken else ""


CHECKS: dict[str, Callable[[Any, Arguments], str]] = {
    "check_columns": lambda found, given: "",
    "outputs": _outputs,
    "encode": _targets,
    "encode_answers": _targets,
    "training_problems": _problems,
    "size_problems": _problems,
    "unknown_answers": _lines,
    "ranges": _ranges,
    "prior": _per_output,
    "counts": _per_output,
    "summary": _summary,
    "notes": _lines,
    "captions": _captions,
    "prediction_text": _text,
    "row_errors": _errors,
    "error_columns": _error_columns,
}
