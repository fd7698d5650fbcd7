"""`swinft embed` through the front door: which network made which vector, and honest models on them."""

import json
import shutil
from dataclasses import replace
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import torch
from safetensors.torch import load_file, save_file
from sklearn.preprocessing import StandardScaler
from sklearn.svm import SVR

import swinft
from swinft.cli import main
from swinft.inference.predictions import Predictions
from swinft.run.embed.files import read_table, write_table
from swinft.run.layout import Run
from swinft.store import commit, digest
from tests.conftest import TINY_SWIN
from tests.json_documents import document
from tests.run.embed.conftest import FOLDER, QUICK

COLORS = ["blue", "green", "red"]


@pytest.fixture(autouse=True)
def _no_report(request, monkeypatch):
    """Most tests do without a report: its figures take longer than the rest."""
    if "report" not in request.node.name:
        monkeypatch.setattr("swinft.run.embed.member.write_report", lambda *_: None)
        monkeypatch.setattr("swinft.run.ensemble.ensemble.write_report", lambda *_: None)


def fit(runs: Path, model: str, *words: str, name: str = "made") -> int:
    return main(["embed", str(runs / "tiny"), "--fit", model, "--name", name, *QUICK, *words])


def values(run: Path, table: str = "oof.csv") -> np.ndarray:
    return Predictions.read(run / table, 3).values


def error(capsys) -> str:
    return " ".join(capsys.readouterr().err.split())


def rewrite(path: Path, change) -> None:
    """A file of embeddings with other rows or values, and the same origin."""
    table = read_table(path)
    changed = change(table)
    write_table(path, replace(changed, about={k: v for k, v in table.about.items() if k != "dtype"}))


def parquets(runs: Path, rows: str = "train") -> list[Path]:
    return [runs / "tiny" / FOLDER / f"fold_{k}.{rows}.parquet" for k in range(2)]


def truth(competition: Path) -> pd.Series:
    return pd.read_csv(competition / "train.csv", dtype=str).set_index("id")["color"].map(COLORS.index)


def test_a_file_says_which_network_made_its_vectors_and_which_rows_it_was_trained_on(fitted_runs, competition):
    run = swinft.open_run(fitted_runs / "tiny")
    folds = pd.read_csv(run.folder / "folds.csv", dtype={"id": str}).set_index("id")["fold"]
    frames = [pd.read_parquet(path) for path in parquets(fitted_runs)]
    for k, frame in enumerate(frames):
        assert frame["id"].tolist() == list(folds.index)
        assert frame["id"][7] == "007"
        assert (frame["is_trained_on"] == (frame["fold"] != k)).all()
        assert (frame["fold"].to_numpy() == folds.loc[frame["id"]].to_numpy()).all()
        assert frame["e0"].dtype == np.float16
        about = read_table(parquets(fitted_runs)[k]).about
        assert about["weights"] == digest(Run(run.folder).fold(k).weights)
        assert about["network"] == f"fold_{k}"
    assert not np.allclose(frames[0].filter(regex=r"^e\d"), frames[1].filter(regex=r"^e\d"), atol=0.1)
    data = swinft.CSVDataModule(
        "color", "classification", "train.csv", "images/{id}.jpg", root=str(competition), image_size=32
    )
    data.setup("fit")
    batch = next(iter(data.ordered_loader("val", np.arange(5))))
    with torch.inference_mode():
        by_hand = run.network(1).backbone(batch["image"])
    assert np.allclose(frames[1].filter(regex=r"^e\d").to_numpy()[:5], by_hand, atol=2e-3)


def by_scikit_learn(runs: Path, competition: Path) -> tuple[np.ndarray, np.ndarray]:
    """Out-of-fold and test predictions of a support vector machine, from the parquet files alone."""
    labels, oof, tests = truth(competition), {}, []
    for train, test in zip(parquets(runs), parquets(runs, "test"), strict=True):
        frame, others = pd.read_parquet(train), pd.read_parquet(test)
        columns = [name for name in frame if name.startswith("e")]
        seen = frame[frame["is_trained_on"]]
        held_out = frame[~frame["is_trained_on"]]
        scaler = StandardScaler().fit(seen[columns].astype("float64"))
        inputs = [scaler.transform(each[columns].astype("float64")) for each in (seen, held_out, others)]
        answers = []
        for color in range(3):
            wanted = (labels[seen["id"]] == color).to_numpy(float)
            machine = SVR(C=1.0, epsilon=0.1).fit(inputs[0], (wanted - wanted.mean()) / wanted.std())
            answers.append([machine.predict(each) * wanted.std() + wanted.mean() for each in inputs[1:]])
        for_rows, for_test = (np.clip(np.stack(each, 1), 0, 1) for each in zip(*answers, strict=True))
        oof |= dict(zip(held_out["id"], for_rows / for_rows.sum(1, keepdims=True), strict=True))
        tests.append(for_test / for_test.sum(1, keepdims=True))
    return np.array([oof[id] for id in labels.index]), np.mean(tests, 0)


