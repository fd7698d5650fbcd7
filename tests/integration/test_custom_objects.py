"""Objects of a user's own in a run: they get what is promised, wherever they are used, and what is wrong is refused."""

import json
import sys
from collections.abc import Iterator
from pathlib import Path

import lightning.pytorch as pl
import numpy as np
import pytest
import torch
from sklearn.metrics import accuracy_score

from swinft import ClassificationHead, CSVDataModule, FineTuneTask
from swinft.cli import main
from swinft.errors import InputError
from tests.conftest import TINY_SWIN, fit_in_process, in_this_process, tiny_config, write_config

METRIC = """
import numpy as np
from swinft import Metric

class Own(Metric):
    '''Accuracy, of rows that are known to be their own.'''
    kinds = ("classification",)
    higher_is_better = True

    def __init__(self, column: str = "color") -> None:
        self.column = column

    def compute(self, predictions, targets, rows):
        assert [self.outputs[k] for k in targets] == rows[self.column].tolist()
        assert set(rows.columns) >= {"id", "color", "brightness"}
        assert all(isinstance(cell, str) for cell in rows["brightness"])
        return (predictions.argmax(1) == targets).mean()

class Error(Own):
    '''The share that is wrong.'''
    name = "error"
    higher_is_better = False
    wants_probabilities = True

    def compute(self, predictions, targets, rows):
        value = 1 - super().compute(predictions, targets, rows)
        predictions[:], targets[:] = 0, 0
        rows.iloc[:] = ""
        return value

class Fails(Own):
    def compute(self, predictions, targets, rows):
        return rows["altitude"].astype(float).mean()

class NoNumber(Own):
    def compute(self, predictions, targets, rows):
        return predictions.argmax(1) == targets

class NoDirection(Metric):
    def compute(self, predictions, targets, rows):
        return 0.5

class Tensor(NoDirection):
    higher_is_better = True

    def compute(self, predictions, targets, rows):
        import torch
        return torch.tensor(0.25)

class Infinite(Tensor):
    def compute(self, predictions, targets, rows):
        return -np.inf

class OfNumbers(Tensor):
    kinds = "regression"

class Loss(Tensor):
    name = "loss"
"""


VIEW = """
import torch
from swinft import View

class Dark(View):
    '''A share of the light.'''
    def __init__(self, share: float = 0.0) -> None:
        self.share = share

    def apply(self, images):
        return images * self.share

class Draws(View):
    def apply(self, images):
        return torch.rand(images.shape) * 255

class InPlace(View):
    def apply(self, images):
        return images.mul_(0)

class Smaller(View):
    def apply(self, images):
        return images[..., 1:, 1:]

class Mixes(View):
    def apply(self, images):
        return images.flip(0)

class Scaled(View):
    def apply(self, images):
        return images.float() * 2

class Turned(Dark):
    swaps_sides = True

class Breaks(View):
    def apply(self, images):
        return images.nothing

class Needs(View):
    def __init__(self, what: int) -> None:
        pass
"""

FORMAT = """
from swinft import SubmissionFormat

class Ranked(SubmissionFormat):
    kinds = ("classification",)

    def __init__(self, sign: str = ">") -> None:
        self.sign = sign

    def cells(self, values):
        assert self.sample_words == {"color": ["red"]}
        return {c: [self.sign.join(self.outputs[k] for k in row.argsort()[::-1]) for row in values] for c in self.columns}

    def problem(self, column, cell):
        return "" if sorted(cell.split(self.sign)) == list(self.outputs) else "not all classes"

    def changes(self, values):
        return [f"{len(values)} rows are ranked"]

class Numbers(Ranked):
    def cells(self, values):
        return {"color": list(values.argmax(1))}

class Short(Ranked):
    def cells(self, values):
        return {"color": ["red"]}

class Elsewhere(Ranked):
    def cells(self, values):
        return {"colour": ["red"] * len(values)}

class Breaks(Ranked):
    def cells(self, values):
        return values.nothing

class Refuses(Ranked):
    def problem(self, column, cell):
        return "never"

class Cannot(Ranked):
    def refusal(self):
        return f"not {self.columns}"

class OfNumbers(Ranked):
    kinds = ("regression",)

class Late(Ranked):
    def cells(self, values):
        return super().cells(values) if len(values) < 3 else 1 / 0
"""


@pytest.fixture
def own(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """A folder with a user's modules, from which swinft runs."""
    (tmp_path / "ownmetric.py").write_text(METRIC)
    (tmp_path / "ownview.py").write_text(VIEW)
    (tmp_path / "ownformat.py").write_text(FORMAT)
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, "path", [*sys.path])
    yield tmp_path
    for name in ("ownmetric", "ownview", "ownformat"):
        sys.modules.pop(name, None)


