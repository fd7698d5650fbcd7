"""One of two gloo ranks: validates tables of 1 to 17 held-out rows, around the sizes of whole batches, and writes down what was pooled.

    python -m tests.integration.faults.ranks COMPETITION OUTPUT.json [several]

With `several`, of a few tables whose rows have two images each, some of them one. Started twice, with RANK and what else torch.distributed asks of the environment; without it, one process does it alone.
"""

import json
import sys
import warnings
from pathlib import Path
from typing import Any

import lightning.pytorch as pl
import torch

from swinft import CSVDataModule, FineTuneTask, RegressionHead
from swinft.model.settings import TaskContext
from tests.conftest import TINY_SWIN

NUM_ROWS, MOST = 24, 17
TABLES = (1, 2, 3, 5, 6, 7, MOST)  # numbers of held-out rows: two ranks take 6 at a time
SEVERAL = {"path": ["images/{id}_l.png", "images/{id}_r.png"], "missing": "mask"}


class Recorded(FineTuneTask):
    """Keeps what the last validation pooled."""

    pooled: tuple[torch.Tensor, ...] = ()

    def _pooled(self) -> tuple[torch.Tensor, ...]:
        self.pooled = super()._pooled()
        return self.pooled


def validate(root: Path, held_out: int, num_ranks: int, is_several: bool) -> dict[str, Any]:
    """Rows, predictions and scores of one table."""
    folds = root / f"folds-{held_out}.csv"
    data = CSVDataModule(
        root=str(root),
        train="train.csv",
        image=SEVERAL if is_several else "images/{id}.jpg",
        target="brightness",
        target_kind="regression",
        folds={"file": str(folds)},
        image_size=32,
        batch_size=3,
    )
    torch.manual_seed(0)
    task = Recorded(
        RegressionHead,
        backbone_args=dict(TINY_SWIN),
        pretrained=False,
        num_outputs=1,
        pooling={"images": "attention"} if is_several else "avg",
        context=TaskContext(image_size=32, num_images=2 if is_several else None),
        metrics=["rmse", "mae"],
    )
    trainer = pl.Trainer(
        accelerator="cpu",
        devices=num_ranks,
        strategy="ddp" if num_ranks > 1 else "auto",
        logger=False,
        enable_checkpointing=False,
        enable_progress_bar=False,
        enable_model_summary=False,
        use_distributed_sampler=False,
    )
    (scores,) = trainer.validate(task, data, verbose=False)
    return {"rows": task.pooled[0].tolist(), "values": task.pooled[1].ravel().tolist(), "scores": scores}


def write_folds(root: Path) -> None:
    """A folds.csv for each number of held-out rows."""
    for held_out in {1, 4, *TABLES}:
        lines = [f"{row:03d},{int(row >= held_out)}" for row in range(NUM_ROWS)]
        (root / f"folds-{held_out}.csv").write_text("\n".join(["id,fold", *lines, ""]))


def main(root: Path, output: Path, num_ranks: int, rank: int, kind: str = "") -> None:
    """All tables."""
    warnings.filterwarnings("ignore")
    tables = (1, 4, MOST) if kind == "several" else TABLES
    found = [validate(root, held_out, num_ranks, kind == "several") for held_out in tables]
    if rank == 0:
        output.write_text(json.dumps(found))


if __name__ == "__main__":
    import os

    place = (int(os.environ.get(name, default)) for name, default in (("WORLD_SIZE", "1"), ("RANK", "0")))
    main(Path(sys.argv[1]), Path(sys.argv[2]), *place, *sys.argv[3:])
