"""What a run goes on after: moves, lost files and records, other settings, other machines."""

import json
import shutil
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file

from swinft.cli import main
from swinft.errors import InputError, StoreError
from swinft.run import environment
from swinft.run import freeze as prepare
from swinft.run.folds.checkpoints import newest_checkpoint
from swinft.run.layout import Run
from swinft.store import RECORDS, verify
from tests.conftest import power_gone_after, tiny_config, write_config

CONFIG = {"trainer.max_epochs": 3}


@pytest.fixture(scope="module")
def finished(tiny_run):
    """The config of a finished run, and the run."""
    return tiny_run.parent.parent / "config.yaml", tiny_run


@pytest.fixture(scope="module")
def interrupted(competition, tmp_path_factory):
    """A run that lost its power after the second of three epochs of fold 0, and the OOF that the fold would have had."""
    folder = tmp_path_factory.mktemp("interrupted")
    config = write_config(folder / "c.yaml", tiny_config(competition, folder / "runs", **CONFIG))
    assert main(["fit", "--config", str(config), "--fold", "0", "--name", "whole"]) == 0
    with power_gone_after(2):
        main(["fit", "--config", str(config), "--fold", "0"])
    oof = folder / "runs" / "whole" / "fold_0" / "oof.csv"
    return folder / "runs" / "tiny", oof.read_bytes()


@pytest.fixture
def half(interrupted, tmp_path):
    """A copy of the interrupted run, elsewhere and with another name."""
    shutil.copytree(interrupted[0], tmp_path / "elsewhere" / "moved")
    return Run(tmp_path / "elsewhere" / "moved")


@pytest.fixture
def copy(tiny_run, tmp_path):
    """A copy of the finished run, elsewhere and with another name."""
    shutil.copytree(tiny_run, tmp_path / "elsewhere" / "moved")
    return Run(tmp_path / "elsewhere" / "moved")


# --- F40: what may differ, and where a run lies


FREE = [
    "data.loading.num_workers=1",
    "data.loading.cache=false",
    "trainer.enable_progress_bar=true",
    "submission.threshold=0.4",
]


def test_f040_what_changes_no_result_may_differ_and_is_said(copy, capsys):
    options = [f"--{option}" for option in FREE]
    assert main(["fit", "--config", str(copy.config), "--resume", *options]) == 0
    out = capsys.readouterr().out
    assert (
        "changed since the start, without an effect on results: data.loading.cache: was 'auto', is False; data.loading.num_workers: was 'auto'"
        in out
    )
    assert copy.read_config()["data"]["loading"]["num_workers"] == 1  # what the folds are going to read
    assert copy.read_config()["submission"]["threshold"] == 0.4


REFUSED = [
    "predict.views=[identity,hflip]",
    "data.batch_size=4",
    "seed=1",
    "trainer.max_epochs=4",
    "trainer.devices=2",
    "trainer.precision=bf16-mixed",
    "trainer.accumulate_grad_batches=2",
    "data.image_size=40",
    "data.folds.duplicates=group",
    "checkpoint=best",
]


def test_f040_what_can_change_a_result_may_not_differ_and_all_of_it_is_listed(finished, capsys):
    config, run = finished
    before = (run / "config.yaml").read_bytes()
    options = [f"--{option}" for option in [*REFUSED, "data.loading.num_workers=1"]]
    assert main(["fit", "--config", str(config), "--resume", *options]) == 2
    err = capsys.readouterr().err
    assert "was started with another config" in err
    for option in REFUSED:
        assert f"\n  {option.split('=')[0]}: was " in err, option
    assert "num_workers" not in err
    assert (run / "config.yaml").read_bytes() == before


@pytest.mark.parametrize("way", ["resume-run", "resume=run", "config", "old-config"])
def test_f040_a_moved_run_goes_on_where_it_lies(way, half, interrupted, capsys):
    words = {
        "resume-run": ["--resume", str(half.root)],
        "resume=run": [f"--resume={half.root}"],
        "config": ["--config", str(half.config), "--resume"],  # what the commands print
        "old-config": ["--config", str(interrupted[0].parent.parent / "c.yaml"), "--resume", str(half.root)],
    }[way]
    untouched = {path: path.stat().st_mtime_ns for path in interrupted[0].rglob("*") if path.is_file()}
    assert main(["fit", *words, "--fold", "0"]) == 0
    assert "resumed from epoch-0002.ckpt" in capsys.readouterr().out
    assert half.fold(0).oof.read_bytes() == interrupted[1]
    assert {path: path.stat().st_mtime_ns for path in interrupted[0].rglob("*") if path.is_file()} == untouched


