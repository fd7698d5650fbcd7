"""Matrices in parquet files as images."""

import numpy as np
import pandas as pd
import pytest

from swinft.data.images.decode import decode, probe
from swinft.data.images.rules import ImageRules
from swinft.data.sources.source import ImageError

NUMBERS = np.random.default_rng(0).uniform(0.001, 2000, (30, 12)).astype(np.float32)


@pytest.fixture
def spectrogram(tmp_path):
    table = pd.DataFrame(NUMBERS, columns=[f"{side}_{k}" for side in ("LL", "RP") for k in range(6)])
    table.insert(0, "time", np.arange(30))
    table["note"] = "x"
    table.loc[3, "RP_2"] = np.nan
    table.to_parquet(tmp_path / "1.parquet")
    return tmp_path / "1.parquet"


def test_rows_and_chosen_columns_are_the_image(spectrogram):
    rules = ImageRules(keep="float32", range=(0.01, 1000), scale="log", fill_nan=0, columns=["RP_*", "LL_*"])
    found = decode(spectrogram, rules)
    filled = NUMBERS.copy()
    filled[3, 8] = 0.01
    right = np.clip((np.log(filled) - np.log(0.01)) / (np.log(1000) - np.log(0.01)), 0, 1)
    assert found.shape == (30, 12, 3)
    assert np.abs(found[:, :, 1] - right).max() < 1e-5
    info = probe(spectrogram, rules)
    assert (info.height, info.width, info.format) == (30, 12, "PARQUET")
    some = decode(spectrogram, ImageRules(keep="uint16", range=(0, 2000), columns=["LL_*"]))
    assert np.array_equal(some[:, :, 0], np.rint(NUMBERS[:, :6] / np.float32(2000) * 65535).astype(np.uint16))
    assert probe(spectrogram, ImageRules(keep="uint16", range=(0, 2000))).width == 13  # with the time


@pytest.mark.parametrize(
    ("rules", "said"),
    [
        ({}, "is a parquet file, which is read where"),
        ({"keep": "float32", "range": (0, 1)}, "1 of its 390 samples are NaN"),
        ({"keep": "float32", "range": (0, 1), "columns": ["RQ_*"]}, r"no column of numbers matches 'RQ_\*'"),
        ({"keep": "float32", "range": (0, 1), "columns": ["note"]}, "no column of numbers matches 'note'"),
        ({"keep": "float32", "range": (0, 1), "min_side": 31}, "a side is shorter"),
    ],
)
def test_what_cannot_be_read_is_named(spectrogram, rules, said):
    with pytest.raises(ImageError, match=said):
        decode(spectrogram, ImageRules(**rules))


def test_a_damaged_file_is_named(spectrogram):
    spectrogram.write_bytes(spectrogram.read_bytes()[:200])
    with pytest.raises(ImageError, match=r"1\.parquet is damaged or cannot be used"):
        decode(spectrogram, ImageRules(keep="float32", range=(0, 1)))
