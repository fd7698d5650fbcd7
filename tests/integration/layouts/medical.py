"""Competitions of DICOM series, and of masks."""

from collections.abc import Callable
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from pydicom.dataset import FileDataset, FileMetaDataset
from pydicom.uid import ExplicitVRLittleEndian, MRImageStorage

from tests.integration.layouts import scores
from tests.integration.layouts.layout import (
    Frame,
    Layout,
    Metric,
    Random,
    answers,
    competition,
    hexes,
    of_class,
    of_labels,
    of_number,
    save,
    write,
)

CONDITIONS = ["spinal_canal_stenosis", "left_neural_foraminal_narrowing", "right_neural_foraminal_narrowing",
              "left_subarticular_stenosis", "right_subarticular_stenosis"]  # fmt: skip
LEVELS = ["l1_l2", "l2_l3", "l3_l4", "l4_l5", "l5_s1"]
DISCS = [f"{condition}_{level}" for condition in CONDITIONS for level in LEVELS]
GRADES, WRITTEN = ["normal_mild", "moderate", "severe"], ["Normal/Mild", "Moderate", "Severe"]
ARTERIES = [
    *(
        f"{side} {part} Internal Carotid Artery"
        for part in ("Infraclinoid", "Supraclinoid")
        for side in ("Left", "Right")
    ),
    "Left Middle Cerebral Artery",
    "Right Middle Cerebral Artery",
    "Anterior Communicating Artery",
    "Left Anterior Cerebral Artery",
    "Right Anterior Cerebral Artery",
    "Left Posterior Communicating Artery",
    "Right Posterior Communicating Artery",
    "Basilar Tip",
    "Other Posterior Circulation",
    "Aneurysm Present",
]
KNEE = ["ACL", "MCL", "Medial Meniscus", "Lateral Meniscus", "Medial OA", "Lateral OA", "PF OA", "Effusion",
        "Synovitis", "Baker's", "Contusion", "Fracture"]  # fmt: skip


def dicom(path: Path, pixels: NDArray[np.uint8], number: int, most: int = 1500) -> None:
    """Writes a DICOM file of 16 bits with the fields that give a slice its place and its grey levels."""
    meta = FileMetaDataset()
    meta.TransferSyntaxUID, meta.MediaStorageSOPClassUID = ExplicitVRLittleEndian, MRImageStorage
    meta.MediaStorageSOPInstanceUID = f"1.2.826.0.1.3680043.8.498.{number}"
    file = FileDataset(str(path), {}, file_meta=meta, preamble=b"\0" * 128)
    grey = (pixels.mean(axis=2) / 255 * most).astype(np.uint16)
    file.SOPClassUID, file.SOPInstanceUID = meta.MediaStorageSOPClassUID, meta.MediaStorageSOPInstanceUID
    file.Modality, file.InstanceNumber, file.PhotometricInterpretation = "MR", number, "MONOCHROME2"
    file.Rows, file.Columns, file.SamplesPerPixel, file.PixelRepresentation = *grey.shape, 1, 0
    file.BitsAllocated, file.BitsStored, file.HighBit = 16, 12, 11
    file.WindowCenter, file.WindowWidth = most // 2, most
    file.ImagePositionPatient, file.ImageOrientationPatient = [0.0, 0.0, 4.0 * number], [1, 0, 0, 0, 1, 0]
    file.PixelSpacing = [0.6, 0.6]
    file.PixelData = grey.tobytes()
    path.parent.mkdir(parents=True, exist_ok=True)
    file.save_as(path, enforce_file_format=True)


def graded(outputs: Frame) -> Frame:
    """RSNA 2024: a row per study and disc. Predictions are such rows already, or have columns `{disc}_{grade}`."""
    outputs = outputs.rename(columns=dict(zip(WRITTEN, GRADES, strict=True)))
    if {*outputs.columns} == {*GRADES}:
        return outputs[GRADES]
    ids = [f"{study}_{disc}" for study in outputs.index for disc in DISCS]
    columns = {g: [outputs.at[s, f"{disc}_{g}"] for s in outputs.index for disc in DISCS] for g in GRADES}
    return answers(ids, columns)