def metric(name: str, **init_args: object) -> dict[str, object]:
    return {"class_path": f"ownmetric.{name}", "init_args": init_args}


def test_a_users_metric_scores_every_epoch_fold_and_run(competition, own, capsys):
    changes = {"model.metrics": [metric("Error"), metric("Own"), "accuracy"], "checkpoint": "best"}
    config = write_config(own / "c.yaml", tiny_config(competition, own / "runs", **changes))
    fit_in_process(config, "--allow-code", "ownmetric")
    run = own / "runs" / "tiny"
    scores = json.loads((run / "scores.json").read_text())
    oof = [line.split(",") for line in (run / "oof.csv").read_text().splitlines()]
    truth = dict(line.split(",")[:2] for line in (competition / "train.csv").read_text().splitlines()[1:])
    predicted = {row[0]: oof[0][1 + int(np.argmax([float(cell) for cell in row[1:-1]]))] for row in oof[1:]}
    expected = accuracy_score([truth[id] for id in predicted], list(predicted.values()))
    assert scores["pooled"] == pytest.approx({"error": 1 - expected, "Own": expected, "accuracy": expected})
    for fold in scores["folds"]:
        assert fold["oof"]["error"] == pytest.approx(1 - fold["oof"]["accuracy"])
        lines = [json.loads(line) for line in (run / f"fold_{fold['fold']}/metrics.jsonl").read_text().splitlines()]
        assert all(line["val_error"] == pytest.approx(1 - line["val_accuracy"]) for line in lines)
        assert fold["best_epoch"]["val_error"] == min(line["val_error"] for line in lines)
    assert main(["predict", str(run), "--device", "cpu"]) == 2  # nobody said that its code may run
    assert main(["predict", str(run), "--device", "cpu", "--allow-code", "ownmetric"]) == 0
    (competition / "wanted.csv").write_text((competition / "sample_submission.csv").read_text())
    capsys.readouterr()
    assert main(["submit", str(run)]) == 0  # it runs none of the user's code
    assert "the first metric is error, which scores probabilities" in capsys.readouterr().out
    assert main(["report", str(run), "--allow-code", "ownmetric"]) == 0


@pytest.mark.parametrize(
    ("metrics", "said"),
    [
        ([metric("Fails")], "ownmetric.Fails.compute fails for 24 rows: KeyError: 'altitude' ("),
        ([metric("NoNumber")], "ownmetric.NoNumber.compute returns array("),
        ([metric("NoDirection")], "set `higher_is_better` to True or False"),
        ([metric("OfNumbers")], "has `kinds` 'regression': write a list"),
        ([metric("Loss")], "has the name 'loss'"),
        ([metric("Own"), metric("Own", column="color")], "two of one class need an attribute `name` each"),
        ([metric("Own", colum="x")], "'ownmetric.Own' has no argument 'colum'. Did you mean 'column'?"),
        ([metric("Own", column="is_red")], "fails for 24 rows: AssertionError"),
        ([{"class_path": "torch.nn.Linear"}], "model.metrics needs a class derived from swinft's Metric"),
        (["ownmetric.Won"], "'ownmetric' has no 'Won'"),
        (["acuracy"], "Did you mean 'accuracy'?"),
    ],
)
def test_what_is_wrong_with_a_metric_is_said_before_anything_is_trained(competition, own, capsys, metrics, said):
    config = write_config(own / "c.yaml", tiny_config(competition, own / "runs", **{"model.metrics": metrics}))
    assert main(["fit", "--config", str(config), "--allow-code", "ownmetric", "--fold", "0"]) == 2
    assert said in capsys.readouterr().err
    assert not (own / "runs" / "tiny" / "config.yaml").exists()


def test_a_metric_is_named_by_its_path_alone_and_listed(competition, own, capsys):
    config = write_config(own / "c.yaml", tiny_config(competition, own / "runs"))
    words = ["check", "--config", str(config), "--model.metrics", "ownmetric.Tensor,ownmetric.Infinite,accuracy"]
    assert main([*words, "--allow-code", "ownmetric"]) == 0
    assert main(["metrics", "--also", "ownmetric.Error", "--allow-code", "ownmetric"]) == 0
    assert "error\n  classification; lower is better\n  The share that is wrong.\n" in capsys.readouterr().out
    assert main(["metrics", "--also", "ownmetric.Error"]) == 2


