"""Competitions whose answer is a ranked list of names, some of which no training row has."""

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pandas as pd

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
    save,
    write,
)

NEW = "new_individual"
SPECIES = ["beluga", "bottlenose_dolpin", "humpback_whale", "kiler_whale"]


def best(column: str, k: int = 5, threshold: float = 0.5) -> Callable[[Frame], Frame]:
    """The most probable names, the most probable first; the new one comes before those below the threshold."""

    def answer(outputs: Frame) -> Frame:
        ranked = []
        for _, row in outputs.iterrows():
            ordered = row.sort_values(ascending=False, kind="stable")
            words = [*ordered.index[ordered >= threshold], NEW, *ordered.index[ordered < threshold]]
            ranked.append(" ".join(words[:k]))
        return pd.DataFrame({column: ranked}, index=outputs.index)

    return answer


def happywhale(folder: Path, seed: int) -> Layout:
    """Many individuals with one image, the last one by name among them; a word for those that are not known."""

    def animals(seed: int) -> list[str]:
        names = sorted(hexes(np.random.default_rng(seed), 12, 23, ["000000000e12", "123456789012"]))
        return [*names, "ffffffffffff"]

    names = animals(seed)
    frequent = names[:12]

    def rows(root: Path, numbers: Random, who: list[str], split: str) -> list[str]:
        ids = [f"{id}.jpg" for id in hexes(numbers, 14, len(who))]
        for id, name in zip(ids, who, strict=True):
            k = names.index(name) if name in names else int(numbers.integers(len(names)))
            save(root / f"{split}_images" / id, of_class(numbers, k, len(names)))
        return ids

    def train(root: Path, numbers: Random) -> Frame:
        who = [str(name) for name in numbers.permutation([*frequent * 5, *names[12:]])]
        ids = rows(root, numbers, who, "train")
        species = [SPECIES[names.index(name) % 4] for name in who]
        write(root / "train.csv", {"image": ids, "species": species, "individual_id": who})
        return answers(ids, {"predictions": who})

    def test(root: Path, numbers: Random) -> Frame:
        who = [str(name) for name in numbers.permutation([*frequent[:6], names[14], names[-1], NEW, NEW])]
        ids = rows(root, numbers, who, "test")
        write(root / "sample_submission.csv", {"image": ids, "predictions": [" ".join(names[3:8])] * len(ids)})
        return answers(ids, {"predictions": who})

    metric = Metric({"map_at_k": {"k": 5, "new": NEW}}, scores.map_at(5))
    return competition(folder, seed, "happy-whale-and-dolphin", metric, (train, test, test), best("predictions"))