def test_predictions_and_submission_are_those_of_scikit_learn_on_the_files(runs, competition, capsys):
    oof, test = by_scikit_learn(runs, competition)
    assert np.allclose(values(runs / "svr"), oof, atol=1e-5)
    assert np.allclose(values(runs / "svr", "test_predictions.csv"), test, atol=1e-5)
    assert main(["submit", str(runs / "svr")]) == 0
    sent = pd.read_csv(runs / "svr" / "submission.csv").set_index("id")["color"]
    ids = pd.read_parquet(parquets(runs, "test")[0])["id"]
    assert sent[ids].tolist() == [COLORS[k] for k in test.argmax(1)]
    assert np.allclose(values(runs / "svr").sum(1), 1, atol=1e-6)


def test_a_row_is_predicted_only_by_what_never_saw_it(runs, competition, monkeypatch, capsys):
    """Embeddings of noise: the nearest row of any row is itself, and of an honest model any other row."""
    noise = np.random.default_rng(0).normal(size=(24, 24)).astype(np.float32)
    for path in parquets(runs):
        rewrite(path, lambda table: replace(table, values=noise))
    assert fit(runs, '{"knn": {"k": 1}}') == 0
    honest = (values(runs / "made").argmax(1) == truth(competition).to_numpy()).mean()
    assert honest < 0.6  # 1.0 for a model that has seen the rows
    from swinft.data.splits import Splits

    monkeypatch.setattr(Splits, "trained_on", lambda splits, fold: np.arange(24))
    capsys.readouterr()
    assert fit(runs, '{"knn": {"k": 1}}', name="leaky") == 1
    assert "held out and fitted on" in error(capsys)
    assert not (runs / "leaky").exists()


def test_what_a_fold_learns_and_searches_does_not_depend_on_the_rows_that_it_holds_out(runs):
    spec = '{"svr": {"C": [0.01, 10], "pca": 3}}'
    assert fit(runs, spec) == 0
    before = (runs / "made" / "model_fold_0.safetensors").read_bytes()
    tried = json.loads((runs / "made" / "ensemble.json").read_text())["embedding"]["models"][0]["tried"]
    assert len(tried) == 2
    garbage = np.random.default_rng(1).normal(0, 9, (24, 24)).astype(np.float32)
    rewrite(
        parquets(runs)[0],
        lambda table: replace(table, values=np.where(table.is_trained_on[:, None], table.values, garbage)),
    )
    oof = values(runs / "made")
    assert fit(runs, spec, "--overwrite") == 0
    assert (runs / "made" / "model_fold_0.safetensors").read_bytes() == before
    assert json.loads((runs / "made" / "ensemble.json").read_text())["embedding"]["models"][0]["tried"] == tried
    changed = (values(runs / "made") != oof).any(1)
    assert (changed == ~read_table(parquets(runs)[0]).is_trained_on).all()


@pytest.mark.slow
def test_the_same_bytes_again_and_from_files_with_rows_in_another_order(runs):
    names = ["oof.csv", "test_predictions.csv", "scores.json", "model_fold_1.safetensors", "ensemble.json"]
    before = [(runs / "svr" / name).read_bytes() for name in names]
    files = [*parquets(runs), *parquets(runs, "test")]
    bytes_of = [path.read_bytes() for path in files]
    shutil.rmtree(runs / "tiny" / FOLDER)
    assert fit(runs, "svr", "--overwrite", name="svr") == 0
    assert [path.read_bytes() for path in files] == bytes_of
    assert [(runs / "svr" / name).read_bytes() for name in names] == before
    order = np.random.default_rng(0).permutation(24)
    for path in parquets(runs):
        rewrite(
            path,
            lambda table: replace(
                table,
                ids=[table.ids[row] for row in order],
                values=table.values[order],
                fold=table.fold[order],
                is_trained_on=table.is_trained_on[order],
            ),
        )
    assert fit(runs, "svr", "--overwrite", name="svr") == 0
    assert (runs / "svr" / "oof.csv").read_bytes() == before[0]


