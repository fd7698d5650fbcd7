"""What is said and shown: names, options, help, and the code that a fold starts."""

import shutil
import warnings
from typing import Any, get_args

import numpy as np
import pytest
import yaml
from matplotlib.font_manager import fontManager, get_font

from swinft import FineTuneTask
from swinft.class_spec import parameters_of
from swinft.cli import main
from swinft.data.summary import format_summary, image_grid
from swinft.errors import InputError, suggest
from swinft.model.metrics import METRICS
from swinft.run.config.fit_options import fit_parser
from swinft.run.config.parser import key_types
from swinft.run.config.sections import build_parser, load
from swinft.run.layout import Run
from swinft.system.processes import Child, run_children
from tests.conftest import fit_in_process, tiny_config, write_config


@pytest.fixture
def check(competition, tmp_path, capsys):
    """Runs `swinft check` with options and changed keys; gives the exit code and the two outputs."""

    def run(*options, **changes):
        config = tiny_config(competition, tmp_path / "runs", **{k.replace("__", "."): v for k, v in changes.items()})
        code = main(["check", "--config", str(write_config(tmp_path / "c.yaml", config)), *options])
        return code, *capsys.readouterr()

    return run


def test_f117_a_folder_called_swinft_does_not_hide_the_package_from_the_folds(tmp_path, monkeypatch):
    decoy = tmp_path / "swinft"
    decoy.mkdir()
    for name in ("__init__.py", "__main__.py", "cli.py"):
        (decoy / name).write_text(f"open({str(tmp_path / 'decoy_ran')!r}, 'w')\n")
    monkeypatch.chdir(tmp_path)
    monkeypatch.delenv("PYTHONPATH", raising=False)
    assert run_children({0: Child(["--version"])}, [{}]) == {0: 0}
    assert not (tmp_path / "decoy_ran").exists()


def test_f101_another_backbone_says_what_to_do_about_the_arguments_of_the_first(check):
    code, _, err = check("--model.backbone", "convnext_tiny")
    assert code == 2
    assert "remove model.backbone_args (--model.backbone_args null)" in err
    assert check("--model.backbone", "resnet18", "--model.backbone_args", "null")[0] == 0


def test_f103_names_are_never_mark_up(competition, tmp_path, capsys, monkeypatch):
    names = {"red": "$", "green": "$$", "blue": '"$$$ \\frac{\n{"'}
    rows = (competition / "train.csv").read_text().splitlines()[1:]
    lines = [f"{row.split(',')[0]},{names[row.split(',')[1]]}" for row in rows]
    (competition / "marks.csv").write_text("\n".join(["id,name", *lines, ""]))
    changes = {
        "data.train": "marks.csv",
        "data.target": "name",
        "data.sample_submission": None,
        "trainer.max_epochs": 1,
    }
    config = write_config(tmp_path / "c.yaml", tiny_config(competition, tmp_path / "runs", **changes))
    fit_in_process(config)
    run = Run(tmp_path / "runs" / "tiny")
    assert main(["report", str(run.root)]) == 0
    assert "<svg" in run.report.read_text()
    run.scores.unlink()
    monkeypatch.setattr("swinft.run.scores.write_report", lambda *_: 1 / 0)
    capsys.readouterr()
    assert main(["fit", "--config", str(config), "--resume"]) == 0  # and the scores are seen all the same
    out, err = capsys.readouterr()
    assert "pooled" in out
    assert "the report could not be written: ZeroDivisionError" in err


@pytest.mark.parametrize("name", ["$\\frac{$", "猫", "قط", "\U0001f9a9", "a\x1bb", "x\u2028y"])
def test_f104_a_name_is_drawn_in_any_script(name):
    with warnings.catch_warnings():
        warnings.filterwarnings("error", "Glyph")  # of matplotlib: one is missing
        figure = image_grid([np.zeros((4, 4, 3), np.uint8)], [name])
        figure.canvas.draw()
    fonts = [get_font(entry.fname) for entry in fontManager.ttflist if "Last Resort" not in entry.name]
    has_glyphs = all(any(font.get_char_index(ord(c)) for font in fonts) for c in name) and name.isprintable()
    title = figure.axes[0].get_title()
    assert (title == name) == has_glyphs
    assert title.isprintable()


