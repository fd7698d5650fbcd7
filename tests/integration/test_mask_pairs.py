"""A competition of masks whose tables have a row for each image and class: `id,class,segmentation`."""

import csv

import numpy as np
import pytest

from swinft.cli import main
from swinft.data.masks.rle import decode, parse
from swinft.data.schema import Schema
from swinft.errors import InputError
from swinft.inference.maps import Maps
from swinft.inference.predictions import Predictions
from swinft.model.metrics import Traits
from swinft.run.submission.decide import plan_submission
from swinft.run.submission.plan import SubmissionConfig, as_csv, build_submission, check_submission
from swinft.run.submission.sample import read_sample
from tests.conftest import fit_in_process, write_config
from tests.integration.test_segmentation import dice, rows_of
from tests.integration.test_tiles import index_config, write_shapes

CLASSES = ("sea", "ball")  # in the order of the sample


def write_pairs(root, shapes=((40, 52), (44, 36))):
    """The same images with a row for each image and class; ids of rows to predict are shuffled."""
    write_shapes(root, list(shapes))
    for name in ("train", "test"):
        rows = rows_of(root / f"{name}.csv")
        lines = ["id,class,segmentation"]
        lines += [f"{row['id']},{each},{row[each] if name == 'train' else ''}" for row in rows for each in CLASSES]
        (root / f"{name}_pairs.csv").write_text("\n".join(lines) + "\n")
    lines = (root / "test_pairs.csv").read_text().splitlines()
    order = [1, 6, 3, 8, 5, 2, 7, 4]
    (root / "sample_pairs.csv").write_text("\n".join([lines[0], *(lines[k] for k in order)]) + "\n")
    return root


def sample_of(root, names=("id", "class")):
    data = {"sample_submission": "sample_pairs.csv", "id": "id", "root": str(root), "columns": {}}
    return read_sample({**data, "loading": {"follow_links": False, "download": None}}, list(names), False, [])


def plan_of(root, masks=None, **options):
    masks = {"order": "columns", "resize": "squash", **(masks or {})}
    schema = Schema("segmentation", ["ball", "sea"], masks=masks, prior=[0.1, 0.2])
    config = SubmissionConfig(id=["id", "class"], **options)
    return plan_submission(sample_of(root), schema, Traits(), config, None, ["e3", "e0", "e1", "e2"])


@pytest.fixture(scope="module")
def pairs(tmp_path_factory):
    return write_pairs(tmp_path_factory.mktemp("pairs") / "c")


def test_every_row_of_the_sample_gets_the_mask_of_its_image_and_class(pairs):
    rng = np.random.default_rng(0)
    maps = Maps(rng.integers(0, 256, (4, 2, 6, 8)).astype(np.uint8), np.array([[6, 8]] * 4))
    plan = plan_of(pairs)
    predictions = Predictions.of(["e3", "e0", "e1", "e2"], maps, ["ball", "sea"])
    rows, _ = build_submission(plan, predictions)
    text = as_csv(plan, rows)
    assert check_submission(text, plan) == []
    given = list(csv.DictReader((pairs / "sample_pairs.csv").open(newline="")))
    found = list(csv.DictReader(text.splitlines()))
    assert list(found[0]) == ["id", "class", "segmentation"]
    assert [(row["id"], row["class"]) for row in found] == [(row["id"], row["class"]) for row in given]
    for row in found:
        levels = maps.levels[predictions.ids.index(row["id"])][["ball", "sea"].index(row["class"])]
        np.testing.assert_array_equal(decode(parse(row["segmentation"]), (6, 8)), levels >= 128)
    swapped = text.splitlines()
    swapped[1], swapped[2] = swapped[2], swapped[1]
    assert any("where" in problem for problem in check_submission("\n".join(swapped) + "\n", plan))


