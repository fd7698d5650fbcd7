"""The folders that configs/gold expects: a download, and the files that the user prepares of it."""

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pandas as pd

from tests.integration.layouts import containers, medical, one_class, some_numbers
from tests.integration.layouts.layout import drawing, save, write

TEXT = {"dtype": str, "keep_default_na": False}


def petfinder2021(folder: Path, seed: int) -> Path:
    """As downloaded."""
    return some_numbers.petfinder(folder, seed, 16).root


def cassava2020(folder: Path, seed: int) -> Path:
    """As downloaded."""
    return one_class.cassava(folder, seed).root


def isic2024(folder: Path, seed: int) -> Path:
    """Synthetic images of two malignant lesions, with their patients."""
    root, numbers = containers.isic_2024(folder, seed).root, np.random.default_rng(seed)
    table = pd.read_csv(root / "train-metadata.csv", **TEXT)
    patients = table["patient_id"][table["target"] == "1"].iloc[:2].tolist()
    for number in range(2):
        save(root / "synthetic" / f"SYN_{number}.png", drawing(numbers, 0.9))
    write(root / "synthetic.csv", {"isic_id": ["SYN_0", "SYN_1"], "patient_id": patients, "target": [1, 1]})
    return root


def csiro2025(folder: Path, seed: int) -> Path:
    """A row per image, with folds."""
    root, masses = some_numbers.csiro(folder, seed).root, some_numbers.MASSES
    ids: list[str] = []
    for split, name in (("train", "wide"), ("test", "test_wide")):
        table = pd.read_csv(root / f"{split}.csv", **TEXT)
        rows: dict[str, dict[str, object]] = {}
        for _, cells in table.iterrows():
            id, _, mass = cells["sample_id"].partition("__")
            row = rows.setdefault(id, {"image_id": id, "image_path": cells["image_path"]})
            if split == "train":
                known = {key: cells[key] for key in ("Sampling_Date", "State", "Pre_GSHH_NDVI", "Height_Ave_cm")}
                row |= {**known, mass: cells["target"], "fold": row.get("fold", len(rows) % 2)}
        pd.DataFrame(rows.values()).to_csv(root / f"{name}.csv", index=False)
        ids = list(rows)
    write(root / "sample_wide.csv", {"image_id": ids, **dict.fromkeys(masses, [0.0] * len(ids))})
    return root


def planttraits2024(folder: Path, seed: int) -> Path:
    """The species as one more column."""
    root = some_numbers.planttraits(folder, seed).root
    table = pd.read_csv(root / "train.csv", **TEXT)
    table.assign(species=[f"s{row % 6}" for row in range(len(table))]).to_csv(root / "train_species.csv", index=False)
    return root


def fathomnet2025(folder: Path, seed: int) -> Path:
    """A table of regions for each split."""
    layout = containers.fathomnet(folder, seed)
    for split, truth in (("train", layout.train), ("test", layout.hidden)):
        images = [int(id) // 3 for id in truth.index]
        known = {"label": truth["concept_name"].tolist()} if split == "train" else {}
        write(layout.root / f"{split}.csv", {"annotation_id": list(truth.index), "image_id": images, **known})
    return layout.root


def hms2024(folder: Path, seed: int) -> Path:
    """Four grey images a row: a chain of electrodes each."""
    root = containers.hms(folder, seed).root
    tables = {split: pd.read_csv(root / f"{split}.csv", **TEXT) for split in ("train", "test")}
    for split, prefix, id in (("train", "", "label_id"), ("test", "test_", "eeg_id")):
        for _, row in tables[split].iterrows():
            table = pd.read_parquet(root / f"{split}_spectrograms" / f"{row['spectrogram_id']}.parquet")
            cells = np.nan_to_num(table.drop(columns="time").to_numpy() * 40).astype(np.uint8)
            for chain in range(4):
                pixels = cells[:, 100 * chain : 100 * (chain + 1)]
                save(root / f"{prefix}spectrograms" / f"{row[id]}_{chain}.png", pixels)
    tables["train"][["label_id", "eeg_id", "patient_id", *containers.VOTES]].to_csv(root / "votes.csv", index=False)
    return root


def rsna2024(folder: Path, seed: int) -> Path:
    """A row per study, condition and level; frames around each disc."""
    layout, numbers = medical.rsna_2024(folder, seed), np.random.default_rng(seed)
    for name, truth in (("crops", layout.train), ("test_crops", layout.hidden)):
        studies = list(dict.fromkeys(str(id).partition("_")[0] for id in truth.index))[:8]
        rows: list[dict[str, object]] = []
        for study in studies:
            for level in medical.LEVELS[:2]:
                of_disc = {c: _grade(truth, f"{study}_{c}_{level}") for c in medical.CONDITIONS}
                crop = f"{study}_{level}"
                for frame in range(2 + int(study) % 3):
                    save(
                        layout.root / "crops" / crop / f"{frame}.png", drawing(numbers, numbers.random(), (), (32, 32))
                    )
                known = {"study_id": study, "crop": crop, "level": level}
                for c in medical.CONDITIONS:
                    row = {"row_id": f"{study}_{c}_{level}", **known, "condition": c}
                    rows.append(row | ({"grade": of_disc[c], **of_disc} if name == "crops" else {}))
        pd.DataFrame(rows).to_csv(layout.root / f"{name}.csv", index=False)
    thirds = dict.fromkeys(medical.GRADES, [1 / 3] * len(rows))
    write(layout.root / "sample_submission.csv", {"row_id": [str(row["row_id"]) for row in rows], **thirds})
    return layout.root


def _grade(truth: pd.DataFrame, id: str) -> str:
    """A grade by its word; empty where it is blank."""
    return next((name for name in medical.GRADES if truth.loc[id, name] == 1), "")


GOLD_LAYOUTS: dict[str, Callable[[Path, int], Path]] = {
    make.__name__: make
    for make in (isic2024, rsna2024, csiro2025, planttraits2024, fathomnet2025, petfinder2021, cassava2020, hms2024)
}
