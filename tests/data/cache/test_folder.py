"""The folder of caches where several machines share it."""

import os
import time

from swinft.data.cache.folder import leftovers, temporary_file


def test_a_build_on_another_machine_is_left_alone_while_it_writes(tmp_path, monkeypatch):
    """Its lock may not be seen here, and it may have this process's id."""
    here = temporary_file(tmp_path, "k")
    monkeypatch.setattr("socket.gethostname", lambda: "elsewhere")
    there = temporary_file(tmp_path, "k")
    monkeypatch.undo()
    assert there != here
    for path in (here, there, tmp_path / ".k.77.tmp"):
        path.touch()
    assert sorted(leftovers(tmp_path, "k")) == sorted([here, tmp_path / ".k.77.tmp"])
    os.utime(there, (0, time.time() - 2 * 3600))
    assert there in leftovers(tmp_path, "k")
