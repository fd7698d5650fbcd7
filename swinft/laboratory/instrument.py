"""The interface of instruments."""

from abc import ABC, abstractmethod
from collections.abc import Mapping, Sequence
from typing import Any, ClassVar, Generic, Literal, TypeVar

from swinft.laboratory.subjects import Subject
from swinft.pages.figures import Drawing

S = TypeVar("S")
Line = dict[str, Any]  # one line of the CSV: text, whole numbers, numbers, or None where there is nothing to say
Kind = Literal["run", "network", "config"]


class Instrument(ABC, Generic[S]):
    """Measures subjects step by step.

    Args:
        settings: The options of this instrument.
    """

    name: ClassVar[str]
    title: ClassVar[str]
    about: ClassVar[Sequence[str]]  # paragraphs of the page: what is measured, how to read it, and its source
    takes: ClassVar[Sequence[Kind]] = ("run",)
    version: ClassVar[int] = 1  # counts changes of what a step measures: steps of another version are measured again

    def __init__(self, settings: S) -> None:
        self.settings = settings

    def check(self, subject: Subject) -> None:
        """Refuses a subject that it cannot measure, before anything is computed.

        Raises:
            InputError: It cannot.
        """

    def decides(self) -> dict[str, Any]:
        """The settings that decide what a step measures, as plain values; by default all of them."""
        return dict(vars(self.settings))

    @abstractmethod
    def steps(self, subject: Subject) -> list[str]:
        """Names of the steps of a subject in their order, each once."""

    @abstractmethod
    def measure(self, subject: Subject, step: str) -> list[Line]:
        """Measures one step; depends on nothing but its arguments, so that a later process can continue.

        Args:
            subject: The subject.
            step: The name of the step.

        Returns:
            Lines of the CSV with equal keys.
        """

    @abstractmethod
    def summarize(self, lines: list[Line]) -> dict[str, Any]:
        """A few numbers of one subject, as plain values, from the lines that are measured so far, at least one."""

    def notes(self, summary: dict[str, Any]) -> list[str]:
        """What the numbers of one subject say, in sentences."""
        return []

    @abstractmethod
    def figures(self, measured: Mapping[str, list[Line]]) -> list[Drawing]:
        """Figures of all subjects beside one another.

        Args:
            measured: The lines of each subject by its name; names are drawn literally.
        """
