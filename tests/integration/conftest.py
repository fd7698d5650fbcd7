"""What tests of trackers share."""

from pathlib import Path

import pytest

from tests.conftest import tiny_config, write_config


@pytest.fixture
def tracked(competition, tmp_path):
    """Writes a config with a value of trainer.logger."""

    def make(logger: object, **changes: object) -> Path:
        config = tiny_config(competition, tmp_path / "runs", **{"trainer.logger": logger, **changes})
        return write_config(tmp_path / "c.yaml", config)

    return make
