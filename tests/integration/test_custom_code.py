"""Classes of a user's own that break what their base class promises: an error before training names class and mistake."""

import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from swinft.cli import main
from tests.conftest import tiny_config, write_config

MODULE = """
import os
import lightning.pytorch as pl
import torch
from torch import nn
from torch.optim.lr_scheduler import LRScheduler
from swinft import ClassificationHead, Head, Loss, Pooling, Source, SubmissionFormat, TableStep

class Plain(ClassificationHead):
    def __init__(self, in_features: int, num_outputs: int) -> None:
        super().__init__(in_features, num_outputs)

class AcrossRows(Plain):
    def decode(self, logits):
        return logits.softmax(0)

class Random(Plain):
    def decode(self, logits):
        return (logits + torch.randn_like(logits)).softmax(1)

class OtherKind(Plain):
    kind = "clasification"

class NoBase(Head):
    kind = "classification"
    default_metrics = ["accuracy"]

    def __init__(self, in_features: int, num_outputs: int) -> None:
        pass

class Raises(Plain):
    def __init__(self, in_features: int, num_outputs: int) -> None:
        raise RuntimeError("no head")

class OpenFile(Plain):
    def __init__(self, in_features: int, num_outputs: int) -> None:
        super().__init__(in_features, num_outputs)
        self.file = open(os.devnull)

class Detached(Loss):
    def forward(self, logits, target):
        return -(target * logits.log_softmax(1)).sum(1).detach()

class Nan(Loss):
    def forward(self, logits, target):
        return logits.sum(1) * float("nan")

class NewBuffer(Loss):
    def initialize(self, target):
        self.register_buffer("counts", torch.bincount(target))

    def forward(self, logits, target):
        return -(target * logits.log_softmax(1)).sum(1)

class MeanOfBatch(Pooling):
    def forward(self, tokens, grid):
        return tokens.mean((0, 1)).expand(len(tokens), -1)

class Levels(nn.Module):
    num_features = 3
    mean, std = (123.0, 117.0, 104.0), (58.0, 57.0, 57.0)

    def forward(self, image):
        return image.mean((2, 3))

class NoClosure(torch.optim.SGD):
    def step(self, closure=None):
        return None

class Negative(LRScheduler):
    def get_lr(self):
        return [-rate for rate in self.base_lrs]

class Ends(LRScheduler):
    def get_lr(self):
        return [rate / (2 - self.last_epoch) for rate in self.base_lrs]

class NoStat(Source):
    def read(self, reference):
        with open(reference, "rb") as file:
            return file.read()

    def stat(self, reference):
        return ()

    def names(self, folder):
        return os.listdir(folder)

class Fractions(NoStat):
    def stat(self, reference):
        return (os.stat(reference).st_mtime,)

class Broken(NoStat):
    def stat(self, reference):
        return (1,)

    def read(self, reference):
        raise RuntimeError("the disk is tired")

class Needs(TableStep):
    def __init__(self, column: str) -> None:
        self.column = column

    def apply(self, frame, root):
        return frame

class Wordless(SubmissionFormat):
    kinds = ("classification",)

    def cells(self, values):
        return {column: ["red"] * len(values) for column in self.columns}

    def describe(self):
        return self.columns[3]

class Decays(pl.Callback):
    def on_train_batch_end(self, trainer, task, *given):
        with torch.no_grad():
            for weight in task.parameters():
                weight.mul_(0.9)

class Darkens(pl.Callback):
    def on_train_batch_start(self, trainer, task, batch, number):
        batch["image"].zero_()

class Validates(pl.Callback):
    def on_validation_start(self, trainer, task):
        with torch.no_grad():
            task.net.head.linear.bias.add_(1)

class Stops(pl.Callback):
    def on_train_epoch_end(self, trainer, task):
        raise ValueError("that was it")
"""


@pytest.fixture
def own(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """A folder with the module above, from which swinft runs."""
    (tmp_path / "broken.py").write_text(MODULE)
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, "path", [*sys.path])
    yield tmp_path
    sys.modules.pop("broken", None)


def named(name: str) -> dict[str, str]:
    return {"class_path": f"broken.{name}"}


def head(name: str) -> dict[str, object]:
    return {"model.head": named(name)}


def loss(name: str) -> dict[str, object]:
    return {"model.head": {"class_path": "swinft.ClassificationHead", "init_args": {"loss": named(name)}}}