def rsna_2024(folder: Path, seed: int) -> Layout:
    """25 grades a study, some blank; three series of DICOM files; coordinates of discs; other class names in the sample."""
    series = ["Sagittal T2/STIR", "Sagittal T1", "Axial T2"]

    def studies(root: Path, numbers: Random, ids: list[int], split: str) -> tuple[Frame, dict[str, list[object]]]:
        found: dict[str, list[object]] = {}
        grades = {study: numbers.integers(0, 3, 25) for study in ids}
        descriptions: dict[str, list[object]] = {name: [] for name in ("study_id", "series_id", "series_description")}
        for study in ids:
            for place, name in enumerate(series):
                id = study * 10 + place
                for key, cell in zip(descriptions, (study, id, name), strict=True):
                    descriptions[key].append(cell)
                for number in (1, 2, 10):
                    pixels = of_labels(numbers, grades[study] / 2, (64, 64))
                    dicom(root / f"{split}_images" / str(study) / str(id) / f"{number}.dcm", pixels, number)
        write(root / f"{split}_series_descriptions.csv", descriptions)
        rows = [(study, disc, int(grades[study][k])) for study in ids for k, disc in enumerate(DISCS)]
        blank = {(ids[1], DISCS[3]), (ids[1], DISCS[20])} if split == "train" else set()
        cells = {g: [int(k == place and (s, d) not in blank) for s, d, k in rows] for place, g in enumerate(GRADES)}
        truth = answers([f"{study}_{disc}" for study, disc, _ in rows], cells)
        for study in ids:
            found.setdefault("study_id", []).append(study)
            for k, disc in enumerate(DISCS):
                word = "" if (study, disc) in blank else WRITTEN[int(grades[study][k])]
                found.setdefault(disc, []).append(word)
        return truth, found

    def train(root: Path, numbers: Random) -> Frame:
        ids = [4003253 + 7 * row for row in range(24)]
        truth, table = studies(root, numbers, ids, "train")
        write(root / "train.csv", table)
        places = [(study, c, level) for study in ids for c in CONDITIONS for level in LEVELS]
        of_series = {"spinal": 0, "neural": 1, "subarticular": 2}
        write(root / "train_label_coordinates.csv", {
            "study_id": [study for study, _, _ in places],
            "series_id": [study * 10 + next(k for name, k in of_series.items() if name in c) for study, c, _ in places],
            "instance_number": [2] * len(places),
            "condition": [c.replace("_", " ").title() for _, c, _ in places],
            "level": [level.upper().replace("_", "/") for _, _, level in places],
            "x": [12.5 + 10 * LEVELS.index(level) for _, _, level in places],
            "y": [8.25 + 10 * CONDITIONS.index(c) for _, c, _ in places],
        })  # fmt: skip
        return truth

    def test(ids: list[int]) -> Callable[[Path, Random], Frame]:
        def make(root: Path, numbers: Random) -> Frame:
            truth, _ = studies(root, numbers, ids, "test")
            rows = sorted(truth.index)
            thirds = dict.fromkeys(GRADES, [1 / 3] * len(rows))
            write(root / "sample_submission.csv", {"row_id": rows, **thirds})
            return truth

        return make

    metric = Metric("grouped_log_loss", scores.severity_loss, is_lower_better=True)
    slug = "rsna-2024-lumbar-spine-degenerative-classification"
    return competition(folder, seed, slug, metric, (train, test([44036939]), test([44036950, 44036961])), graded)


def rsna_2025(folder: Path, seed: int) -> Layout:
    """One series a row and 14 labels; no sample: a function of the notebook is called with a series' folder."""

    def rows(root: Path, numbers: Random, count: int) -> Frame:
        ids = [f"1.2.826.0.1.3680043.8.498.{int(numbers.integers(10**17, 10**18))}{row:02d}" for row in range(count)]
        present = (numbers.random((count, 14)) < 0.2).astype(int)
        present[-2:] = [[1] * 14, [0] * 14]
        present[:, -1] = present[:, :-1].max(axis=1)
        for row, id in enumerate(ids):
            for number in (1, 2, 11):
                dicom(root / "series" / id / f"{id}{number}.dcm", of_labels(numbers, present[row], (64, 64)), number)
        return answers(ids, {name: present[:, k].tolist() for k, name in enumerate(ARTERIES)})

    def train(root: Path, numbers: Random) -> Frame:
        truth = rows(root, numbers, 40)
        known = {"SeriesInstanceUID": list(truth.index), "PatientAge": [40 + row for row in range(40)]}
        known |= {"PatientSex": ["Male", "Female"] * 20, "Modality": ["MRA", "CTA", "MRI T2", "MRI T1post"] * 10}
        write(root / "train.csv", {**known, **{name: truth[name].tolist() for name in ARTERIES}})
        first = str(truth.index[0])
        spot = {"SOPInstanceUID": [f"{first}2"], "coordinates": ["{'x': 31.5, 'y': 20.25}"], "location": [ARTERIES[0]]}
        write(root / "train_localizers.csv", {"SeriesInstanceUID": [first], **spot})
        return truth

    def test(root: Path, numbers: Random) -> Frame:
        return rows(root, numbers, 6)

    metric = Metric({"weighted_auc": {"weights": {"Aneurysm Present": 13}}}, scores.weighted_auc("Aneurysm Present"))
    slug = "rsna-intracranial-aneurysm-detection"
    return competition(folder, seed, slug, metric, (train, test, test), sample=None)


