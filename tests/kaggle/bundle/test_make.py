"""`swinft bundle`: what is in it and what is not, its metadata by the rules of Kaggle's client, and what is refused."""

import json
import re
import shutil
import stat
import sys
import zipfile
from importlib import metadata
from pathlib import Path

import nbformat
import pytest
import yaml

import swinft
from swinft.cli import main
from swinft.kaggle.bundle.opened import open_bundle
from swinft.run.layout import Run
from swinft.store import commit
from tests.conftest import ROOT
from tests.json_documents import document
from tests.kaggle.bundle.conftest import COMPETITION, make


def files(folder: Path) -> dict[str, bytes]:
    return {path.name: path.read_bytes() for path in folder.iterdir()}


def test_it_has_what_predicts_and_nothing_of_rows(tiny_bundle, tiny_run):
    found = files(tiny_bundle / "weights")
    names = "config.yaml schema.json folds.csv inputs.json sample.json environment.json devices.json choice.json"
    names = [
        *names.split(),
        "scores.json",
        *(f"fold_{k}--{n}" for k in (0, 1) for n in ("weights.safetensors", "result.json")),
    ]
    assert set(found) == {f"tiny--{name}" for name in names} | {"bundle.json", "dataset-metadata.json"}
    assert all(path.is_file() and not path.name.startswith(".") for path in (tiny_bundle / "weights").iterdir())
    assert found["tiny--fold_1--weights.safetensors"] == (tiny_run / "fold_1" / "weights.safetensors").read_bytes()
    assert found["tiny--folds.csv"].decode().splitlines()[1:] == ["row of fold 0,0", "row of fold 1,1"]
    whole = b"".join(found.values())
    assert b"/tmp" not in whole.replace(b"/tmp/swinft", b"")
    assert str(tiny_run.parent).encode() not in whole
    assert b"\n000," not in whole  # no training row's id
    assert yaml.safe_load(found["tiny--config.yaml"])["data"]["root"] == "."


@pytest.mark.usefixtures("_not_loaded")
def test_secrets_stay_here(tiny_run, tmp_path, capsys):
    run = Run(Path(shutil.copytree(tiny_run, tmp_path / "tiny")))
    config = run.read_config()
    config["trainer"]["logger"] = [
        {"class_path": "lightning.pytorch.loggers.WandbLogger", "init_args": {"api_key": "s3cret"}}
    ]
    commit(run.config, yaml.safe_dump(config).encode(), "swinft fit")
    capsys.readouterr()
    assert make(str(run.root), "--output", str(tmp_path / "out"), "--json") == 0
    made = document(capsys.readouterr().out, "bundle")
    assert all(Path(each).exists() for each in [*made["datasets"], made["notebook"]])
    found = b"".join(path.read_bytes() for path in (tmp_path / "out").rglob("*") if path.is_file())
    assert b"s3cret" not in found
    assert b"***" in found


def test_its_metadata_is_right_by_the_rules_of_kaggles_client(tiny_bundle):
    slugify = pytest.importorskip("slugify").slugify
    sources = []
    for kind in ("weights", "wheels"):
        about = json.loads((tiny_bundle / kind / "dataset-metadata.json").read_text())
        owner, slug = about["id"].split("/")
        assert (owner, slug) == ("me", slugify(about["title"]))
        assert 6 <= len(slug) <= 50
        assert 6 <= len(about["title"]) <= 50
        assert 20 <= len(about["subtitle"]) <= 80
        assert [list(each) for each in about["licenses"]] == [["name"]]
        sources.append(about["id"])
    kernel = json.loads((tiny_bundle / "kernel" / "kernel-metadata.json").read_text())
    assert kernel["id"] == f"me/{slugify(kernel['title'])}"
    assert (kernel["dataset_sources"], kernel["competition_sources"]) == (sources, [COMPETITION])
    assert (kernel["enable_internet"], kernel["is_private"], kernel["machine_shape"]) == (False, True, "NvidiaTeslaT4")
    notebook = nbformat.read(tiny_bundle / "kernel" / kernel["code_file"], as_version=4)
    nbformat.validate(notebook)
    for cell in notebook.cells:
        if cell.cell_type == "code":
            compile(cell.source, "cell", "exec")
    assert "http" not in "".join(cell.source for cell in notebook.cells)


