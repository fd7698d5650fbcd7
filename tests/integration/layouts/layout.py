"""A generated competition: its folder as it is downloaded, its rerun twin, and the answers that its host keeps."""

import colorsys
import json
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
from numpy.typing import NDArray
from PIL import Image

Random = np.random.Generator
Frame = pd.DataFrame
SIZE = (72, 96)  # height and width of most images


@dataclass(frozen=True)
class Metric:
    """The official metric: its word in a config, and a function that does not use swinft.

    Args:
        word: As `model.metrics` has it: a name, or a name with arguments.
        score: Of the truth and the answers, frames in the sample submission's columns with the ids as index.
        is_lower_better: Its direction.
    """

    word: Any
    score: Callable[[Frame, Frame], float]
    is_lower_better: bool = False

    @property
    def name(self) -> str:
        """Its name without arguments."""
        return self.word if isinstance(self.word, str) else next(iter(self.word))


def as_they_are(outputs: Frame) -> Frame:
    """Predictions that are the sample's columns already."""
    return outputs


@dataclass(frozen=True)
class Layout:
    """A generated competition.

    Args:
        slug: Its name on Kaggle.
        root: The folder of its download.
        rerun: The folder in the scored run: other test ids, no training files.
        sample: Name of the sample submission; None where there is none.
        metric: The official metric.
        train: Answers of the training rows in the sample's columns, by the id that `oof.csv` has.
        hidden: Answers of the test rows, by id.
        hidden_rerun: Answers of the rerun's test rows.
        answer: From predictions (a column per output, ids as index) to the sample's columns.
    """

    slug: str
    root: Path
    rerun: Path
    sample: str | None
    metric: Metric
    train: Frame
    hidden: Frame
    hidden_rerun: Frame
    answer: Callable[[Frame], Frame] = as_they_are


Split = Callable[[Path, Random], Frame]


def competition(
    folder: Path,
    seed: int,
    slug: str,
    metric: Metric,
    splits: tuple[Split, Split, Split],
    answer: Callable[[Frame], Frame] = as_they_are,
    sample: str | None = "sample_submission.csv",
) -> Layout:
    """Writes a competition: its training files, its test files, and the test files of the rerun.

    Args:
        folder: Where the folders `SLUG` and `rerun/SLUG` are made.
        seed: Of everything.
        slug: Its name on Kaggle.
        metric: The official metric.
        splits: What writes the training files, the test files and the rerun's; each returns its rows' answers.
        answer: As in `Layout`.
        sample: Name of the sample submission.
    """
    numbers, root, rerun = np.random.default_rng(seed), folder / slug, folder / "rerun" / slug
    for place in (root, rerun):
        place.mkdir(parents=True)
    train, hidden, again = (split(place, numbers) for split, place in zip(splits, (root, root, rerun), strict=True))
    return Layout(slug, root, rerun, sample, metric, train, hidden, again, answer)


def answers(ids: Sequence[str], columns: dict[str, Sequence[Any]]) -> Frame:
    """Answers by id."""
    assert len(set(ids)) == len(ids)
    return pd.DataFrame(columns, index=pd.Index(ids, dtype=str))