def test_f104_line_breaks_do_not_tear_a_table():
    folds = [{"fold": 0, "a\nb": 1, "猫": 10}, {"fold": 1, "a\nb": 1000, "猫": 1}]
    lines = format_summary({"outputs": {"a\nb": 1}, "folds": folds, "notes": ["\x1b[2J"]}).split("\n")
    assert lines[1] == "  a\\nb: 1"
    assert len(lines) == 8
    assert "\x1b" not in "".join(lines)
    assert len({len(line) + line.count("猫") for line in lines[3:6]}) == 1  # such a character takes two columns


def test_f106_the_metrics_are_listed_with_kind_direction_and_definition(check, capsys):
    assert main(["metrics"]) == 0
    listed = capsys.readouterr().out.split("\n")
    for name, metric in METRICS.items():
        place = listed.index(name)
        assert set(metric.kinds) == set(listed[place + 1].strip().partition(";")[0].split(", "))
        assert ("higher" in listed[place + 1]) == metric.higher_is_better
        assert len(listed[place + 2]) > 20
        for argument, line in zip(parameters_of(metric), listed[place + 3 :], strict=False):
            assert line.startswith(f"    {argument}"), name
            assert len(line.partition(": ")[2]) > 10, (name, argument)
    assert main(["metrics", "--kind", "regression"]) == 0
    assert "accuracy" not in capsys.readouterr().out
    code, _, err = check("--model.metrics", "[acuracy]")
    assert code == 2
    names = [name for name, metric in METRICS.items() if "classification" in metric.kinds]
    assert f"Metrics of classification: {', '.join(names)}; `swinft metrics` defines them." in err


@pytest.mark.parametrize(
    ("spelling", "precision"), [("32", "32-true"), ("16", "16-mixed"), ("bf16", "bf16-mixed"), ("auto", "auto")]
)
def test_f107_spellings_of_a_precision_are_known(spelling, precision, competition, tmp_path):
    value = int(spelling) if spelling.isdigit() else spelling
    config = write_config(tmp_path / "c.yaml", tiny_config(competition, tmp_path, **{"trainer.precision": value}))
    assert load(build_parser("check"), ["--config", str(config)]).trainer.precision == precision
    words = ["--config", str(config), "--trainer.precision", spelling]
    assert load(build_parser("check"), words).trainer.precision == precision


@pytest.mark.parametrize(
    ("key", "value", "word"),
    [
        ("data.target", "on", "true or false"),
        ("data.target", "no", "true or false"),
        ("data.target", "1", "a whole number"),
        ("data.target", "[a, 0]", "a whole number"),
        ("data.id", "1.5", "a number"),
        ("data.columns.numeric_features", "[yes]", "true or false"),
        ("model.metrics", "[1]", "a whole number"),
    ],
)
def test_f109_a_word_that_yaml_does_not_take_for_text_is_named(key, value, word, competition, tmp_path, capsys):
    config = write_config(tmp_path / "c.yaml", tiny_config(competition, tmp_path, **{key: "PLACE"}))
    config.write_text(config.read_text().replace("PLACE", value))
    assert main(["check", "--config", str(config)]) == 2
    bare = value.strip("[]").split(", ")[-1]
    assert f"{key}: YAML reads `{bare}` as {word}: write '{bare}' in quotes." in capsys.readouterr().err