def test_the_wheel_is_of_the_installed_package(tiny_bundle, tmp_path):
    (path,) = (tiny_bundle / "wheels").glob("*.whl")
    with zipfile.ZipFile(path) as wheel:
        names = set(wheel.namelist())
        about = f"swinft-{metadata.version('swinft')}.dist-info"
        assert {"swinft/cli.py", "swinft/py.typed", "swinft/run/report/page.html", f"{about}/METADATA"} <= names
        assert not [name for name in names if "__pycache__" in name or name.startswith("tests")]
        assert wheel.read("swinft/cli.py") == (ROOT / "swinft" / "cli.py").read_bytes()
        wheel.extractall(tmp_path)
    (found,) = metadata.distributions(path=[str(tmp_path)])
    assert all(file.hash and file.locate().is_file() for file in found.files or [] if file.name != "RECORD")
    assert [entry.value for entry in found.entry_points] == ["swinft.cli:entry"]


@pytest.mark.slow  # an ensemble is made
@pytest.mark.usefixtures("_not_loaded")
def test_an_ensemble_is_bundled_with_its_members(runs, monkeypatch, tmp_path):
    monkeypatch.setattr("swinft.run.ensemble.ensemble.write_report", lambda *_: None)
    (runs / "other").mkdir()
    (runs / "a").rename(runs / "other" / "a")
    options = {"bootstrap": 0, "leave_one_out": False, "method": "power", "runs": runs}
    blend = swinft.ensemble([runs / "other" / "a", runs / "b"], "blend", **options)
    assert make(str(blend.folder), "--output", str(tmp_path / "out")) == 0
    opened = open_bundle(tmp_path / "out" / "weights", tmp_path / "opened")
    assert (opened.runs, opened.submits) == (["a", "b", "blend"], ["blend"])
    members = opened.run("blend").read_ensemble()["members"]
    assert [each["run"] for each in members] == ["../a", "../b"]
    assert opened.run("blend").read_ensemble()["fitted"] == Run(blend.folder).read_ensemble()["fitted"]


@pytest.mark.usefixtures("_not_loaded")
def test_runs_of_one_name_are_kept_apart(tiny_run, tmp_path):
    for folder in ("x", "y"):
        shutil.copytree(tiny_run, tmp_path / folder / "tiny")
    out = tmp_path / "out"
    assert make(str(tmp_path / "x" / "tiny"), str(tmp_path / "y" / "tiny"), "--output", str(out)) == 0
    manifest = json.loads((out / "weights" / "bundle.json").read_text())
    assert manifest["runs"] == manifest["submits"] == ["tiny", "tiny-2"]


@pytest.mark.slow  # networks are loaded with them
def test_modules_of_ones_own_are_in_the_bundle(tiny_run, tmp_path, monkeypatch):
    run = Run(Path(shutil.copytree(tiny_run, tmp_path / "tiny")))
    package = tmp_path / "mine_of_bundle"
    package.mkdir()
    (package / "__init__.py").write_text("from mine_of_bundle.views import Same\n")
    (package / "views.py").write_text(
        "import swinft\nclass Same(swinft.View):\n    name='same'\n    def apply(self, images):\n        return images\n"
    )
    config = run.read_config()
    config["predict"]["views"] = [{"class_path": "mine_of_bundle.Same"}]
    commit(run.config, yaml.safe_dump(config).encode(), "swinft fit")
    monkeypatch.syspath_prepend(str(tmp_path))
    assert make(str(run.root), "--output", str(tmp_path / "out")) == 2
    assert make(str(run.root), "--output", str(tmp_path / "out"), "--allow-code", "mine_of_bundle") == 0
    monkeypatch.setattr(sys, "path", sys.path[1:])
    monkeypatch.setenv("PYTHONPATH", "before")
    opened = open_bundle(tmp_path / "out" / "weights", tmp_path / "opened")
    assert opened.modules == ["mine_of_bundle"]
    assert (tmp_path / "opened" / "code" / "mine_of_bundle" / "views.py").is_file()
    assert sys.path[-1] == str(tmp_path / "opened" / "code")


