"""Locks of a run on a file system that several machines share, where a lock itself may not be seen from elsewhere."""

import json
import os
import subprocess
import sys
import threading
import time

import pytest

from swinft.errors import InputError
from swinft.run import lock as locks
from swinft.run.lock import hold
from tests.conftest import ROOT


@pytest.fixture
def elsewhere(tmp_path, monkeypatch):
    """The file of a holder on another machine, whose lock is not seen here; `beats(n)` lets it touch the file."""
    monkeypatch.setattr(locks, "BEAT_SECONDS", 0.05)
    monkeypatch.setattr(locks, "LEASE_SECONDS", 0.4)
    holder = tmp_path / "a.json"
    holder.write_text(json.dumps({"pid": 7, "host": "elsewhere", "started": "today", "token": "x"}))
    threads = []

    def beats(seconds):
        def touch():
            until = time.monotonic() + seconds
            while time.monotonic() < until:
                os.utime(holder)
                time.sleep(0.05)

        threads.append(threading.Thread(target=touch))
        threads[-1].start()

    yield holder, beats
    for thread in threads:
        thread.join()


def test_a_holder_elsewhere_that_gives_signs_of_life_keeps_its_lock(elsewhere, tmp_path):
    holder, beats = elsewhere
    beats(0.5)
    with pytest.raises(InputError, match="in use by process 7 on elsewhere"), hold(tmp_path / "a.lock"):
        pass
    assert json.loads(holder.read_text())["token"] == "x"


def test_a_holder_elsewhere_that_is_silent_is_gone(elsewhere, tmp_path, capsys):
    holder, beats = elsewhere
    beats(0.2)
    started = time.monotonic()
    with hold(tmp_path / "a.lock", patience=5):
        assert json.loads(holder.read_text())["pid"] == os.getpid()
    assert time.monotonic() - started > 0.5
    assert not holder.exists()
    assert "a: waiting for signs of life of process 7 on elsewhere" in capsys.readouterr().err


def test_a_holder_that_was_silent_long_ago_is_not_waited_for(elsewhere, tmp_path, capsys):
    holder, _ = elsewhere
    os.utime(holder, (0, 0))
    with hold(tmp_path / "a.lock"):
        pass
    assert capsys.readouterr().err == ""


def test_the_holder_touches_its_file(tmp_path, monkeypatch):
    monkeypatch.setattr(locks, "BEAT_SECONDS", 0.02)
    with hold(tmp_path / "a.lock"):
        os.utime(tmp_path / "a.json", (0, 0))
        until = time.monotonic() + 5
        while not (tmp_path / "a.json").stat().st_mtime and time.monotonic() < until:
            time.sleep(0.01)
        assert (tmp_path / "a.json").stat().st_mtime > 0


def test_the_file_of_a_machine_that_has_taken_the_lock_is_left_to_it(tmp_path):
    taken = json.dumps({"pid": 7, "host": "elsewhere", "started": "today"})
    with hold(tmp_path / "a.lock"):
        (tmp_path / "a.json").write_text(taken)
    assert (tmp_path / "a.json").read_text() == taken


SUSPENDED = """
import sys, time
from pathlib import Path
from swinft.run import lock
lock.BEAT_SECONDS = 0.05
with lock.hold(Path(sys.argv[1])):
    print("held", flush=True)
    time.sleep(30)
"""


def test_a_process_whose_lock_another_machine_has_taken_ends(tmp_path):
    command = [sys.executable, "-c", SUSPENDED, str(tmp_path / "a.lock")]
    pipe = subprocess.PIPE
    process = subprocess.Popen(command, cwd=ROOT, stdout=pipe, stderr=pipe, text=True)
    assert process.stdout.readline() == "held\n"
    (tmp_path / "a.json").write_text(json.dumps({"pid": 7, "host": "elsewhere", "started": "today"}))
    _, err = process.communicate(timeout=20)
    assert process.returncode == 1
    assert "a was taken over by process 7 on elsewhere, started today: this process ends" in err
