"""Whatever is typed, found or drawn: properties over generated input."""

import csv
import io
import os
import shutil
import tempfile
from pathlib import Path

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, rule

from swinft.data.folds import make_folds
from swinft.data.schema import Schema
from swinft.data.sources.files import FileSource
from swinft.data.tables.table import CONTROL, read_table
from swinft.data.tables.text import strip
from swinft.errors import InputError, StoreError
from swinft.inference.predictions import Predictions
from swinft.model.metrics import traits_of
from swinft.run.submission.decide import plan_submission
from swinft.run.submission.plan import SubmissionConfig, as_csv, build_submission, check_submission
from swinft.run.submission.sample import Sample
from swinft.store import commit, discard, has_record, is_committed, verify

# The same examples every time: a suite that fails must fail again.
COMMON = settings(
    max_examples=200,
    deadline=None,
    derandomize=True,
    suppress_health_check=[HealthCheck.function_scoped_fixture, HealthCheck.too_slow],
)
CELLS = st.text(st.characters(blacklist_categories=["Cs"]), max_size=12)
NEAR_CSV = st.lists(
    st.sampled_from([b"id", b",", b"\n", b"\r", b'"', b"a", b"1", b"\xff", b"\0", b";", b" "]), max_size=40
)


@COMMON
@given(st.one_of(st.binary(max_size=200), NEAR_CSV.map(b"".join)))
def test_any_bytes_are_a_clean_problem_or_come_back_as_they_were(tmp_path, content):
    path = tmp_path / "t.csv"
    path.write_bytes(content)
    problems = []
    table = read_table(path, "id", {}, problems)
    assert table is not None or problems
    if table is not None and not problems:
        marks = {"semicolons": ";", "tabs": "\t", "bars": "|"}
        mark = next((mark for name, mark in marks.items() if f"separated by {name}" in str(table.notes)), ",")
        text = io.StringIO(content.decode("utf-8-sig"), newline="")
        spaced = f'{mark} "' in text.getvalue()
        parsed = [row for row in csv.reader(text, delimiter=mark, skipinitialspace=spaced) if row]
        place = [strip(name) for name in parsed[0]].index("id")
        assert table.ids == [strip(row[place]) for row in parsed[1:]]
        assert len(set(table.ids)) == len(table.ids)


@COMMON
@given(st.lists(st.tuples(CELLS.filter(strip), CELLS), min_size=1, max_size=8))
def test_any_cells_come_back_as_they_were_without_blanks_around_them(tmp_path, rows):
    path = tmp_path / "t.csv"
    with path.open("w", newline="", encoding="utf-8") as file:
        csv.writer(file).writerows([("id", "x"), *rows])
    problems = []
    table = read_table(path, "id", {}, problems)
    rows = [(strip(id), strip(cell)) for id, cell in rows]
    bad = {id for id, _ in rows if any(ord(c) < 32 or ord(c) == 127 for c in id)}
    is_clean = not bad and len({id for id, _ in rows}) == len(rows) and "\0" not in path.read_text(encoding="utf-8")
    assert (problems == []) == is_clean
    if is_clean:
        assert list(zip(table.ids, table.column("x"), strict=True)) == rows


@COMMON
@given(st.text(max_size=30))
def test_no_id_leads_out_of_the_images_folder(tmp_path, id):
    inside = tmp_path / "images"
    inside.mkdir(exist_ok=True)
    with (tmp_path / "t.csv").open("w", newline="", encoding="utf-8", errors="replace") as file:
        csv.writer(file).writerows([("id",), (id.replace("\n", " ").replace("\r", " "),)])
    problems = []
    table = read_table(tmp_path / "t.csv", "id", {}, problems)
    if table is None or problems or not len(table):
        return
    (path,) = FileSource().references(table, "images/{id}", tmp_path, problems)
    is_inside = os.path.realpath(path).startswith(os.path.realpath(inside) + os.sep)
    assert is_inside or problems


