"""Competitions whose answer is one number, a grade, or several numbers."""

from collections.abc import Callable, Sequence
from pathlib import Path

import numpy as np

from tests.integration.layouts import scores
from tests.integration.layouts.layout import (
    Frame,
    Layout,
    Metric,
    Random,
    answers,
    classes_of,
    competition,
    hexes,
    numerals,
    of_class,
    of_labels,
    of_number,
    save,
    write,
)

PETS = [
    "Subject Focus",
    "Eyes",
    "Face",
    "Near",
    "Action",
    "Accessory",
    "Group",
    "Collage",
    "Human",
    "Occlusion",
    "Info",
    "Blur",
]
MASSES = ["Dry_Clover_g", "Dry_Dead_g", "Dry_Green_g", "Dry_Total_g", "GDM_g"]
WEIGHTS = {"Dry_Green_g": 0.1, "Dry_Dead_g": 0.1, "Dry_Clover_g": 0.1, "GDM_g": 0.2, "Dry_Total_g": 0.5}
TRAITS = ["X4", "X11", "X18", "X50", "X26", "X3112"]
ANCILLARY = [
    "WORLDCLIM_BIO1_annual_mean_temperature",
    "WORLDCLIM_BIO12_annual_precipitation",
    "WORLDCLIM_BIO13.BIO14_delta_precipitation_of_wettest_and_dryest_month",
    "WORLDCLIM_BIO15_precipitation_seasonality",
    "WORLDCLIM_BIO4_temperature_seasonality",
    "WORLDCLIM_BIO7_temperature_annual_range",
    *(f"SOIL_{what}_{depth}_mean_0.01_deg" for what in ("bdod", "cec", "cfvo", "clay", "nitrogen", "ocd", "phh2o",
                                                        "sand", "silt", "soc") for depth in
      ("0.5cm", "5.15cm", "15.30cm", "30.60cm", "60.100cm", "100.200cm")),
    "SOIL_ocs_0.30cm_mean_0.01_deg",
    *(f"MODIS_2000.2020_monthly_mean_surface_reflectance_band_{band:02d}_._month_m{month}"
      for month in range(1, 13) for band in range(1, 6)),
    *(f"VOD_{band}_{years}_multiyear_mean_m{month:02d}" for band, years in
      (("C", "2002_2018"), ("Ku", "1987_2017"), ("X", "1997_2018")) for month in range(1, 13)),
]  # fmt: skip


def petfinder(folder: Path, seed: int, train_rows: int = 60) -> Layout:
    """Twelve columns of 0 and 1; a public test of 8 rows, in another order than the sample's."""

    def rows(root: Path, numbers: Random, count: int, split: str) -> tuple[list[str], list[int]]:
        ids, scores_ = hexes(numbers, 32, count), [int(y) for y in numbers.integers(1, 101, count)]
        metadata = {name: numbers.integers(0, 2, count).tolist() for name in PETS}
        for id, score in zip(ids, scores_, strict=True):
            save(root / split / f"{id}.jpg", of_number(numbers, (score - 1) / 99))
        known = {"Pawpularity": scores_} if split == "train" else {}
        write(root / f"{split}.csv", {"Id": ids, **metadata, **known})
        return ids, scores_

    def train(root: Path, numbers: Random) -> Frame:
        ids, scores_ = rows(root, numbers, train_rows, "train")
        return answers(ids, {"Pawpularity": scores_})

    def test(count: int) -> Callable[[Path, Random], Frame]:
        def make(root: Path, numbers: Random) -> Frame:
            ids, scores_ = rows(root, numbers, count, "test")
            cells = [f"{cell:.2f}" for cell in numbers.uniform(20, 80, count)]
            write(root / "sample_submission.csv", {"Id": ids[::-1], "Pawpularity": cells})
            return answers(ids, {"Pawpularity": scores_})

        return make

    metric = Metric("rmse", scores.rmse, is_lower_better=True)
    return competition(folder, seed, "petfinder-pawpularity-score", metric, (train, test(8), test(15)))


def nearest_grade(column: str, low: int, high: int) -> Callable[[Frame], Frame]:
    """A grade: the rounded number, or the most probable class."""

    def answer(outputs: Frame) -> Frame:
        if outputs.shape[1] > 1:
            return outputs.idxmax(axis=1).to_frame(column)
        grades = np.rint(outputs.iloc[:, 0].astype(float)).clip(low, high).astype(int)
        return grades.to_frame(column)

    return answer


def aptos(folder: Path, seed: int) -> Layout:
    """Ids that look like numbers; grades from 0 to 4."""
    known = ["0709652336e2", "1943983492e5", "000123456789"]
    other = {10: ["123456789012", "0000000001e5"], 14: ["000000000012", "0000000002e5"]}

    def rows(root: Path, numbers: Random, ids: Sequence[str], split: str) -> Frame:
        grades = classes_of(numbers, len(ids), 5)
        for id, grade in zip(ids, grades, strict=True):
            save(root / f"{split}_images" / f"{id}.png", of_class(numbers, grade, 5, (72, 72)))
        return answers(ids, {"diagnosis": grades})

    def train(root: Path, numbers: Random) -> Frame:
        truth = rows(root, numbers, hexes(numbers, 12, 70, known), "train")
        write(root / "train.csv", {"id_code": list(truth.index), "diagnosis": truth["diagnosis"].tolist()})
        return truth

    def test(count: int) -> Callable[[Path, Random], Frame]:
        def make(root: Path, numbers: Random) -> Frame:
            truth = rows(root, numbers, hexes(numbers, 12, count, other[count]), "test")
            write(root / "test.csv", {"id_code": list(truth.index)})
            write(root / "sample_submission.csv", {"id_code": list(truth.index), "diagnosis": [0] * count})
            return truth

        return make

    metric = Metric("quadratic_kappa", scores.kappa)
    answer = nearest_grade("diagnosis", 0, 4)
    return competition(folder, seed, "aptos2019-blindness-detection", metric, (train, test(10), test(14)), answer)


