"""Text in the steps of a table is the same after a run has frozen it and a later command has read it."""

import yaml

from swinft.run.config.sections import build_parser, dump, load, read_frozen
from swinft.run.config.yaml_text import yaml_text
from tests.conftest import tiny_config, write_config

WORDS = ["1e5", "007", "0.10", "1_000", "1e-5", "12e03", ".5", "1:30", "2020-01-01", "yes", "on", "null", "~", "0x1F",
         "1E5", "+5", "-07", "0o7", "nan", ".inf", "5", "", "é", "a: b", "#", "'", '"', "*"]  # fmt: skip


def test_steps_keep_their_text_from_file_to_frozen_config(competition, tmp_path):
    steps = [
        *({"csv": word} for word in WORDS),
        {"where": {"column": "id", "is": [*WORDS, 5, 0.5]}},
        {"map": {"column": "id", "values": dict(zip(WORDS, WORDS, strict=True))}},
        {"class_path": "swinft.TableStep", "init_args": {"names": WORDS}},
    ]
    given = {"data.train": steps[:-1], "data.folds": {"num": 2, "extra": [{"table": steps[:-1], "weight": 0.5}]}}
    path = tmp_path / "c.yaml"
    path.write_text(yaml_text(tiny_config(competition, tmp_path, **given)))
    parser = build_parser("check")
    config = load(parser, ["--config", str(path)])
    assert config.data.train == steps[:-1]
    (tmp_path / "run").mkdir()
    frozen = tmp_path / "run" / "config.yaml"
    frozen.write_text(dump(parser, config))
    for read in (read_frozen(parser, frozen, None).data, yaml.safe_load(frozen.read_text())["data"]):
        extra = read["folds"]["extra"][0]
        assert (read["train"], extra["table"], extra["weight"]) == (steps[:-1], steps[:-1], 0.5)


def test_only_text_that_the_parser_would_read_as_a_number_is_quoted_anew(competition, tmp_path):
    config = tiny_config(competition, tmp_path)
    assert yaml_text(config) == yaml.safe_dump(config, sort_keys=False, allow_unicode=True)
    assert (
        yaml_text({"1e5": ["1e-5", "1.5e3", "e5", ".", "1.2.3"]}) == "'1e5':\n- '1e-5'\n- '1.5e3'\n- e5\n- .\n- 1.2.3\n"
    )
    assert write_config(tmp_path / "c.yaml", config).is_file()
