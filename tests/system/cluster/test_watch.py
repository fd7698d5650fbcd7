"""A bridge whose cluster is gone ends, so that another one connects to the head that was started again."""

import time
from types import SimpleNamespace

import pytest

from swinft.system.cluster import watch
from swinft.system.cluster.watch import end_without_cluster


@pytest.mark.parametrize("nodes", ["gone", "another", "fails", "hangs"])
def test_a_bridge_whose_cluster_is_gone_ends(nodes, monkeypatch):
    monkeypatch.setattr(watch, "ASK_SECONDS", 0.02)
    monkeypatch.setattr(watch, "SILENT_SECONDS", 0.3)
    there = {"NodeID": "me", "Alive": True}
    answers = {"gone": [[there], [{**there, "Alive": False}]], "another": [[{**there, "NodeID": "you"}]]}
    left = answers.get(nodes, [[there]])

    def asked():
        if not left:
            if nodes == "hangs":
                time.sleep(1)
            raise ConnectionError("it is gone")
        return left.pop(0)

    ray = SimpleNamespace(get_runtime_context=lambda: SimpleNamespace(get_node_id=lambda: "me"), nodes=asked)
    ended = []
    end_without_cluster(ray, lambda: ended.append(True))
    assert ended == [True]