@COMMON
@given(
    ids=st.lists(CELLS.filter(lambda text: text and not CONTROL.search(text)), min_size=1, max_size=12, unique=True),
    values=st.lists(st.floats(width=32), min_size=12, max_size=12),
    order=st.randoms(use_true_random=False),
)
def test_a_submission_is_the_samples_ids_in_their_order_or_an_error(ids, values, order):
    numbers = np.array(values[: len(ids)], dtype=np.float32)[:, None]
    shuffled = list(ids)
    order.shuffle(shuffled)
    sample, schema = Sample("s.csv", "id", ["id", "y"], shuffled), Schema("regression", ["y"])
    plan = plan_submission(sample, schema, traits_of("rmse"), SubmissionConfig())
    table = Predictions(ids, numbers, ["y"])
    if not np.isfinite(numbers).all():
        with pytest.raises(InputError, match="NaN or infinite"):
            build_submission(plan, table)
        return
    built, _ = build_submission(plan, table)
    assert built["id"].tolist() == shuffled
    assert [np.float32(cell) for cell in built["y"]] == [numbers[ids.index(id), 0] for id in shuffled]
    assert check_submission(as_csv(plan, built), plan) == []


@COMMON
@given(
    classes=st.lists(st.integers(0, 3), min_size=8, max_size=60),
    num_folds=st.integers(2, 5),
    seed=st.integers(0, 99),
)
def test_folds_cover_every_row_once_and_are_the_same_again(classes, num_folds, seed):
    targets = np.unique(np.array(classes), return_inverse=True)[1].astype(np.int64)
    if np.bincount(targets).max() < num_folds:
        return  # refused by the checks before
    first = make_folds("kfold", num_folds, seed, targets)
    assert np.array_equal(first, make_folds("kfold", num_folds, seed, targets))
    assert set(first.tolist()) == set(range(num_folds))
    assert np.ptp(np.bincount(first)) <= 1


class StoreMachine(RuleBasedStateMachine):
    """Writes, damages, deletes and reads two artefacts in any order: what is read is what was committed last."""

    NAMES = st.sampled_from(["a.csv", "b.ckpt"])

    @initialize()
    def start(self) -> None:
        self.root = Path(tempfile.mkdtemp())
        self.model: dict[str, bytes | None] = {}  # None: damaged or cut short

    @rule(name=NAMES, content=st.binary(max_size=40))
    def write(self, name: str, content: bytes) -> None:
        commit(self.root / name, content, "test")
        self.model[name] = content

    @rule(name=NAMES, content=st.binary(max_size=40))
    def fail_to_write(self, name: str, content: bytes) -> None:
        def fails(file):
            file.write(content)
            raise OSError("no space left")

        with pytest.raises(StoreError):
            commit(self.root / name, fails, "test")

    @rule(name=NAMES)
    def damage(self, name: str) -> None:
        path = self.root / name
        if path.is_file():
            path.write_bytes(path.read_bytes() + b"!")
            self.model[name] = None

    @rule(name=NAMES)
    def lose_the_file(self, name: str) -> None:
        if name in self.model:
            (self.root / name).unlink(missing_ok=True)
            self.model[name] = None

    @rule(name=NAMES)
    def delete(self, name: str) -> None:
        discard(self.root / name)
        self.model.pop(name, None)

    @invariant()
    def it_reads_what_was_committed_last(self) -> None:
        for name in ("a.csv", "b.ckpt"):
            path = self.root / name
            if self.model.get(name) is None:
                with pytest.raises(StoreError):
                    verify(path)
            else:
                assert verify(path).read_bytes() == self.model[name]
                assert is_committed(path)
            assert has_record(path) == (name in self.model)

    def teardown(self) -> None:
        shutil.rmtree(self.root)


TestStoreMachine = StoreMachine.TestCase
TestStoreMachine.settings = settings(COMMON, stateful_step_count=20, max_examples=50)
