"""The bridge and what runs on a node, with objects of this process in the place of Ray's."""

import base64
import queue
import shutil
import sys
import threading
import time
from concurrent.futures import Future, InvalidStateError, ThreadPoolExecutor, wait
from contextlib import suppress
from types import SimpleNamespace

import pytest

from swinft.system.cluster import copies, runner
from swinft.system.cluster.bridge import Bridge, connect, explained


class RayError(Exception):
    pass


class RayTaskError(RayError):
    def __init__(self, cause):
        super().__init__(str(cause))
        self.cause = cause


class Actor:
    """An object whose methods run in threads; a killed one answers no more."""

    def __init__(self, kind):
        self.object, self.threads, self.futures, self.end = kind(), ThreadPoolExecutor(4), [], None

    def __getattr__(self, name):
        def remote(*given):
            future = self.threads.submit(getattr(self.object, name), *given)
            self.futures.append(shown := Future())
            if self.end:
                shown.set_exception(self.end)

            def passed_on(done):
                error = done.exception()
                with suppress(InvalidStateError):  # it was killed
                    shown.set_exception(RayTaskError(error)) if error else shown.set_result(done.result())

            future.add_done_callback(passed_on)
            return shown

        return SimpleNamespace(remote=remote)


class Ray:
    exceptions = SimpleNamespace(RayError=RayError, RayTaskError=RayTaskError)
    cloudpickle = SimpleNamespace(register_pickle_by_value=lambda module: None)

    def __init__(self):
        self.actors = []

    def remote(self, kind):
        def made():
            self.actors.append(Actor(kind))
            return self.actors[-1]

        self.needs = []
        return SimpleNamespace(options=lambda **needs: self.needs.append(needs) or SimpleNamespace(remote=made))

    def wait(self, futures, timeout):
        done, waiting = wait(futures, timeout, "FIRST_COMPLETED")
        return list(done), list(waiting)

    def get(self, future, timeout=None):
        return future.result(timeout)

    def kill(self, actor, reason="The actor died because its node died."):
        actor.end = RayError(f"a title\n{reason}")
        for future in actor.futures:
            with suppress(InvalidStateError):  # done
                future.set_exception(actor.end)
        if actor.object._process:
            actor.object._process.kill()


@pytest.fixture
def bridge(tmp_path):
    """A bridge at work: `ask(request)` and `said`, a queue of frames; Python programs take the place of commands."""
    ray, said, requests = Ray(), queue.Queue(), queue.Queue()
    made = Bridge(ray, said.put)
    thread = threading.Thread(target=made.run, args=(requests,))
    thread.start()

    def start(program, environment=None):
        request = {"do": "start", "key": 5, "gpus": 1.0, "cpus": 2.0, "folder": str(tmp_path), "prefixes": ["OMP_"]}
        requests.put({**request, "words": ["-c", program], "environment": environment or {}})

    def next_frame():
        frame = said.get(timeout=20)
        return frame if not frame.get("note", "").startswith("on ") else said.get(timeout=20)

    yield SimpleNamespace(ray=ray, start=start, said=next_frame)
    requests.put(None)
    thread.join()
    made.end_all()


def test_output_comes_before_the_exit_code_and_the_environment_is_that_of_the_command(bridge, monkeypatch):
    monkeypatch.setenv("OMP_NUM_THREADS", "1")  # Ray's
    monkeypatch.setenv("RAY_JOB_ID", "x")
    names = ["OMP_NUM_THREADS", "RAY_JOB_ID", "SECRET", "SWINFT_ON_CLUSTER"]
    program = f"import os, sys; os.write(1, str([os.environ.get(name) for name in {names}]).encode()); sys.exit(7)"
    bridge.start(program, {"SECRET": "s3"})
    first = bridge.said()
    assert base64.b64decode(first["data"]) == b"[None, None, 's3', '1']"
    assert (first["stream"], bridge.said()) == ("out", {"key": 5, "code": 7})
    assert bridge.ray.needs == [
        {"max_concurrency": 4, "max_restarts": 0, "num_gpus": 1.0, "num_cpus": 2.0, "scheduling_strategy": "SPREAD"}
    ]


def test_a_key_runs_once_at_a_time_and_again_after_it_was_lost(bridge):
    for _ in range(2):
        bridge.start("import os, time; os.write(1, b'starts'); time.sleep(60)")
    assert "data" in bridge.said()
    bridge.ray.kill(bridge.ray.actors[0])
    assert bridge.said() == {"key": 5, "lost": "RayError: The actor died because its node died"}
    assert len(bridge.ray.actors) == 1
    bridge.start("")
    assert bridge.said() == {"key": 5, "code": 0}


