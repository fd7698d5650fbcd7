"""Small competitions in the layouts that configs/gold expects: the folder of a download, with the files that the user prepares."""

import io
from collections.abc import Callable, Iterable
from pathlib import Path

import h5py
import numpy as np
import pandas as pd
from PIL import Image

from tests.conftest import write_image
from tests.integration.test_end_to_end import make_petfinder

SIZE = (32, 32)
NUMBERS = [
    "A",
    "Aext",
    "B",
    "Bext",
    "C",
    "Cext",
    "H",
    "Hext",
    "L",
    "Lext",
    "areaMM2",
    "area_perim_ratio",
    "color_std_mean",
    "deltaA",
    "deltaB",
    "deltaL",
    "deltaLB",
    "deltaLBnorm",
    "eccentricity",
    "minorAxisMM",
    "nevi_confidence",
    "norm_border",
    "norm_color",
    "perimeterMM",
    "radial_color_std_max",
    "stdL",
    "stdLExt",
    "symm_2axis",
    "symm_2axis_angle",
    "x",
    "y",
    "z",
]
CONDITIONS = [
    "spinal_canal_stenosis",
    *(
        f"{side}_{name}"
        for name in ("neural_foraminal_narrowing", "subarticular_stenosis")
        for side in ("left", "right")
    ),
]
GRADES = ["normal_mild", "moderate", "severe"]
MASSES = ["Dry_Clover_g", "Dry_Dead_g", "Dry_Green_g", "Dry_Total_g", "GDM_g"]
TRAITS = ["X4", "X11", "X18", "X50", "X26", "X3112"]
ANCILLARY = [
    "WORLDCLIM_BIO1_annual_mean_temperature",
    "WORLDCLIM_BIO12_annual_precipitation",
    "SOIL_bdod_0.5cm_mean_0.01_deg",
]
TAXA = ["Asteronyx loveni", "Bathochordaeus", "Chionoecetes tanneri", "Elpidiidae"]
VOTES = [f"{name}_vote" for name in ("seizure", "lpd", "gpd", "lrda", "grda", "other")]


def write_table(path: Path, rows: Iterable[dict[str, object]]) -> None:
    pd.DataFrame(list(rows)).to_csv(path, index=False)


