"""Every claim of the README, and of the pages that continue it, that code can check."""

import json
import re
import subprocess
import sys

import pytest
import yaml

from swinft.cli import COMMANDS, main
from swinft.run.fit_command import fit_from_argv
from tests.conftest import ROOT, TINY_SWIN, in_this_process, tiny_config, write_config

README = (ROOT / "README.md").read_text()
PRACTICES, PEERS = (ROOT / "docs" / "practices.md").read_text().split("\n## ")


# Sentences that were not so, from where they stood: what came in their place says less, or is held by a test.
UNTRUE = {
    "README.md": ["is the whole change. "],
    "configs": ["are used by DDP", "--data.root /kaggle/input"],
    "benchmarks/README.md": ["has not been run on a GPU"],
    "swinft": [
        "BatchNorm standardises", "which nobody reads", "clipped to float32's resolution", "picture is hardly larger",
        "Not every fold is finished.",
    ],
}  # fmt: skip


def blocks(language: str, *pages: str) -> list[str]:
    """The blocks of code of the README, or of pages of docs/."""
    texts = [(ROOT / "docs" / f"{page}.md").read_text() for page in pages] or [README]
    return [block for text in texts for block in re.findall(rf"```{language}\n(.*?)```", text, re.DOTALL)]


def test_the_commands_shown_exist():
    shown = set(re.findall(r"^(?:\| `)?swinft (\w+)", README, re.MULTILINE))
    shown |= {
        name for line in re.findall(r"^\| `swinft .*", README, re.MULTILINE) for name in re.findall(r"`(\w+)`", line)
    }
    assert shown == set(COMMANDS) - {"report", "metrics", "cache", "table"}


def test_files_and_links_exist():
    paths = re.findall(r"\]\(([\w./-]+)\)", README)
    assert len(paths) >= 4
    assert [path for path in paths if not (ROOT / path).exists()] == []


def few_tiles(folder):
    """A folder with the demo's images and 60 rows of its table: each `check` decodes all images of the rows."""
    demo = ROOT / "competitions" / "bluemarble"
    rows = (demo / "train.csv").read_text().splitlines()
    (folder / "train.csv").write_text("\n".join([rows[0], *rows[1::7]]) + "\n")
    (folder / "images").symlink_to(demo / "images")
    return folder


def test_the_config_shown_parses(tmp_path, capsys, monkeypatch):
    monkeypatch.chdir(ROOT)
    short, (config, augment) = yaml.safe_load(blocks("yaml")[0]), map(yaml.safe_load, blocks("yaml", "configs"))
    source, several = blocks("yaml", "images")[:2]
    path = write_config(tmp_path / "c.yaml", short)
    assert main(["check", "--config", str(path), "--model.pretrained", "false"]) == 0
    assert short.keys() == config.keys()
    config["data"]["augment"] = augment["data"]["augment"]
    path = write_config(tmp_path / "c.yaml", config)
    assert main(["check", "--config", str(path), "--model.pretrained", "false"]) == 0  # no weights here
    assert "398" in capsys.readouterr().out
    config["data"] |= yaml.safe_load(source.replace("isic_id", "id"))["data"]
    assert main(["check", "--config", str(write_config(path, config))]) == 2
    assert "There is no 'test-image.hdf5' in competitions/bluemarble." in capsys.readouterr().err
    other_ways = re.findall(r"^  # (image: .+)$", several, re.MULTILINE)
    assert len(other_ways) >= 5
    base = short
    base["data"] |= {"root": str(few_tiles(tmp_path)), "test": None, "sample_submission": None}
    base["model"]["backbone_args"] = TINY_SWIN
    for image in [
        yaml.safe_load(several)["data"],
        *map(yaml.safe_load, other_ways),
    ]:  # each is read, and names what the demo lacks
        changed = {**base, "data": base["data"] | {"image": image["image"]}}
        code = main(["check", "--config", str(write_config(path, changed)), "--model.pretrained", "false"])
        said = capsys.readouterr().err
        assert code == 0 or re.search("missing|There is no|no such column|no image", said), said


def test_the_notebook_lines_run():
    code = next(block for block in blocks("python") if "show_batch" in block)
    code = f"import matplotlib; matplotlib.use('agg')\n{code}\nprint(type(dm.show_batch()).__name__)"
    done = subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "Figure"


def test_the_lines_of_a_run_in_python_run(tmp_path, monkeypatch, capsys):
    """On the same data with a smaller network, and without a process per fold."""
    for name in ("configs", "competitions"):
        (tmp_path / name).symlink_to(ROOT / name)
    monkeypatch.chdir(tmp_path)
    small = [
        "--data.image_size=32",
        f"--model.backbone_args={json.dumps(TINY_SWIN)}",
        "--trainer.limit_train_batches=2",
    ]
    small += ["--model.optim.warmup_epochs=1", "--trainer.accelerator=cpu"]
    monkeypatch.setattr("swinft.run.api.fit_from_argv", lambda words: fit_from_argv([*words, *small]))
    monkeypatch.setattr("swinft.run.fit.run_children", in_this_process)
    exec(next(block for block in blocks("python", "python") if "swinft.fit(" in block), {})
    said = capsys.readouterr().out
    assert "epoch 3/3" in said
    assert "{'accuracy': " in said
    assert said.rstrip().endswith("runs/bluemarble/submission.csv")


