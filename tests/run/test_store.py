"""Artefacts are whole or absent."""

import os

import pytest

from swinft.errors import StoreError
from swinft.run.store import commit, discard, is_committed, verify


def test_a_committed_file_reads_back(tmp_path):
    path = tmp_path / "deep" / "a.csv"
    commit(path, b"one", "test")
    commit(path, lambda file: file.write(b"two") and None, "test")
    assert is_committed(path)
    assert verify(path).read_bytes() == b"two"
    assert [p.name for p in path.parent.iterdir() if p.is_file()] == ["a.csv"]


def test_a_file_without_a_record_does_not_exist(tmp_path):
    path = tmp_path / "a.csv"
    path.write_text("by hand")
    assert not is_committed(path)
    with pytest.raises(StoreError, match="never completed"):
        verify(path)


@pytest.mark.parametrize("damage", [b"tw0", b"tw", b""], ids=["flipped", "truncated", "emptied"])
def test_damage_is_found(tmp_path, damage):
    path = tmp_path / "a.csv"
    commit(path, b"two", "test")
    path.write_bytes(damage)
    with pytest.raises(StoreError, match="has changed"):
        verify(path)


def test_a_writer_that_fails_leaves_the_old_file_and_no_litter(tmp_path):
    path = tmp_path / "a.csv"
    commit(path, b"good", "test")

    def fails(file):
        file.write(b"half")
        raise OSError("no space left")

    with pytest.raises(StoreError, match=r"cannot be written: no space left\. What was committed before is untouched"):
        commit(path, fails, "test")
    assert verify(path).read_bytes() == b"good"
    assert sorted(os.listdir(tmp_path)) == [".commits", "a.csv"]


def test_a_discarded_file_leaves_no_record(tmp_path):
    path = tmp_path / "a.csv"
    commit(path, b"x", "test")
    discard(path)
    assert not path.exists()
    assert not is_committed(path)
    assert os.listdir(tmp_path / ".commits") == []
