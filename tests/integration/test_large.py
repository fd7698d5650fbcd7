"""Large tables and many classes: what is computed of them stays in proportion, and what cannot fit is said in time.

Limits are lowered so that small tables cross them; what is counted are calls, lines and bytes, and never seconds.
"""

import json
import shutil
import tracemalloc

import numpy as np
import pytest

import swinft.data.inspection.scan as scan_module
import swinft.data.tables.packed as packed
import swinft.data.target.classification as classification
import swinft.inference.prediction_csv as prediction_csv
import swinft.model.trial as trial
import swinft.run.compare.outlook as outlook
import swinft.run.freeze as freeze
import swinft.run.report.outcomes as outcomes
import swinft.run.report.sections.curves as curves
import swinft.run.room as room
import swinft.run.submission.matching as matching
from swinft.cli import main
from swinft.data.datamodule import CSVDataModule
from swinft.data.sampled_order import SampledOrder
from swinft.data.summary import format_summary
from swinft.data.tables.table import Table, read_table
from swinft.inference.predictions import Predictions
from swinft.run.submission.sample import Sample
from tests.conftest import tiny_config, write_config

MEGABYTE = 2**20


def peak_bytes(function):
    """The most memory that a call has at a time, and its result."""
    tracemalloc.start()
    try:
        found = function()
        return tracemalloc.get_traced_memory()[1], found
    finally:
        tracemalloc.stop()


@pytest.fixture
def many_classes(competition, tmp_path):
    """4,000 rows of 2,000 classes, which show the 24 images again and again."""
    (tmp_path / "images").symlink_to(competition / "images")
    lines = [f"{row:05d},{row % 24:03d},class {row % 2000}\n" for row in range(4000)]
    (tmp_path / "train.csv").write_text("id,file,label\n" + "".join(lines))
    return tmp_path


def test_metrics_are_tried_on_some_rows_of_every_class(competition, tmp_path, monkeypatch):
    shapes = []
    monkeypatch.setattr(trial, "MAX_TRIED_CELLS", 4 * 3)  # four rows of three classes
    monkeypatch.setattr(trial, "score", lambda *given, **_: shapes.append((len(given[2]), {*given[3].tolist()})))
    frames = []
    monkeypatch.setattr(Table, "frame", lambda *given: frames.append(given))
    assert main(["check", "--config", str(write_config(tmp_path / "c.yaml", tiny_config(competition, tmp_path)))]) == 0
    assert shapes == [(4, {0, 1, 2})]
    assert frames == []  # no metric reads columns, so none are copied


def test_a_sampler_is_described_without_a_cell_for_each_row_and_class(many_classes):
    data = CSVDataModule(
        train="train.csv",
        root=str(many_classes),
        image="images/{file}.jpg",
        target="label",
        target_kind="classification",
        image_size=32,
        folds={"num": 2},
        loading={"sampler": "balanced"},
    )
    data.setup("fit")
    order = data.splits.sampled_order(0)
    peak, (own, drawn) = peak_bytes(lambda: SampledOrder(order.sampler, order.rows, order.seed).shares)
    assert peak < 5 * MEGABYTE  # 2,000 classes by 2,000 are 32 MB
    assert own.tolist() == drawn.tolist() == [1 / 2000] * 2000
    text = format_summary(data.summary())
    assert len(text.splitlines()) < 50
    assert "… 1,975 more" in text
    assert max(map(len, text.splitlines())) < 200


def test_a_wide_table_is_packed_and_says_the_same(tmp_path, monkeypatch):
    rng = np.random.default_rng(0)
    words = ["1.5", " x", "y ", "", "é", "\u00a0z", "a b", '"q,q"', "007", "nan", '"two\nlines"', "0"]
    names = [f"c{k}" for k in range(40)]
    rows = [",".join([f"id{row}", *rng.choice(words, 40)]) for row in range(500)]
    (tmp_path / "t.csv").write_text("\n".join([",".join(["id", *names]), *rows]))
    plain = read_table(tmp_path / "t.csv", "id", {"c3": "data.target"}, [])
    monkeypatch.setattr(packed, "PACKED_CELLS", 5000)
    monkeypatch.setattr(packed, "BLOCK_CELLS", 3000)
    wide = read_table(tmp_path / "t.csv", "id", {"c3": "data.target"}, [])
    assert isinstance(wide.columns, packed.PackedColumns)
    assert dict(wide.columns) == plain.columns
    assert (wide.notes, wide.lines.tolist()) == (plain.notes, plain.lines.tolist())
    some = np.array([3, 1, 499])
    assert dict(wide.take(some).columns) == plain.take(some).columns
    assert dict(wide.only(["c7"]).columns) == {name: plain.columns[name] for name in ("id", "c7")}


def test_a_wide_table_takes_about_a_byte_for_each_character(tmp_path, monkeypatch):
    monkeypatch.setattr(packed, "PACKED_CELLS", 10_000)
    monkeypatch.setattr(packed, "BLOCK_CELLS", 10_000)
    numbers = np.random.default_rng(0).random((2000, 100)).round(5).astype(str)
    lines = [",".join([f"id{row}", *cells]) for row, cells in enumerate(numbers)]
    text = "\n".join([",".join(["id", *(f"c{k}" for k in range(100))]), *lines])
    (tmp_path / "t.csv").write_text(text)
    peak, table = peak_bytes(lambda: read_table(tmp_path / "t.csv", "id", {}, []))
    assert peak < 8 * len(text)  # as lists of texts, and with buffers of its characters, it was 16 times its size
    assert table.column("c99") == numbers[:, 99].tolist()


