"""A config with rounds as a config for each round: an ordinary run, whose keys name the runs that it learns from."""

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from swinft.class_spec import AsWritten
from swinft.errors import InputError, command, listed
from swinft.run.config.distill import DistillConfig
from swinft.run.config.parser import Parser, plain
from swinft.run.ensemble.leaks import drops_by_seen_labels
from swinft.run.experiment import Experiment
from swinft.run.fit_command import config_files
from swinft.run.layout import FILTERS, ROUNDS, Run
from swinft.run.python_inputs import write_keys
from swinft.run.rounds.settings import TEST, Round
from swinft.whole_folders import delete_folder

FLAGS = ("--resume", "--overwrite", "--accept")


@dataclass(frozen=True)
class Plan:
    """The rounds of a command line.

    Args:
        parser: Parses the command line.
        argv: Its words.
        base: The experiment without rounds.
        rounds: The rounds.
        temporary: A folder for files that are read once.
    """

    parser: Parser
    argv: list[str]
    base: Experiment
    rounds: list[Round]
    temporary: Path

    @property
    def folder(self) -> Path:
        """The folder of all rounds."""
        config = self.base.config
        return Run.at(Path(config.runs) / config.name).root

    def run(self, name: str) -> Run:
        """The run of a round."""
        return Run.at(self.folder / name)

    @property
    def last(self) -> Round:
        """The round with which the whole predicts."""
        return self.rounds[-1]

    def source(self, name: str) -> str:
        """The folder of a round or run that a round learns from."""
        return str(self.folder / name) if any(name == each.name for each in self.rounds) else name

    @property
    def absent(self) -> list[str]:
        """The folders of all rounds."""
        return [self.source(each.name) for each in self.rounds]

    def filtered(self, each: Round) -> Path:
        """The folder of a round's filter: its inner runs, and the rows that it drops."""
        return self.folder / FILTERS / each.name

    def dropped(self, each: Round) -> Path:
        """The rows that a round drops."""
        return self.filtered(each) / "dropped.csv"

    def after(self, name: str) -> list[str]:
        """The rounds that learn from a round, also through others; itself first."""
        found = [name]
        for each in self.rounds:
            if each.name not in found and set(each.sources) & set(found):
                found.append(each.name)
        return found

    def is_optimistic(self, each: Round) -> bool:
        """Whether a round, or what it learns from, drops rows by predictions that have seen the scored ones."""
        above = [other for other in self.rounds if each.name in self.after(other.name)]
        if any(other.drop_noisy is not None and not other.drop_noisy.nested for other in above):
            return True
        names = {each.name for each in self.rounds}
        others = {name for other in above for name in other.sources if name not in names}
        return any(drops_by_seen_labels(Run.open(name)) for name in sorted(others))

    @property
    def words(self) -> list[str]:
        """The command line without the options that are for all rounds together."""
        found: list[str] = []
        for word in self.argv:
            is_value = found[-1:] and found[-1] in FLAGS and word.lower() in ("true", "false")
            found = found[:-1] if is_value else [*found, word]
        return [word for word in found if word.partition("=")[0] not in FLAGS]

    @property
    def resume_command(self) -> str:
        """The command that continues."""
        return command("fit", *self.words, "--resume")

    def experiment(
        self, each: Round, folds: Path | None, drop: Path | None = None, resume: bool | None = None
    ) -> Experiment:
        """The experiment of a round.

        Args:
            each: The round.
            folds: The folds.csv of the first round; None for the first round itself.
            drop: The rows that it drops.
            resume: Whether its run is resumed; None for a parser without this option.

        Raises:
            InputError: A key or a value is wrong.
        """
        keys = {name: value for name, value in each.changes.items() if name != "data"}
        data = {**each.changes.get("data", {})}
        data["folds"] = {**data.get("folds", {}), **self._folds(folds), **({"drop": str(drop)} if drop else {})}
        if each.pseudo_labels:
            own = plain(self.base.config.data.folds.extra) or []
            sources = [self.source(name) for name in each.sources]
            data["folds"]["extra"] = [*own, *(self._table(table, sources) for table in each.pseudo_labels)]
        if each.distill:
            sources = [self.source(name) for name in each.sources]
            keys["distill"] = {"run": sources[0] if len(sources) == 1 else sources, **vars(each.distill)}
        keys["data"] = {name: value for name, value in data.items() if value != {}}
        return self._experiment(each, keys, self.folder, each.name, resume)

    def inner(self, each: Round, number: int, folds: Path, resume: bool | None = None) -> Experiment:
        """The experiment of a run that holds out pairs of folds, with the settings of the round that a filter follows.

        Args:
            each: The round with the filter.
            number: Of the run.
            folds: Its folds.csv.
            resume: As of `experiment`.

        Raises:
            InputError: A round's config is wrong.
        """
        of = next(other for other in self.rounds if other.name == each.sources[0])
        data = {**of.changes.get("data", {})}
        own = plain(self.base.config.data.folds.extra)  # other teachers have other folds than pairs
        extra = own and ([table for table in own if not table.get("labels")] or None)
        data["folds"] = {**data.get("folds", {}), **self._folds(folds), "all": False, "extra": extra}
        keys = {**of.changes, "data": data, "distill": vars(DistillConfig())}
        return self._experiment(each, keys, self.filtered(each), f"pairs_{number}", resume)

    def _experiment(self, each: Round, keys: dict[str, Any], runs: Path, name: str, resume: bool | None) -> Experiment:
        """The experiment of the base with changed keys, which override files and are overridden by options."""
        words, last = self.words, config_files(self.argv)[-1]
        position = max(k for k, word in enumerate(words) if word.removeprefix("--config=") == last)
        file = self.temporary / f"round {each.name}"
        added = [f"--config={write_keys(file, keys)}"] if any(keys.values()) else []
        words = [*words[: position + 1], *added, *words[position + 1 :], f"--name={name}", f"--runs={runs}"]
        words += [] if resume is None else [f"--resume={str(resume).lower()}"]
        try:
            return Experiment.from_argv(self.parser, words)
        except InputError as error:
            raise InputError(str(error).replace(f"{self.temporary}/", "")) from None

    def _folds(self, folds: Path | None) -> dict[str, Any]:
        """The keys with which a round has the folds of a file, and not those that make folds."""
        if folds is None:
            return {}
        own = self.base.config.data.folds
        keys = {"kind": "auto", "num": None, "column": None, "fraction": None}
        keys |= {"rare_classes": "error"} if own.rare_classes == "train" else {}
        return {"file": str(folds), **keys, **({"duplicates": "report"} if own.duplicates == "group" else {})}

    def _table(self, given: dict[str, AsWritten], sources: Sequence[str]) -> dict[str, Any]:
        """A table of pseudo-labels as one of `data.folds.extra`."""
        found = {**given, "labels": sources[0] if len(sources) == 1 else list(sources)}
        if given["table"] != TEST:
            return found
        data = self.base.config.data
        table = data.test or data.sample_submission
        if not table:
            raise InputError("pseudo_labels: table: test: there are no rows to predict: set data.test.")
        others = {"data.loading.test_source": data.loading.test_source, "data.columns.test_id": data.columns.test_id}
        if differ := [key for key, value in others.items() if value is not None]:
            raise InputError(
                f"pseudo_labels: table: test: {listed(differ)} is set, and extra tables have the source and the id of "
                f"the training rows: make a CSV of them, with data.id."
            )
        image = data.columns.test_image
        return {**found, "table": plain(table), **({"image": image} if image else {})}


def overwrite(plan: Plan) -> None:
    """Deletes the folder of all rounds.

    Raises:
        InputError: It is not one.
    """
    if plan.folder.exists() and any(plan.folder.iterdir()):
        if not (plan.folder / ROUNDS).is_file():
            raise InputError(
                f"{plan.folder} does not hold rounds: --overwrite deletes only what `swinft fit` wrote with rounds. "
                f"Give another --name."
            )
        delete_folder(plan.folder)


@contextmanager
def said_of(each: Round) -> Iterator[None]:
    """Errors inside the block name the round.

    Raises:
        InputError: One is raised inside.
    """
    try:
        yield
    except InputError as error:
        raise InputError(f"{each.place}: round '{each.name}': {error}") from error
