"""Competitions whose images are not image files: datasets of HDF5 files, tables in parquet, regions of a JSON."""

import io
from collections.abc import Callable
from pathlib import Path

import h5py
import numpy as np
import pandas as pd
from numpy.typing import NDArray
from PIL import Image

from tests.integration.layouts import scores
from tests.integration.layouts.layout import (
    Frame,
    Layout,
    Metric,
    Random,
    answers,
    classes_of,
    competition,
    likeliest,
    numerals,
    of_class,
    probability_of,
    save,
    write,
    write_json,
)

LESIONS = ["A", "Aext", "B", "Bext", "C", "Cext", "H", "Hext", "L", "Lext", "areaMM2", "area_perim_ratio",
           "color_std_mean", "deltaA", "deltaB", "deltaL", "deltaLB", "deltaLBnorm", "eccentricity", "location",
           "location_simple", "minorAxisMM", "nevi_confidence", "norm_border", "norm_color", "perimeterMM",
           "radial_color_std_max", "stdL", "stdLExt", "symm_2axis", "symm_2axis_angle", "x", "y", "z"]  # fmt: skip
VOTES = [f"{name}_vote" for name in ("seizure", "lpd", "gpd", "lrda", "grda", "other")]
ELECTRODES = ["Fp1", "F3", "C3", "P3", "F7", "T3", "T5", "O1", "Fz", "Cz", "Pz", "Fp2", "F4", "C4", "P4", "F8", "T4",
              "T6", "O2", "EKG"]  # fmt: skip
CHAINS = [f"{chain}_{hertz:.2f}" for chain in ("LL", "RL", "LP", "RP") for hertz in np.arange(100) * 0.195 + 0.59]
TAXA = {
    "Asteronyx loveni": "Animalia/Echinodermata/Ophiuroidea/Euryalida/Asteronychidae/Asteronyx/Asteronyx loveni",
    "Asteronyx longifissus": "Animalia/Echinodermata/Ophiuroidea/Euryalida/Asteronychidae/Asteronyx/Asteronyx longifissus",
    "Ophiacanthidae": "Animalia/Echinodermata/Ophiuroidea/Ophiacanthida/Ophiacanthidae",
    "Bathochordaeus": "Animalia/Chordata/Appendicularia/Copelata/Oikopleuridae/Bathochordaeus",
    "Chionoecetes tanneri": "Animalia/Arthropoda/Malacostraca/Decapoda/Oregoniidae/Chionoecetes/Chionoecetes tanneri",
    "Elpidiidae": "Animalia/Echinodermata/Holothuroidea/Elasipodida/Elpidiidae",
}
RANKS = ["kingdom", "phylum", "class", "order", "family", "genus", "species"]


def jpeg(pixels: NDArray[np.uint8]) -> bytes:
    """The bytes of a JPEG file."""
    Image.fromarray(pixels).save(data := io.BytesIO(), "JPEG", quality=95)
    return data.getvalue()


