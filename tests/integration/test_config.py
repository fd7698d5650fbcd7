"""What may run: configs and run folders from elsewhere, in forms that a stranger would try. Nothing runs, exit 2."""

import dataclasses
import inspect
import json
import pickle
import shutil
import typing
from contextlib import suppress

import pytest
import torch
import yaml

from swinft.class_spec import Named
from swinft.cli import main
from swinft.run.config.parser import key_types
from swinft.run.config.sections import build_parser
from swinft.run.config.trust import BASES, TRUSTED_PACKAGES
from swinft.run.layout import Run
from swinft.store import commit
from swinft.system.processes import Child, run_children
from tests.conftest import tiny_config, write_config

RUN = "torch.distributed.run.main"  # a function that runs any command
HANDLER = "torch.distributed.elastic.multiprocessing.subprocess_handler.SubprocessHandler"  # a class that does
REEXPORTED = "torch.distributed.elastic.multiprocessing.subprocess_handler.subprocess_handler.Popen"
HEAD = "swinft.ClassificationHead"
CALLBACKS = "lightning.pytorch.callbacks"


class Payload:
    """Leaves a mark when it is unpickled."""

    def __init__(self, mark):
        self.mark = mark

    def __reduce__(self):
        return open, (str(self.mark), "w")


class Trap:
    """A folder with everything that a hostile config could point to; whatever of it runs leaves the mark."""

    def __init__(self, folder):
        self.folder, self.mark = folder, folder / "owned"
        self.module = f"evil_{folder.name}"  # another module each time: Python imports a module once
        code = f"open({str(self.mark)!r}, 'w')\nfrom swinft import ClassificationHead\n"
        code += "class Head(ClassificationHead): pass\ndef function(*args, **kwargs): pass\n"
        (folder / f"{self.module}.py").write_text(code)
        (folder / "hubconf.py").write_text(code)
        torch.save(Payload(self.mark), folder / "evil.pt")
        (folder / "evil.npz").write_bytes(pickle.dumps(Payload(self.mark)))
        (folder / "config.json").write_text(json.dumps({"architecture": "resnet18"}))
        (folder / "other.yaml").write_text(yaml.safe_dump({"head": {"class_path": f"{self.module}.Head"}}))
        (folder / "head.yaml").write_text(yaml.safe_dump({"class_path": f"{self.module}.Head"}))
        (folder / "whole.yaml").write_text(yaml.safe_dump({"model": {"head": {"class_path": f"{self.module}.Head"}}}))

    @property
    def touch(self):
        """Arguments of `torch.distributed.run.main` that leave the mark."""
        return {"args": ["--no-python", "--standalone", "--nproc-per-node=1", "touch", str(self.mark)]}

    @property
    def handler(self):
        """A class of a trusted package that starts a process when it is built."""
        init = {"entrypoint": "touch", "args": [str(self.mark)], "env": {}, "local_rank_id": 0}
        return {"class_path": HANDLER, "init_args": init | {"stdout": None, "stderr": None}}

    @property
    def runs(self):
        """A function of a trusted package that runs a command."""
        return {"class_path": RUN, "init_args": self.touch}

    @property
    def evil(self):
        """A class of a module that nobody allowed."""
        return {"class_path": f"{self.module}.Head"}


def of(class_path, **init_args):
    return {"class_path": class_path, "init_args": init_args}


