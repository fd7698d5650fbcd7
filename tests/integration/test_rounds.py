"""Rounds: runs of one config that learn from one another, and a score that no label of the scored fold has helped."""

import csv
import json
import shutil

import numpy as np
import pytest
import yaml

from swinft.cli import main
from swinft.run.folds.teacher import TeacherRun
from swinft.run.layout import Run
from tests.conftest import in_this_process, power_gone_after, tiny_config, write_config, write_image

ROUNDS = [
    {"name": "base"},
    {"name": "clean", "drop_noisy": {"share": 0.2}},
    {
        "name": "student",
        "pseudo_labels": {"table": "test", "weight": "confidence", "min_confidence": 0.2},
        "set": {"model.drop_path_rate": 0.1, "seed": 3},
    },
    {"name": "small", "from": ["base", "student"], "distill": {"weight": 0.7, "temperature": 2}},
]


def config(competition, tmp_path, rounds=ROUNDS, name="all", **changes):
    given = {"rounds": rounds, "data.folds.num": 3, "trainer.max_epochs": 1, **changes}
    return write_config(tmp_path / f"{name}.yaml", tiny_config(competition, tmp_path / "runs", name=name, **given))


@pytest.fixture(autouse=True)
def _in_process(monkeypatch):
    monkeypatch.setattr("swinft.run.fit.run_children", in_this_process)


def lines_of(path):
    with path.open(newline="") as file:
        return list(csv.DictReader(file))


WRONG = {
    "key": ([{"name": "a", "distil": {}}], ":33: round 'a': no key 'distil'. Did you mean 'distill'?"),
    "name": ([{"name": "a/b"}, {"name": "a"}, {"name": "a"}], "it contains a slash", "another round has this name"),
    "no name": ([{"set": {"seed": 1}}], "round 1 is no mapping with a `name`"),
    "first": ([{"name": "a", "distill": {}}], "there is no round before it: name a finished run"),
    "from": ([{"name": "a"}, {"name": "b", "from": "c", "distill": {}}], "no earlier round or run 'c'. Allowed: a"),
    "idle from": (
        [{"name": "a"}, {"name": "b", "from": "a"}],
        "`from` does nothing without drop_noisy or pseudo_labels",
    ),
    "ranges": (
        [{"name": "a"}, {"name": "b", "drop_noisy": {"share": 1.5}, "distill": {"weight": 2}}],
        "drop_noisy.share is 1.5. Allowed: a number above 0, below 1",
        "distill.weight is 2. Allowed",
    ),
    "labels": (
        [{"name": "a"}, {"name": "b", "pseudo_labels": {"kind": "firm", "table": "test"}}],
        "pseudo_labels.kind is 'firm'",
    ),
    "shared": ([{"name": "a", "set": {"data": {"target": "x"}}}], "set: data.target is the same in all rounds"),
    "several": (
        [{"name": "a"}, {"name": "b"}, {"name": "c", "from": ["a", "b"], "drop_noisy": {}}],
        "name one round in `from`, or set nested: false",
    ),
    "set": ([{"name": "a"}, {"name": "b", "set": {"model.bakbone": "x"}}], "round b:", "Did you mean 'model.backbone'"),
    "two folds": ([{"name": "a"}, {"name": "b", "drop_noisy": {}}], "holds out two folds at once, and there are 2"),
    "size": (
        [{"name": "a"}, {"name": "b", "set": {"data.loading.image_rules": {"apply_exif": False}}, "distill": {}}],
        "was trained with another data.loading.image_rules",
    ),
    "no list": ({"name": "a"}, "rounds is a list of mappings"),
}


@pytest.mark.parametrize(
    "case",
    [
        pytest.param(case, marks=[pytest.mark.slow] * (case in ("two folds", "size", "set", "shared", "labels")))
        for case in WRONG
    ],
)
def test_what_is_wrong_with_a_round_is_said_before_anything_is_trained(case, competition, tmp_path, capsys):
    rounds, *said = WRONG[case]
    file = config(competition, tmp_path, rounds, **{"data.folds.num": 2})
    assert main(["fit", "--config", str(file)]) == 2
    err = capsys.readouterr().err
    for words in said:
        assert words in err, err
    assert not list((tmp_path / "runs").rglob("config.yaml"))


