"""Folders of public datasets that are no competition of tests/integration/layouts, as they are downloaded; small."""

from collections.abc import Callable, Sequence
from pathlib import Path

import numpy as np

from tests.integration.layouts.layout import Random, classes_of, hexes, of_class, save, write

SEEDLINGS = ["Black-grass", "Charlock", "Common Chickweed", "Maize", "Sugar beet"]
FLOWERS = ["daisy", "dandelion", "roses", "tulips"]
PETS = ["Abyssinian", "great_pyrenees", "shiba_inu", "Sphynx"]
BIRDS = ["001.Black_footed_Albatross", "002.Laysan_Albatross", "003.Sooty_Albatross"]
FACES = ["5_o_Clock_Shadow", "Arched_Eyebrows", "Attractive", "Male", "Smiling", "Young"]
CHEST = ["Atelectasis", "Effusion", "Hernia", "Infiltration", "No Finding"]
SIDE = (40, 40)


def plant_seedlings(root: Path, numbers: Random) -> None:
    """A folder per class, with blanks in their names; the sample names the test files with their suffix."""
    for k in classes_of(numbers, 60, 5):
        save(root / "train" / SEEDLINGS[k] / f"{hexes(numbers, 9, 1)[0]}.png", of_class(numbers, k, 5, SIDE))
    files = [f"{id}.png" for id in hexes(numbers, 9, 6)]
    for file in files:
        save(root / "test" / file, of_class(numbers, 1, 5, SIDE))
    write(root / "sample_submission.csv", {"file": files, "species": ["Sugar beet"] * 6})


def flowers(root: Path, numbers: Random) -> None:
    """A folder per class in each of two splits; no table; files are numbered in each folder, so that names repeat."""
    for split, count in (("train", 10), ("val", 3)):
        for k, name in enumerate(FLOWERS):
            for number in range(count):
                save(root / "flowers" / split / name / f"{number:04d}.jpg", of_class(numbers, k, 4, SIDE))


def oxford_pets(root: Path, numbers: Random) -> None:
    """The class is the beginning of the file's name; lists with comments and blanks, and trimaps, stand beside the images."""
    lines = ["#Image CLASS-ID SPECIES BREED ID"]
    for k, name in enumerate(PETS):
        for number in range(1, 13):
            save(root / "images" / f"{name}_{number}.jpg", of_class(numbers, k, 4, SIDE))
            save(root / "annotations" / "trimaps" / f"{name}_{number}.png", of_class(numbers, k, 4, SIDE))
            lines.append(f"{name}_{number} {k + 1} 1 1")
    (root / "annotations" / "list.txt").write_text("\n".join(lines) + "\n")


def birds(root: Path, numbers: Random) -> None:
    """Caltech's birds: a folder per class; tables without header, with blanks between cells."""
    lines = []
    for k, name in enumerate(BIRDS):
        for number in range(10):
            file = f"{name}/{name.partition('.')[2]}_{number:04d}_{796000 + 10 * k + number}.jpg"
            save(root / "images" / file, of_class(numbers, k, 3, SIDE))
            lines.append(f"{len(lines) + 1} {file}")
    (root / "images.txt").write_text("\n".join(lines) + "\n")
    (root / "image_class_labels.txt").write_text("".join(f"{row + 1} {row // 10 + 1}\n" for row in range(30)))