def test_f109_merge_keys_are_followed(competition, tmp_path, capsys):
    config = tiny_config(competition, tmp_path / "runs")
    text = yaml.safe_dump({key: value for key, value in config.items() if key != "trainer"})
    text += "trainer: &base {max_epochs: 1, accelerator: cpu}\npredict: {<<: {views: [identity]}, batch_size: 4}\n"
    (tmp_path / "c.yaml").write_text(text)
    assert main(["check", "--config", str(tmp_path / "c.yaml")]) == 0
    (tmp_path / "c.yaml").write_text(text.replace("views", "veiws"))
    assert main(["check", "--config", str(tmp_path / "c.yaml")]) == 2
    assert "unknown key 'predict.veiws'. Did you mean 'predict.views'?" in capsys.readouterr().err


@pytest.mark.parametrize("command", ["check", "fit"])
def test_f109_deep_nesting_is_no_crash(command, tmp_path, capsys):
    (tmp_path / "c.yaml").write_text("name: " + "[" * 3000 + "]" * 3000)
    assert main([command, "--config", str(tmp_path / "c.yaml")]) == 2
    assert "nested too deeply" in capsys.readouterr().err


@pytest.mark.parametrize("name", ["x" * 300, "é" * 150, "../x", "a\nb", ".locks/x", "a/b", "a\\b", "", " x", "."])
@pytest.mark.parametrize("command", ["check", "fit"])
def test_f110_a_name_that_is_no_folder_name_is_refused(name, command, competition, tmp_path, capsys):
    config = write_config(tmp_path / "c.yaml", tiny_config(competition, tmp_path / "runs", name=name))
    assert main([command, "--config", str(config)]) == 2
    assert "It becomes a folder's name" in capsys.readouterr().err
    assert not (tmp_path / "runs").exists()


def test_f110_a_flag_stands_alone_or_with_its_value(tiny_run, check):
    for words in ([], ["true"], ["True"], ["false"]):
        parser = fit_parser()
        config = tiny_run.parent.parent / "config.yaml"
        parsed = load(parser, ["--config", str(config), "--overwrite", *words])
        assert parsed.overwrite == (words != ["false"])
    assert "unknown option '--predict.view'. Did you mean 'predict.views'?" in check("--predict.view", "hflip")[2]
    assert check("--predict.views", "hflip,identity")[0] == 0
    assert check("--predict.views=hflip")[0] == 0


def test_f110_a_command_that_is_printed_can_be_pasted(tiny_run, tmp_path, capsys):
    run = Run(shutil.copytree(tiny_run, tmp_path / "a b; rm é"))
    run.test_predictions.unlink()
    assert main(["submit", str(run.root)]) != 0
    assert f"swinft predict '{run.root}'" in capsys.readouterr().err


def test_f111_help_shows_the_keys_that_people_set_and_all_of_them_on_request(capsys):
    for words, most in ((["--help"], 115), (["--help", "all"], 2000), (["--help-all"], 2000)):
        with pytest.raises(SystemExit) as stop:
            main(["fit", *words])
        assert stop.value.code == 0
        out = capsys.readouterr().out
        assert out.startswith("usage: swinft fit --config FILE [--KEY VALUE ...]\n")
        assert len(out.splitlines()) <= most
        assert all(f"--{key}" in out for key in ("data.target", "model.backbone", "trainer.max_epochs", "resume"))
        assert "swinft metrics" in out
        keys = [key for key, hint in key_types(build_parser("fit")).items() if hint is not None]
        assert all(f"--{key}" in out for key in keys) == (words != ["--help"])
        assert "--print_shtab" not in out
        assert "--model CONFIG" not in out


