"""What most people write: ModelCheckpoint, `ckpt_path="last"`, a loader that shuffles. The negative control of the kills."""

import warnings
from pathlib import Path

import lightning.pytorch as pl
import torch
from lightning.pytorch.callbacks import ModelCheckpoint
from torch import Tensor, nn
from torch.nn import functional
from torch.utils.data import DataLoader, TensorDataset

EPOCHS = 4


class PlainTask(pl.LightningModule):
    """A small network with dropout."""

    def __init__(self) -> None:
        super().__init__()
        self.net = nn.Sequential(nn.Flatten(), nn.Linear(48, 16), nn.ReLU(), nn.Dropout(0.3), nn.Linear(16, 3))

    def training_step(self, batch: tuple[Tensor, Tensor], batch_idx: int) -> Tensor:
        """Cross-entropy."""
        images, classes = batch
        return functional.cross_entropy(self.net(images), classes)

    def configure_optimizers(self) -> torch.optim.Optimizer:
        """AdamW."""
        return torch.optim.AdamW(self.parameters(), 1e-2)


def fit(folder: Path, after_epoch: pl.Callback | None = None) -> None:
    """Fits in `folder`, from `last.ckpt` where there is one, and saves the final weights."""
    warnings.filterwarnings("ignore")
    pl.seed_everything(42, verbose=False)
    numbers = torch.Generator().manual_seed(0)
    data = TensorDataset(torch.randn(60, 3, 4, 4, generator=numbers), torch.randint(0, 3, (60,), generator=numbers))
    task = PlainTask()
    trainer = pl.Trainer(
        accelerator="cpu",
        max_epochs=EPOCHS,
        default_root_dir=folder,
        logger=False,
        enable_progress_bar=False,
        enable_model_summary=False,
        callbacks=[ModelCheckpoint(folder, save_last=True, every_n_epochs=1), *([after_epoch] if after_epoch else [])],
    )
    last = folder / "last.ckpt"
    trainer.fit(task, DataLoader(data, batch_size=8, shuffle=True), ckpt_path=str(last) if last.is_file() else None)
    torch.save(task.state_dict(), folder / "final.pt")