def test_predictions_are_written_and_read_some_rows_at_a_time(tmp_path, monkeypatch):
    monkeypatch.setattr(prediction_csv, "CELLS", 20_000)
    values = np.random.default_rng(0).random((500, 200), dtype=np.float32)
    whole = Predictions([f"id{row}" for row in range(500)], values, [f"c{k}" for k in range(200)], np.zeros(500))
    peak, _ = peak_bytes(lambda: whole.write(tmp_path / "oof.csv", "test"))
    assert peak < 8 * values.nbytes  # a frame and its text took 23 times as much
    peak, read = peak_bytes(lambda: Predictions.read(tmp_path / "oof.csv", 200))
    assert peak < 10 * values.nbytes  # cells as text took 19 times as much
    assert np.array_equal(read.values, values)


def test_parts_are_pooled_like_joined_ones(monkeypatch):
    rng = np.random.default_rng(0)
    ids = [f"id{row}" for row in range(50)]
    scored = [ids[row] for row in sorted(rng.permutation(50)[:40])]
    order = rng.permutation(40)
    parts = [
        Predictions([scored[row] for row in rows], rng.random((len(rows), 3)), list("xyz"))
        for rows in np.array_split(order, 3)
    ]
    expected = Predictions.concat(parts).join(scored, "parts").among(ids, np.nan)
    assert Predictions.pooled(iter(parts), scored, ids, "parts").to_bytes() == expected.to_bytes()


def test_too_many_predictions_for_the_memory_are_refused_before_training(competition, tmp_path, monkeypatch, capsys):
    config = write_config(tmp_path / "c.yaml", tiny_config(competition, tmp_path / "runs"))
    monkeypatch.setattr(room, "total_memory", lambda: 500)  # 24 rows of 3 classes take 288 bytes, and twice that
    assert main(["fit", "--config", str(config)]) == 2
    error = capsys.readouterr().err
    assert "the out-of-fold predictions of 24 rows and 3 outputs" in error
    assert "at most 20 rows have some: move the others into a table of data.folds.extra" in error.replace("Let ", "")
    assert not (tmp_path / "runs" / "tiny").exists()


def test_the_room_on_the_disk_counts_the_predictions(competition, tmp_path, monkeypatch):
    asked = []

    def stop(folder, needed_bytes):
        asked.append(needed_bytes)
        raise KeyboardInterrupt

    monkeypatch.setattr(freeze, "probe", stop)
    for views in (["identity"], ["identity", "hflip"]):
        config = tiny_config(competition, tmp_path / "runs") | {"predict": {"views": views}}
        main(["fit", "--config", str(write_config(tmp_path / "c.yaml", config))])
    assert asked[1] - asked[0] == 24 * 3 * 4 * 2  # float32 of each view


def test_a_hint_is_made_once_for_each_unknown_class(competition, tmp_path, monkeypatch, capsys):
    made = []
    monkeypatch.setattr(classification, "suggest", lambda word, _: made.append(word) or "")
    shutil.copytree(competition, tmp_path / "data")
    ids = [f"t{i}" for i in range(1, 7)]
    (tmp_path / "data" / "test.csv").write_text("id,color\n" + "".join(f"{id},purple\n" for id in ids))
    config = tiny_config(tmp_path / "data", tmp_path)
    assert main(["check", "--config", str(write_config(tmp_path / "c.yaml", config))]) == 2
    assert made == ["purple"]
    assert "6 problems" in capsys.readouterr().err


def test_the_words_of_a_sample_are_matched_by_few_spellings(monkeypatch):
    calls = []

    def counting(word, made=matching._like_number):
        spell = made(word)
        return lambda name: calls.append(name) or spell(name)

    monkeypatch.setattr(matching, "_like_number", counting)
    outputs = [str(k) for k in range(300)]
    found = [f"{k:03d}" for k in range(300)]
    sample = Sample("s.csv", "id", ["id", "label"], [], {"label": found})
    written, _ = matching.resolve_words(sample, "label", outputs, found, {})
    assert written == found
    assert len(calls) < 5 * len(outputs)


def test_the_scan_says_how_far_it_is(competition, tmp_path, monkeypatch, capsys):
    monkeypatch.setattr(scan_module, "STEP", 4)
    monkeypatch.setattr(scan_module, "FIRST_LINE_SECONDS", -1.0)
    config = tiny_config(competition, tmp_path, **{"data.loading": {"cache": False}})
    assert main(["check", "--config", str(write_config(tmp_path / "c.yaml", config))]) == 0
    assert "images  decoded once  batch 2/6" in capsys.readouterr().out


def test_a_report_of_many_classes_shows_those_with_the_most_rows(tiny_run, tmp_path, monkeypatch):
    run = shutil.copytree(tiny_run, tmp_path / "tiny")
    monkeypatch.setattr(outcomes, "COMPARED", 2)
    monkeypatch.setattr(curves, "MOST_WHOLE", 40)
    assert main(["report", str(run)]) == 0
    page = (run / "report.html").read_text()
    assert "Of 3 classes those 2 are shown that most rows have." in page
    assert "all together (" not in page  # 48 scores
    assert json.loads((run / "scores.json").read_text())["rows"] == 24


def test_rarity_by_class_is_that_of_columns(monkeypatch):
    rng = np.random.default_rng(0)
    for _ in range(50):
        targets = rng.integers(0, int(rng.integers(1, 6)), int(rng.integers(2, 40)))
        expected = outlook.rarity_of(targets)
        with monkeypatch.context() as patch:
            patch.setattr(outlook, "MOST_CELLS", 0)
            assert np.allclose(outlook.rarity_of(targets), expected)