def test_rounds_are_for_all_folds_and_in_a_file(competition, tmp_path, capsys):
    file = config(competition, tmp_path)
    assert main(["fit", "--config", str(file), "--fold", "0"]) == 2
    assert "has rounds, which are trained one after another" in capsys.readouterr().err
    plain = config(competition, tmp_path, None, "plain")
    words = ["fit", "--config", str(plain), "--rounds", "[{name: a}]"]
    plain.write_text("\n".join(line for line in plain.read_text().splitlines() if "rounds" not in line))
    assert main(words) == 2
    assert "rounds are read from a YAML file" in capsys.readouterr().err


def test_a_filter_does_not_start_from_weights_that_have_seen_its_pairs(tiny_run, competition, tmp_path, capsys):
    rounds = [{"name": "base"}, {"name": "clean", "drop_noisy": {"share": 0.2}}]
    given = config(competition, tmp_path, rounds, **{"model.pretrained": str(tiny_run / "fold_0")})
    assert main(["check", "--config", str(given)]) == 2
    err = capsys.readouterr().err
    assert "holds out the folds" in err, err
    assert f"has the weights {tiny_run / 'fold_0' / 'weights.safetensors'}" in err
    assert "depend on the labels of the fold that is scored" in err


@pytest.mark.slow
def test_rounds_are_runs_that_learn_from_one_another(competition, tmp_path, capsys):
    file = config(competition, tmp_path)
    assert main(["check", "--config", str(file)]) == 0
    assert "its filter trains 3 networks more, each without two folds: 3 runs in" in capsys.readouterr().out
    assert main(["fit", "--config", str(file)]) == 0
    said = capsys.readouterr().out
    folder = tmp_path / "runs" / "all"
    found = json.loads((folder / "rounds.json").read_text())
    table = found["table"]["rounds"]
    assert [each["name"] for each in table] == ["base", "clean", "student", "small"]
    assert table[1]["dropped"].keys() == {"0", "1", "2"}
    assert table[2]["added"] == {"0": 6, "1": 6, "2": 6}
    assert "gain over base" in said
    scores = [json.loads((folder / each["name"] / "scores.json").read_text())["pooled"]["accuracy"] for each in table]
    assert [each["score"] for each in table] == scores
    # every round scores every row, in the folds of the first
    tables = [lines_of(folder / each["name"] / "oof.csv") for each in table]
    folds = [[(row["id"], row["fold"]) for row in each] for each in tables]
    assert len(folds[0]) == 24
    assert folds[1:] == folds[:1] * 3
    student = yaml.safe_load((folder / "student" / "config.yaml").read_text())
    assert student["data"]["folds"]["extra"][0]["labels"] == str(folder / "clean")
    assert (student["seed"], student["model"]["drop_path_rate"]) == (3, 0.1)
    small = yaml.safe_load((folder / "small" / "config.yaml").read_text())
    assert small["distill"] == {
        "run": [str(folder / "base"), str(folder / "student")],
        "weight": 0.7,
        "temperature": 2.0,
    }
    # the last round stands for all
    assert Run.open(folder).root == folder / "small"
    assert main(["predict", str(folder), "--device", "cpu"]) == 0
    assert main(["submit", str(folder)]) == 0
    assert (folder / "small" / "submission.csv").is_file()
    assert main(["ensemble", str(folder), str(folder / "clean"), "--name", "e", "--runs", str(tmp_path / "runs")]) == 0
    capsys.readouterr()
    before = {path: path.read_bytes() for path in folder.rglob("*") if path.name in ("oof.csv", "weights.safetensors")}
    assert main(["fit", "--config", str(file)]) == 2
    assert "--resume continues its rounds, --overwrite deletes them" in capsys.readouterr().err
    assert main(["fit", "--config", str(file), "--resume"]) == 0
    assert capsys.readouterr().out.count("done, skipped") == 7  # four rounds, and three runs of the filter
    assert before == {path: path.read_bytes() for path in before}
    assert main(["fit", "--resume", str(folder)]) == 2
    assert (
        "holds the rounds base, clean, student, small: resume all of them with `swinft fit" in capsys.readouterr().err
    )
    # an earlier round has changed: those that learned from it are stale
    rounds = [*ROUNDS[:1], {**ROUNDS[1], "set": {"model.drop_path_rate": 0.3}}, *ROUNDS[2:]]
    changed = config(competition, tmp_path, rounds)
    assert main(["fit", "--config", str(changed), "--resume"]) == 2
    err = capsys.readouterr().err
    assert "round 'clean'" in err
    assert f"rm -r {folder}/clean {folder}/student {folder}/small && swinft fit --config" in err
    # a later round is added, and the folder is moved
    more = config(competition, tmp_path, [*ROUNDS, {"name": "more", "distill": {}}])
    assert main(["fit", "--config", str(more), "--resume"]) == 0
    assert Run.open(folder.rename(folder.with_name("moved"))).root.name == "more"