def test_a_metric_under_plain_lightning_knows_its_table_or_none(competition, own, tmp_path):
    sys.path.append(str(own))
    import ownmetric

    data = CSVDataModule(
        root=str(competition), train="train.csv", image="images/{id}.jpg", target="color", batch_size=6, image_size=32,
        target_kind="classification",
    )  # fmt: skip
    task = FineTuneTask(
        ClassificationHead,
        pretrained=False,
        backbone_args=dict(TINY_SWIN),
        metrics=[ownmetric.Own("color"), "accuracy"],
    )
    quiet = {"logger": False, "enable_progress_bar": False, "enable_model_summary": False, "accelerator": "cpu"}
    trainer = pl.Trainer(max_epochs=1, num_sanity_val_steps=0, default_root_dir=tmp_path, **quiet)
    trainer.fit(task, datamodule=data)
    assert trainer.callback_metrics["val_Own"] == trainer.callback_metrics["val_accuracy"]
    trainer.save_checkpoint(tmp_path / "task.ckpt")
    loaded = FineTuneTask.load_from_checkpoint(tmp_path / "task.ckpt")
    assert loaded.metrics == ["Own", "accuracy"]
    assert loaded.scored_by[0].column == "color"
    # The datamodule stays with the Trainer, and these rows are not its table's.
    rows = [{"image": torch.zeros(2, 3, 32, 32), "target": torch.tensor([0, 1]), "row": torch.tensor([0, 1])}]
    with pytest.raises(InputError, match="`rows` is None, as there is no table"):
        trainer.validate(task, dataloaders=torch.utils.data.DataLoader(rows, batch_size=None), verbose=False)
    with pytest.raises(InputError, match="neither a name nor a metric"):
        FineTuneTask(ClassificationHead, pretrained=False, num_outputs=2, metrics=[ownmetric.Own])


def view(name: str, **init_args: object) -> dict[str, object]:
    return {"class_path": f"ownview.{name}", "init_args": init_args}


def test_a_users_view_predicts_out_of_fold_and_test_rows(competition, own, capsys, monkeypatch):
    monkeypatch.setattr("swinft.run.prediction.shards.run_children", in_this_process)
    changes = {"predict.views": ["identity", view("Dark", share=0.5)], "trainer.max_epochs": 1}
    config = write_config(own / "c.yaml", tiny_config(competition, own / "runs", **changes))
    fit_in_process(config, "--allow-code", "ownview")
    run = own / "runs" / "tiny"
    name = "ownview.Dark(share=0.5)"
    assert json.loads((run / "scores.json").read_text())["views"] == ["identity", name]
    predict = ["predict", str(run), "--device", "cpu", "--allow-code", "ownview"]
    assert main(predict) == 0
    made_with = json.loads((run / "test_predictions.made_from.json").read_text())["provenance"]
    assert made_with["views"] == ["identity", name]
    assert main(["submit", str(run)]) == 0
    assert "note: the out-of-fold score was made" not in capsys.readouterr().out

    def predicted(*words: str) -> np.ndarray:
        assert main([*predict, "--output", str(own / "p.csv"), *words]) == 0
        rows = (own / "p.csv").read_text().splitlines()[1:]
        return np.array([[float(cell) for cell in row.split(",")[1:]] for row in rows])

    dark, plain = predicted("--views", "ownview.Dark"), predicted("--views", "identity")
    assert np.ptp(dark, axis=0).max() < 1e-6 < np.ptp(plain, axis=0).max()  # a black image for every row
    assert predicted("--views", "identity,ownview.Dark") == pytest.approx((dark + plain) / 2, abs=1e-6)
    ids = [row.split(",")[0] for row in (own / "p.csv").read_text().splitlines()]
    parts = predicted("--views", "identity,ownview.Dark", "--devices", "2")
    assert parts == pytest.approx((dark + plain) / 2, abs=1e-6)
    assert [row.split(",")[0] for row in (own / "p.csv").read_text().splitlines()] == ids
    assert list((run / "parts").glob("*.csv")) == []
    for words, said in (
        (["--views", "ownview.Needs"], "with init_args"),
        (["--views", "hflop"], "Did you mean 'hflip'?"),
        (["--views", "torch.nn.Linear"], "needs a class derived from swinft's View"),
    ):
        assert main([*predict, *words]) == 2
        assert said in capsys.readouterr().err
    assert main(["predict", str(run), "--device", "cpu", "--views", "identity"]) == 2  # the config names it, too


