"""Options that would act on nothing beside the others: the command refuses them, and says which to remove."""

import pytest

from swinft.cli import main
from tests.conftest import tiny_config, write_config

IDLE = {
    "note": (["runs", "--note", "RUN", "good", "--sort", "name"], "--note lists no runs: remove --filter, --sort and"),
    "filter": (
        ["runs", "--note", "RUN", "good", "--filter", "a*"],
        "--note lists no runs: remove --filter, --sort and",
    ),
    "batch": (["explain", "RUN", "--ids", "001", "--batch-size", "4"], "integrated-gradients and occlusion, and the"),
    "seconds": (
        ["plan", "--config", "CONFIG", "--gpus", "8xA100", "--seconds", "30"],
        "--seconds is of what is measured",
    ),
    "seed": (
        ["ensemble", "RUN", "--name", "e", "--bootstrap", "0", "--leave-one-out", "false", "--seed", "3"],
        "--seed: with --bootstrap 0 and --leave-one-out false nothing is drawn: remove it.",
    ),
}


@pytest.mark.parametrize("case", IDLE)
def test_an_option_that_acts_on_nothing_is_refused(case, tiny_run, competition, tmp_path, capsys):
    words, said = IDLE[case]
    config = write_config(tmp_path / "c.yaml", tiny_config(competition, tmp_path / "runs"))
    places = {"RUN": str(tiny_run), "CONFIG": str(config)}
    assert main([places.get(word, word) for word in words]) == 2
    assert said in " ".join(capsys.readouterr().err.split())