def rsna_knee(folder: Path, seed: int) -> Layout:
    """Several series a study; a report instead of labels for most studies, which then have blank cells."""

    def rows(root: Path, numbers: Random, count: int, split: str) -> Frame:
        ids = [f"1.2.840.{int(numbers.integers(10**9, 10**10))}.{row}" for row in range(count)]
        present = (numbers.random((count, 12)) < 0.35).astype(int)
        present[-2:] = [[1] * 12, [0] * 12]
        table: dict[str, list[object]] = {}
        for row, id in enumerate(ids):
            for place, plane in enumerate(("Sagittal", "Coronal", "Axial")[: 2 + row % 2]):
                cells = [id, f"{id}.{place}", place % 2, ("FS", "")[place % 2], plane]
                names = [
                    "StudyInstanceUID",
                    "SeriesInstanceUID",
                    "Fluid_Sensitive",
                    "Fat_Suppression",
                    "Anatomical_Plane",
                ]
                for name, cell in zip(names, cells, strict=True):
                    table.setdefault(name, []).append(cell)
                for number in (1, 2):
                    pixels = of_labels(numbers, present[row], (64, 64))
                    dicom(
                        root / f"{split}_series" / id / f"{id}.{place}" / f"{id}.{place}.{number}.dcm", pixels, number
                    )
        write(root / f"{split}_series.csv", table)
        return answers(ids, {name: present[:, k].tolist() for k, name in enumerate(KNEE)})

    def train(root: Path, numbers: Random) -> Frame:
        truth = rows(root, numbers, 60, "train")
        is_known = [row < 40 or row >= 58 for row in range(60)]
        cells = {
            name: [float(y) if known else "" for y, known in zip(truth[name], is_known, strict=True)] for name in KNEE
        }
        reports = ["Meniscus intact, no effusion." if row % 2 else "Partial tear; see above." for row in range(60)]
        write(root / "train.csv", {"StudyInstanceUID": list(truth.index), "Report": reports, **cells})
        return truth[is_known]

    def test(root: Path, numbers: Random) -> Frame:
        truth = rows(root, numbers, 6, "test")
        write(root / "test.csv", {"StudyInstanceUID": list(truth.index)})
        cells = dict.fromkeys(KNEE, [0.5] * 6)
        write(root / "sample_submission.csv", {"StudyInstanceUID": list(truth.index), **cells})
        return truth

    slug = "rsna-knee-abnormality-detection"
    return competition(folder, seed, slug, Metric("mean_column_auc", scores.mean_auc), (train, test, test))


def coded(mask: NDArray[np.bool_]) -> str:
    """A mask as run-length code: starts from 1, down the columns first."""
    flat = np.concatenate([[0], mask.T.ravel().astype(int), [0]])
    changes = np.flatnonzero(np.diff(flat))
    return " ".join(f"{start + 1} {stop - start}" for start, stop in zip(changes[::2], changes[1::2], strict=True))


def tgs_salt(folder: Path, seed: int) -> Layout:
    """A mask a row, as a file and as run-length code; none for some; the depths of all rows in one more table."""

    def split(root: Path, numbers: Random, count: int, name: str) -> tuple[Frame, list[int]]:
        ids, codes = hexes(numbers, 10, count), []
        for row, id in enumerate(ids):
            pixels, mask = of_number(numbers, 0.2, (101, 101)), np.zeros((101, 101), bool)
            if row % 3:
                top, left = (int(k) for k in numbers.integers(0, 60, 2))
                mask[top : top + 35, left : left + 40] = True
                pixels[mask] = of_class(numbers, 1, 2, (101, 101))[mask]
            save(root / name / "images" / f"{id}.png", pixels)
            if name == "train":
                save(root / "train" / "masks" / f"{id}.png", mask.astype(np.uint8) * 255)
            codes.append(coded(mask))
        return answers(ids, {"rle_mask": codes}), [50 + 13 * row for row in range(count)]

    def depths(root: Path, frame: Frame, metres: list[int], known: str = "") -> None:
        lines = "".join(f"{id},{z}\n" for id, z in zip(frame.index, metres, strict=True))
        (root / "depths.csv").write_text((known or "id,z\n") + lines)

    def train(root: Path, numbers: Random) -> Frame:
        truth, metres = split(root, numbers, 40, "train")
        write(root / "train.csv", {"id": list(truth.index), "rle_mask": truth["rle_mask"].tolist()})
        depths(root, truth, metres)
        return truth

    def test(root: Path, numbers: Random) -> Frame:
        truth, metres = split(root, numbers, 8, "test")
        table = root / "depths.csv"
        depths(root, truth, metres, table.read_text() if table.exists() else "")
        write(root / "sample_submission.csv", {"id": list(truth.index), "rle_mask": ["1 1"] * 8})
        return truth

    metric = Metric("map_over_iou", scores.mean_precision_of_masks(101, 101))
    slug = "tgs-salt-identification-challenge"
    return competition(folder, seed, slug, metric, (train, test, test))