def test_the_custom_head_of_its_page_trains(competition, tmp_path, monkeypatch):
    code = next(block for block in blocks("python", "heads") if "StarsHead" in block)
    body = code[code.index("class StarsHead") :]
    assert len([line for line in body.splitlines() if line.strip()]) <= 20
    (tmp_path / "stars.py").write_text(code)
    rows = (competition / "train.csv").read_text().splitlines()[1:]
    stars = "id,stars\n" + "".join(f"{row.split(',')[0]},{1 + i % 5}\n" for i, row in enumerate(rows))
    (competition / "stars.csv").write_text(stars)
    changes = {
        "data.train": "stars.csv",
        "data.sample_submission": None,
        "data.target": "stars",
        "data.target_kind": "regression",
        "model.head": {"class_path": "stars.StarsHead"},
        "trainer.max_epochs": 1,
    }
    config = write_config(tmp_path / "c.yaml", tiny_config(competition, tmp_path / "runs", **changes))
    monkeypatch.chdir(tmp_path)
    assert main(["fit", "--config", str(config), "--fold", "0"]) == 2  # nobody said that its code may run
    assert main(["fit", "--config", str(config), "--fold", "0", "--allow-code", "stars"]) == 0
    oof = (tmp_path / "runs" / "tiny" / "fold_0" / "oof.csv").read_text().splitlines()
    assert oof[0] == "id,stars,fold"
    assert all(1 <= float(line.split(",")[1]) <= 5 for line in oof[1:])


@pytest.mark.parametrize("place", UNTRUE)
def test_f113_what_was_not_so_is_said_no_more(place):
    start = ROOT / place
    files = [start] if start.is_file() else [path for path in start.rglob("*") if path.suffix in (".py", ".yaml")]
    assert files
    for path in files:
        words = " ".join(path.read_text().replace("#", " ").split())
        assert not [sentence for sentence in UNTRUE[place] if sentence in words], path


def test_f113_every_promise_names_a_test_that_is_there():
    rows = re.findall(r"^\| (.+?) \| (`tests/.+?) \|$", (ROOT / "docs" / "reliability.md").read_text(), re.MULTILINE)
    assert len(rows) > 15
    for promise, held_by in rows:
        folder = ROOT
        for name in re.findall(r"`([\w./-]+)`", held_by.partition(": ")[0]):
            path = ROOT / name if "/" in name else folder / name
            folder = path.parent
            assert path.exists(), f"{promise}: {name}"


def test_f113_the_warm_up_says_what_its_epochs_are(capsys):
    with pytest.raises(SystemExit):
        main(["fit", "--help", "all"])
    said = " ".join(capsys.readouterr().out.split())
    assert "Epochs of linear warm-up, counted in virtual epochs if `data.loading.virtual_epochs` is set" in said


def numbered_rows(page: str) -> list[list[str]]:
    """The cells of a table whose first column is a number."""
    rows = [line.strip("|").split("|") for line in page.splitlines() if re.match(r"\| \d+ \|", line)]
    assert [int(row[0]) for row in rows] == list(range(1, 48))
    return rows


def test_the_totals_of_other_libraries_are_those_of_their_rows():
    rows = numbered_rows(PEERS)
    assert [row[1] for row in rows] == [row[1] for row in numbered_rows(PRACTICES)]
    words = [[re.match(r" (yes|code|no)\b", cell)[1] for cell in row[2:]] for row in rows]
    columns = zip(*words, strict=True)
    counts = [", ".join(str(column.count(word)) for word in ("yes", "code", "no")) for column in columns]
    named = zip(("AutoGluon", "fastai", "timm", "Lightning"), counts, strict=True)
    assert f"Yes, code, no, of 47: {'; '.join(f'{name} {each}' for name, each in named)}." in PEERS


def test_practices_name_keys_and_tests_that_are_there(capsys):
    rows = numbered_rows(PRACTICES)
    with pytest.raises(SystemExit):
        main(["fit", "--help", "all"])
    known = capsys.readouterr().out
    covered = [(row[3], row[5].strip(" `")) for row in rows if row[5].strip()]
    assert f"{len(covered)} of the 47" in PRACTICES
    for key, test in covered:
        assert (ROOT / test).is_file(), test
        for name in re.findall(r"`([a-z_.]+)`", key):
            assert f"--{name}" in known or f"{name}:" in known, name
