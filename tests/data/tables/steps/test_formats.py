"""Values of parquet files become the shortest exact text; HDF5 names come without links; damaged files are named."""

import datetime
from decimal import Decimal

import h5py
import numpy as np
import pyarrow as pa
import pytest
from pyarrow import parquet

import swinft
from swinft.data.tables.table import DataError
from tests.data.tables.steps.test_make import problems


def test_values_of_parquet_are_the_shortest_exact_text(tmp_path):
    columns = {
        "text": pa.array(["007", " 1e5 ", "NA", None]),
        "whole": pa.array([2**62 + 1, -3, 0, None], pa.int64()),
        "double": pa.array([0.1, 1e-7, 3.0, np.nan]),
        "single": pa.array(np.array([0.1, 16777217, 2.5, np.nan], np.float32), from_pandas=True),
        "large": pa.array([1e22, 123456789012345.0, -0.5, 1.5]),
        "flag": pa.array([True, False, None, True]),
        "day": pa.array([datetime.date(2020, 1, 2), None, None, None]),
        "money": pa.array([Decimal("1.50"), None, None, None]),
        "kind": pa.array(["a", "b", "a", None]).dictionary_encode(),
        "bytes": pa.array([b"x", b"y", None, b""]),
    }
    parquet.write_table(pa.table(columns), tmp_path / "t.parquet", row_group_size=3)
    found = swinft.read_table([{"parquet": "t.parquet"}], tmp_path)
    assert {name: found[name].tolist() for name in found} == {
        "text": ["007", "1e5", "NA", ""],
        "whole": ["4611686018427387905", "-3", "0", ""],
        "double": ["0.1", "1e-07", "3", ""],
        "single": ["0.1", "16777216", "2.5", ""],
        "large": ["1e+22", "123456789012345", "-0.5", "1.5"],
        "flag": ["True", "False", "", "True"],
        "day": ["2020-01-02", "", "", ""],
        "money": ["1.50", "", "", ""],
        "kind": ["a", "b", "a", ""],
        "bytes": ["x", "y", "", ""],
    }
    for name, kind in (("double", np.float64), ("single", np.float32), ("large", np.float64)):  # nothing is lost
        given = columns[name].to_numpy(zero_copy_only=False).astype(kind)
        assert np.array_equal([kind(cell or "nan") for cell in found[name]], given, equal_nan=True)


def test_parts_of_a_folder_follow_in_natural_order_and_what_is_wrong_is_named(tmp_path):
    (tmp_path / "p").mkdir()
    for number in (10, 2):
        parquet.write_table(pa.table({"id": [f"{number}"]}), tmp_path / "p" / f"part-{number}.parquet")
    assert swinft.read_table([{"parquet": "p"}], tmp_path)["id"].tolist() == ["2", "10"]
    assert "there is no such column" in problems(tmp_path, {"parquet": {"path": "p", "columns": ["idd"]}})[0]
    parquet.write_table(pa.table({"ID": ["3"]}), tmp_path / "p" / "part-3.parquet")
    assert "part-3.parquet: the table: step 1, parquet: it has other columns than p/part-2.parquet" in problems(tmp_path, {"parquet": "p"})[0]  # fmt: skip
    parquet.write_table(pa.table({"id": ["1"], "list": [[1, 2]]}), tmp_path / "l.parquet")
    assert problems(tmp_path, {"parquet": "l.parquet"})[0].startswith("l.parquet:1: column 'list'")
    assert swinft.read_table([{"parquet": {"path": "l.parquet", "columns": "id"}}], tmp_path).to_numpy().tolist() == [["1"]]  # fmt: skip
    (tmp_path / "bad.parquet").write_bytes(b"PAR1 and nothing else")
    assert "it is no readable parquet file" in problems(tmp_path, {"parquet": "bad.parquet"})[0]
    assert "there is no such file" in problems(tmp_path, {"parquet": "none.parquet"})[0]


def test_without_pyarrow_the_extra_is_named(tmp_path, monkeypatch):
    parquet.write_table(pa.table({"id": ["1"]}), tmp_path / "t.parquet")
    monkeypatch.setitem(__import__("sys").modules, "pyarrow.parquet", None)
    with pytest.raises(swinft.InputError, match=r"pip install 'swinft\[parquet\]'"):
        swinft.read_table([{"parquet": "t.parquet"}], tmp_path)


def test_names_of_hdf5_are_those_of_datasets_in_any_group_without_links(tmp_path):
    with h5py.File(tmp_path / "t.hdf5", "w") as file:
        for name in ("b/10", "b/2", "a/1"):
            file[name] = np.zeros(2, np.uint8)
        file["b/soft"] = h5py.SoftLink("/a/1")
        file["b/out"] = h5py.ExternalLink("other.hdf5", "/x")
    found = swinft.read_table([{"hdf5": "t.hdf5"}], tmp_path)
    assert found.to_numpy().tolist() == [[name, f"t.hdf5/{name}"] for name in ("a/1", "b/2", "b/10")]
    found = swinft.read_table([{"hdf5": {"path": "t.hdf5", "group": "/b/"}}], tmp_path)
    assert found.to_numpy().tolist() == [["2", "t.hdf5/b/2"], ["10", "t.hdf5/b/10"]]
    for group in ("c", "a/1", "b/soft", "b/out"):
        assert "it cannot be read" in problems(tmp_path, {"hdf5": {"path": "t.hdf5", "group": group}})[0]
    (tmp_path / "bad.hdf5").write_bytes(b"no")
    assert "it cannot be read" in problems(tmp_path, {"hdf5": "bad.hdf5"})[0]
    assert "Did you mean 't.hdf5'?" in problems(tmp_path, {"hdf5": "tt.hdf5"})[0]


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ('{"id": 1}', "it is no list of records"),
        ("[]", "it is no list of records"),
        ('[{"id": 1}, 7]', "it is no list of records"),
        ('[{"id": "a", "pixels": [[1], [2]]}]', "a value is no number or text, and no list of them"),
        ('[{"id": "a"}, {"id": {"b": 1}}]', "a value is no number or text, and no list of them"),
        ("[{", "it is no JSON"),
    ],
)
def test_json_that_is_no_list_of_records_is_refused(text, said, tmp_path):
    (tmp_path / "train.json").write_text(text)
    with pytest.raises(DataError, match=said):
        swinft.read_table([{"json": "train.json"}], tmp_path)


def test_json_keeps_ids_and_pixels_and_a_missing_key_is_empty(tmp_path):
    (tmp_path / "train.json").write_text('[{"id": "007", "p": [0.1, -2, null]}, {"id": "1e5", "y": true}]')
    assert swinft.read_table([{"json": "train.json"}], tmp_path).to_csv(index=False) == (
        "id,p,y\n007,0.1 -2 nan,\n1e5,,True\n"
    )
