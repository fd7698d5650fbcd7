"""Which table holds the training rows, which the rows to predict, which is the sample submission; and their ids."""

import os
import re
from collections.abc import Sequence
from dataclasses import dataclass, field

from swinft.propose.facts import Facts
from swinft.propose.images import holds_pixels
from swinft.propose.tables import TableFacts
from swinft.propose.templates import Template, shared_templates

TEST = re.compile(r"(^|[^a-z])(test|unlabell?ed)([^a-z]|$)")
TRAIN = re.compile(r"(^|[^a-z])(train|training)([^a-z]|$)")
SAMPLE = re.compile(r"sample.?sub|submission|sampleentry|benchmark")
LABELS = re.compile(r"label|target|truth|annotation|list_attr|data_entry")
ABOUT = re.compile(r"metadata")  # may hold labels, too, unless another table does


@dataclass(frozen=True)
class Roles:
    """The tables by what they are for.

    Args:
        train: The training rows; None where no table names them.
        test: The rows to predict; None for those of the sample.
        sample: The sample submission.
        train_images: How the images of training rows are named, the best first.
        test_images: How the images of rows to predict are named, the best first.
        reasons: Why each table has its role, by `train`, `test` and `sample_submission`.
        others: Tables without a role.
    """

    train: TableFacts | None
    test: TableFacts | None
    sample: TableFacts | None
    train_images: list[Template]
    test_images: list[Template]
    reasons: dict[str, str]
    others: list[TableFacts] = field(default_factory=list)

    @property
    def predicted(self) -> TableFacts | None:
        """The table of the rows to predict."""
        return self.test or self.sample

    @property
    def sample_id(self) -> str | None:
        """The id column of the sample submission: the first one."""
        return next(iter(self.sample.columns)) if self.sample else None


def find_roles(facts: Facts) -> Roles:
    """Decides which table is which, by names, columns and the images that their rows name."""
    sample, why_sample = _sample(facts)
    rest = [table for table in facts.tables if table is not sample and not SAMPLE.search(table.stem)]
    tests = [table for table in rest if TEST.search(_name(table)) and not TRAIN.search(table.stem)]
    reasons = {"sample_submission": why_sample}
    test = _test(facts, tests, sample)
    scored = sorted(
        ((_score(facts, table, sample, test), -place) for place, table in enumerate(rest) if table not in tests),
        reverse=True,
    )
    candidates = [table for table in rest if table not in tests]
    best = [(score, candidates[k]) for score, place in scored for k in [_index(rest, candidates, -place)]]
    train = best[0][1] if best and best[0][0] >= 4 else None
    predicted = test or sample
    if train is not None:
        reasons["train"] = _why_train(facts, train, sample)
        near = [table.path for score, table in best[1:] if score >= best[0][0] - 1 and score >= 4]
        if near:
            reasons["train"] += f"; also possible: {', '.join(near[:4])}"
    if test is not None:
        reasons["test"] = _why_test(test, sample)
    elif sample is not None:
        reasons["test"] = "there is no test table: the rows to predict are those of the sample submission"
    named = facts.templates(train) if train else []
    test_named = facts.templates(predicted) if predicted else []
    if train and predicted and not test_named:  # rows of few images
        shared = [each for each in named if not (is_for_training(each) or any(map(train.is_unique, each.columns)))]
        test_named = shared_templates(shared, predicted, facts.images)
    return Roles(
        train,
        test,
        sample,
        named,
        test_named,
        reasons,
        [table for table in rest if table not in (train, test)],
    )


def _index(rest: Sequence[TableFacts], candidates: Sequence[TableFacts], place: int) -> int:
    return [candidate is rest[place] for candidate in candidates].index(True)


def is_for_training(image: Template) -> bool:
    """Whether images are in a folder that says that they are those of training rows."""
    folder = os.path.dirname(image.path).lower()
    return TRAIN.search(folder) is not None and TEST.search(folder) is None


def _name(table: TableFacts) -> str:
    """A table's file name, with its folder where that says more."""
    folder = table.path.rpartition("/")[0].lower()
    return f"{folder}/{table.stem}"


def _sample(facts: Facts) -> tuple[TableFacts | None, str]:
    found = [table for table in facts.tables if SAMPLE.search(table.stem) and len(table.columns) > 1]
    if not found:
        return None, ""
    found.sort(key=lambda table: ("sample" not in table.stem, not facts.templates(table), len(table.path)))
    others = [table.path for table in found[1:]]
    rest = f"; others: {', '.join(others[:3])}" if others else ""
    return found[0], f"the file's name; {found[0].num_rows:,} rows{rest}"