@pytest.mark.parametrize(
    ("words", "says"),
    [
        (["--owner", "Me!"], "a user's name has lower-case letters"),
        (["--title", "x"], "its slug is 'x'. Both need 5 to 42 characters"),
        (["--title", "x" * 43], "Both need 5 to 42 characters"),
        (["--title", "図"], "its slug is ''"),
        (["--competition", "https://www.kaggle.com/me/notebook"], "is not the address of a competition"),
        (["--competition", "a b"], "is not the slug of a competition"),
        (["--max-hours", "0"], "--max-hours is 0"),
        (["--python", "three"], "not a version of Python"),
        (["--wheels", "nowhere"], "--wheels nowhere: there is no such folder"),
        (["--folds", "7"], "names .7., but the run has folds"),
        (["--server", "x.Y", "--max-hours", "3"], "--max-hours and --only-in-rerun are for a table of rows"),
        (["--allow-code", "no_such_module_here"], "there is no module of this name"),
        (["--wheel", "skip"], "Did you mean '--wheels'|wheels"),
    ],
)  # fmt: skip
@pytest.mark.usefixtures("_not_loaded")
def test_what_is_wrong_is_said_before_anything_is_written(words, says, tiny_run, tmp_path, capsys, monkeypatch):
    monkeypatch.chdir(tmp_path)
    given = {"--owner": "me", "--competition": COMPETITION, "--wheels": "skip"}
    rest = [word for name, value in given.items() if name not in words for word in (name, value)]
    assert main(["bundle", str(tiny_run), *rest, *words]) == 2
    assert re.search(says, capsys.readouterr().err)
    assert not [path for path in tmp_path.rglob("*") if path.is_file()]


def test_owner_and_competition_are_asked_for(tiny_run, tmp_path, capsys, monkeypatch):
    monkeypatch.chdir(tmp_path)
    assert main(["bundle", str(tiny_run), "--wheels", "skip"]) == 2
    assert "--owner is missing" in capsys.readouterr().err
    assert main(["bundle", str(tiny_run), "--owner", "me", "--wheels", "skip"]) == 2
    assert "--competition is missing" in capsys.readouterr().err
    assert main(["bundle", str(tiny_run), str(tiny_run), "--owner", "me"]) == 2
    assert "given twice" in capsys.readouterr().err


@pytest.mark.usefixtures("_not_loaded")
def test_nothing_is_replaced_but_an_earlier_bundle(tiny_run, tmp_path, capsys):
    out = tmp_path / "out"
    (out / "weights").mkdir(parents=True)
    (out / "weights" / "mine.txt").write_text("mine")
    words = [str(tiny_run), "--output", str(out)]
    assert make(*words) == 2
    assert "out exists" in capsys.readouterr().err
    assert make(*words, "--overwrite") == 2
    assert "is no bundle" in capsys.readouterr().err
    assert (out / "weights" / "mine.txt").read_text() == "mine"
    shutil.rmtree(out)
    assert make(*words) == 0
    assert make(*words, "--overwrite", "--title", "Another title") == 0
    assert json.loads((out / "kernel" / "kernel-metadata.json").read_text())["id"] == "me/another-title"
    assert sorted(path.name for path in tmp_path.iterdir()) == ["out"]


def test_a_run_that_is_not_whole_is_refused(tiny_run, tmp_path, capsys):
    run = Path(shutil.copytree(tiny_run, tmp_path / "tiny"))
    weights = run / "fold_1" / "weights.safetensors"
    weights.write_bytes(weights.read_bytes()[:-1] + b"x")
    assert make(str(run), "--output", str(tmp_path / "out")) == 1
    assert "weights.safetensors has changed" in capsys.readouterr().err
    weights.unlink()
    assert make(str(run), "--output", str(tmp_path / "out")) == 2
    assert "folds [1] of" in capsys.readouterr().err
    assert not (tmp_path / "out").exists()


@pytest.mark.usefixtures("_not_loaded")
def test_a_bundle_of_a_read_only_run(tiny_run, tmp_path):
    run = Path(shutil.copytree(tiny_run, tmp_path / "tiny"))
    for path in run.rglob("*"):
        path.chmod(stat.S_IRUSR | (stat.S_IXUSR if path.is_dir() else 0))
    assert make(str(run), "--output", str(tmp_path / "out")) == 0
    open_bundle(tmp_path / "out" / "weights", tmp_path / "opened")


@pytest.mark.usefixtures("_not_loaded")
def test_the_upload_makes_two_datasets_and_then_the_notebook(tiny_run, kaggle, tmp_path, monkeypatch, capsys):
    monkeypatch.setattr("swinft.kaggle.bundle.upload.sleep", kaggle.slept.append)
    words = ["bundle", str(tiny_run), "--competition", COMPETITION, "--wheels", "skip", "--upload"]
    assert main([*words, "--output", str(tmp_path / "out")]) == 0
    said = capsys.readouterr().out
    assert re.search(
        r"/swinft-tiny-weights: created.*\n.*/swinft-tiny-wheels: created.*\n.*/swinft-tiny: version 1.*\n.*--kernel-version 1",
        said,
    )
    assert main([*words, "--output", str(tmp_path / "out"), "--overwrite"]) == 0
    assert "swinft-tiny-weights: a new version" in capsys.readouterr().out