def test_f040_a_moved_runs_folder_is_what_overwrite_deletes(copy, finished):
    """Not another run that lies where the moved one was."""
    before = (finished[1] / "config.yaml").stat().st_ino
    assert main(["fit", "--config", str(copy.config), "--overwrite", "--fold", "9"]) == 2
    assert (finished[1] / "config.yaml").stat().st_ino == before
    assert main(["fit", "--config", str(copy.config)]) == 2


def test_f040_resume_of_what_is_no_run_is_refused(tmp_path, capsys):
    (tmp_path / "nothing").mkdir()
    assert main(["fit", "--resume", str(tmp_path / "nothing")]) == 2
    assert "is not a run" in capsys.readouterr().err
    assert main(["fit", "--resume", str(tmp_path / "gone")]) == 2
    assert "there is no run folder" in capsys.readouterr().err


def test_f040_moved_data_is_the_same_data(half, interrupted, competition, tmp_path, capsys):
    shutil.copytree(competition, tmp_path / "data")
    words = ["fit", "--resume", str(half.root), "--fold", "0", "--data.root", str(tmp_path / "data")]
    assert main(words) == 0
    assert f"data.root: was '{competition}', is '{tmp_path / 'data'}'" in capsys.readouterr().out
    assert half.fold(0).oof.read_bytes() == interrupted[1]
    train = tmp_path / "data" / "train.csv"
    train.write_text(train.read_text().replace("000,red", "000,blue"))
    assert main([*words[:3], "--fold", "1", *words[5:]]) == 2
    assert f"{train} (SHA-256 was " in capsys.readouterr().err


def test_f040_tables_frozen_by_their_paths_are_known(copy, competition):
    names = ("train.csv", "test.csv", "sample_submission.csv")
    frozen = json.loads(copy.inputs.read_text())
    assert list(frozen) == list(names)
    older = {str(competition / name): frozen[name] for name in names}
    prepare.commit(copy.inputs, json.dumps(older).encode(), "swinft fit")
    assert main(["fit", "--resume", str(copy.root)]) == 0


def test_f040_a_key_that_the_run_did_not_know_is_no_difference(copy, capsys):
    text = copy.config.read_text()
    assert "    shrink: auto\n" in text
    prepare.commit(copy.config, text.replace("    shrink: auto\n", "").encode(), "swinft fit")
    assert main(["fit", "--resume", str(copy.root)]) == 0
    assert "keys that are new in this version, set to their defaults: data.loading.shrink" in capsys.readouterr().out
    prepare.commit(copy.config, text.replace("    shrink: auto\n", "").encode(), "swinft fit")
    assert main(["fit", "--resume", str(copy.root), "--data.loading.shrink", "false"]) == 2


# --- F44: lost and damaged files and records


def without_records(folder: Path) -> None:
    for records in folder.rglob(RECORDS):
        shutil.rmtree(records)


def test_f044_a_half_done_fold_without_records_goes_on_from_its_checkpoints(half, interrupted, capsys):
    shutil.rmtree(half.fold(0).root / RECORDS)
    assert main(["fit", "--resume", str(half.root), "--fold", "0"]) == 0
    out = capsys.readouterr().out
    assert "epoch-0002.ckpt has no commit record, or a damaged one; its internal checksums match" in out
    assert "resumed from epoch-0002.ckpt" in out
    assert half.fold(0).oof.read_bytes() == interrupted[1]


def test_f044_a_checkpoint_without_record_that_is_damaged_is_not_used(half):
    fold = half.fold(0)
    shutil.rmtree(fold.root / RECORDS)
    for path in fold.root.glob("epoch-*.ckpt"):
        content = path.read_bytes()
        middle = len(content) // 2
        path.write_bytes(content[:middle] + bytes([content[middle] ^ 1]) + content[middle + 1 :])
    before = {path.name: path.read_bytes() for path in fold.root.iterdir() if path.is_file()}
    with pytest.raises(StoreError, match=r"was fitted before over 2 epochs, and can neither be used nor resumed"):
        newest_checkpoint(fold)
    assert {path.name: path.read_bytes() for path in fold.root.iterdir() if path.is_file()} == before