def test_what_ray_kills_for_lack_of_memory_is_not_tried_again(bridge):
    bridge.start("import os, time; os.write(1, b'starts'); time.sleep(60)")
    assert "data" in bridge.said()
    bridge.ray.kill(bridge.ray.actors[0], "Task was killed due to the node running low on memory.")
    assert "its node lacks memory" in bridge.said()["note"]
    assert bridge.said() == {"key": 5, "code": -9}


def test_what_nobody_here_has_ended_was_preempted(bridge):
    bridge.start("import os, signal; os.kill(os.getpid(), signal.SIGTERM)")
    assert bridge.said() == {"key": 5, "lost": "its node ended it (SIGTERM)"}


def test_a_command_that_cannot_be_started_is_refused(bridge, monkeypatch, tmp_path):
    monkeypatch.setattr(sys, "executable", str(tmp_path / "nowhere"))
    bridge.start("")
    assert "it cannot be started: [Errno 2]" in bridge.said()["refused"]


def test_a_child_whose_command_asks_no_more_ends(tmp_path, monkeypatch):
    ended = []
    monkeypatch.setattr(runner, "SILENCE_SECONDS", 0.2)
    monkeypatch.setattr(runner.os, "_exit", ended.append)
    made = runner.Runner()
    made.start(["-c", "import time; time.sleep(60)"], {}, [], str(tmp_path))
    assert made._process.wait(10) == -9
    time.sleep(0.05)
    assert ended == [1]


def test_rays_thread_that_asks_for_errors_without_a_pause_where_the_head_is_gone_is_ended():
    ended, closed = threading.Event(), threading.Event()
    worker = SimpleNamespace(threads_stopped=ended, gcs_error_subscriber=SimpleNamespace(close=closed.set))
    ray = SimpleNamespace(init=lambda **_: None, _private=SimpleNamespace(worker=SimpleNamespace(global_worker=worker)))
    connect(ray, "host:6379")
    assert ended.is_set()  # Ray's loop looks at it after each question
    assert closed.is_set()  # which ends the question that waits
    del worker.gcs_error_subscriber
    connect(ray, "ray://host:10001")


@pytest.mark.parametrize(
    ("error", "words"),
    [
        (RuntimeError("Version mismatch: The cluster was started with:\n  Ray: 2.9"), "different versions"),
        (ConnectionError("AuthenticationError: token"), "RAY_AUTH_TOKEN"),
        (ValueError("Ray Client requires pip package `ray[client]`"), "pip install 'ray[client]'"),
        (ConnectionError("x"), "must be a node of it"),
    ],
)
def test_why_there_is_no_connection_is_said(error, words):
    assert words in explained(error, "host:6379")


def test_a_node_gets_the_data_once_and_what_differs_is_refused(bridge, tmp_path, monkeypatch):
    monkeypatch.setattr(copies, "BATCH_BYTES", 5)
    root, node = tmp_path / "data", tmp_path / "node"
    files = {"a.csv": b"", "images/1.jpg": b"0123456789" * 3, "images/2.jpg": b"12345", "images/sub/3.jpg": b"x"}
    for name, content in files.items():
        (root / name).parent.mkdir(parents=True, exist_ok=True)
        (root / name).write_bytes(content)
    to, variables = copies.list_data(root, str(node), tmp_path / "files.json")
    (node / to).mkdir(parents=True)
    (node / to / "images").mkdir()
    (node / to / "images" / "1.jpg").write_bytes(b"9" * 30)  # of the right size
    bridge.start("", variables)
    assert bridge.said()["note"] == "copying 4 files of the data to its node"
    assert bridge.said() == {"key": 5, "code": 0}
    assert {name: (node / to / name).read_bytes() for name in files} == files
    bridge.start("", variables)  # again: nothing is copied
    assert bridge.said() == {"key": 5, "code": 0}
    (root / "images" / "2.jpg").write_bytes(b"54321")
    shutil.rmtree(node)
    bridge.start("", variables)
    assert "note" in bridge.said()
    assert "images/2.jpg has changed since the command listed it" in bridge.said()["refused"]
    assert copies.list_data(root, str(node), tmp_path / "files.json")[0] != to
