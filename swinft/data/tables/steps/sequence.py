"""A list of steps, one after the other, each with a note on what it made."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

from swinft.data.tables.steps.frame import Context, Frame, described
from swinft.data.tables.steps.step import BuiltinStep

NO_TABLE = Frame({}, [])


@dataclass(frozen=True)
class StepList:
    """Steps that make one table.

    Args:
        key: What names the table in messages, such as `data.train`.
        steps: The steps; the first one reads a table.
    """

    key: str
    steps: Sequence[BuiltinStep]

    def run(self, context: Context) -> Frame | None:
        """The table; None if a step finds problems, which it appends to the context. Later steps are not run.

        Raises:
            InputError: A custom step fails.
        """
        frame = NO_TABLE
        for number, step in enumerate(self.steps, start=1):
            here = context.inside(f"{self.key}: step {number}, {step.word}")
            before = len(here.problems)
            frame = step.run(frame, here)
            if len(here.problems) > before:
                return None
            here.notes.append(f"{here.where}: {'; '.join([described(frame), *here.details])}.")
        return frame


# Makes the steps of a table that is an argument of a step, from its key and its value in the config.
MakeSteps = Callable[[str, Any], StepList]