def celeba(root: Path, numbers: Random) -> None:
    """Attributes of −1 and 1; a folder inside of a folder of the same name; another table with the splits."""
    ids = [f"{row:06d}.jpg" for row in range(1, 61)]
    cells = {name: numbers.choice([-1, 1], 60).tolist() for name in FACES}
    for row, id in enumerate(ids):
        save(root / "img_align_celeba" / "img_align_celeba" / id, of_class(numbers, row % 2, 2, SIDE))
    write(root / "list_attr_celeba.csv", {"image_id": ids, **cells})
    write(root / "list_eval_partition.csv", {"image_id": ids, "partition": [row // 50 for row in range(60)]})


def chest_xrays(root: Path, numbers: Random) -> None:
    """NIH's chest X-rays: sets of labels with bars, several images of a patient, images in several folders."""
    names, sets, patients = [], [], []
    for row in range(60):
        patient, visit = row // 3 + 1, row % 3
        names.append(f"{patient:08d}_{visit:03d}.png")
        patients.append(patient)
        present = [CHEST[k] for k in range(4) if numbers.random() < 0.35] or ["No Finding"]
        sets.append("|".join(present))
        save(root / f"images_{1 + row // 20:03d}" / "images" / names[-1], of_class(numbers, len(present), 5, SIDE))
    more = {
        "Follow-up #": [row % 3 for row in range(60)],
        "Patient ID": patients,
        "Patient Age": [20 + row // 6 for row in range(60)],
    }
    more |= {"Patient Gender": ["M", "F"] * 30, "View Position": ["PA", "AP", "PA"] * 20}
    write(root / "Data_Entry_2017.csv", {"Image Index": names, "Finding Labels": sets, **more})
    (root / "test_list.txt").write_text("\n".join(names[:6]))


def protein_atlas(root: Path, numbers: Random) -> None:
    """A grey file for each of four stains of a cell; sets of numbers of labels."""

    def cells(folder: str, count: int) -> list[str]:
        ids = [f"{id}-bba0-11e8-b2b9-ac1f6b6435d0" for id in hexes(numbers, 8, count)]
        for id in ids:
            for k, stain in enumerate(("blue", "green", "red", "yellow")):
                save(root / folder / f"{id}_{stain}.png", of_class(numbers, k, 4, SIDE)[..., 0])
        return ids

    ids = cells("train", 48)  # a multiple of the files that are tried: a sample may have files of one stain only
    write(
        root / "train.csv",
        {"Id": ids, "Target": [f"{row % 5} {5 + row % 2}" if row % 3 else f"{row % 7}" for row in range(48)]},
    )
    write(root / "sample_submission.csv", {"Id": cells("test", 8), "Predicted": ["0"] * 8})


def amazon(root: Path, numbers: Random) -> None:
    """Sets of words, of which none stands alone, and the same set in each row of the sample."""
    ids, tags = [f"train_{row}" for row in range(60)], []
    for row, id in enumerate(ids):
        rest = [word for word in ("agriculture", "road", "water", "slash_burn") if numbers.random() < 0.4]
        tags.append(" ".join([("clear", "cloudy", "haze")[row % 3], "primary", *rest]))
        save(root / "train-jpg" / f"{id}.jpg", of_class(numbers, row % 3, 3, SIDE))
    write(root / "train_v2.csv", {"image_name": ids, "tags": tags})
    for row in range(6):
        save(root / "test-jpg" / f"test_{row}.jpg", of_class(numbers, 0, 3, SIDE))
    write(
        root / "sample_submission_v2.csv",
        {"image_name": [f"test_{row}" for row in range(6)], "tags": ["primary clear road water haze"] * 6},
    )


def hemorrhages(root: Path, numbers: Random) -> None:
    """A row for each image and label, in ids of both; no table names the images."""
    names = ["epidural", "subdural", "any"]
    for name, folder, count, column in (
        ("stage_2_train", "stage_2_train", 30, None),
        ("stage_2_sample_submission", "stage_2_test", 6, 0.5),
    ):
        ids = [f"ID_{id}" for id in hexes(numbers, 9, count)]
        for row, id in enumerate(ids):
            save(root / folder / f"{id}.png", of_class(numbers, row % 2, 2, SIDE))
        values = [int(row % (k + 2) == 0) if column is None else column for row in range(count) for k in range(3)]
        write(root / f"{name}.csv", {"ID": [f"{id}_{name}" for id in ids for name in names], "Label": values})


def retinas(root: Path, numbers: Random) -> None:
    """Both eyes of each person, whom the names of the images tell."""
    eyes = [f"{person}_{side}" for person in range(10, 40) for side in ("left", "right")]
    write(root / "trainLabels.csv", {"image": eyes, "level": classes_of(numbers, 60, 5)})
    tests = [f"{person}_{side}" for person in range(1, 5) for side in ("left", "right")]
    write(root / "sampleSubmission.csv", {"image": tests, "level": [0] * 8})
    for folder, names in (("train", eyes), ("test", tests)):
        for name in names:
            save(root / folder / f"{name}.jpeg", of_class(numbers, 0, 2, SIDE))


def nerves(root: Path, numbers: Random) -> None:
    """Two columns name an image, masks stand beside the images, and the numbers of the rows to predict are in both folders."""
    pairs = [(subject, frame) for subject in range(1, 9) for frame in range(1, 6)]
    for subject, frame in pairs:
        for end in ("", "_mask"):
            save(root / "train" / f"{subject}_{frame}{end}.tif", of_class(numbers, 0, 2, SIDE))
    masks = [f"{1 + row} {3 + row % 4}" if row % 3 else "" for row in range(40)]
    write(
        root / "train_masks.csv",
        {"subject": [pair[0] for pair in pairs], "img": [pair[1] for pair in pairs], "pixels": masks},
    )
    for row in range(1, 7):
        save(root / "test" / f"{row}.tif", of_class(numbers, 0, 2, SIDE))
    write(root / "sample_submission.csv", {"img": [*range(1, 7)], "pixels": ["1 1"] * 6})


def invasive_plants(root: Path, numbers: Random) -> None:
    """Files of training rows and of rows to predict have the same numbers; the sample is a benchmark of zeros."""
    for folder, count in (("train", 40), ("test", 8)):
        for row in range(1, count + 1):
            save(root / folder / f"{row}.jpg", of_class(numbers, row % 2, 2, SIDE))
    write(root / "train_labels.csv", {"name": [*range(1, 41)], "invasive": [row % 2 for row in range(40)]})
    write(root / "all_zeros_benchmark.csv", {"name": [*range(1, 9)], "invasive": [0.0] * 8})


def drivers(root: Path, numbers: Random) -> None:
    """A column for each class in the sample; the person of an image in the table."""
    classes = [f"c{k}" for k in range(4)]
    rows = [(f"p{10 + row % 6:03d}", classes[row // 12], f"img_{1000 + row}.jpg") for row in range(48)]
    for _, name, file in rows:
        save(root / "imgs" / "train" / name / file, of_class(numbers, int(name[1]), 4, SIDE))
    write(
        root / "driver_imgs_list.csv",
        dict(zip(("subject", "classname", "img"), map(list, zip(*rows, strict=True)), strict=True)),
    )
    files = [f"img_{row}.jpg" for row in range(6)]
    for file in files:
        save(root / "imgs" / "test" / file, of_class(numbers, 0, 4, SIDE))
    write(root / "sample_submission.csv", {"img": files, **{name: [0.25] * 6 for name in classes}})


def keypoints(root: Path, numbers: Random) -> None:
    """Pixels in one cell of a row, targets with gaps, another table whose rows have the columns of the sample."""

    def pixels(count: int) -> list[str]:
        return [" ".join(map(str, numbers.integers(0, 256, 144))) for _ in range(count)]

    points = {name: [f"{value:.4f}" for value in 12 * numbers.random(30)] for name in ("eye_x", "eye_y", "nose_x")}
    points["nose_x"][3] = ""
    write(root / "training.csv", {**points, "Image": pixels(30)})
    write(root / "test.csv", {"ImageId": [1, 2], "Image": pixels(2)})
    rows = {"RowId": [*range(1, 7)], "ImageId": [1, 1, 1, 2, 2, 2], "FeatureName": [*points] * 2, "Location": ["?"] * 6}
    write(root / "IdLookupTable.csv", rows)
    write(root / "SampleSubmission.csv", {"RowId": rows["RowId"], "Location": [0] * 6})


def steel(root: Path, numbers: Random) -> None:
    """A row for each mask of an image, and a column that says of which class it is; images without a mask have no row."""
    files = [f"{id}.jpg" for id in hexes(numbers, 9, 30)]
    for file in files:
        save(root / "train_images" / file, of_class(numbers, 0, 2, SIDE))
    rows = [(file, 1 + k % 4, f"{1 + k} 4") for k, file in enumerate([*files[:20], *files[:6]])]
    write(
        root / "train.csv",
        dict(zip(("ImageId", "ClassId", "EncodedPixels"), map(list, zip(*rows, strict=True)), strict=True)),
    )
    save(root / "test_images" / "0.jpg", of_class(numbers, 0, 2, SIDE))
    write(root / "sample_submission.csv", {"ImageId": ["0.jpg"], "EncodedPixels": ["1 400"], "ClassId": [0]})


def signs(root: Path, numbers: Random) -> None:
    """A folder per class and a table that says the same; the table of the test has the classes, too."""
    for name, count in (("Train", 40), ("Test", 8)):
        kinds = [row % 4 for row in range(count)]
        paths = [f"{name}/{f'{kind}/' if name == 'Train' else ''}{row:05d}.png" for row, kind in enumerate(kinds)]
        for path, kind in zip(paths, kinds, strict=True):
            save(root / path, of_class(numbers, kind, 4, SIDE))
        write(root / f"{name}.csv", {"Width": [40] * count, "ClassId": kinds, "Path": paths})


def moles(root: Path, numbers: Random) -> None:
    """Two tables name the images: one has a column for each class, the other says whose they are."""
    ids = [f"ISIC_{row:07d}" for row in range(40)]
    for row, id in enumerate(ids):
        save(root / "ISIC_Training_Input" / f"{id}.jpg", of_class(numbers, row % 4, 4, SIDE))
    flags = {name: [float(row % 4 == k) for row in range(40)] for k, name in enumerate(("MEL", "NV", "BCC", "AK"))}
    write(root / "ISIC_Training_GroundTruth.csv", {"image": ids, **flags})
    write(root / "ISIC_Training_Metadata.csv", {"image": ids, "lesion_id": [f"L{row // 2}" for row in range(40)]})


def landmarks(root: Path, numbers: Random) -> None:
    """Images in folders by the first letters of their names, those to predict, too."""
    for split, count in (("train", 40), ("test", 6)):
        ids = hexes(numbers, 16, count)
        for row, id in enumerate(ids):
            save(root / split / id[0] / id[1] / f"{id}.jpg", of_class(numbers, row % 4, 4, SIDE))
        if split == "train":
            write(root / "train.csv", {"id": ids, "landmark_id": [1 + 10 * (row % 4) for row in range(count)]})
        else:
            write(root / "sample_submission.csv", {"id": ids, "landmark_id": [1] * count})


def studies(root: Path, numbers: Random) -> None:
    """Folders of studies, which are no classes; labels of which some are uncertain."""
    paths = [f"small/train/patient{row // 2:05d}/study{row % 2 + 1}/view1_frontal.jpg" for row in range(40)]
    for path in paths:
        save(root / path, of_class(numbers, 0, 2, SIDE))
    labels = {
        name: [("1.0", "0.0", "-1.0", "")[(row + k) % 4] for row in range(40)]
        for k, name in enumerate(("Edema", "Fracture"))
    }
    write(root / "small" / "train.csv", {"Path": paths, **labels})


OTHERS: dict[str, Callable[[Path, Random], None]] = {
    make.__name__: make
    for make in (
        plant_seedlings,
        flowers,
        oxford_pets,
        birds,
        celeba,
        chest_xrays,
        protein_atlas,
        amazon,
        hemorrhages,
        retinas,
        nerves,
        invasive_plants,
        drivers,
        keypoints,
        steel,
        signs,
        moles,
        landmarks,
        studies,
    )
}


def made(name: str, root: Path) -> Path:
    """The folder of one of them."""
    root.mkdir(parents=True, exist_ok=True)
    OTHERS[name](root, np.random.default_rng(0))
    return root


def one_of_each(names: Sequence[str], root: Path, numbers: Random) -> None:
    """An image per name."""
    for name in names:
        save(root / name, of_class(numbers, 0, 2, (8, 8)))