def test_only_what_is_missing_is_made_again(runs, capsys):
    parquets(runs)[1].unlink()
    assert main(["embed", str(runs / "tiny"), "--device", "cpu", "--json"]) == 0
    out, said = capsys.readouterr()
    found = document(out, "embed")
    assert set(found["files"]) >= set(map(str, parquets(runs)))
    assert "24 images × 1 fold × 1 view" in said
    assert "rows to predict by 2 networks are there already" in said
    assert parquets(runs)[1].is_file()


def test_new_rows_are_predicted_in_any_order(runs, competition, tmp_path, capsys):
    ids = [f"t{k}" for k in (5, 1, 3)]
    (tmp_path / "new.csv").write_text("id\n" + "".join(f"{id}\n" for id in ids))
    output = tmp_path / "new_predictions.csv"
    words = ["predict", str(runs / "svr"), "--device", "cpu", "--test", str(tmp_path / "new.csv")]
    capsys.readouterr()
    assert main([*words, "--output", str(output)]) == 0
    assert f"next: swinft submit {runs / 'svr'} --predictions {output}\n" in capsys.readouterr().out
    found, known = pd.read_csv(output), pd.read_csv(runs / "svr" / "test_predictions.csv").set_index("id")
    assert found["id"].tolist() == ids
    assert np.allclose(found[COLORS], known.loc[ids, COLORS], atol=1e-5)
    capsys.readouterr()
    assert main(["predict", str(runs / "svr"), "--views", "hflip"]) == 2
    assert "--views" in error(capsys)


def test_a_network_that_has_changed_since_is_an_error_that_names_the_command(runs, capsys):
    run = Run(runs / "tiny")
    embeddings = swinft.embed(runs / "tiny", device="cpu")
    commit(run.fold(0).weights, run.fold(1).weights.read_bytes(), "swinft fit")
    capsys.readouterr()
    assert main(["predict", str(runs / "svr"), "--device", "cpu"]) == 2
    said = error(capsys)
    assert "fold_0 has other weights" in said
    assert f"swinft embed {runs / 'tiny'} --layer pooled --fit svr --name svr --overwrite" in said
    assert main(["submit", str(runs / "svr")]) == 2
    assert "--fit svr --name svr --overwrite" in error(capsys)
    with pytest.raises(swinft.InputError, match=r"other weights.*swinft embed .*--layer pooled` again"):
        swinft.embed(runs / "tiny", rows="test", device="cpu").frame(0)
    assert embeddings.networks == ["fold_0", "fold_1"]
    assert main(["embed", str(runs / "tiny"), "--device", "cpu"]) == 0
    assert "out of date (weights), made again" in capsys.readouterr().out


def test_the_command_that_fits_again_has_every_option_that_decides(runs):
    assert fit(runs, "ridge", "--seed", "3", "--views", "identity,hflip", "--precision", "32-true") == 0
    check_made_again(runs)


def check_made_again(runs: Path) -> None:
    """The command that `made` names makes the same again."""
    files = [runs / "made" / name for name in ("ensemble.json", "ensemble.yaml", "oof.csv")]
    before = [path.read_bytes() for path in files]
    words = json.loads(before[0])["remake"]
    assert main(["embed", str(runs / "tiny"), *words, "--device", "cpu"]) == 0
    assert [path.read_bytes() for path in files] == before


@pytest.mark.slow
def test_an_ensemble_and_a_report_take_what_is_fitted_as_a_member(runs, capsys):
    assert fit(runs, "logistic") == 0
    said = capsys.readouterr().out
    assert "correlation of the two predictions: 0.9" in said
    assert "whose labels their network has seen" in said
    words = ["--name", "E", "--runs", str(runs), "--method", "mean", "--bootstrap", "10"]
    assert main(["ensemble", str(runs / "tiny"), str(runs / "made"), *words]) == 0
    mean = np.mean([values(runs / name) for name in ("tiny", "made")], 0)
    assert np.allclose(values(runs / "E"), mean, atol=1e-6)
    page = (runs / "made" / "report.html").read_text()
    assert "logistic on embeddings" in page
    assert "correlation of the two predictions" in page
    assert fit(runs, "svr", "--overwrite", name="E") == 2
    assert "an ensemble of runs" in error(capsys)


