"""Artefacts are whole or absent."""

import os
import socket
import subprocess
import time
from itertools import count

import pytest
import torch

from swinft.errors import InputError, StoreError
from swinft.store import commit, discard, is_committed, probe, sweep, verify
from swinft.whole_files import Hashing


def test_a_committed_file_reads_back(tmp_path):
    path = tmp_path / "deep" / "a.csv"
    commit(path, b"one", "test")
    commit(path, lambda file: file.write(b"two") and None, "test")
    assert is_committed(path)
    assert verify(path).read_bytes() == b"two"
    assert [p.name for p in path.parent.iterdir() if p.is_file()] == ["a.csv"]


def test_a_folder_is_probed_without_a_trace(tmp_path):
    (tmp_path / "mine").mkdir()
    for folder in ("mine", "new/deep"):
        probe(tmp_path / folder)
    with pytest.raises(InputError, match="GB free"):
        probe(tmp_path / "new", 10**15)
    assert [path.name for path in tmp_path.rglob("*")] == ["mine"]


def test_a_file_without_a_record_does_not_exist(tmp_path):
    path = tmp_path / "a.csv"
    path.write_text("by hand")
    assert not is_committed(path)
    with pytest.raises(StoreError, match="cannot be verified: its commit record"):
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

    with pytest.raises(StoreError, match=r"cannot be written: no space left\. What was committed before is unchanged"):
        commit(path, fails, "test")
    assert verify(path).read_bytes() == b"good"
    assert sorted(os.listdir(tmp_path)) == [".commits", "a.csv"]


@pytest.mark.parametrize("number", range(12))
def test_a_signal_that_ends_a_checkpoint_keeps_its_exit_code(number, tmp_path, monkeypatch):
    """torch.save then closes its archive, and may raise an error of its own in the place of SystemExit."""
    commit(tmp_path / "a", b"old", "test")
    write, calls = Hashing.write, count()

    def interrupted(self, content):
        if next(calls) == number:
            raise SystemExit(143)
        return write(self, content)

    monkeypatch.setattr(Hashing, "write", interrupted)
    with pytest.raises(SystemExit) as stop:
        commit(tmp_path / "a", lambda file: torch.save([torch.ones(1000), torch.zeros(10)], file), "test")
    assert stop.value.code == 143
    monkeypatch.undo()
    assert verify(tmp_path / "a").read_bytes() == b"old"
    assert sorted(path.name for path in tmp_path.iterdir()) == [".commits", "a"]


def test_a_file_in_the_making_lies_beside_its_target(tmp_path):
    """In another file system's folder, renaming would be copying, and a copy can be cut in half."""
    seen = []
    commit(tmp_path / "a.csv", lambda file: seen.extend(path.name for path in tmp_path.iterdir()), "test")
    assert [name.startswith(".a.csv.") and name.endswith(".tmp") for name in seen] == [True]


def test_what_dead_processes_left_half_written_is_swept(tmp_path):
    dead = subprocess.Popen(["true"])
    dead.wait()
    commit(tmp_path / "a.csv", b"x", "test")
    here, now = socket.gethostname(), time.time()
    files = [(f"{dead.pid}", 0, False), (f"{os.getpid()}", 0, True), (f"{dead.pid}@{here}", 0, False)]
    files += [(f"{os.getpid()}@{here}", 2, True), (f"{dead.pid}@there.org", 0, True), ("1@there.org", 2, False)]
    for folder in (tmp_path, tmp_path / ".commits"):
        for owner, hours, _ in files:
            (folder / f".b.csv.{owner}.tmp").write_text("half")
            os.utime(folder / f".b.csv.{owner}.tmp", (0, now - 3600 * hours))
    sweep(tmp_path)
    stays = sorted(f".b.csv.{owner}.tmp" for owner, _, is_kept in files if is_kept)
    assert sorted(path.name for path in tmp_path.glob(".*.tmp")) == stays
    assert sorted(path.name for path in tmp_path.glob(".commits/.*.tmp")) == stays
    assert verify(tmp_path / "a.csv").read_bytes() == b"x"
    for folder in (tmp_path, tmp_path / ".commits"):
        for path in folder.glob(".*.tmp"):
            os.utime(path, (0, now - 7200))
    commit(tmp_path / "b.csv", b"x", "test")  # as does the next write of the same file
    stays = sorted(name for name in stays if "there" not in name and name != f".b.csv.{os.getpid()}@{here}.tmp")
    assert sorted(path.name for path in tmp_path.glob(".*.tmp")) == stays


def test_a_discarded_file_leaves_no_record(tmp_path):
    path = tmp_path / "a.csv"
    commit(path, b"x", "test")
    discard(path)
    assert not path.exists()
    assert not is_committed(path)
    assert os.listdir(tmp_path / ".commits") == []