def melted(names: Sequence[str]) -> Callable[[Frame], Frame]:
    """A row `ID__NAME` for each output, where predictions have a column for each; longer predictions as they are."""

    def answer(outputs: Frame) -> Frame:
        if list(outputs.columns) == ["target"]:
            return outputs
        ids = [f"{id}__{name}" for id in outputs.index for name in names]
        return answers(ids, {"target": [outputs.at[id, name] for id in outputs.index for name in names]})

    return answer


def csiro(folder: Path, seed: int) -> Layout:
    """Five rows per image, whose masses add up; dates without zeros; images twice as wide as high."""

    def rows(root: Path, numbers: Random, count: int, split: str) -> tuple[dict[str, list[object]], Frame]:
        table: dict[str, list[object]] = {}
        for row, id in enumerate(f"ID{number}" for number in numerals(numbers, 10, count)):
            day, state = row // 4, ("NSW", "Vic", "WA", "Tas")[row // 4 % 4]
            green, dead, clover = numbers.uniform([5, 0, 0], [60, 30, 15]).round(4)
            dead = 0.0 if state == "WA" else float(dead)
            masses = [clover, dead, green, green + clover + dead, green + clover]
            shares = [mass / most for mass, most in zip(masses, (15, 30, 60, 105, 75), strict=True)]
            save(root / split / f"{id}.jpg", of_labels(numbers, shares, (72, 144)))
            known = [
                f"2015/{1 + day % 12}/{1 + 2 * day % 27}",
                state,
                "Ryegrass_Clover",
                round(0.4 + 0.01 * (row % 30), 2),
                round(4.6667 + row, 4),
            ]
            columns = ["Sampling_Date", "State", "Species", "Pre_GSHH_NDVI", "Height_Ave_cm"]
            for name, mass in zip(MASSES, masses, strict=True):
                cells = [f"{id}__{name}", f"{split}/{id}.jpg", *known, name, round(float(mass), 4)]
                for column, cell in zip(
                    ["sample_id", "image_path", *columns, "target_name", "target"], cells, strict=True
                ):
                    table.setdefault(column, []).append(cell)
        return table, answers([str(id) for id in table["sample_id"]], {"target": table["target"]})

    def train(root: Path, numbers: Random) -> Frame:
        table, truth = rows(root, numbers, 48, "train")
        write(root / "train.csv", table)
        return truth

    def test(count: int) -> Callable[[Path, Random], Frame]:
        def make(root: Path, numbers: Random) -> Frame:
            table, truth = rows(root, numbers, count, "test")
            write(root / "test.csv", {name: table[name] for name in ("sample_id", "image_path", "target_name")})
            write(root / "sample_submission.csv", {"sample_id": list(truth.index), "target": ["0.0"] * len(truth)})
            return truth

        return make

    metric = Metric({"weighted_r2": {"weights": WEIGHTS}}, scores.weighted_r2(WEIGHTS))
    return competition(folder, seed, "csiro-biomass", metric, (train, test(1), test(6)), melted(MASSES))


def renamed(outputs: Frame) -> Frame:
    """PlantTraits: columns without `_mean`."""
    return outputs.rename(columns=lambda name: name.removesuffix("_mean"))


def planttraits(folder: Path, seed: int) -> Layout:
    """163 columns of metadata with blanks; the sample has other names than the targets, in another order."""
    order = ["X4", "X11", "X18", "X26", "X50", "X3112"]

    def rows(root: Path, numbers: Random, count: int, split: str) -> tuple[dict[str, list[object]], Frame]:
        ids = numerals(numbers, 9, count // 2) + numerals(numbers, 8, count - count // 2)
        shares = numbers.random((count, 6))
        for id, row in zip(ids, shares, strict=True):
            save(root / f"{split}_images" / f"{id}.jpeg", of_labels(numbers, row, (96, 96)))
        known: dict[str, list[object]] = {"id": [*ids]}
        for k, name in enumerate(ANCILLARY):
            cells = numbers.normal(50, 9, count).round(3).tolist()
            known[name] = ["" if k % 40 == 7 and row % 9 == 2 else cell for row, cell in enumerate(cells)]
        means = {name: (0.1 + (2 + place) * shares[:, place]).round(5).tolist() for place, name in enumerate(TRAITS)}
        return known, answers(ids, {name: means[name] for name in order})

    def train(root: Path, numbers: Random) -> Frame:
        known, truth = rows(root, numbers, 60, "train")
        means = {f"{name}_mean": truth[name].tolist() for name in TRAITS}
        deviations = {f"{name}_sd": ["" if row % 3 == 1 else 0.25 for row in range(60)] for name in TRAITS}
        write(root / "train.csv", {**known, **means, **deviations})
        return truth

    def test(root: Path, numbers: Random) -> Frame:
        known, truth = rows(root, numbers, 10, "test")
        write(root / "test.csv", known)
        write(root / "sample_submission.csv", {"id": list(truth.index), **dict.fromkeys(order, [0.5] * 10)})
        return truth

    return competition(folder, seed, "planttraits2024", Metric("r2", scores.mean_r2), (train, test, test), renamed)