@pytest.mark.parametrize("lost", ["epoch-*", "epoch-* of a finished fold", "weights", "records"])
def test_f044_nothing_that_was_trained_is_trained_again_unasked(lost, request):
    fold = request.getfixturevalue("half" if lost == "epoch-*" else "copy").fold(0)
    if lost.startswith("epoch"):
        for path in [*fold.root.glob("epoch-*"), fold.result, fold.oof]:
            path.unlink(missing_ok=True)
    elif lost == "weights":
        fold.weights.unlink()
    else:
        shutil.rmtree(fold.root / RECORDS)
    with pytest.raises(StoreError, match="was fitted before"):
        newest_checkpoint(fold)


def test_f044_a_run_copied_without_hidden_files_says_so_and_can_be_accepted(copy, capsys):
    without_records(copy.root)
    before = copy.oof.read_bytes()
    for words in (["predict", str(copy.root)], ["fit", "--resume", str(copy.root)]):
        assert main(words) == 1
        err = capsys.readouterr().err
        assert f"{copy.config} cannot be verified: its commit record" in err
        assert "add --accept to `swinft fit --resume`" in err
    assert main(["fit", "--resume", str(copy.root), "--accept"]) == 0
    out = capsys.readouterr().out
    assert "accepted as they are, with new records: choice.json, config.yaml" in out
    assert "fold_1/weights.safetensors" in out
    assert out.count("done, skipped") == 2
    assert copy.oof.read_bytes() == before
    assert main(["predict", str(copy.root), "--device", "cpu"]) == 0


def test_f044_what_is_not_whole_is_not_accepted(copy, capsys):
    without_records(copy.root)
    for path in (copy.fold(0).weights, copy.schema):
        path.write_bytes(path.read_bytes()[:-10])
    assert main(["fit", "--resume", str(copy.root), "--accept"]) == 1
    err = capsys.readouterr().err
    assert f"{copy.fold(0).weights}" in err
    assert f"{copy.schema}" in err
    assert not list(copy.root.rglob(RECORDS))


def test_f044_what_has_changed_is_not_accepted(copy):
    content = copy.folds.read_text()
    copy.folds.write_text(content.replace(",0\n", ",1\n", 1))
    assert main(["fit", "--resume", str(copy.root), "--accept"]) == 1
    with pytest.raises(StoreError, match="has changed since it was written"):
        verify(copy.folds)


def test_f044_a_damaged_record_has_its_own_words_and_can_be_made_anew(copy, capsys):
    record = copy.root / RECORDS / "folds.csv.json"
    record.write_bytes(record.read_bytes().replace(b"size", b"sixe"))
    assert main(["fit", "--resume", str(copy.root)]) == 1
    assert f"folds.csv cannot be verified: its commit record {record} is damaged." in capsys.readouterr().err
    assert main(["fit", "--resume", str(copy.root), "--accept"]) == 0
    assert "accepted as they are, with new records: folds.csv\n" in capsys.readouterr().out
    verify(copy.folds)


@pytest.mark.parametrize("name", ["schema", "environment", "devices"])
@pytest.mark.parametrize("harm", ["lost", "damaged"])
def test_f044_what_can_be_made_again_is(name, harm, copy, capsys):
    path = getattr(copy, name)
    content = path.read_bytes()
    path.unlink() if harm == "lost" else path.write_bytes(content[:-5])
    assert main(["fit", "--resume", str(copy.root)]) == 0
    assert f"made again: {path} {'is missing' if harm == 'lost' else 'has changed'}" in capsys.readouterr().out
    assert verify(path).read_bytes() == content


def test_f044_damaged_test_predictions_do_not_stop_a_resume(copy, capsys):
    content = copy.test_predictions.read_bytes()
    copy.test_predictions.write_bytes(content.replace(b"0.", b"1.", 1))
    assert main(["fit", "--resume", str(copy.root)]) == 0
    assert "the report omits the test predictions" in capsys.readouterr().out
    copy.test_predictions.write_bytes(content[:-3])
    assert main(["fit", "--resume", str(copy.root)]) == 0


def test_f044_accept_goes_with_resume(finished, capsys):
    assert main(["fit", "--config", str(finished[0]), "--accept"]) == 2
    assert "give it with --resume" in capsys.readouterr().err


# --- F45: every file that is read is verified


