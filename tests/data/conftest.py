"""A small competition on disk that each test may break."""

import csv

import numpy as np
import pytest
from PIL import Image

from swinft.data.datamodule import CSVDataModule
from tests.conftest import merged

ROWS = 30
CLASSES = ["dog", "cat", "eel"]


class Competition:
    """A folder with train.csv, test.csv, sample_submission.csv and images that can be told apart by their mean."""

    def __init__(self, root):
        self.root = root
        (root / "images").mkdir()
        rng = np.random.default_rng(0)
        self.train = [
            {
                "id": f"{k:03d}",
                "animal": CLASSES[k % 3],
                "weight": f"{k * 1.5}",
                "age": str(k % 7),
                "sex": "mf"[k % 2],
                "has_fur": str(int(k % 3 < 2)),
                "is_long": str(int(k % 3 == 2)),
                "tags": " ".join(sorted({CLASSES[k % 3], CLASSES[k % 2]})),
                "owner": f"owner {k // 2}",
            }
            for k in range(ROWS)
        ]
        self.test = [{"id": f"t{k}", "age": "3", "sex": "f"} for k in (2, 0, 1)]
        for k, row in enumerate([*self.train, *self.test]):
            noise = rng.integers(0, 5, (20, 24, 3))
            Image.fromarray((7 * k + noise).astype(np.uint8)).save(root / "images" / f"{row['id']}.png")
        self.write()

    def write(self):
        """Writes the tables again after a change."""
        sample = [{"id": row["id"], "animal": "cat"} for row in self.test]
        for name, rows in (("train", self.train), ("test", self.test), ("sample_submission", sample)):
            with (self.root / f"{name}.csv").open("w", newline="") as file:
                writer = csv.DictWriter(file, list(rows[0]))
                writer.writeheader()
                writer.writerows(rows)

    def module(self, **changes):
        """A datamodule; `changes` replace its arguments."""
        arguments = {
            "root": str(self.root),
            "train": "train.csv",
            "test": "test.csv",
            "sample_submission": "sample_submission.csv",
            "image": "images/{id}.png",
            "target": "animal",
            "target_kind": "classification",
            "image_size": (16, 20),
            "batch_size": 4,
            "augment": "none",
        }
        return CSVDataModule(**merged(arguments, changes))

    def ready(self, **changes):
        """The same after `setup("fit")`."""
        module = self.module(**changes)
        module.setup("fit")
        return module


@pytest.fixture
def competition(tmp_path):
    return Competition(tmp_path)