def isic_2024(folder: Path, seed: int) -> Layout:
    """Test images in HDF5 only; 55 columns of metadata with blanks; one row in fifteen is malignant."""

    def metadata(numbers: Random, ids: list[str], first: int) -> dict[str, list[object]]:
        count = len(ids)
        people = [first + row // 3 for row in range(count)]
        found: dict[str, list[object]] = {
            "isic_id": [*ids],
            "patient_id": [f"IP_{each:07d}" for each in people],
            "age_approx": ["" if row % 9 == 4 else f"{40 + 5 * (row // 3 % 8)}.0" for row in range(count)],
            "sex": ["" if row % 9 == 4 else ("male", "female")[each % 2] for row, each in enumerate(people)],
            "anatom_site_general": ["" if row % 8 == 1 else ("head/neck", "torso")[row % 2] for row in range(count)],
            "clin_size_long_diam_mm": [2.5 + row % 4 for row in range(count)],
            "image_type": ["TBP tile: close-up"] * count,
            "tbp_tile_type": [f"3D: {('white', 'XP')[row % 2]}" for row in range(count)],
        }
        for name in LESIONS:
            found[f"tbp_lv_{name}"] = numbers.normal(10, 3, count).round(3).tolist()
        found["tbp_lv_location"] = [f"{('Left', 'Right')[row % 2]} Leg - Upper" for row in range(count)]
        found["tbp_lv_location_simple"] = [("Torso Back", "Leg")[row % 2] for row in range(count)]
        return found | {"attribution": ["A clinic, in a city"] * count, "copyright_license": ["CC-BY"] * count}

    def train(root: Path, numbers: Random) -> Frame:
        ids, labels = [f"ISIC_{id}" for id in numerals(numbers, 7, 90)], [int(row % 15 == 4) for row in range(90)]
        with h5py.File(root / "train-image.hdf5", "w") as file:
            for id, k in zip(ids, labels, strict=True):
                path = root / "train-image" / "image" / f"{id}.jpg"
                path.parent.mkdir(parents=True, exist_ok=True)
                path.write_bytes(data := jpeg(of_class(numbers, k, 2, (72, 72))))
                file[id] = np.void(data)
        known = metadata(numbers, ids, 1000)
        first = {"isic_id": known.pop("isic_id"), "target": labels}
        blank: dict[str, list[object]] = {name: [""] * 90 for name in ("lesion_id", *(f"iddx_{k}" for k in (2, 3, 4, 5)),
                                                                       "mel_mitotic_index", "mel_thick_mm")}  # fmt: skip
        diagnosis = [("Benign", "Malignant")[k] for k in labels]
        confidence = numbers.uniform(0, 100, 90).round(4).tolist()
        last = {"lesion_id": blank.pop("lesion_id"), "iddx_full": diagnosis, "iddx_1": diagnosis, **blank}
        write(root / "train-metadata.csv", {**first, **known, **last, "tbp_lv_dnn_lesion_confidence": confidence})
        return answers(ids, {"target": labels})

    def test(count: int, first: int) -> Callable[[Path, Random], Frame]:
        def make(root: Path, numbers: Random) -> Frame:
            ids, labels = [f"ISIC_{id}" for id in numerals(numbers, 7, count)], [int(row % 2) for row in range(count)]
            with h5py.File(root / "test-image.hdf5", "w") as file:
                for id, k in zip(ids, labels, strict=True):
                    file[id] = np.void(jpeg(of_class(numbers, k, 2, (72, 72))))
            write(root / "test-metadata.csv", metadata(numbers, ids, first))
            write(root / "sample_submission.csv", {"isic_id": ids[::-1], "target": [0.3] * count})
            return answers(ids, {"target": labels})

        return make

    metric = Metric({"partial_auc": {"min_tpr": 0.8}}, scores.partial_auc)
    splits = (train, test(3, 6000), test(12, 7000))
    return competition(folder, seed, "isic-2024-challenge", metric, splits, probability_of("1", "target"))


def fathomnet(folder: Path, seed: int) -> Layout:
    """COCO files, and what the host's script writes beside them: regions, and a table with absolute paths."""
    taxa = list(TAXA)

    def split(root: Path, numbers: Random, name: str, images: int, first: int) -> Frame:
        is_train, coco, ids, labels, paths = name == "train", [], [], [], []
        for image in range(first, first + images):
            save(root / name / "images" / f"{image}.png", of_class(numbers, image % 6, 6))
            for place in range(3):
                id, taxon = 3 * image + place, (image + place) % len(taxa)
                file = f"{image}_{id}.png"
                save(root / name / "rois" / file, of_class(numbers, taxon, len(taxa), (48, 48)))
                box = [10 + 20 * place, 12, 18, 24]
                known = {"category_id": taxon + 1} if is_train else {}
                coco.append({"id": id, "image_id": image, "bbox": box, "area": 432, "iscrowd": 0, **known})
                ids.append(str(id))
                labels.append(taxa[taxon])
                paths.append(f"/home/host/fgvc/{name}/rois/{file}")
        of_images = [
            {
                "id": image,
                "file_name": f"{image}.png",
                "width": 96,
                "height": 72,
                "coco_url": f"https://example.org/{image}",
            }
            for image in range(first, first + images)
        ]
        categories = [{"id": k + 1, "name": taxon} for k, taxon in enumerate(taxa)]
        dataset = {"info": {}, "images": of_images, "annotations": coco, "categories": categories}
        write_json(root / f"dataset_{name}.json", dataset)
        cells = labels if is_train else [""] * len(labels)
        write(root / name / "annotations.csv", {"path": paths, "label": cells}, line_end="\r\n")
        return answers(ids, {"concept_name": labels})

    def train(root: Path, numbers: Random) -> Frame:
        paths = [[*path(name), *[""] * (7 - len(path(name)))] for name in taxa]  # the user's own table
        write(root / "taxa.csv", {"name": taxa, **{rank: [each[k] for each in paths] for k, rank in enumerate(RANKS)}})
        return split(root, numbers, "train", 24, 1)

    def test(images: int, first: int) -> Callable[[Path, Random], Frame]:
        def make(root: Path, numbers: Random) -> Frame:
            truth = split(root, numbers, "test", images, first)
            names = [taxa[0]] * len(truth)
            write(root / "sample_submission.csv", {"annotation_id": list(truth.index), "concept_name": names})
            return truth

        return make

    def path(name: str) -> list[str]:
        return TAXA[name].split("/")

    distance = scores.tree_distance({name: path(name) for name in taxa})
    word = {"hierarchical_distance": {"taxonomy": "taxa.csv"}}
    metric = Metric(word, distance, is_lower_better=True)
    splits = (train, test(4, 100), test(5, 200))
    return competition(folder, seed, "fathomnet-2025", metric, splits, likeliest("concept_name"))


def hms(folder: Path, seed: int) -> Layout:
    """Counts of votes; spectrograms and signals as tables in parquet files; other ids in the test."""

    def files(root: Path, numbers: Random, split: str, spectrogram: str, eeg: str, k: int, has_gap: bool) -> None:
        image = of_class(numbers, k, 6, (60, 400)).mean(axis=2) / 40
        table = pd.DataFrame(image.astype(np.float32), columns=CHAINS)
        if has_gap:
            table.iloc[10:14, :100] = np.nan
        table.insert(0, "time", np.arange(1, 120, 2))
        signal = pd.DataFrame(numbers.normal(0, 20, (200, 20)).astype(np.float32), columns=ELECTRODES)
        for kind, id, frame in (("spectrograms", spectrogram, table), ("eegs", eeg, signal)):
            path = root / f"{split}_{kind}" / f"{id}.parquet"
            path.parent.mkdir(parents=True, exist_ok=True)
            frame.to_parquet(path, write_statistics=False, use_dictionary=False, store_schema=False)

    def votes(numbers: Random, k: int) -> list[int]:
        counts = [0] * 6
        counts[k] = int(numbers.integers(3, 12))
        counts[(k + 1) % 6] = int(numbers.integers(0, 4))
        return counts

    def train(root: Path, numbers: Random) -> Frame:
        table: dict[str, list[object]] = {}
        labels = [k for k in classes_of(numbers, 12, 6) for _ in range(2)]  # two rows of each recording
        ids = numerals(numbers, 9, 24)
        for row, (id, k) in enumerate(zip(ids, labels, strict=True)):
            eeg, spectrogram = 1628180742 + row // 2, 353733 + row // 2
            files(root, numbers, "train", str(spectrogram), str(eeg), k, row == 3)
            cells = [eeg, row % 2, 6.0 * (row % 2), spectrogram, 0, 0.0, id, 42516 + row // 4]
            names = ["eeg_id", "eeg_sub_id", "eeg_label_offset_seconds", "spectrogram_id", "spectrogram_sub_id",
                     "spectrogram_label_offset_seconds", "label_id", "patient_id", "expert_consensus", *VOTES]  # fmt: skip
            words = ["Seizure", "LPD", "GPD", "LRDA", "GRDA", "Other"]
            for name, cell in zip(names, [*cells, words[k], *votes(numbers, k)], strict=True):
                table.setdefault(name, []).append(cell)
        write(root / "train.csv", table)
        counts = np.array([table[name] for name in VOTES], dtype=float)
        shares = counts / counts.sum(axis=0)
        return answers(ids, {name: shares[k].tolist() for k, name in enumerate(VOTES)})

    def test(count: int, first: int) -> Callable[[Path, Random], Frame]:
        def make(root: Path, numbers: Random) -> Frame:
            labels, eegs = classes_of(numbers, count, 6), [3911565283 + first + row for row in range(count)]
            spectrograms = [853520 + first + row for row in range(count)]
            for eeg, spectrogram, k in zip(eegs, spectrograms, labels, strict=True):
                files(root, numbers, "test", str(spectrogram), str(eeg), k, False)
            ids = [str(eeg) for eeg in eegs]
            write(root / "test.csv", {"spectrogram_id": spectrograms, "eeg_id": ids, "patient_id": [6885] * count})
            sixths = dict.fromkeys(VOTES, [0.166666667] * count)
            write(root / "sample_submission.csv", {"eeg_id": ids, **sixths})
            shares = np.array([votes(numbers, k) for k in labels], dtype=float)
            shares /= shares.sum(axis=1, keepdims=True)
            return answers(ids, {name: shares[:, k].tolist() for k, name in enumerate(VOTES)})

        return make

    metric = Metric("kl_divergence", scores.kl, is_lower_better=True)
    slug = "hms-harmful-brain-activity-classification"
    return competition(folder, seed, slug, metric, (train, test(1, 0), test(5, 50)))