@pytest.mark.parametrize(
    ("options", "said"),
    [
        (
            ["--trainer.max_epochs", "many"],
            "trainer.max_epochs: `many` is not allowed; it must be a whole number or null.",
        ),
        (["--data.augment", "strong"], "must be none, light, medium, heavy, crop"),
        (
            [
                "--trainer.callbacks+=lightning.pytorch.callbacks.ThroughputMonitor",
                "--trainer.callbacks.batch_size_fn=len",
            ],
            "trainer.callbacks: batch_size_fn: `len` is not allowed; a config names classes, and no functions.",
        ),
        (["--data.image_size", "big"], "data.image_size: `big` is not allowed; it must be a whole number or a list"),
        (["--predict.views", "[hflop]"], "Did you mean 'hflip'?"),
        (["--model.head.init_args.class_weights", "rare"], "class_weights: `rare` is not allowed"),
        (["--model.head.init_args.dropout", "x"], "dropout: `x` is not allowed; it must be a number."),
        (["--trainer.logger", "CSVLogger"], "trainer.logger: the class needs a value for save_dir."),
        (["--trainer.callbacks", "EarlyStopping"], "trainer.callbacks: the class needs a value for monitor."),
        (["--model.optim.lr", "fast"], "model.optim.lr: `fast` is not allowed; it must be a number"),
        (["--trainer.precision", "64"], "it must be auto, 32-true, bf16-mixed, 16-mixed, 32, 16 or bf16."),
    ],
    ids=lambda value: value[0] if isinstance(value, list) else "",
)
def test_f111_errors_of_types_say_what_is_allowed(options, said, check):
    code, _, err = check(*options)
    assert code == 2
    assert said in err
    assert not any(word in err for word in ("<class", "typing.", "Union", "Given value", "Namespace"))
    assert len(err.splitlines()) == 1


def test_all_values_of_wrong_types_are_listed_with_their_lines(competition, tmp_path, capsys):
    changes = {
        "seed": "holdout",
        "max_hours": "{",
        "data.batch_size": "x",
        "data.columns": {"auxiliary": ["a"]},
        "model.head.init_args": {"label_smoothing": "best"},
        "submission": {"group": "/etc", "keep": "abc"},
        "data.nmu": 3,
        "data.train": 5,
    }
    path = write_config(tmp_path / "c.yaml", tiny_config(competition, tmp_path / "runs", **changes))
    assert main(["check", "--config", str(path), "--data.image_size", "abc", "--model.ema_decay=q"]) == 2
    said = capsys.readouterr().err.splitlines()
    assert said[0] == "swinft check: the config is wrong:"
    lines = {line.strip().rstrip(":"): number for number, line in enumerate(path.read_text().splitlines(), 1)}

    def place(text):
        return f"  {path}:{next(number for line, number in lines.items() if line.startswith(text))}: "

    no = "is not allowed; it must be"
    assert sorted(said[1:]) == sorted(
        [
            f"{place('nmu')}unknown key 'data.nmu'. Did you mean 'data.folds.num'?",
            f"{place('train: 5')}data.train: YAML reads `5` as a whole number: write '5' in quotes.",
            f"{place('batch_size')}data.batch_size: `x` {no} a whole number.",
            f"{place('- a')}data.columns.auxiliary: `['a']` {no} a mapping or null. Keys of each mapping in the list: "
            "target, target_kind, weight, label_delimiter, head, name.",
            f"{place('max_hours')}max_hours: `{{` {no} a number or null.",
            f"{place('label_smoothing')}model.head: label_smoothing: `best` {no} a number.",
            f"{place('seed')}seed: `holdout` {no} a whole number.",
            f"{place('group')}submission.group: `/etc` {no} a mapping or null. Its keys: by, how, weight.",
            f"{place('keep')}submission.keep: `abc` {no} a list in brackets.",
            f"  --data.image_size: `abc` {no} a whole number or a list in brackets.",
            f"  --model.ema_decay: `q` {no} a number, a mapping or null. Its keys: decay, warmup, gamma, power, start_steps.",
        ]
    )
    del changes["data.nmu"], changes["data.train"]
    write_config(path, tiny_config(competition, tmp_path / "runs", **changes))
    assert main(["check", "--config", str(path)]) == 2
    assert len(capsys.readouterr().err.splitlines()) == 8


