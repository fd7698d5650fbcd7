"""torch.compile, which takes a minute on a CPU: run with `pytest -m slow`."""

import numpy as np
import pytest

from swinft.cli import main
from swinft.run.predictions import read_predictions, values_of
from tests.conftest import tiny_config, write_config


@pytest.mark.slow
def test_a_compiled_fold_ends_near_one_that_is_not(competition, tmp_path, capsys):
    """Another order of additions, so not the same bytes; weights are saved under the same names."""
    values = []
    for name in ("plain", "compiled"):
        changes = {"model.compile": name == "compiled", "name": name, "data.batch_size": 5}
        config = write_config(tmp_path / "c.yaml", tiny_config(competition, tmp_path / "runs", **changes))
        assert main(["fit", "--config", str(config), "--fold", "0"]) == 0
        values.append(values_of(read_predictions(tmp_path / "runs" / name / "fold_0" / "oof.csv", 3), 3))
    assert "compiled, and the first step done, in" in capsys.readouterr().out
    np.testing.assert_allclose(values[1], values[0], atol=0.02)
