"""Children on a cluster, with a process in the place of the bridge: what is lost is started again, and nothing else."""

import json
import subprocess
import sys

import pytest

from swinft.errors import InputError
from swinft.system.cluster import checks, remote
from swinft.system.cluster.environment import shared
from swinft.system.cluster.place import check_place
from swinft.system.cluster.slots import cluster_slots
from swinft.system.processes import Child, run_children

# Answers the n-th start with the n-th list of frames, `die` to end; counts starts in a file, across bridges.
BRIDGE = """
import json, os, sys
folder, answers = sys.argv[1], json.loads(sys.argv[2])
say = lambda frame: print(json.dumps(frame), flush=True)
say({"ready": True})
for line in sys.stdin:
    request = json.loads(line)
    with open(os.path.join(folder, "requests"), "a") as file:
        file.write(line)
    if request["do"] == "start":
        starts = sum('"do": "start"' in each for each in open(os.path.join(folder, "requests")))
        for frame in answers[starts - 1]:
            if frame == "die":
                os._exit(1)
            say({"key": request["key"], **frame})
    elif request["do"] == "signal":
        say({"key": request["key"], "lost": "it was killed"})
    elif "number" in request:
        say({"number": request["number"], "answer": answers[request["do"]]})
"""


@pytest.fixture
def bridge(tmp_path, monkeypatch):
    """Sets the answers of the bridge; returns what it was asked."""

    def start(answers):
        pipe = subprocess.PIPE
        command = [sys.executable, "-c", BRIDGE, str(tmp_path), json.dumps(answers)]
        monkeypatch.setattr(
            remote,
            "start_bridge",
            lambda *_: subprocess.Popen(command, stdin=pipe, stdout=pipe, start_new_session=True),
        )
        return lambda: [json.loads(line) for line in (tmp_path / "requests").read_text().splitlines()]

    monkeypatch.setattr(remote, "PAUSE_SECONDS", 0.01)
    yield start
    remote.close_all()


SAID = {"stream": "out", "data": "c2FpZAo="}  # said


def test_a_lost_child_is_started_again_and_all_that_it_said_is_kept(bridge, tmp_path, capfd):
    requests = bridge([[SAID, {"lost": "the node died"}], [SAID, {"code": 0}]])
    child = Child(["fit", "--resume"], {"SECRET": "s3"}, tmp_path / "log.txt")
    assert run_children({0: child}, [{}], on="ray") == {0: 0}
    assert remote.label(["-m", "swinft", "fit", "--fold", "1_seed_7", "--resume"]) == "fold 1_seed_7"
    out, err = capfd.readouterr()
    assert out == "said\nsaid\n"
    assert err == "fit: lost, because the node died; it is started again (1 of at most 10 times)\n"
    logged = [line[21:] for line in (tmp_path / "log.txt").read_text().splitlines()]  # after date and time
    assert sorted(line for line in logged if "---" not in line) == sorted([*out.splitlines(), *err.splitlines()])
    first, second = requests()
    assert first == second
    assert first["words"] == ["-m", "swinft", "fit", "--resume"]
    assert first["environment"]["SECRET"] == "s3"


@pytest.mark.parametrize(("code", "expected"), [(2, 2), (1, 1), (-9, 137)])
def test_an_error_of_the_program_itself_is_not_tried_again(code, expected, bridge):
    requests = bridge([[{"code": code}], [{"code": 0}]])
    assert run_children({0: Child(["fit"])}, [{}], on="ray") == {0: expected}
    assert len(requests()) == 1


def test_a_child_that_is_lost_again_and_again_ends(bridge, monkeypatch, capfd):
    monkeypatch.setattr(remote, "MOST_LOSSES", 2)
    requests = bridge([[{"lost": "preempted"}]] * 4)
    assert run_children({0: Child(["fit"])}, [{}], on="ray") == {0: 1}
    assert len(requests()) == 3
    assert "lost 3 times, the last time because preempted: not started again" in capfd.readouterr().err


def test_a_bridge_that_ends_is_replaced_with_its_children(bridge, capfd):
    requests = bridge([[SAID, "die"], [SAID, {"code": 0}]])
    assert run_children({0: Child(["fit"])}, [{}], on="ray") == {0: 0}
    assert len(requests()) == 2
    assert capfd.readouterr().err.count("the connection to the cluster was lost") == 1