@pytest.mark.parametrize(
    ("views", "size", "said"),
    [
        ([view("Draws")], 32, "must be deterministic"),
        ([view("InPlace")], 32, "changes its input images"),
        ([view("Smaller")], 32, "returns a tensor (2, 3, 31, 31) for images (2, 3, 32, 32)"),
        ([view("Mixes")], 32, "each image must be processed independently"),
        ([view("Scaled")], 32, "they must be in 0–255"),
        ([view("Turned")], [32, 64], "swap height and width"),
        ([view("Breaks")], 32, "ownview.Breaks.apply fails for uint8 images (2, 3, 32, 32): AttributeError"),
        ([view("Dark"), view("Dark")], 32, "each once"),
        ([view("Dark", share="x")], 32, "share"),
        (["hflop"], 32, "Did you mean 'hflip'?"),
    ],
)
def test_what_is_wrong_with_a_view_is_said_before_anything_is_trained(competition, own, capsys, views, size, said):
    changes = {"predict.views": views, "data.image_size": size}
    config = write_config(own / "c.yaml", tiny_config(competition, own / "runs", **changes))
    assert main(["fit", "--config", str(config), "--allow-code", "ownview", "--fold", "0"]) == 2
    assert said in capsys.readouterr().err


def form(name: str, **init_args: object) -> dict[str, object]:
    return {"class_path": f"ownformat.{name}", "init_args": init_args}


def test_a_users_format_is_written_from_the_config_and_from_the_command_line(competition, own, capsys):
    changes = {"submission.format": form("Ranked", sign="<"), "trainer.max_epochs": 1}
    config = write_config(own / "c.yaml", tiny_config(competition, own / "runs", **changes))
    fit_in_process(config, "--allow-code", "ownformat")
    run = own / "runs" / "tiny"
    assert main(["predict", str(run), "--device", "cpu", "--allow-code", "ownformat"]) == 0
    predicted = [line.split(",") for line in (run / "test_predictions.csv").read_text().splitlines()]
    values = {row[0]: [float(cell) for cell in row[1:]] for row in predicted[1:]}
    names = predicted[0][1:]

    def check(sign: str) -> None:
        lines = [line.split(",") for line in (run / "submission.csv").read_text().splitlines()]
        sample = [line.split(",")[0] for line in (competition / "sample_submission.csv").read_text().splitlines()]
        assert [line[0] for line in lines] == sample
        for id, cell in lines[1:]:
            assert cell.split(sign) == [names[k] for k in np.argsort(values[id])[::-1]]

    submit = ["submit", str(run)]
    assert main(submit) == 2  # nobody said that its code may run
    assert main([*submit, "--allow-code", "ownformat"]) == 0
    assert "6 rows are ranked" in capsys.readouterr().out
    check("<")
    made = json.loads((run / "submission.made_from.json").read_text())
    assert made["format"] == "ownformat.Ranked"
    assert made["options"]["format"] == "ownformat.Ranked(sign=<)"
    assert main([*submit, "--format", "ownformat.Ranked", "--allow-code", "ownformat"]) == 0
    check(">")
    assert main([*submit, "--format", "label"]) == 0  # needs no code of the user's
    capsys.readouterr()
    for words, said in (
        (["--format", "ownformat.Late"], "ownformat.Late.cells fails for 6 rows: ZeroDivisionError"),
        (["--format", "lable"], "Did you mean 'label'?"),
        (["--format", "torch.nn.Linear"], "needs a class derived from swinft's SubmissionFormat"),
        (["--format", "ownformat.Ranked", "--threshold", "0.7"], "submission.threshold: no effect"),
    ):
        assert main([*submit, "--allow-code", "ownformat", *words]) == 2
        assert said in capsys.readouterr().err


@pytest.mark.parametrize(
    ("name", "said"),
    [
        ("Numbers", "it must return 2 cells of text"),
        ("Short", "returns 1 cells for column 'color'"),
        ("Elsewhere", "returns the columns ['colour']; it must return ['color']"),
        ("Breaks", "ownformat.Breaks.cells fails for 2 rows: AttributeError"),
        ("Refuses", "rejects its own cell in column 'color': never"),
        ("Cannot", "not ['color']"),
        ("OfNumbers", "has `kinds` ('regression',), and data.target_kind is classification"),
    ],
)
def test_what_is_wrong_with_a_format_is_said_before_anything_is_trained(competition, own, capsys, name, said):
    config = write_config(own / "c.yaml", tiny_config(competition, own / "runs", **{"submission.format": form(name)}))
    assert main(["fit", "--config", str(config), "--allow-code", "ownformat", "--fold", "0"]) == 2
    assert said in capsys.readouterr().err