def _test(facts: Facts, tests: list[TableFacts], sample: TableFacts | None) -> TableFacts | None:
    """The table of the rows to predict: its ids are those of the sample, or its rows have images."""

    def rank(table: TableFacts) -> tuple[float, bool, bool, int]:
        first = next(iter(table.columns))
        return (-_overlap(table, sample), not table.is_unique(first), not facts.templates(table), len(table.path))

    tests = sorted(tests, key=rank)
    useful = [table for table in tests if _overlap(table, sample) > 0 or facts.templates(table) or len(tests) == 1]
    return useful[0] if useful else None


def _overlap(table: TableFacts, sample: TableFacts | None) -> float:
    """The largest share of the sample's ids that a column holds."""
    if sample is None:
        return 0.0
    ids = {*next(iter(sample.columns.values())).cells}
    return max((len(ids & {*column.cells}) / max(1, len(ids)) for column in table.columns.values()), default=0.0)


def _score(facts: Facts, table: TableFacts, sample: TableFacts | None, test: TableFacts | None) -> float:
    """How much speaks for a table as that of the training rows."""
    score = 0.0
    score += 4 if table.stem in ("train", "training") else 3 if TRAIN.search(table.stem) else 0
    score += 1 if LABELS.search(table.stem) else 0.5 if ABOUT.search(table.stem) else 0
    score += 4 if facts.templates(table) or facts.scattered(table) or holds_pixels(table) else 0
    if sample is not None:
        targets = [*sample.columns][1:]
        known = [name for name in targets if name in table.columns]
        score += 4 * len(known) / max(1, len(targets))
        score += 1 if next(iter(sample.columns)) in table.columns else 0
        score -= 3 if _overlap(table, sample) > 0.9 and not test else 0
        ids = next(iter(sample.columns.values())).cells[:50]
        score += 6 * any(id.endswith(f"_{name}") for id in ids[:1] for name in table.columns)
    if test is not None:
        shared = [name for name in test.columns if name in table.columns]
        score += 2 * len(shared) / max(1, len(test.columns))
    return score + 0.5 * (len(table.columns) > 1)


def _why_train(facts: Facts, train: TableFacts, sample: TableFacts | None) -> str:
    reasons = [f"{train.num_rows:,} rows"]
    if sample is not None:
        targets = [name for name in [*sample.columns][1:] if name in train.columns]
        if targets:
            shown = ", ".join(targets[:4]) + (" …" if len(targets) > 4 else "")
            reasons.append(f"has the sample's columns to predict ({shown})")
    templates = facts.templates(train)
    if templates:
        reasons.append(f"its rows have images in {templates[0].group.folder or 'the folder itself'}")
    return ", ".join(reasons)


def _why_test(test: TableFacts, sample: TableFacts | None) -> str:
    if sample is not None and _overlap(test, sample) > 0.99:
        return f"{test.num_rows:,} rows, with the ids of the sample submission"
    return f"{test.num_rows:,} rows, by its name"


def id_column(table: TableFacts, template: Template | None, preferred: Sequence[str | None]) -> tuple[str | None, str]:
    """The column that names a table's rows, and why.

    Args:
        table: The table.
        template: How its images are named.
        preferred: Names that other tables give it.
    """
    unique = [name for name in table.columns if table.is_unique(name)]
    for name in preferred:
        if name in unique:
            assert name is not None
            return name, "a unique column, which the sample submission names its rows by"
    for name in template.columns if template else []:
        if name in unique:
            return name, "a unique column, which names the image"
    named = [name for name in unique if not table.columns[name].is_number or table.columns[name].is_whole]
    named = [name for name in named if not table.columns[name].are_run_lengths]
    named.sort(key=lambda name: re.search(r"id$|^id|name|file|path|image", name.lower()) is None)
    if named:
        return named[0], "the first unique column"
    return None, "no column has a unique value in every row"


def test_id_column(test: TableFacts, sample: TableFacts | None, train_id: str | None) -> str | None:
    """The column of the test table that holds the sample's ids."""
    if sample is None:
        return train_id if train_id in test.columns else id_column(test, None, ())[0]
    first, column = next(iter(sample.columns.items()))
    ids = {*column.cells}
    same = [name for name, each in test.columns.items() if ids and len(ids & {*each.cells}) > 0.9 * len(ids)]
    same = [name for name in same if test.is_unique(name)] or same
    for name in (first, train_id):
        if name in same:
            return name
    return same[0] if same else None