@pytest.mark.parametrize("name", ["fold_0/metrics.jsonl", "environment.json", "scores.json"])
def test_f045_the_report_verifies_what_it_reads(name, copy, capsys):
    path = copy.root / name
    path.write_bytes(path.read_bytes().replace(b"0.", b"1.", 1) + b" ")
    assert main(["report", str(copy.root)]) in (1, 2)
    assert name.rpartition("/")[2] in capsys.readouterr().err or name == "scores.json"


def test_f045_a_report_of_a_run_with_a_deleted_fold_is_refused(copy, capsys):
    shutil.rmtree(copy.fold(1).root)
    assert main(["report", str(copy.root)]) == 2
    assert "folds [1] of" in capsys.readouterr().err


# --- F46: what a fold was made with


def test_f046_a_fold_says_what_it_was_made_with(finished):
    made_with = json.loads((finished[1] / "fold_0" / "result.json").read_text())["made_with"]
    assert made_with["versions"]["torch"] == torch.__version__.partition("+")[0] or made_with["versions"]["torch"]
    assert (made_with["precision"], made_with["devices"]) == ("32-true", 1)
    assert made_with["device"].startswith("cpu")


def test_f046_another_version_is_said_on_resume_and_with_the_scores(copy, capsys):
    result = copy.fold(0).read_result()
    result["made_with"]["versions"]["timm"] = "0.9"
    result["made_with"]["precision"] = "16-mixed"
    prepare.commit(copy.fold(0).result, json.dumps(result).encode(), "swinft fit")
    assert main(["fit", "--resume", str(copy.root)]) == 0
    out = capsys.readouterr().out
    assert out.count("differs from fold 0: timm 0.9 → 1.") == 1
    assert "precision 16-mixed → 32-true. Scores of folds may differ" in out
    assert "folds made in another environment than fold 0: fold 1: timm 0.9 → " in out


def test_f046_nothing_is_said_where_nothing_differs(copy, capsys):
    assert main(["fit", "--resume", str(copy.root)]) == 0
    out = capsys.readouterr().out
    assert "differs from" not in out
    assert "folds made in another environment" not in out


def test_f046_the_start_is_compared_before_a_fold_is_done(half, capsys, monkeypatch):
    now = environment.describe_environment

    def another(config):
        return {**now(config), "device": "cuda NVIDIA L4"}

    monkeypatch.setattr("swinft.run.environment.describe_environment", another)
    monkeypatch.setattr("swinft.run.fit.fit_all", lambda *_: None)
    assert main(["fit", "--resume", str(half.root)]) == 0
    assert "differs from the start: device cpu " in capsys.readouterr().out


# --- F49: --overwrite, and runs behind a link


@pytest.mark.parametrize("left", ["all", "no-records"])
def test_f049_an_overwrite_that_was_killed_can_be_repeated(left, copy, tmp_path, monkeypatch):
    shutil.copy(copy.config, tmp_path / "c.yaml")
    words = ["fit", "--config", str(tmp_path / "c.yaml"), "--name", "moved", "--runs", str(copy.root.parent)]
    words += ["--fold", "0", "--trainer.max_epochs", "1", "--overwrite"]
    delete = shutil.rmtree

    def killed(path, **options):
        if Path(path).exists():
            if left == "no-records":
                delete(Path(path) / RECORDS)
            raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr(shutil, "rmtree", killed)
        assert main(words) == 130
    assert main(words) == 0
    assert copy.fold(0).is_done
    assert not copy.fold(1).root.exists()
    assert [path.name for path in copy.root.parent.iterdir() if path.name != ".locks"] == ["moved"]


def test_f049_a_run_behind_a_link_is_one_run_with_one_lock(copy, tmp_path):
    link = tmp_path / "runs" / "linked"
    link.parent.mkdir()
    link.symlink_to(copy.root)
    assert Run.at(link).lock == Run.at(copy.root).lock
    words = ["fit", "--config", str(tmp_path / "c.yaml"), "--name", "linked", "--runs", str(link.parent), "--fold", "0"]
    shutil.copy(copy.config, tmp_path / "c.yaml")
    assert main([*words, "--overwrite", "--trainer.max_epochs", "1"]) == 0
    assert link.is_symlink()
    assert copy.fold(0).is_done
    assert not copy.fold(1).root.exists()


# --- F41: another run's weights