BACKBONE = "swin_tiny_patch4_window7_224"


def backbone_words(run: Path, folder: Path) -> list[str]:
    """The backbone of a run's fold 0 as a pretrained one."""
    weights = load_file(run / "fold_0" / "weights.safetensors")
    own = {name.removeprefix("backbone.model."): each for name, each in weights.items() if name.startswith("backbone.")}
    save_file(own, folder / "backbone.safetensors")
    words = ["--backbone", BACKBONE, "--backbone-weights", str(folder / "backbone.safetensors")]
    return [*words, "--backbone-args", json.dumps(TINY_SWIN), "--image-size", "32"]


@pytest.mark.slow
def test_a_pretrained_backbone_is_one_space_for_all_rows(runs, tmp_path, capsys):
    assert fit(runs, "ridge", *backbone_words(runs / "tiny", tmp_path)) == 0
    assert "has seen no label" in capsys.readouterr().out
    check_made_again(runs)
    frame = pd.read_parquet(runs / "tiny" / "embeddings" / f"{BACKBONE}-identity" / "backbone.train.parquet")
    of_run = pd.read_parquet(parquets(runs)[0])
    assert not frame["is_trained_on"].any()
    assert np.allclose(frame.filter(regex=r"^e\d"), of_run.filter(regex=r"^e\d"), atol=2e-3)
    assert sorted(path.name for path in (runs / "made").glob("model_*")) == [
        "model_fold_0.safetensors",
        "model_fold_1.safetensors",
    ]
    own = load_file(tmp_path / "backbone.safetensors")
    save_file({**own, "norm.bias": own["norm.bias"] + 1}, tmp_path / "backbone.safetensors")
    assert main(["predict", str(runs / "made"), "--device", "cpu"]) == 2
    assert "backbone has other weights" in error(capsys)


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (["--fit", "svm", "--name", "x"], "no such model. Did you mean 'svr'?"),
        (["--fit", '{"svr": {"c": 1}}', "--name", "x"], "Did you mean 'C'?"),
        (["--fit", '{"svr": {"C": -1}}', "--name", "x"], "C is -1"),
        (["--fit", '{"svr": {"kernel": "poly"}}', "--name", "x"], "kernel"),
        (["--fit", '{"svr": {"C": []}}', "--name", "x"], "C is an empty list"),
        (["--fit", '{"svr": {"pca": 99}}', "--name", "x"], "pca is 99"),
        (["--fit", "svr"], "--name NAME"),
        (["--name", "x"], "add --fit"),
        (["--seed", "1"], "--seed is of what is fitted on embeddings: add --fit"),
        (["--fit", "svr", "--name", "x", "--metadata"], "no metadata columns"),
        (["--fit", "svr", "--name", "tiny"], "exists"),
        (["--backbone-weights", "x.pth"], "name it with --backbone"),
        (["--backbone", "resnet18", "--backbone-weights", "x.pth"], "--backbone-weights: no file 'x.pth'. Name a .saf"),
        (["--backbone", "resnet18"], "--backbone-weights: the weights of 'resnet18' are not on this machine"),
        (["--backbone", "resnet18", "--layer", "neck"], "only the layer pooled"),
        (["--backbone", "resnet18", "--image-size", "[32, 32, 32]"], "give one side, or height and width"),
        (["--views", "hflop"], "hflop"),
        (
            ["--backbone", "resnet18", "--backbone-weights", "RUNS/tiny/fold_0/weights.safetensors"],
            "was trained on labels",
        ),
    ],
)
def test_wrong_options_are_refused_before_anything_is_written(runs, words, said, capsys):
    words = [word.replace("RUNS", str(runs)) for word in words]
    assert main(["embed", str(runs / "tiny"), "--device", "cpu", *words]) == 2
    assert said in error(capsys)
    assert not (runs / "x").exists()


def test_an_unfinished_run_and_an_ensemble_are_refused(runs, capsys):
    assert main(["embed", str(runs / "svr")]) == 2
    assert "name the run of a member: tiny" in error(capsys)
    (runs / "tiny" / "fold_1" / "result.json").unlink()
    assert main(["embed", str(runs / "tiny"), "--device", "cpu"]) == 2
    assert "not finished" in error(capsys)