def test_two_rows_of_one_id_and_class_and_unknown_classes_are_named(pairs, tmp_path):
    lines = (pairs / "sample_pairs.csv").read_text().splitlines()
    (tmp_path / "sample_pairs.csv").write_text("\n".join([*lines, lines[1]]) + "\n")
    with pytest.raises(Exception, match=r"'e0 \| sea'.*duplicated"):
        sample_of(tmp_path)
    (tmp_path / "sample_pairs.csv").write_text("\n".join([*lines, "e0,sky,"]) + "\n")
    with pytest.raises(Exception, match="sky"):
        plan_of(tmp_path)
    with pytest.raises(Exception, match="takes ids apart"):
        plan_of(pairs, rows="{id}_{output}")
    with pytest.raises(Exception, match="klass"):
        sample_of(pairs, ("id", "klass"))


def test_a_threshold_of_the_config_acts_where_there_is_one(pairs):
    assert plan_of(pairs, threshold=0.3).format.decision.thresholds == [0.3, 0.3]
    with pytest.raises(InputError, match=r"submission.threshold: no effect"):
        plan_of(pairs, {"classes": "exclusive"}, threshold=0.3)


def pair_config(root, runs, **changes):
    pivot = {"pivot": {"index": ["id"], "columns": "class", "values": "segmentation"}}
    own = {
        "data.train": [{"csv": "train_pairs.csv"}, pivot],
        "data.test": [{"csv": "sample_pairs.csv"}, {"unique": ["id"]}],
        "data.sample_submission": "sample_pairs.csv",
        "data.target_kind": {"class_path": "swinft.Segmentation", "init_args": {"classes": "exclusive"}},
        "data.image_size": 32,
        "data.loading": {},
        "submission": {"id": ["id", "class"]},
    }
    return index_config(root, runs, **{**own, **changes})


def test_two_training_rows_of_one_id_and_class_are_an_error(pairs, tmp_path, capsys):
    lines = (pairs / "train_pairs.csv").read_text().splitlines()
    (tmp_path / "twice.csv").write_text("\n".join([*lines, lines[1]]) + "\n")
    changes = {"data.train": [{"csv": str(tmp_path / "twice.csv")}, pair_config(pairs, tmp_path)["data"]["train"][1]]}
    config = write_config(tmp_path / "c.yaml", pair_config(pairs, tmp_path, **changes))
    assert main(["check", "--config", str(config)]) == 2
    assert "r0" in capsys.readouterr().err


def test_check_says_what_is_written_and_asks_for_the_rows_to_predict(pairs, tmp_path, capsys):
    config = write_config(tmp_path / "c.yaml", pair_config(pairs, tmp_path))
    for given in ([], ["--submission.id", "[id, class]"]):
        assert main(["check", "--config", str(config), *given]) == 0
        assert "each in a row {id}, {class} of segmentation" in capsys.readouterr().out
    config = write_config(tmp_path / "c.yaml", pair_config(pairs, tmp_path, **{"data.test": None}))
    assert main(["check", "--config", str(config)]) == 2
    assert "set data.test to the rows to predict" in capsys.readouterr().err


@pytest.mark.slow
def test_from_rows_of_an_id_and_a_class_to_a_submission_with_such_rows(pairs, tmp_path):
    config = write_config(tmp_path / "c.yaml", pair_config(pairs, tmp_path / "runs", **{"trainer.max_epochs": 15}))
    fit_in_process(config)
    run = tmp_path / "runs" / "tiny"
    assert main(["predict", str(run), "--device", "cpu"]) == 0
    assert main(["submit", str(run)]) == 0
    assert main(["submit", str(run), "--dry-run", "--id", "id,class"]) == 0
    given, found = rows_of(pairs / "sample_pairs.csv"), rows_of(run / "submission.csv")
    assert [(row["id"], row["class"]) for row in found] == [(row["id"], row["class"]) for row in given]
    truth = {row["id"]: row for row in rows_of(pairs / "test.csv")}
    scores = []
    for row in found:
        shape = [(40, 52), (44, 36)][int(row["id"][1:]) % 2]
        scores.append(
            dice(*(decode(parse(cell), shape) for cell in (row["segmentation"], truth[row["id"]][row["class"]])))
        )
    assert np.mean(scores) > 0.6, scores