def colour(place: int, of: int) -> tuple[int, int, int]:
    """One of several colours, by which a network could tell classes apart."""
    return (40 + 170 * place // max(1, of - 1), 200 - 150 * place // max(1, of - 1), 60 + 60 * (place % 3))


def isic2024(root: Path, numbers: np.random.Generator) -> None:
    """Images as files and in HDF5 for training, in HDF5 only for the test; blanks in the metadata; 4 of 36 rows are malignant."""

    def metadata(row: int) -> dict[str, object]:
        blank = row % 9 == 4
        known = {"patient_id": f"IP_{row // 3:07d}", "age_approx": "" if blank else 40.0 + 5 * (row % 8)}
        known |= {"sex": "" if blank else ("male", "female")[row % 2], "anatom_site_general": "head/neck"}
        known |= {"clin_size_long_diam_mm": 2.5 + row % 4, "image_type": "TBP tile: close-up"}
        known |= {"tbp_tile_type": f"3D: {('white', 'XP')[row % 2]}"}
        known |= {f"tbp_lv_{name}": round(float(numbers.normal(10, 3)), 3) for name in NUMBERS}
        known |= {
            "tbp_lv_location": f"{('Left', 'Right')[row % 2]} Leg - Upper",
            "tbp_lv_location_simple": ("Torso Back", "Leg")[row % 2],
        }
        return known | {"attribution": "A clinic", "copyright_license": "CC-BY"}

    (root / "synthetic").mkdir(parents=True)
    train, test = [], []
    with h5py.File(root / "train-image.hdf5", "w") as known, h5py.File(root / "test-image.hdf5", "w") as hidden:
        for row in range(42):
            id, is_one = f"ISIC_{15657 + row:07d}", row in (3, 12, 21, 30)
            image = Image.fromarray(numbers.normal(90 + 90 * is_one, 30, (*SIZE, 3)).clip(0, 255).astype(np.uint8))
            image.save(data := io.BytesIO(), "JPEG", quality=95)
            (known if row < 36 else hidden)[id] = np.void(data.getvalue())
            if row < 36:
                file = root / "train-image" / "image" / f"{id}.jpg"
                file.parent.mkdir(parents=True, exist_ok=True)
                file.write_bytes(data.getvalue())
                train.append(
                    {"isic_id": id, "target": int(is_one), **metadata(row), "lesion_id": "", "iddx_1": "Benign"}
                )
            else:
                test.append({"isic_id": id, **metadata(row)})
    write_table(root / "train-metadata.csv", train)
    write_table(root / "test-metadata.csv", test)
    write_table(root / "sample_submission.csv", [{"isic_id": row["isic_id"], "target": 0.3} for row in reversed(test)])
    for row in (3, 12):
        write_image(root / "synthetic" / f"SYN_{row}.png", (180, 90, 90), numbers, SIZE)
    write_table(
        root / "synthetic.csv",
        [{"isic_id": f"SYN_{row}", "patient_id": f"IP_{row // 3:07d}", "target": 1} for row in (3, 12)],
    )


def rsna2024(root: Path, numbers: np.random.Generator) -> None:
    """A row per study, condition and level; the frames of a disc are shared by its conditions; some grades are blank."""
    tables: dict[str, list[dict[str, object]]] = {"crops": [], "test_crops": []}
    for study in range(9):
        known = study < 8
        for level in ("l1_l2", "l4_l5"):
            id = 4003253 + 7 * study
            crop = f"{id}_{level}"
            grades = {name: GRADES[(study + place) % 3] for place, name in enumerate(CONDITIONS)}
            if study == 2:
                grades["left_subarticular_stenosis"] = ""
            for frame in range(2 + study % 3):
                place = GRADES.index(grades[CONDITIONS[0]])
                write_image(root / "crops" / crop / f"{frame}.png", colour(place, 3), numbers, SIZE)
            for name in CONDITIONS:
                row = {
                    "row_id": f"{id}_{name}_{level}",
                    "study_id": id,
                    "crop": crop,
                    "condition": name,
                    "level": level,
                }
                tables["crops" if known else "test_crops"].append(
                    row | ({"grade": grades[name], **grades} if known else {})
                )
    for name, rows in tables.items():
        write_table(root / f"{name}.csv", rows)
    third = dict.fromkeys(GRADES, 1 / 3)
    write_table(root / "sample_submission.csv", [{"row_id": row["row_id"], **third} for row in tables["test_crops"]])


def csiro2025(root: Path, numbers: np.random.Generator) -> None:
    """Images twice as wide as high, one row each; the masses of a row add up."""
    rows: list[dict[str, object]] = []
    for row in range(19):
        id, green, dead, clover = f"ID{1011485656 + row}", 5.0 + 3 * (row % 7), 2.0 + row % 5, float(row % 4)
        path = f"{'train' if row < 16 else 'test'}/{id}.jpg"
        write_image(root / path, colour(row % 7, 7), numbers, (32, 64))
        masses = [clover, dead, green, green + clover + dead, green + clover]
        known = {"Sampling_Date": f"2015/9/{4 + row // 4}", "State": ("NSW", "Vic")[row % 2]}
        known |= {"Pre_GSHH_NDVI": 0.5 + 0.02 * row, "Height_Ave_cm": "" if row == 5 else 4.5 + row, "fold": row % 2}
        shown = {"image_id": id, "image_path": path}
        rows.append(shown | (known | dict(zip(MASSES, masses, strict=True)) if row < 16 else {}))
    write_table(root / "wide.csv", rows[:16])
    write_table(root / "test_wide.csv", [{key: row[key] for key in ("image_id", "image_path")} for row in rows[16:]])
    write_table(
        root / "sample_wide.csv", [{"image_id": row["image_id"], **dict.fromkeys(MASSES, 0.0)} for row in rows[16:]]
    )


def planttraits2024(root: Path, numbers: np.random.Generator) -> None:
    """The sample has other names, and another order, than the training table; metadata has a blank in each table."""
    train, test = [], []
    for row in range(30):
        is_known, species = row < 24, row % 6
        id = 195000000 + 31 * row
        write_image(
            root / ("train_images" if is_known else "test_images") / f"{id}.jpeg", colour(species, 6), numbers, SIZE
        )
        known: dict[str, object] = {"id": id}
        known |= {name: round(float(numbers.normal(50, 9)), 2) for name in ANCILLARY}
        if row in (7, 26):
            known[ANCILLARY[0]] = ""
        if not is_known:
            test.append(known)
            continue
        means = {f"{name}_mean": round((1 + species) * (2.0 + place) / 7, 4) for place, name in enumerate(TRAITS)}
        train.append({**known, **means, **{f"{name}_sd": "" for name in TRAITS}, "species": f"s{species}"})
    write_table(root / "train_species.csv", train)
    write_table(root / "test.csv", test)
    order = ["X4", "X11", "X18", "X26", "X50", "X3112"]
    write_table(root / "sample_submission.csv", [{"id": row["id"], **dict.fromkeys(order, 0.5)} for row in test])


def fathomnet2025(root: Path, numbers: np.random.Generator) -> None:
    """Several annotated regions per image; taxa are names with blanks."""
    tables: dict[str, list[dict[str, object]]] = {"train": [], "test": []}
    for image in range(10):
        split = "train" if image < 8 else "test"
        write_image(root / split / "images" / f"{image}.png", colour(image % 4, 4), numbers, (32, 48))
        for place in range(3):
            id, taxon = 3 * image + place, (image + place) % 4
            write_image(root / split / "rois" / f"{image}_{id}.png", colour(taxon, 4), numbers, SIZE)
            known = {"label": TAXA[taxon]} if split == "train" else {}
            tables[split].append({"annotation_id": id, "image_id": image, **known})
    for split, rows in tables.items():
        write_table(root / f"{split}.csv", rows)
    names = [{"annotation_id": row["annotation_id"], "concept_name": TAXA[0]} for row in tables["test"]]
    write_table(root / "sample_submission.csv", names)


def petfinder2021(root: Path, numbers: np.random.Generator) -> None:
    """As downloaded."""
    make_petfinder(root, 16)


def cassava2020(root: Path, numbers: np.random.Generator) -> None:
    """No test.csv: the sample names the rows to predict; ids hold the suffix."""
    rows = [{"image_id": f"{100042118 + 97 * row}.jpg", "label": row % 5} for row in range(20)]
    for row in rows:
        write_image(root / "train_images" / str(row["image_id"]), colour(int(row["label"]), 5), numbers, (32, 40))
    write_table(root / "train.csv", rows)
    ids = ["2216849948.jpg", "11223344.jpg"]
    for id in ids:
        write_image(root / "test_images" / id, colour(3, 5), numbers, (32, 40))
    write_table(root / "sample_submission.csv", [{"image_id": id, "label": 4} for id in ids])


def hms2024(root: Path, numbers: np.random.Generator) -> None:
    """Counts of votes; four grey images a row; the test has another id column than the training table."""
    train, test = [], []
    for row in range(19):
        eeg, patient, known = 1628180742 + row, 42516 + row // 2, row < 16
        id, folder = (127492639 + row, "spectrograms") if known else (eeg, "test_spectrograms")
        for chain in range(4):
            pixels = numbers.normal(60 + 25 * (row % 6), 20, SIZE).clip(0, 255).astype(np.uint8)
            (root / folder).mkdir(parents=True, exist_ok=True)
            Image.fromarray(pixels).save(root / folder / f"{id}_{chain}.png")
        votes = dict.fromkeys(VOTES, 0) | {VOTES[row % 6]: 6, VOTES[(row + 1) % 6]: 2}
        if known:
            train.append({"eeg_id": eeg, "label_id": id, "patient_id": patient, **votes})
        else:
            test.append({"spectrogram_id": 853520 + row, "eeg_id": eeg, "patient_id": patient})
    write_table(root / "votes.csv", train)
    write_table(root / "test.csv", test)
    sixth = dict.fromkeys(VOTES, 1 / 6)
    write_table(root / "sample_submission.csv", [{"eeg_id": row["eeg_id"], **sixth} for row in test])


LAYOUTS: dict[str, Callable[[Path, np.random.Generator], None]] = {
    make.__name__: make
    for make in (isic2024, rsna2024, csiro2025, planttraits2024, fathomnet2025, petfinder2021, cassava2020, hms2024)
}