def features_of(words: list[str], competition: Path, tmp_path: Path):
    """The tensors of a fresh task's backbone for a config that names pretrained weights."""
    from swinft.run.config.sections import build_parser
    from swinft.run.experiment import Experiment

    config = write_config(tmp_path / "c.yaml", tiny_config(competition, tmp_path / "runs"))
    experiment = Experiment.from_argv(build_parser("fit"), ["--config", str(config), *words])
    data = experiment.datamodule()
    data.setup("fit")
    return experiment.task(data.schema).net.backbone.state_dict()


@pytest.mark.parametrize("kind", ["weights", "checkpoint", "lightning", "bare"])
def test_f041_weights_of_another_network_give_their_backbone(kind, finished, half, competition, tmp_path, capsys):
    weights = load_file(finished[1] / "fold_0" / "weights.safetensors")
    backbone = {name: value for name, value in weights.items() if name.startswith("backbone.model.")}
    bare = {name.removeprefix("backbone.model."): value for name, value in backbone.items()}
    file = tmp_path / "weights.ckpt"
    if kind == "weights":
        file = finished[1] / "fold_0" / "weights.safetensors"
    elif kind == "checkpoint":
        file = half.fold(0).checkpoints[0]
    elif kind == "lightning":
        others = {"head.weight": torch.zeros(3, 24), "loss.weight": torch.ones(3)}
        torch.save({"state_dict": {**{f"model.{name}": value for name, value in bare.items()}, **others}}, file)
    else:
        torch.save(bare, file)
    loaded = features_of(["--model.pretrained", str(file)], competition, tmp_path)
    out = capsys.readouterr().out
    if kind == "checkpoint":  # of a run with averaged weights, which it predicts with
        assert "tensors 'averaged." in out
    else:
        assert all(torch.equal(loaded[name.removeprefix("backbone.")], value) for name, value in backbone.items())
    assert (f"of {file} are loaded into the backbone" in out) == (kind != "bare")
    if kind == "lightning":
        assert f"{len(bare)} tensors 'model.*'" in out
        assert "2 other tensors of the file are not" in out


@pytest.mark.parametrize("harm", ["one missing", "one more", "twice"])
def test_f041_weights_that_do_not_fit_are_refused_with_a_prefix_too(harm, finished, competition, tmp_path):
    weights = load_file(finished[1] / "fold_0" / "weights.safetensors")
    state = {name.replace("backbone.", ""): value for name, value in weights.items() if name.startswith("backbone.")}
    if harm == "one missing":
        state.pop("model.norm.weight")
    elif harm == "one more":
        state["model.norm.scale"] = torch.ones(1)
    else:
        state |= {f"teacher.{name}": value for name, value in state.items()}
    torch.save({"state_dict": state}, tmp_path / "weights.ckpt")
    with pytest.raises(InputError, match=r"does not contain the weights of|contains the backbone more than once"):
        features_of(["--model.pretrained", str(tmp_path / "weights.ckpt")], competition, tmp_path)


def test_f039_a_checkpoint_of_other_steps_is_refused(half, capsys, monkeypatch):
    monkeypatch.setattr("swinft.run.folds.recorder.step_parts", lambda trainer: {"processes": 2, "rows per batch": 6})
    assert main(["fit", "--resume", str(half.root), "--fold", "0"]) == 2
    err = capsys.readouterr().err
    assert (
        "its checkpoint was saved with 1 process, 6 rows per batch, 1 batch per step, and this process has 2 processes"
        in err
    )


def test_f041_weights_that_know_the_held_out_rows_are_warned_of(finished, competition, tmp_path, capsys):
    run = finished[1]
    changes = {"data.folds.file": str(run / "folds.csv"), "trainer.max_epochs": 1}
    config = write_config(tmp_path / "c.yaml", tiny_config(competition, tmp_path / "runs", **changes))
    words = ["fit", "--config", str(config), "--fold", "1", "--model.pretrained"]
    assert main([*words, str(run / "fold_0" / "weights.safetensors"), "--name", "leaks"]) == 0
    assert "was trained on 12 of the 12 rows that fold 1 holds out" in capsys.readouterr().err
    assert main([*words, str(run / "fold_{fold}" / "weights.safetensors"), "--name", "honest"]) == 0
    out, err = capsys.readouterr()
    assert "was trained on" not in err
    assert f"of {run / 'fold_1' / 'weights.safetensors'} are loaded" in out
    assert main([*words, str(run / "fold_{fold}" / "gone.safetensors"), "--name", "gone"]) == 2