def optim(**given: object) -> dict[str, object]:
    return {"model.optim": {"lr": 1e-3, "warmup_epochs": 0, **given}}


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        (head("AcrossRows"), "alone. AcrossRows must process each row alone"),
        (head("OtherKind"), "model.head: `kind` of OtherKind is 'clasification'; set it to one of ['classification', "),
        (head("NoBase"), "model.head: NoBase.__init__ does not call super().__init__()."),
        (head("Raises"), "model.head cannot be built: RuntimeError: no head"),
        (loss("Detached"), "the loss of ClassificationHead has no gradient for any weight"),
        ({"model.pooling": named("MeanOfBatch")}, "MeanOfBatch must process each row alone"),
        (
            {"model.backbone": named("Levels"), "model.backbone_args": None},
            "mean of Levels is (123.0, 117.0, 104.0); it must be three numbers in 0–1",
        ),
        (optim(name=named("NoClosure")), "NoClosure.step does not call its argument `closure`"),
        (optim(schedule=named("Negative")), "Negative sets a learning rate of -0.001 at step 1. Allowed: "),
        ({"data.loading": {"source": named("NoStat")}}, "NoStat.stat returns () for"),
        ({"data.loading": {"source": named("Broken")}}, "Broken.read fails for"),
        ({"data.train": [{"csv": "train.csv"}, named("Needs")]}, "which cannot be built with no arguments: TypeError"),
        ({"submission.format": named("Wordless")}, "broken.Wordless fails: IndexError"),
    ],
)
def test_a_class_that_breaks_its_promise_is_named_by_check(competition, own, capsys, changes, said):
    check(competition, own, capsys, changes, said)


@pytest.mark.slow
@pytest.mark.parametrize(
    ("changes", "said"),
    [
        (head("Random"), "Random must process each row alone, and in evaluation without random numbers."),
        (head("OpenFile"), "the network cannot be copied, for averaged weights (model.ema_decay): TypeError"),
        (loss("Nan"), "the loss of ClassificationHead is nan in a trial step"),
        (loss("NewBuffer"), "may only fill buffers that __init__, or `prepare` of a loss, registers"),
        ({"data.loading": {"source": named("Fractions")}}, "it must return one to 5 whole numbers"),
    ],
)
def test_more_such_classes(competition, own, capsys, changes, said):
    check(competition, own, capsys, changes, said)


def check(competition, own, capsys, changes, said) -> None:
    config = write_config(own / "c.yaml", tiny_config(competition, own / "runs", **changes))
    assert main(["check", "--config", str(config), "--allow-code", "broken"]) == 2
    assert said in capsys.readouterr().err


def test_a_schedule_is_walked_to_its_end_before_the_first_step(competition, own, capsys):
    config = write_config(own / "c.yaml", tiny_config(competition, own / "runs", **optim(schedule=named("Ends"))))
    assert main(["fit", "--config", str(config), "--allow-code", "broken", "--fold", "0"]) == 2
    assert "Ends fails after step 2 of 4: ZeroDivisionError" in capsys.readouterr().err
    assert not (own / "runs" / "tiny" / "fold_0" / "metrics.jsonl").exists()


def test_an_error_in_the_users_code_names_its_line_and_keeps_its_traceback(competition, own, capsys):
    config = write_config(
        own / "c.yaml", tiny_config(competition, own / "runs", **{"trainer.callbacks": [named("Stops")]})
    )
    assert main(["fit", "--config", str(config), "--allow-code", "broken", "--fold", "0"]) == 1
    line = MODULE.splitlines().index('        raise ValueError("that was it")') + 1
    said = capsys.readouterr().err
    assert f"your own code fails in broken.py:{line} (on_train_epoch_end): ValueError: that was it" in said
    assert "Traceback" in said


@pytest.mark.parametrize(
    ("name", "said"),
    [
        ("Decays", "Decays.on_train_batch_end changes the weights"),
        ("Darkens", "Darkens.on_train_batch_start changes the batch"),
        ("Validates", "Validates.on_validation_start changes the weights"),
    ],
)
def test_a_callback_that_changes_weights_or_a_batch_ends_the_fold(competition, own, capsys, name, said):
    config = write_config(
        own / "c.yaml", tiny_config(competition, own / "runs", **{"trainer.callbacks": [named(name)]})
    )
    assert main(["fit", "--config", str(config), "--allow-code", "broken", "--fold", "0"]) == 2
    assert said in capsys.readouterr().err
    assert not (own / "runs" / "tiny" / "fold_0" / "oof.csv").exists()


@pytest.mark.parametrize(
    ("code", "name", "said"),
    [
        ("def (:\n", "half.Head", "class_path 'half.Head' cannot be imported: SyntaxError"),
        ("raise RuntimeError('too early')\n", "half.Head", "cannot be imported: RuntimeError: too early"),
        ("", "__main__.Head", "cannot be imported by other processes: save it in a module, such as mine.Head"),
    ],
)
def test_a_module_that_cannot_be_imported_is_named(competition, own, capsys, code, name, said):
    (own / "half.py").write_text(code)
    config = write_config(
        own / "c.yaml", tiny_config(competition, own / "runs", **{"model.head": {"class_path": name}})
    )
    assert main(["check", "--config", str(config), "--allow-code", name.partition(".")[0]]) == 2
    assert said in capsys.readouterr().err