def test_null_is_refused_by_every_key_that_is_no_value_without(competition, tmp_path, capsys):
    """jsonargparse takes null for not given: keys such as `submission.drop` ended in a stack trace, others did nothing."""
    kinds = {key: hint for key, hint in key_types(build_parser("check")).items() if hint is not None}
    strict = [key for key, hint in kinds.items() if type(None) not in get_args(hint) and hint is not Any]
    strict = [key for key in strict if key.partition(".")[0] not in ("config", "allow_code", "runs", "name")]
    assert {"submission.drop", "model.optim.lr", "predict.views", "data.folds.all", "checkpoint"} <= set(strict)
    nothing = dict.fromkeys(key for key in strict if key != "model.head")
    config = tiny_config(competition, tmp_path, **nothing, **{"model.head.init_args": {"dropout": None}})
    path = write_config(tmp_path / "c.yaml", config)
    assert main(["check", "--config", str(path)]) == 2
    said = capsys.readouterr().err
    assert [key for key in nothing if f": {key}: `null` is not allowed; it must be " not in said] == []
    assert "model.head: dropout: `null` is not allowed; it must be a number." in said


def test_f112_lists_of_names_are_cut_and_counted(competition, check):
    assert suggest("zzz", map(str, range(784))).endswith("8, 9 and 774 more.")
    header = ",".join(["label", *(f"pixel{i}" for i in range(784))])
    (competition / "digits.csv").write_text(f"{header}\n{','.join(['0'] * 785)}\n")
    code, _, err = check(data__train="digits.csv")
    assert code == 2
    assert len(err) < 3000
    code, _, err = check(**{"data.augment": ["albumentations.Qqqqqqqq"]})
    assert code == 2
    assert " more." in err
    assert len(err) < 600


def test_f124_help_of_a_class_needs_no_config(capsys):
    with pytest.raises(SystemExit) as stop:
        main(["check", "--model.head.help", "swinft.RegressionHead"])
    assert stop.value.code == 0
    assert "standardised" in " ".join(capsys.readouterr().out.split())


def test_f124_a_head_in_python_is_a_class():
    with pytest.raises(InputError, match="must be a class derived from swinft"):
        FineTuneTask(head="swinft.ClassificationHead", num_outputs=3)


def test_what_a_config_says_does_not_control_the_terminal(check):
    code, out, err = check(data__loading__download="\x1b]0;x\x07curl", data__root="nowhere")
    assert code == 2
    assert "\x1b" not in out + err
    assert "\\x1b]0;x\\x07curl" in err


def test_a_tuple_among_the_defaults_of_a_transform_is_no_news(check):
    clahe = {"class_path": "albumentations.CLAHE", "init_args": {"clip_limit": [4, 4], "p": 1}}
    with warnings.catch_warnings(record=True) as found:
        warnings.simplefilter("always")
        code, *_ = check(data__loading__preprocess=[clahe])
    assert code == 0
    assert [str(each.message) for each in found if "round-trip" in str(each.message)] == []


def test_what_stands_against_a_device_is_not_invented(check):
    clahe = {"class_path": "albumentations.CLAHE", "init_args": {"clip_limit": [4, 4], "p": 1}}
    code, _, said = check(data__loading__augment_on="device", data__loading__preprocess=[clahe])
    assert code == 2
    assert "data.loading.preprocess runs on the CPU" in said
    assert "data.loading.shrink" not in said  # it is auto


def test_the_advice_for_folds_of_a_file_is_about_the_file(check, tmp_path):
    folds = tmp_path / "folds.csv"
    folds.write_text("id,fold\n" + "".join(f"{k:03d},{int(k % 3 > 0)}\n" for k in range(24)))
    code, _, said = check(data__folds__file=str(folds), data__folds__num=None)
    assert code == 2
    assert f"Correct {folds}, which data.folds.file names, or remove data.folds.file." in said
    assert "data.folds.rare_classes" not in said  # it is refused beside data.folds


def test_names_that_yaml_reads_as_something_else_are_asked_for_in_quotes(check):
    code, _, said = check("--data.columns.class_order", "yes,no")
    assert code == 2
    assert "data.columns.class_order: `[True, False]` is not allowed; `True` in it is not text. Put in quotes" in said
    code, _, said = check("--data.image_size", "[32]")
    assert code == 2
    assert "it must be a whole number or two values in brackets" in said
