"""Models on embeddings of runs of every kind: groups, one held-out part, several seeds, several images, metadata."""

import json
import shutil
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pandas as pd
import pytest

from swinft.cli import main
from swinft.errors import InputError
from swinft.run.embed.makers import check_embeddable
from swinft.run.layout import Run
from tests.conftest import in_this_process, tiny_config, write_config
from tests.run.embed.conftest import QUICK


def test_masks_are_refused():
    data = SimpleNamespace(settings=SimpleNamespace(kind=SimpleNamespace(are_maps=True)))
    with pytest.raises(InputError, match="predicts masks"):
        check_embeddable(data, Run(Path("runs/x")))


def finished(competition: Path, folder: Path, monkeypatch, **changes: object) -> Path:
    monkeypatch.setattr("swinft.run.fit.run_children", in_this_process)
    monkeypatch.setattr("swinft.run.scores.write_report", lambda *_: None)
    changes = {"trainer.max_epochs": 1, **changes}
    config = write_config(folder / "c.yaml", tiny_config(competition, folder / "runs", **changes))
    assert main(["fit", "--config", str(config)]) == 0
    return folder / "runs" / "tiny"


CASES = {
    "regression": ({"data.target": "brightness", "data.target_kind": "regression", "model.head": {"class_path": "swinft.RegressionHead"}}, "svr"),
    "labels": ({"data.target": ["is_red", "is_green"], "data.target_kind": "multilabel", "model.head": {"class_path": "swinft.MultilabelHead"}}, "logistic"),
    "groups": ({"data.columns": {"numeric_features": ["brightness"]}, "data.test": None, "data.sample_submission": None, "data.folds": {"num": 2, "group": "brightness"}}, "ridge"),
    "holdout": ({"data.folds": {"kind": "holdout", "fraction": 0.25}}, '{"ridge": {"alpha": [1, 100]}}'),
    "seeds": ({"seeds": [1, 2]}, "knn"),
    "several images": ({"data.image": ["images/{id}.jpg", "images/{id}.jpg"], "model.pooling": {"images": "mean"}}, "ridge"),
    "neck": ({"model.head": {"class_path": "swinft.ArcFaceHead", "init_args": {"embedding": 5}}}, '{"retrieval": {"new_class": 0.5}}'),
}  # fmt: skip


@pytest.mark.slow
@pytest.mark.parametrize("case", CASES)
def test_every_kind_of_run_has_honest_models(case, competition, tmp_path, monkeypatch):
    changes, model = CASES[case]
    run = finished(competition, tmp_path, monkeypatch, **changes)
    words = ["--metadata"] if case == "groups" else ["--layer", "neck"] if case == "neck" else []
    assert main(["embed", str(run), "--fit", model, "--name", "made", *QUICK, *words]) == 0
    made = run.parent / "made"
    assert (made / "report.html").is_file()
    theirs, found = pd.read_csv(run / "oof.csv", dtype={"id": str}), pd.read_csv(made / "oof.csv", dtype={"id": str})
    assert found["id"].tolist() == theirs["id"].tolist()
    assert found["fold"].tolist() == theirs["fold"].tolist()
    outputs = [name for name in found if name not in ("id", "fold", "status")]
    assert (found[outputs].notna() == theirs[outputs].notna()).to_numpy().all()
    scores = json.loads((made / "scores.json").read_text())
    assert scores["rows"] == found[outputs[0]].notna().sum()
    assert scores["embedding"]["run"] == "tiny"
    if case == "regression":
        known = found["brightness"].dropna()
        assert known.between(20, 89).all()
    if case in ("holdout", "seeds", "several images", "neck"):
        assert np.allclose(found[outputs].dropna().sum(1), 1, atol=1e-5)
    files = sorted(path.name for path in (run / "embeddings").glob("*/*.train.parquet"))
    assert len(files) == {"holdout": 1, "seeds": 4}.get(case, 2)
    if case == "holdout":
        assert len(json.loads((made / "ensemble.json").read_text())["embedding"]["models"][0]["tried"]) == 2
    if case == "neck":
        assert "e4" in pd.read_parquet(next((run / "embeddings").glob("*/*.train.parquet")))
        assert "e5" not in pd.read_parquet(next((run / "embeddings").glob("*/*.train.parquet")))
    if case not in ("groups", "regression", "labels"):
        assert len(pd.read_csv(made / "test_predictions.csv")) == 6


@pytest.mark.slow
def test_one_and_two_workers_write_the_same_bytes(tiny_run, tmp_path):
    files = {}
    for workers in ("0", "2"):
        run = Path(shutil.copytree(tiny_run, tmp_path / workers / "tiny"))
        assert main(["embed", str(run), "--device", "cpu", "--num-workers", workers]) == 0
        files[workers] = {path.name: path.read_bytes() for path in (run / "embeddings").rglob("*.parquet")}
    assert len(files["0"]) == 4
    assert files["0"] == files["2"]


@pytest.mark.slow
def test_a_config_alone_has_rows_and_folds_for_a_backbone(competition, tiny_run, tmp_path, capsys):
    from tests.run.embed.test_member import backbone_words

    config = write_config(tmp_path / "c.yaml", tiny_config(competition, tmp_path / "runs"))
    assert main(["embed", str(config)]) == 2
    assert "add --backbone" in capsys.readouterr().err
    words = ["embed", str(config), "--fit", "ridge", "--name", "ridge", *backbone_words(tiny_run, tmp_path), *QUICK]
    assert main(words) == 0
    runs = tmp_path / "runs"
    assert not (runs / "tiny" / "oof.csv").exists()
    assert (runs / "ridge" / "folds.csv").read_bytes() == (tiny_run / "folds.csv").read_bytes()
    assert main(["submit", str(runs / "ridge")]) == 0
    assert main([*words, "--overwrite"]) == 0
    assert main(["fit", "--config", str(config), "--resume", "--fold", "0"]) == 0


def test_a_fit_needs_no_image_of_the_rows_to_predict(tiny_run, competition, tmp_path, capsys):
    run, root = Path(shutil.copytree(tiny_run, tmp_path / "tiny")), tmp_path / "data"
    shutil.copytree(competition, root)
    (root / "test.csv").write_text("id\nnowhere\n")
    words = ["embed", str(run), "--device", "cpu", "--fit", "ridge", "--name", "made", "--root", str(root), *QUICK]
    assert main([*words, "--rows", "test"]) == 2
    assert "--fit needs the embeddings of the training rows" in capsys.readouterr().err
    assert main([*words, "--rows", "train"]) == 0
    made = tmp_path / "made"
    assert f"no predictions yet (--rows train): `swinft predict {made}`" in capsys.readouterr().out
    assert (made / "oof.csv").exists()
    assert not (made / "test_predictions.csv").exists()
    assert main(["predict", str(made), "--device", "cpu"]) == 0
    assert len(pd.read_csv(made / "test_predictions.csv")) == 6