# Form → key → value, or several keys.
FORMS = {
    # Functions of trusted packages.
    "function-as-head": lambda t: {"model.head": t.runs},
    "function-as-bare-head": lambda t: {"model.head": RUN},
    "loader-of-pickles-as-head": lambda t: {"model.head": of("torch.load", f="evil.pt", weights_only=False)},
    "hub-as-head": lambda t: {"model.head": of("torch.hub.load", repo_or_dir=".", model="function", source="local")},
    "own-command-as-head": lambda t: {"model.head": "swinft.cli.main"},
    "function-as-transform": lambda t: {"data.augment": [t.runs]},
    "function-inside-a-transform": lambda t: {"data.augment": [of("albumentations.OneOf", transforms=[t.runs])]},
    "function-two-transforms-deep": lambda t: {
        "data.augment": [of("albumentations.OneOf", transforms=[of("albumentations.Sequential", transforms=[RUN])])]
    },
    "function-as-callback": lambda t: {"trainer.callbacks": [t.runs]},
    "function-as-the-only-callback": lambda t: {"trainer.callbacks": t.runs},
    "function-as-logger": lambda t: {"trainer.logger": [t.runs]},
    "loader-as-profiler": lambda t: {"trainer.profiler": of("torch.load", f="evil.pt", weights_only=False)},
    "function-as-strategy": lambda t: {"trainer.strategy": t.runs},
    "function-as-accelerator": lambda t: {"trainer.accelerator": t.runs},
    "function-inside-a-strategy": lambda t: {
        "trainer.strategy": of("lightning.pytorch.strategies.DDPStrategy", cluster_environment=t.runs)
    },
    # Functions where a class takes a function.
    "function-for-a-transform": lambda t: {"data.augment": [of("albumentations.Lambda", image=RUN)]},
    "foreign-function-for-a-transform": lambda t: {
        "data.augment": [of("albumentations.Lambda", image=f"{t.module}.function")]
    },
    "function-for-a-callback": lambda t: {"trainer.callbacks": [of(f"{CALLBACKS}.LambdaCallback", setup=RUN)]},
    "foreign-function-for-a-callback": lambda t: {
        "trainer.callbacks": [of(f"{CALLBACKS}.ModelPruning", pruning_fn=f"{t.module}.function")]
    },
    "function-for-averaging": lambda t: {
        "trainer.callbacks": [of(f"{CALLBACKS}.StochasticWeightAveraging", swa_lrs=0.1, avg_fn="torch.load")]
    },
    "function-for-a-communication-hook": lambda t: {
        "trainer.strategy": of("lightning.pytorch.strategies.DDPStrategy", ddp_comm_hook=RUN)
    },
    # Attributes of modules, and names in odd spellings.
    "attribute-of-a-module": lambda t: {"model.head": of("torch.os.system", command=f"touch {t.mark}")},
    "attribute-deep-in-a-package": lambda t: {"trainer.callbacks": [of("timm.models.helpers.torch.load", f="evil.pt")]},
    "module-as-head": lambda t: {"model.head": "torch.os"},
    "method-as-head": lambda t: {"model.head": "swinft.Head.load_state_dict"},
    "class-that-is-re-exported": lambda t: {"model.head": of(REEXPORTED, args=["touch", str(t.mark)])},
    "private-name": lambda t: {"model.head": "torch._inductor.compile_worker.__main__.main"},
    "leading-blank": lambda t: {"model.head": f" {t.module}.Head"},
    "colon": lambda t: {"model.head": f"{t.module}:Head"},
    "relative": lambda t: {"model.head": f".{t.module}.Head"},
    "path-of-a-file": lambda t: {"model.head": f"{t.folder}/{t.module}.py"},
    "trusted-name-as-a-prefix": lambda t: {"model.head": f"torch.{t.module}.Head"},
    # Classes of the wrong kind.
    "class-that-starts-a-process": lambda t: {"model.head": t.handler},
    "such-a-class-as-transform": lambda t: {"data.augment": [t.handler]},
    "such-a-class-as-callback": lambda t: {"trainer.callbacks": [t.handler]},
    "such-a-class-as-logger": lambda t: {"trainer.logger": t.handler},
    "such-a-class-as-profiler": lambda t: {"trainer.profiler": t.handler},
    "such-a-class-as-strategy": lambda t: {"trainer.strategy": t.handler},
    "transform-as-head": lambda t: {"model.head": "albumentations.Blur"},
    "head-as-callback": lambda t: {"trainer.callbacks": [HEAD]},
    # Classes where a key takes none.
    "class-for-a-number-of-a-head": lambda t: {"model.head": of(HEAD, dropout=t.handler)},
    "class-for-text": lambda t: {"data.root": t.handler},
    "class-for-the-backbone": lambda t: {"model.backbone": t.evil},
    "class-for-a-layer": lambda t: {"model.backbone_args": {"act_layer": t.handler}},
    "foreign-class-for-a-layer": lambda t: {"model.backbone_args": {"norm_layer": t.evil}},
    "class-for-a-metric": lambda t: {"model.metrics": [t.evil]},
    "class-for-a-view": lambda t: {"predict.views": [t.evil]},
    "class-in-free-arguments": lambda t: {
        "trainer.strategy": {"class_path": "lightning.pytorch.strategies.DDPStrategy", "dict_kwargs": {"x": t.handler}}
    },
    "class-in-a-profiler's-mapping": lambda t: {
        "trainer.profiler": of("lightning.pytorch.profilers.PyTorchProfiler", table_kwargs={"x": t.handler})
    },
    # Other files.
    "section-from-a-file": lambda t: {"model": "other.yaml"},
    "data-from-a-file": lambda t: {"data": "other.yaml"},
    "trainer-from-a-file": lambda t: {"trainer": "other.yaml"},
    "section-in-a-section-from-a-file": lambda t: {"model.optim": "other.yaml"},
    "head-from-a-file": lambda t: {"model.head": "head.yaml"},
    "callback-from-a-file": lambda t: {"trainer.callbacks": ["head.yaml"]},
    "transforms-from-a-file": lambda t: {"data.augment": "head.yaml"},
    "config-in-a-config": lambda t: {"config": "whole.yaml"},
    "config-allows-itself": lambda t: {"allow_code": [t.module], "model.head": t.evil},
    # Weights and networks.
    "weights-for-timm": lambda t: {"model.backbone_args": {"checkpoint_path": "evil.pt"}},
    "weights-config-for-timm": lambda t: {"model.backbone_args": {"pretrained_cfg": {"file": "evil.pt"}}},
    "overlay-for-timm": lambda t: {"model.backbone_args": {"pretrained_cfg_overlay": {"file": "evil.pt"}}},
    "pickled-weights": lambda t: {"model.pretrained": "evil.pt"},
    "pickled-arrays": lambda t: {"model.pretrained": "evil.npz"},
    "network-from-a-hub": lambda t: {"model.backbone": "hf-hub:evil/evil"},
    "network-from-a-folder": lambda t: {"model.backbone": f"local-dir:{t.folder}"},
    "network-from-a-folder-by-its-tag": lambda t: {"model.backbone": f"resnet18.local-dir:{t.folder}"},
}