def test_a_cluster_that_does_not_come_back_ends_its_children(bridge, monkeypatch, capfd):
    monkeypatch.setattr(remote, "RECONNECTS", 2)
    bridge([[]])
    remote.connected("ray")
    bridge([["die"]])

    def broken(*_):
        return subprocess.Popen(["true"], stdin=subprocess.PIPE, stdout=subprocess.PIPE, start_new_session=True)

    monkeypatch.setattr(remote, "start_bridge", broken)
    remote._clusters["ray"]._bridge.kill()
    assert run_children({0: Child(["fit"])}, [{}], on="ray") == {0: 1}
    assert "the cluster at ray is lost" in capfd.readouterr().err


def test_children_that_are_asked_to_end_are_not_started_again(bridge):
    requests = bridge([[], [{"code": 3}]])
    assert run_children({0: Child(["a"]), 1: Child(["b"])}, [{}, {}], together=True, on="ray") == {1: 3, 0: 143}
    assert [each["do"] for each in requests()] == ["start", "start", "signal"]


def test_slots_are_those_of_the_nodes(bridge):
    def nodes(*resources):
        return {"nodes": [{"id": str(k), "name": f"n{k}", "cpus": c, "gpus": g} for k, (c, g) in enumerate(resources)]}

    bridge(nodes((0, 0), (8, 0), (18, 0)))
    assert (
        cluster_slots("ray", 0, 9)
        == [{"SWINFT_SLOT_GPUS": "0", "SWINFT_SLOT_CPUS": "8", "SWINFT_SLOTS_ON_NODE": "2"}] * 3
    )
    assert len(cluster_slots("ray", 0, 2)) == 2
    with pytest.raises(InputError, match=r"no node of the cluster has 1 GPU\(s\).*n1: 8 CPUs, 0 GPUs"):
        cluster_slots("ray", 1, 2)
    remote.close_all()
    bridge(nodes((16, 4), (2, 0), (30, 3)))
    assert [slot["SWINFT_SLOT_CPUS"] for slot in cluster_slots("ray", 2, 9)] == ["8"] * 3
    with pytest.raises(InputError, match="this machine has none"):
        cluster_slots("ray", 0, 2, on_cpu=False)


def test_a_node_that_differs_is_named_with_what_differs(bridge, tmp_path, monkeypatch):
    here = {"host": "a", "versions": {"swinft": "1 with code 1", "torch": "2.10"}}
    monkeypatch.setattr(checks, "look", lambda **given: {**here, "files": dict.fromkeys(given["paths"], "x")})
    data = tmp_path / "train.csv"
    there = [
        {**here, "node": "n0", "versions": {**here["versions"], "torch": "2.11"}, "files": {}},
        {"node": "n1", "problem": "there is no folder /w, the working folder of the command"},
    ]
    monkeypatch.setattr(checks.secrets, "token_hex", lambda _: "0")
    probe = tmp_path / f".probe.{checks.os.getpid()}.0"
    there[0]["files"] = {str(probe): "cannot be read: No such file or directory", str(data): "y"}
    bridge({"look": there})
    with pytest.raises(InputError) as error:
        checks.check_nodes("ray", tmp_path, [data])
    lines = str(error.value).splitlines()
    assert "n0: torch is 2.11, here 2.10: install the same" in lines[1]
    assert f"n0: {tmp_path} is not the folder that it is here" in lines[2]
    assert f"n0: {data} is another file" in lines[3]
    assert "n1: there is no folder /w" in lines[4]
    assert not probe.exists()


def test_variables_of_this_machine_alone_stay_here(monkeypatch):
    monkeypatch.setenv("LD_LIBRARY_PATH", "/here")
    monkeypatch.setenv("OMP_NUM_THREADS", "3")
    given = {
        "LD_LIBRARY_PATH": "/here",
        "OMP_NUM_THREADS": "3",
        "CUDA_VISIBLE_DEVICES": "0",
        "API": "set for the child",
    }
    assert shared(given) == {"OMP_NUM_THREADS": "3", "API": "set for the child"}


@pytest.mark.parametrize(
    "on", ["", "Ray", "ray://", "ray:6379", "host", "host:0", "host:99999", "http://h:1", "ray://h"]
)
def test_what_is_no_place_is_refused(on):
    if on == "ray:6379":  # a host may have this name
        assert check_place(on) == on
        return
    with pytest.raises(InputError, match="Allowed: local, ray"):
        check_place(on)


def test_without_ray_its_extra_is_named(monkeypatch):
    monkeypatch.setattr("swinft.extras.find_spec", lambda _: None)
    with pytest.raises(InputError, match=r"pip install 'swinft\[ray\]'"):
        remote.connected("ray")


def test_where_nothing_answers_nothing_is_waited_for():
    with pytest.raises(InputError, match="nothing answers there"):
        remote.connected("127.0.0.1:9")