@pytest.mark.slow
def test_rounds_go_on_after_a_cut_to_the_same_bytes(competition, tmp_path):
    """Whatever of the second round, its filter or its table is there."""
    rounds = [{"name": "base"}, {"name": "clean", "drop_noisy": {"share": 0.3}, "distill": {}}]
    files = {name: config(competition, tmp_path, rounds, name) for name in ("whole", "cut")}
    assert main(["fit", "--config", str(files["whole"])]) == 0
    words = ["fit", "--config", str(files["cut"])]
    for training in ("2", "0"):
        with power_gone_after(1, training):
            main(words)
        words = ["fit", "--config", str(files["cut"]), "--resume"]
    cut = tmp_path / "runs" / "cut"
    assert main(["predict", str(cut)]) == 2  # the last round is not there
    assert main(words) == 0
    shutil.rmtree(cut / "clean")
    assert main(words) == 0
    whole = tmp_path / "runs" / "whole"
    names = ("oof.csv", "weights.safetensors", "dropped.csv", "errors.csv")
    made = [path.relative_to(whole) for path in whole.rglob("*") if path.name in names]
    assert len(made) > 20
    assert [path for path in made if (whole / path).read_bytes() != (cut / path).read_bytes()] == []


@pytest.mark.slow
def test_rounds_are_deleted_together_and_nothing_else_is(competition, tmp_path, capsys):
    file = config(competition, tmp_path, [{"name": "base"}], **{"data.folds.num": 2})
    other = tmp_path / "runs" / "all" / "notes.txt"
    other.parent.mkdir(parents=True)
    other.write_text("mine")
    for option in ([], ["--overwrite"]):
        assert main(["fit", "--config", str(file), *option]) == 2
        assert "not hold rounds" in capsys.readouterr().err
    other.unlink()
    assert main(["fit", "--config", str(file)]) == 0
    weights = other.parent / "base" / "fold_0" / "weights.safetensors"
    before = weights.read_bytes()
    assert main(["fit", "--config", str(file), "--overwrite", "--trainer.max_epochs", "2"]) == 0
    assert weights.read_bytes() != before


SITES, COPIES = 24, 3


@pytest.fixture(scope="module")
def sites(tmp_path_factory):
    """Places of one colour each, some images of each, and more images of them without labels."""
    root, rng = tmp_path_factory.mktemp("sites"), np.random.default_rng(0)
    colors = [(r, g, b) for r in (20, 125, 230) for g in (20, 125, 230) for b in (20, 125, 230)][:SITES]
    lines = ["id,site"]
    for site, color in enumerate(colors):
        for k in range(COPIES):
            write_image(root / "images" / f"{site}_{k}.png", color, rng, (16, 16))
            write_image(root / "images" / f"m{site}_{k}.png", color, rng, (16, 16))
            lines.append(f"m{site}_{k},x{site}")
    (root / "more.csv").write_text("\n".join([*lines, ""]))
    return root