@pytest.fixture
def trap(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    monkeypatch.syspath_prepend(tmp_path)
    return Trap(tmp_path)


def refused(words, trap, capsys):
    """The message of a command that ends with 2 after nothing ran."""
    assert main(words) == 2
    assert not trap.mark.exists()
    captured = capsys.readouterr()
    assert "Traceback" not in captured.err
    return captured.err


@pytest.mark.parametrize("form", FORMS)
def test_f012_a_hostile_config_runs_nothing(form, trap, competition, tmp_path, capsys):
    config = tiny_config(competition, tmp_path / "runs")
    if form == "weights-for-timm":
        config["model"].pop("backbone_args")
    for key, value in FORMS[form](trap).items():
        *sections, last = key.split(".")
        place = config
        for section in sections:
            place = place.setdefault(section, {})
        place[last] = value
    refused(["check", "--config", str(write_config(tmp_path / "c.yaml", config))], trap, capsys)
    assert not (tmp_path / "runs" / "tiny").exists()


def test_f012_merged_and_shared_values_are_checked_like_written_ones(trap, competition, tmp_path, capsys):
    config = tiny_config(competition, tmp_path / "runs", **{"model.head": None})
    text = yaml.safe_dump(config).replace("  head: null\n", "  <<: *base\n")
    bases = f"predict:\n  <<: &base\n    head: {{class_path: {RUN}, init_args: {json.dumps(trap.touch)}}}\n"
    (tmp_path / "c.yaml").write_text(bases + text)
    assert f"'{RUN}' is a function" in refused(["check", "--config", "c.yaml"], trap, capsys)


OPTIONS = {
    "foreign-head": lambda t: ["--model.head", f"{t.module}.Head"],
    "function-as-head": lambda t: ["--model.head", RUN, f"--model.head.init_args.args={json.dumps(t.touch['args'])}"],
    "function-behind-equals": lambda t: [f"--model.head={RUN}"],
    "class-path": lambda t: ["--model.head.class_path", f"{t.module}.Head"],
    "mapping": lambda t: ["--model.head", json.dumps(t.runs)],
    "section-as-a-mapping": lambda t: ["--model", json.dumps({"head": t.runs})],
    "section-as-a-file": lambda t: ["--model", "other.yaml"],
    "section-in-a-section": lambda t: ["--model.optim=other.yaml"],
    "head-as-a-file": lambda t: ["--model.head", "head.yaml"],
    "shortened": lambda t: ["--model.hea", f"{t.module}.Head"],
    "another-config-by-a-short-option": lambda t: ["--conf", "whole.yaml"],
    "function-among-callbacks": lambda t: ["--trainer.callbacks+", RUN],
    "class-among-callbacks": lambda t: ["--trainer.callbacks", json.dumps([t.handler])],
    "argument-of-a-callback": lambda t: [
        "--trainer.callbacks+", f"{CALLBACKS}.LambdaCallback", "--trainer.callbacks.setup", RUN,
    ],
    "argument-of-a-head": lambda t: ["--model.head", HEAD, "--model.head.dropout", json.dumps(t.handler)],
    "transforms": lambda t: ["--data.augment", json.dumps([t.handler])],
    "help-of-a-foreign-class": lambda t: ["--model.head.help", f"{t.module}.Head"],
    "code-that-is-no-name": lambda t: ["--allow-code", "jsonargparse"],
}  # fmt: skip


@pytest.mark.parametrize("form", OPTIONS)
def test_f012_a_hostile_option_runs_nothing(form, trap, competition, tmp_path, capsys):
    config = write_config(tmp_path / "c.yaml", tiny_config(competition, tmp_path / "runs"))
    refused(["check", "--config", str(config), *OPTIONS[form](trap)], trap, capsys)


@pytest.mark.parametrize("path", [f"{'{}'}.Head", RUN])
def test_f012_the_environment_runs_nothing(path, trap, competition, tmp_path, monkeypatch, capsys):
    config = tiny_config(competition, tmp_path / "runs")
    del config["model"]["head"]
    monkeypatch.setenv("JSONARGPARSE_DEFAULT_ENV", "true")
    monkeypatch.setenv("SWINFT CHECK_MODEL__HEAD", path.format(trap.module))
    refused(["check", "--config", str(write_config(tmp_path / "c.yaml", config))], trap, capsys)


def test_f012_allowed_code_is_of_the_right_kind_all_the_same(trap, competition, tmp_path, capsys):
    words = ["--allow-code", trap.module, "--trainer.callbacks+", f"{trap.module}.Head"]
    config = write_config(tmp_path / "c.yaml", tiny_config(competition, tmp_path / "runs"))
    assert main(["check", "--config", str(config), *words]) == 2
    assert f"'{trap.module}.Head' has the wrong type" in capsys.readouterr().err
    assert main(["check", "--config", str(config), "--allow-code", "os", "--model.head", "os.system"]) == 2
    assert "is a function" in capsys.readouterr().err


def test_f012_what_was_allowed_once_is_not_allowed_for_good(trap, competition, tmp_path, capsys):
    config = write_config(tmp_path / "c.yaml", tiny_config(competition, tmp_path / "runs", **{"model.head": trap.evil}))
    assert main(["check", "--config", str(config), "--allow-code", trap.module]) == 0
    assert main(["check", "--config", str(config)]) == 2
    assert f"add --allow-code {trap.module}" in capsys.readouterr().err


def test_f012_classes_of_the_right_kind_are_built_at_any_depth(competition, tmp_path):
    flip = {"class_path": "albumentations.HorizontalFlip"}
    nested = of("albumentations.OneOf", transforms=[flip, of("albumentations.Sequential", transforms=[flip])])
    changes = {
        "data.augment": [nested, of("albumentations.Resize", height=32, width=32)],
        "model.head": {"class_path": "ClassificationHead"},
        "trainer.callbacks": [of(f"{CALLBACKS}.EarlyStopping", monitor="val_loss"), {"class_path": "ModelSummary"}],
        "trainer.profiler": "lightning.pytorch.profilers.SimpleProfiler",
        "trainer.strategy": of(
            "lightning.pytorch.strategies.SingleDeviceStrategy",
            precision_plugin={"class_path": "lightning.pytorch.plugins.precision.Precision"},
        ),
    }
    config = write_config(tmp_path / "c.yaml", tiny_config(competition, tmp_path / "runs", **changes))
    assert main(["check", "--config", str(config)]) == 0


FORGED = {
    "function-as-head": lambda t: {"model.head": t.runs},
    "class-that-starts-a-process": lambda t: {"model.head": t.handler},
    "foreign-head": lambda t: {"model.head": t.evil},
    "function-as-callback": lambda t: {"trainer.callbacks": [t.runs]},
    "function-for-a-transform": lambda t: {"data.augment": [of("albumentations.Lambda", image=RUN)]},
    "section-from-a-file": lambda t: {"model": "other.yaml"},
    "config-allows-itself": lambda t: {"allow_code": [t.module], "model.head": t.evil},
    "weights-for-timm": lambda t: {"model.backbone_args": {"checkpoint_path": "evil.pt"}},
}


@pytest.mark.parametrize("command", ["predict", "report", "fit"])
@pytest.mark.parametrize("form", FORGED)
def test_f013_a_forged_run_runs_nothing(form, command, trap, tiny_run, tmp_path, capsys):
    run = Run(shutil.copytree(tiny_run, tmp_path / "run"))
    config = run.read_config()
    for key, value in FORGED[form](trap).items():
        section, _, last = key.rpartition(".")
        (config[section] if section else config)[last] = value
    commit(run.config, yaml.safe_dump(config).encode(), "forger")  # with a record that fits
    words = {
        "predict": ["predict", str(run.root), "--device", "cpu"],
        "report": ["report", str(run.root)],
        "fit": ["fit", "--config", str(run.config), "--resume"],
    }
    if command != "predict" and form == "weights-for-timm":  # where all folds are there, no network is built
        assert main(words[command]) == 0
        assert not trap.mark.exists()
    else:
        refused(words[command], trap, capsys)


@pytest.mark.parametrize("section", ["model", "data", "trainer", "predict", "model.optim", "data.loading.image_rules"])
def test_f013_a_section_is_written_in_the_config_itself(section, trap, competition, tmp_path, capsys):
    config = write_config(tmp_path / "c.yaml", tiny_config(competition, tmp_path / "runs", **{section: "other.yaml"}))
    message = f"{section} is a section: write its keys below it, not 'other.yaml'"
    assert message in refused(["check", "--config", str(config)], trap, capsys)
    config = write_config(tmp_path / "c.yaml", tiny_config(competition, tmp_path / "runs"))
    assert message in refused(["check", "--config", str(config), f"--{section}", "other.yaml"], trap, capsys)


def test_f013_forged_files_of_a_run_run_nothing(trap, tiny_run, tmp_path, capsys):
    run = Run(shutil.copytree(tiny_run, tmp_path / "run"))
    forged = pickle.dumps(Payload(trap.mark))
    for path in (run.fold(0).weights, run.schema, run.oof, run.test_predictions, run.images, run.folds, run.scores):
        whole = path.read_bytes()
        commit(path, forged, "forger")
        for words in (
            ["predict", str(run.root), "--device", "cpu"],
            ["submit", str(run.root)],
            ["report", str(run.root)],
        ):
            with suppress(Exception):  # what is said about such a file is another test's matter
                main(words)
            assert not trap.mark.exists(), (path, words)
        commit(path, whole, "forger")
    assert main(["submit", str(run.root)]) == 0
    commit(run.config, b"model: !!python/object/apply:os.system ['touch owned']\n", "forger")
    for command in ("submit", "predict", "report"):
        with suppress(Exception):
            assert main([command, str(run.root)]) != 0
        assert not trap.mark.exists()


def test_f012_every_key_that_takes_a_class_has_its_base():
    for command in ("check", "fit"):
        hints = key_types(build_parser(command))
        found = {key for key, hint in hints.items() if any(_is_code(each) for each in _parts(hint))}
        found |= {key for key, hint in hints.items() if hint == Named}
        found -= {"data.folds.extra"}  # its `table` takes steps
        nested = {key for key in BASES if key.rpartition(".")[0] in hints and key not in hints}  # of its mappings
        assert found == set(BASES) - nested


@pytest.mark.parametrize(
    "key", ["checkpoint", "data.image", "model.ema_decay", "model.optim.freeze", "model.optim.sizes"]
)
def test_f012_a_mapping_of_settings_takes_no_class(key, competition, tmp_path, capsys):
    for path, said in (("swinft.CSVDataModule", "does not accept a class"), ("os.Evil", "not in a trusted package")):
        spec = {"class_path": path, "init_args": {}}
        changes = {key: [spec] if key.endswith("sizes") else spec}
        config = write_config(tmp_path / "c.yaml", tiny_config(competition, tmp_path / "runs", **changes))
        assert main(["check", "--config", str(config)]) == 2
        assert said in capsys.readouterr().err


def _parts(hint):
    return [hint] if not typing.get_args(hint) else [part for each in typing.get_args(hint) for part in _parts(each)]


def _is_code(hint):
    """Whether a value of this type is built from a class path."""
    is_settings = dataclasses.is_dataclass(hint)  # whose fields are a mapping of plain values: `class_path` is refused
    return inspect.isclass(hint) and not is_settings and hint.__module__.partition(".")[0] in TRUSTED_PACKAGES


def test_a_mistyped_class_gets_the_one_that_its_key_takes(competition, tmp_path, capsys):
    config = tiny_config(competition, tmp_path, **{"model.head": {"class_path": "swinft.MultiLabelHead"}})
    config["trainer"]["callbacks"] = [{"class_path": f"{CALLBACKS}.EarlyStoping"}]
    assert main(["check", "--config", str(write_config(tmp_path / "c.yaml", config))]) == 2
    said = capsys.readouterr().err
    assert "Did you mean 'MultilabelHead'?" in said
    assert "Did you mean 'EarlyStopping'?" in said


LINKS = {
    # where a link lies, what is run
    "note of a lock": (".locks/run.json", ["submit"]),
    "lock": (".locks/run.lock", ["submit"]),
    "submission": ("run/submission.csv", ["submit"]),
    "what it was made from": ("run/submission.made_from.json", ["submit"]),
    "report": ("run/report.html", ["report"]),
    "predictions": ("run/test_predictions.csv", ["predict", "--device", "cpu"]),
}


@pytest.mark.parametrize("name", LINKS)
def test_links_among_a_runs_files_lead_to_no_other_file(name, tiny_run, tmp_path):
    """As an archive of runs may hold them: what they name is somebody's own."""
    run = shutil.copytree(tiny_run, tmp_path / "run")
    mine = tmp_path / "mine"
    mine.write_text("mine")
    place, (command, *options) = LINKS[name]
    link = tmp_path / place
    link.parent.mkdir(exist_ok=True)
    link.unlink(missing_ok=True)
    link.symlink_to(mine)
    assert main([command, str(run), *options]) == (2 if name == "lock" else 0)
    assert mine.read_text() == "mine"


def test_the_log_of_a_fold_is_written_to_no_other_file(tmp_path, monkeypatch):
    mine, run = tmp_path / "mine", Run(tmp_path / "run")
    mine.write_text("mine")
    run.fold(0).root.mkdir(parents=True)
    run.fold(0).log.symlink_to(mine)
    run_children({0: Child(["--version"], {}, run.fold(0).log)}, [{}])
    assert mine.read_text() == "mine"
    assert run.fold(0).log.read_text().strip()


@pytest.mark.parametrize(
    "changes",
    [
        {"folds": None}, {"folds": "01"}, {"folds": ["0"]}, {"planned": 2}, {"views": [3]}, {"weights": []},
        {"weights": None}, {"extra": 1},
    ],
)  # fmt: skip
def test_a_forged_provenance_is_no_crash(changes, tiny_run, tmp_path, capsys):
    run = Run(shutil.copytree(tiny_run, tmp_path / "run"))
    path = run.root / "test_predictions.made_from.json"
    made_from = json.loads(path.read_text())
    made_from["provenance"] |= changes
    for content in (json.dumps(made_from), "[" * 100_000):
        commit(path, content.encode(), "forger")
        for command in ("submit", "report"):
            assert main([command, str(run.root)]) == 2
            assert "does not say what it was made with" in capsys.readouterr().err
