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


OTHERS: dict[str, Callable[[Path, Random], None]] = {
    make.__name__: make for make in (plant_seedlings, flowers, oxford_pets, birds, celeba, chest_xrays)
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