def random_labels(sites, seed, is_holdout):
    """A table in which the label of each site is drawn: nothing predicts it but a look at this very site."""
    rng = np.random.default_rng(seed)
    labels = rng.permutation(SITES) % 2
    folds = rng.permutation(SITES) % 3 if not is_holdout else np.where(rng.permutation(SITES) % 3, -1, 0)
    lines = [f"{s}_{k},s{s},{'ab'[labels[s]]},{folds[s]}" for s in range(SITES) for k in range(COPIES)]
    (sites / f"train_{seed}.csv").write_text("\n".join(["id,site,label,fold", *lines, ""]))
    return f"train_{seed}.csv"


def accuracies(sites, tmp_path, seed, name, rounds, is_holdout=False, *options):
    given = {
        "rounds": rounds, "data.train": random_labels(sites, seed, is_holdout), "data.test": None,
        "data.sample_submission": None, "data.image": "images/{id}.png", "data.image_size": 16, "data.target": "label",
        "data.folds": {"column": "fold", "group": "site", "duplicates": "ignore"}, "data.augment": "none",
        "data.batch_size": 24, "model.backbone_args": {"embed_dim": 24, "depths": [2], "num_heads": [2], "window_size": 4},
        "model.ema_decay": None, "model.optim": {"lr": 0.01, "warmup_epochs": 0.0, "weight_decay": 0.0},
        "model.metrics": ["accuracy"], "trainer.max_epochs": 20,
    }  # fmt: skip
    file = write_config(tmp_path / f"{name}.yaml", tiny_config(sites, tmp_path / "runs", name=name, **given))
    assert main(["fit", "--config", str(file), *options]) == 0
    table = json.loads((tmp_path / "runs" / name / "rounds.json").read_text())["table"]
    return {each["name"]: each["score"] for each in table["rounds"]}


LABELS = {"pseudo_labels": {"table": "more.csv", "weight": 3.0}}
STUDENT = [{"name": "base"}, {"name": "student", **LABELS}]


@pytest.mark.slow
def test_labels_of_the_scored_fold_would_be_seen_in_the_score(sites, tmp_path, monkeypatch):
    """Random labels: an honest score is chance. The planted leak, a teacher of another fold, is far above."""
    found = [accuracies(sites, tmp_path, seed, f"alone_{seed}", STUDENT, True) for seed in (0, 1)]
    found += [accuracies(sites, tmp_path, seed, f"folds_{seed}", STUDENT) for seed in (2, 3)]
    every, leaky = TeacherRun.trainings, [*STUDENT, {"name": "leaky", "from": "base", **LABELS}]
    monkeypatch.setattr(TeacherRun, "trainings", lambda self, fold: every(self, {0: 1, 1: 2, 2: 0}[fold]))
    planted = [accuracies(sites, tmp_path, seed, f"folds_{seed}", leaky, False, "--resume") for seed in (2, 3)]
    assert np.mean([each["student"] for each in found]) < 0.65  # of 24 drawn labels each
    assert abs(np.mean([each["student"] - each["base"] for each in found])) < 0.05
    assert np.mean([each["leaky"] - each["base"] for each in planted]) > 0.1
    assert np.mean([each["leaky"] for each in planted]) > 0.75


@pytest.mark.slow
def test_a_round_learns_from_no_run_with_other_folds(tiny_run, competition, tmp_path, capsys):
    rounds = [{"name": "a", "from": str(tiny_run), "distill": {}}, {"name": "b", "distill": {}}]
    assert (
        main(["check", "--config", str(config(competition, tmp_path, rounds, **{"data.folds.num": 2, "seed": 1}))]) == 2
    )
    err = capsys.readouterr().err
    assert "round 'a'" in err
    assert "of the 12 rows that fold 0 scores here" in err