def drawing(
    numbers: Random, hue: float, blocks: Iterable[tuple[float, float]] = (), size: tuple[int, int] = SIZE
) -> NDArray[np.uint8]:
    """An image whose colour and bright blocks tell its target.

    Args:
        numbers: Random numbers.
        hue: Its mean colour, in 0–1.
        blocks: Bright blocks: place along the rows of a 4 × 6 grid in 0–1, and brightness in 0–1.
        size: Height and width.

    Returns:
        uint8 (H, W, 3).
    """
    pixels = np.empty((*size, 3))
    pixels[:] = 255 * np.array(colorsys.hsv_to_rgb(0.8 * hue, 0.7, 0.6))
    high, wide = max(2, size[0] // 4), max(2, size[1] // 6)
    for place, brightness in blocks:
        cell = round(place * 23)
        top, left = (cell // 6) * size[0] // 4, (cell % 6) * size[1] // 6
        pixels[top : top + high, left : left + wide] += 255 * brightness * (0.7 - 0.3 * place)
    coarse = numbers.normal(0, 25, (9, 12)).repeat(-(-size[0] // 9), axis=0).repeat(-(-size[1] // 12), axis=1)
    pixels += coarse[: size[0], : size[1], None]  # no image is nearly the same as another one
    return (pixels + numbers.normal(0, 12, pixels.shape)).clip(0, 255).astype(np.uint8)


def of_class(numbers: Random, k: int, of: int, size: tuple[int, int] = SIZE) -> NDArray[np.uint8]:
    """The image of one of several classes."""
    share = k / max(1, of - 1)
    return drawing(numbers, share, [(share, 1.0)], size)


def of_number(numbers: Random, share: float, size: tuple[int, int] = SIZE) -> NDArray[np.uint8]:
    """The image of a number, given as its share of the range."""
    return drawing(numbers, share, [(share, 1.0)], size)


def of_labels(numbers: Random, present: Sequence[float], size: tuple[int, int] = SIZE) -> NDArray[np.uint8]:
    """The image of several labels or numbers in 0–1: a block each, and a colour by their mean."""
    last = max(1, len(present) - 1)
    return drawing(numbers, float(np.mean(present)), [(k / last, float(p)) for k, p in enumerate(present)], size)


def save(path: Path, pixels: NDArray[Any]) -> None:
    """Writes an image file in the format of its suffix."""
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(pixels).save(path, **({"quality": 95} if path.suffix.lower() in (".jpg", ".jpeg") else {}))


def write(path: Path, columns: dict[str, Sequence[Any]], line_end: str = "\n") -> None:
    """Writes a CSV; cells are written as `str` gives them, so that text keeps its zeros and numbers their dots."""
    path.parent.mkdir(parents=True, exist_ok=True)
    frame = pd.DataFrame({name: [str(cell) for cell in cells] for name, cells in columns.items()}, dtype=str)
    frame.to_csv(path, index=False, lineterminator=line_end)


def write_json(path: Path, value: Any) -> None:
    """Writes a JSON file."""
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(json.dumps(value))


def hexes(numbers: Random, digits: int, count: int, first: Sequence[str] = ()) -> list[str]:
    """Different ids of hexadecimal digits, some of them given; the given ones are not together."""
    found = [*first]
    while len(found) < count:
        found = list(dict.fromkeys([*found, numbers.bytes((digits + 1) // 2).hex()[:digits]]))
    return [str(id) for id in numbers.permutation(found)]


def numerals(numbers: Random, digits: int, count: int) -> list[str]:
    """Different ids of decimal digits, the first of which is not 0."""
    found: list[str] = []
    while len(found) < count:
        more = str(numbers.integers(1, 10)) + "".join(map(str, numbers.integers(0, 10, digits - 1)))
        found = list(dict.fromkeys([*found, more]))
    return found


def classes_of(numbers: Random, rows: int, of: int, shares: Sequence[float] | None = None) -> list[int]:
    """A class for each row: equally many of each, or by shares with at least five of each."""
    if shares is None:
        return [int(k) for k in numbers.permutation(np.arange(rows) % of)]
    fixed = np.repeat(np.arange(of), 5)
    drawn = numbers.choice(of, rows - len(fixed), p=np.array(shares) / np.sum(shares))
    return [int(k) for k in numbers.permutation([*fixed, *drawn])]


def likeliest(column: str) -> Callable[[Frame], Frame]:
    """The most probable class, in one column."""
    return lambda outputs: outputs.idxmax(axis=1).to_frame(column)


def probability_of(name: str, column: str) -> Callable[[Frame], Frame]:
    """The probability of one class, in one column."""
    return lambda outputs: outputs[name].to_frame(column)
