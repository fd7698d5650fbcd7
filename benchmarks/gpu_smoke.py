"""Smoke test on a GPU: short steps, each in its own process, under 10 minutes in total.

    python benchmarks/gpu_smoke.py                      # every step
    python benchmarks/gpu_smoke.py --steps fit,resume   # some of them
    python benchmarks/gpu_smoke.py --dry                # the steps that a CPU can do; writes no results

Every step prints `ok`, `FAILED`, `skipped` or, if the time was over, `not reached`, with its result. A step that fails
or hangs does not affect the others. The most important steps come first; if there are results of an earlier run on the
same GPU and torch, only steps that failed or were not reached. Steps that measure time or memory run alone, the others
four at a time. After every step benchmarks/results/gpu-smoke.json is written, with a copy in the folder `--output`.
"""

import argparse
import json
import os
import re
import signal
import subprocess
import sys
import tempfile
import time
import traceback
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from threading import Lock
from typing import Any

from gpu_commands import COMMANDS, DRY, Found, Skipped, device, use_this_process

REPOSITORY = Path(__file__).parent.parent
CONFIG = "configs/bluemarble.yaml"
RESULTS, RESULT = REPOSITORY / "benchmarks" / "results", "gpu-smoke.json"
AT_ONCE = 4
DRY_SECONDS = 3  # seconds on a CPU per second on a GPU


def run(*words: str, environment: dict[str, str] | None = None, code: int | None = 0, seconds: int = 120) -> str:
    """Output of `python -m swinft WORDS`.

    Raises:
        AssertionError: The exit code is not `code`; None allows any.
    """
    command = [sys.executable, "-m", "swinft", *words]
    limit = seconds * (DRY_SECONDS if DRY else 1)
    ended = subprocess.run(
        command, capture_output=True, text=True, timeout=limit, env={**os.environ, **(environment or {})}
    )
    text = ended.stdout + ended.stderr
    assert not (code == 0 and "Traceback" in text), text[-3000:]
    assert code is None or ended.returncode == code, f"exit code {ended.returncode} of {words}:\n{text[-3000:]}"
    return text


def here(*words: str) -> str:
    """Output of a command in this process, without what others would try before."""
    from in_process import command

    use_this_process()
    return command(*words)


def fit_words(folder: Path, name: str, *options: str) -> list[str]:
    """Arguments of a short fit of fold 0 of the demo."""
    words = ["fit", "--config", CONFIG, "--runs", str(folder), "--name", name, "--fold", "0"]
    return [*words, "--trainer.max_epochs", "2", "--trainer.accelerator", "cpu" if DRY else "gpu", *options]


def epochs_of(folder: Path, name: str) -> list[dict[str, float]]:
    """Lines of a fold's metrics."""
    return [json.loads(line) for line in (folder / name / "fold_0" / "metrics.jsonl").read_text().splitlines()]


def environment_step() -> Found:
    """Versions, the driver, and the GPU's compute capability, compared with those that this torch was built for."""
    import timm
    import torch
    from PIL import __version__ as pillow

    found: Found = {"torch": torch.__version__, "timm": timm.__version__, "pillow": pillow}
    if DRY:
        return found
    driver = subprocess.run(["nvidia-smi"], capture_output=True, text=True).stdout
    found["driver"] = re.findall(r"Driver Version: (\S+)", driver)[:1]
    found["architectures"] = torch.cuda.get_arch_list()
    found["capability"] = torch.cuda.get_device_capability()
    return found | {"device": torch.cuda.get_device_name(), "memory GB": torch.cuda.mem_get_info()[1] / 1e9}


def attention_step() -> Found:
    """Largest difference of the faster attention from timm's, relative to the largest value, by kernel and dtype."""
    import torch

    from swinft.model.attention import swin as attention
    from swinft.model.backbones.timm_backbone import create_backbone

    place, found = torch.device(device()), {}
    cases = [("swin_tiny_patch4_window7_224", 224), ("swin_base_patch4_window12_384", 384)]
    for name, size in [*cases, ("swinv2_tiny_window8_256", 256)]:
        with torch.device(place):
            model = create_backbone(name, size, pretrained=False, backbone_args={"depths": [2, 2], "embed_dim": 64,
                                                                                 "num_heads": [2, 4]})  # fmt: skip
        blocks = [module for module in model.modules() if type(module) in attention.FASTER]
        for kernel in attention.FASTER[type(blocks[0])][1]:
            for block in blocks[:2]:
                for dtype in (torch.float, torch.bfloat16, torch.half)[: 1 if DRY else 3]:
                    key = f"{name} {kernel} {str(dtype)[6:]} {'shifted' if any(block.shift_size) else 'plain'}"
                    found[key] = worst_difference(block, place, kernel, dtype)
    wrong = {key: value for key, value in found.items() if not value <= (0.1 if "16" in key or "half" in key else 0.01)}
    assert not wrong, wrong
    return found


def worst_difference(block: Any, place: Any, kernel: str, dtype: Any) -> float:
    """Differences of output and gradients of one block, relative to the largest value of each."""
    import copy

    import torch

    from swinft.model.attention import swin as attention

    torch.manual_seed(0)
    timms = copy.deepcopy(block).to(place).float().eval().requires_grad_(True)
    timms.set_input_size(tuple(2 * side for side in block.window_size), block.window_size)
    ours = copy.deepcopy(timms)
    ours.__class__ = attention.FASTER[type(block)][1][kernel]
    x = torch.randn(2, *timms.input_resolution, timms.dim, device=place)
    pairs = zip(attention._results(timms, x, dtype), attention._results(ours, x, dtype), strict=True)
    return max(float((theirs - own).abs().max() / theirs.abs().max()) for theirs, own in pairs)


def sdpa_step() -> Found:
    """Which kernels compute the attention of 49, 64 and 144 keys, and whether 65,536 windows in one call work."""
    import torch
    from torch.profiler import ProfilerActivity, profile

    from swinft.model.attention.windows import Windows, attend_by_parts

    if DRY:
        raise Skipped("kernels of CUDA")
    found: Found = {}
    for side in (7, 8, 12):
        windows = Windows((4 * side, 4 * side), (side, side), (0, 0), 3)
        qkv = torch.randn(8, (4 * side) ** 2, 3 * 96, device="cuda", dtype=torch.bfloat16, requires_grad=True)
        bias = torch.randn(3, side**2, side**2, device="cuda", requires_grad=True)
        with profile(activities=[ProfilerActivity.CUDA]) as profiled:
            attend_by_parts(qkv, bias, None, windows).sum().backward()
            torch.cuda.synchronize()
        names = {event.key.split("<")[0][:80] for event in profiled.key_averages()}
        found[f"{side * side} keys"] = sorted(name for name in names if "ttn" in name or "fmha" in name)
    for count in (65_535, 65_536, 100_000):
        qkv = torch.randn(count, 49, 3 * 32, device="cuda", dtype=torch.bfloat16, requires_grad=True)
        bias = torch.randn(1, 49, 49, device="cuda", requires_grad=True)
        try:
            attend_by_parts(qkv, bias, None, Windows((7, 7), (7, 7), (0, 0), 1)).sum().backward()
            torch.cuda.synchronize()
            found[f"{count} windows"] = "ok"
        except RuntimeError as error:
            found[f"{count} windows"] = str(error).splitlines()[0]
            break  # the context may be lost
    assert all(answer == "ok" for name, answer in found.items() if name.endswith("windows")), found
    return found


def speed_step() -> Found:
    """Swin-T, 64 images of 224 px, bf16, ten eager steps: images per second and peak memory by attention."""
    import gpu_cases as gpu

    model = gpu.TOY if DRY else gpu.Model("swin_tiny_patch4_window7_224", 224, 64)
    found: Found = {}
    for variant in gpu.VARIANTS:
        if variant.is_compiled:
            continue
        result = gpu.measure(model, variant, 2 if DRY else 10)
        found[variant.name] = {key: result[key] for key in ("train img/s", "predict img/s", "peak memory GB")}
    return found


def compiled_step() -> Found:
    """Whether 49 keys compile, in plain and in shifted blocks, and the time of the first step, by kernel."""
    import gpu_cases as gpu

    if DRY:
        raise Skipped("compiling takes minutes on a CPU")
    # Two of the four stages: the other blocks are the same.
    model = gpu.Model("swin_tiny_patch4_window7_224", 224, 64, {"depths": [2, 2], "num_heads": [3, 6]})
    return {
        variant.name: {"first step s": gpu.measure(model, variant, 3)["first step s"]}
        for variant in gpu.VARIANTS
        if variant.is_compiled and variant.kernel
    }


def loop_step() -> Found:
    """Swinft's task in Lightning's loop relative to a hand-written loop, with and without averaged weights."""
    import gpu_cases as gpu

    models = {"swin": gpu.TOY} if DRY else {"swin": gpu.SWIN_T, "resnet50": gpu.RESNET}
    return {name: gpu.own_loop(model, 2 if DRY else 30, 0.999) for name, model in models.items()}


def benchmark_step() -> Found:
    """One minute of benchmarks/gpu.py, which continues an earlier run and writes its own results."""
    words = ["--toy"] if DRY else ["--seconds", "45", "--output", os.environ.get("SWINFT_SMOKE_OUTPUT", str(RESULTS))]
    process = subprocess.run(
        [sys.executable, str(REPOSITORY / "benchmarks" / "gpu.py"), *words], capture_output=True, text=True
    )
    assert process.returncode == 0, (process.stdout + process.stderr)[-3000:]
    return {"lines": [line for line in process.stdout.splitlines() if " s  " in line and "left out" not in line]}


# Reports every line where the CPU waits for the GPU, in every step of `fit` after the warm-up steps.
WATCH = """
import os
if os.environ.get("SWINFT_SMOKE_WATCH"):
    import torch, warnings
    from lightning.pytorch.loops.training_epoch_loop import _TrainingEpochLoop as Loop
    step, numbers = Loop.advance, iter(range(10**9))
    def advance(self, *words, **options):
        if next(numbers) < 3 or not torch.cuda.is_available():
            return step(self, *words, **options)
        with warnings.catch_warnings():
            warnings.simplefilter("always")
            torch.cuda.set_sync_debug_mode("warn")
            try:
                return step(self, *words, **options)
            finally:
                torch.cuda.set_sync_debug_mode("default")
                print("watched a step", flush=True)
    Loop.advance = advance
"""


def fit_step() -> Found:
    """The demo's fold 0, two epochs, and the lines of code within a training step that wait for the GPU."""
    with tempfile.TemporaryDirectory() as folder:
        root = Path(folder)
        (root / "sitecustomize.py").write_text(WATCH)
        path = os.pathsep.join([folder, *filter(None, [os.environ.get("PYTHONPATH")])])
        text = run(*fit_words(root, "a"), environment={"PYTHONPATH": path, "SWINFT_SMOKE_WATCH": "1"})
        waits = [line for line in text.splitlines() if "called a synchronizing" in line]
        places = [re.sub(r": UserWarning.*|^.*site-packages/", "", line) for line in waits]
        places = [place.removeprefix(f"{REPOSITORY}/")[-90:] for place in places]
        lines, steps = {place: places.count(place) for place in places}, text.count("watched a step")
        found = {"seconds": [line["seconds"] for line in epochs_of(root, "a")], "steps": steps, "waits": lines}
    assert DRY or steps, text[-2000:]
    # One in an epoch's last step is logging; one in every step slows down the GPU.
    assert not [place for place, count in lines.items() if place.startswith("swinft") and count >= steps // 2], found
    return found


def choose_step() -> Found:
    """The choice of the timed trial for a long training, and that it is cached."""
    options = [] if DRY else ["--model.backbone", "swin_tiny_patch4_window7_224", "--model.backbone_args", "null",
                              "--data.image_size", "224", "--data.batch_size", "64"]  # fmt: skip
    with tempfile.TemporaryDirectory() as folder:
        words = ["check", "--config", CONFIG, "--trainer.max_epochs", "100000", *options]
        words += ["--trainer.accelerator", "cpu" if DRY else "gpu"]
        texts = [run(*words, environment={"XDG_CACHE_HOME": folder}, seconds=200) for _ in range(2)]
        kept = len(list(Path(folder).glob("swinft/choices/*.json")))
    said = [[line for line in text.splitlines() if "img/s" in line] for text in texts]
    choices = [[line for line in lines if not line.startswith("a training step")] for lines in said]
    assert any("attention in training" in line for line in choices[0]), texts[0][-2000:]
    assert kept == 1, kept
    assert choices[0] == choices[1], choices
    return {"said": said[0]}


def half_step() -> Found:
    """fp16 and fp32: both learn, and the output is correct."""
    found: Found = {}
    with tempfile.TemporaryDirectory() as folder:
        for precision in ("32-true",) if DRY else ("16-mixed", "32-true"):
            text = here(*fit_words(Path(folder), precision, "--trainer.precision", precision))
            found[precision] = [line["val_log_loss"] for line in epochs_of(Path(folder), precision)]
            warned = [line for line in text.splitlines() if "Warning" in line]
            found[f"{precision} warnings"] = warned[:5]
            assert "NaN or infinite" not in text, text[-2000:]
            assert all(0 < value < 3 for value in found[precision]), found
    return found


def resume_step() -> Found:
    """Whether the weights after four epochs are identical to those of a run stopped after two and resumed."""
    found = {}
    cases: list[tuple[str, list[str]]] = [
        ("window 4", []),
        ("window 4, deterministic", ["--trainer.deterministic", "true"]),
        ("resnet18", ["--model.backbone", "resnet18", "--model.backbone_args", "null"]),
        ("resnet18, deterministic", ["--model.backbone", "resnet18", "--model.backbone_args", "null",
                                     "--trainer.deterministic", "true"]),
        ("window 12", ["--model.backbone_args.window_size", "12", "--data.image_size", "96"]),
    ]  # fmt: skip
    with tempfile.TemporaryDirectory() as folder, ThreadPoolExecutor(len(cases)) as pool:
        answers = pool.map(lambda case: same_bytes(Path(folder), *case), cases[:1] if DRY else cases)
        found = dict(zip([name for name, _ in cases], answers, strict=False))
    expected = [name for name in found if DRY or "deterministic" in name]
    assert all(found[name] == "same bytes" for name in expected), found
    return found


def same_bytes(folder: Path, name: str, options: list[str]) -> str:
    """Compares the weights of an uninterrupted fold with those of a stopped and resumed one."""
    weights, choices = [], []
    for kind in ("whole", "ended"):
        words = fit_words(folder, f"{name}-{kind}".replace(" ", "_").replace(",", ""), *options)
        words += ["--trainer.max_epochs", "4"]
        words += ["--trainer.precision", "32-true"] if DRY else []  # what a busy CPU measures for auto varies
        environment = {**os.environ, "CUBLAS_WORKSPACE_CONFIG": ":4096:8"}
        process = subprocess.Popen(
            [sys.executable, "-u", "-m", "swinft", *words], stdout=subprocess.PIPE, stderr=subprocess.STDOUT,
            text=True, env=environment,
        )  # fmt: skip
        assert process.stdout
        lines = []
        for line in process.stdout:
            lines.append(line)
            if kind == "ended" and "epoch 2/4" in line:
                process.send_signal(signal.SIGTERM)
        if process.wait() not in (0, 143):
            return "".join(lines)[-1500:]
        if kind == "ended":
            run(*words, "--resume", environment={"CUBLAS_WORKSPACE_CONFIG": ":4096:8"})
        root = folder / words[words.index("--name") + 1]
        weights.append((root / "fold_0" / "weights.safetensors").read_bytes())
        choice = json.loads((root / "choice.json").read_text())
        choices.append(f"{choice['precision']}, attention {choice['training']}")
    if choices[0] != choices[1]:  # what auto measured
        return f"not compared: {choices[0]} and {choices[1]}"
    return "same bytes" if weights[0] == weights[1] else "other bytes"


def input_step() -> Found:
    """Images augmented on the device, and loader processes: both fit; seconds of the second epoch."""
    found = {}
    cases = {
        "cpu, auto": [],
        "cpu, 0 workers": ["--data.loading.num_workers", "0"],
        "cpu, 4 workers": ["--data.loading.num_workers", "4"],
        "device": ["--data.loading.augment_on", "device", "--data.loading.cache", "true"],
    }
    with tempfile.TemporaryDirectory() as folder:
        for name, options in cases.items():
            words = fit_words(Path(folder), name.replace(" ", "_").replace(",", ""), *options)
            here(*words, "--data.loading.cache_dir", f"{folder}/cache")
            found[name] = epochs_of(Path(folder), words[words.index("--name") + 1])[-1]["seconds"]
        found["largest difference of an image sampled there, in grey levels"] = sampled_difference(Path(folder))
    return found


def sampled_difference(folder: Path) -> float:
    """Difference of a batch sampled on the GPU from the same batch sampled on the CPU."""
    import torch

    from swinft import CSVDataModule
    from swinft.data.loading import loader_state

    batches = []
    for place in (torch.device("cpu"), torch.device("cpu" if DRY else "cuda:0")):
        loader_state.default_device = lambda place=place: place
        data = CSVDataModule(
            root=str(REPOSITORY / "competitions" / "bluemarble"), train="train.csv", image="images/{image}",
            target="climate", target_kind="classification", image_size=64, augment="light", batch_size=32,
            loading={"augment_on": "device", "cache": True, "cache_dir": str(folder)},
        )  # fmt: skip
        data.setup("fit")
        batches.append(next(iter(data.train_dataloader()))["image"].cpu())
    worst = float((batches[0] - batches[1]).abs().max())
    assert worst <= 1, worst
    return worst


def predict_step() -> Found:
    """Two views of one fold on the GPU, eager and compiled, compared with fp32 on the CPU."""
    import numpy as np
    import pandas as pd

    with tempfile.TemporaryDirectory() as folder:
        root = Path(folder)
        here(*fit_words(root, "a"))
        tables, seconds = {}, {}
        cases = {"cpu": ["--device", "cpu"], "gpu": ["--device", device()]}
        if not DRY:
            cases["compiled"] = ["--device", "cuda", "--compile", "true"]
        for name, options in cases.items():
            started = time.perf_counter()
            output = root / f"{name}.csv"
            here("predict", str(root / "a"), "--folds", "0", "--views", "identity,hflip", "--output", str(output),
                 *options)  # fmt: skip
            seconds[name] = round(time.perf_counter() - started, 1)
            tables[name] = pd.read_csv(output).select_dtypes("number").to_numpy()
        worst = {name: float(np.abs(table - tables["cpu"]).max()) for name, table in tables.items()}
        assert max(worst.values()) < 2e-2, worst
        return {"largest difference": worst, "seconds": seconds}


def memory_step() -> Found:
    """A batch too large for any GPU: exit code and message."""
    if DRY:
        raise Skipped("memory of a GPU")
    with tempfile.TemporaryDirectory() as folder:
        options = ["--model.backbone", "swin_large_patch4_window12_384", "--model.backbone_args", "null"]
        options += ["--data.image_size", "768", "--data.batch_size", "300", "--data.loading.cache", "false"]
        text = run(*fit_words(Path(folder), "a", *options), code=2)
    assert "out of memory" in text, text[-2000:]
    assert "batch_size" in text, text[-2000:]
    assert "Traceback" not in text, text[-2000:]
    return {"said": text[-700:], "lines": len(text.splitlines())}


def together_step() -> Found:
    """Two folds at once on one GPU, compiled, sharing the cache of Triton's kernels."""
    with tempfile.TemporaryDirectory() as folder:
        options = [] if DRY else ["--model.compute.compile", "true"]
        words = fit_words(Path(folder), "a", *options)
        environment = {"TRITON_CACHE_DIR": f"{folder}/triton"}
        run(*words, environment=environment)
        (fold,) = [index for index, word in enumerate(words) if word == "--fold"]
        others = [[*words[: fold + 1], str(k), *words[fold + 2 :], "--resume"] for k in (1, 2)]
        with ThreadPoolExecutor(2) as pool:
            list(pool.map(lambda each: run(*each, environment=environment), others))
    return {}


def whole_step() -> Found:
    """`fit` of three folds in separate processes, `predict` and `submit`."""
    with tempfile.TemporaryDirectory() as folder:
        words = fit_words(Path(folder), "a")
        fold = words.index("--fold")
        del words[fold : fold + 2]
        started = time.perf_counter()
        run(*words, "--data.folds.file", "null", seconds=300)
        run("predict", f"{folder}/a", "--device", device())
        run("submit", f"{folder}/a")
        lines = len((Path(folder) / "a" / "submission.csv").read_text().splitlines())
        assert lines == 103, lines
        return {"seconds": round(time.perf_counter() - started, 1)}


@dataclass(frozen=True)
class Step:
    """A step of the smoke test.

    Args:
        work: The function; the first line of its docstring describes the result.
        seconds: Timeout on a GPU.
        is_alone: Whether it runs alone, to measure, or because it uses all memory.
    """

    work: Callable[[], Found]
    seconds: int = 150
    is_alone: bool = False


# The most important first: those that determine whether a first run works, then what was never run on CUDA.
STEPS = {
    "environment": Step(environment_step, 60, True),
    "whole": Step(whole_step, 240),
    "fit": Step(fit_step),
    "predict": Step(predict_step),
    "masks": Step(COMMANDS["masks"], 100),
    "several": Step(COMMANDS["several"], 100),
    "heads": Step(COMMANDS["heads"], 180),
    "explain": Step(COMMANDS["explain"], 100),
    "embed": Step(COMMANDS["embed"], 100),
    "rounds": Step(COMMANDS["rounds"], 120),
    "taught": Step(COMMANDS["taught"], 120),
    "attention": Step(attention_step),
    "half": Step(half_step),
    "find": Step(COMMANDS["find"], 100),
    "export": Step(COMMANDS["export"], 100),
    "halve": Step(COMMANDS["halve"], 100),
    "lab": Step(COMMANDS["lab"], 120),
    "compiled": Step(compiled_step, 300),
    "resume": Step(resume_step, 240),
    "tune": Step(COMMANDS["tune"], 120),
    "together": Step(together_step),
    "input": Step(input_step, 200),
    "sdpa": Step(sdpa_step),
    "choose": Step(choose_step, 200, True),
    "memory": Step(memory_step, 120, True),
    "speed": Step(speed_step, 100, True),
    "loop": Step(loop_step, 100, True),
    "benchmark": Step(benchmark_step, 120, True),
}


def outcome(name: str, options: argparse.Namespace, seconds: float) -> Found:
    """Runs one step in a separate process, which is killed with its children after the timeout."""
    environment = {**os.environ, "SWINFT_SMOKE_DRY": str(int(options.dry))}
    environment["SWINFT_SMOKE_OUTPUT"] = str(options.output or RESULTS)
    started = time.perf_counter()
    process = subprocess.Popen(
        [sys.executable, __file__, "--only", name], stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True,
        env=environment, cwd=REPOSITORY, start_new_session=True,
    )  # fmt: skip
    try:
        text, _ = process.communicate(timeout=seconds)
    except subprocess.TimeoutExpired:
        os.killpg(process.pid, signal.SIGKILL)
        text = process.communicate()[0] + f"\nended after {seconds:.0f} s"
    text = re.sub(r'"[^"\n]*/site-packages/', '"', text.replace(f"{REPOSITORY}/", ""))  # paths of one machine
    found: Found = {"status": "FAILED", "said": text[-3000:]}
    if process.returncode == 0 and text.strip():
        found = json.loads(text.strip().splitlines()[-1])
    return found | {"seconds": round(time.perf_counter() - started, 1)}


def only(name: str) -> None:
    """One step, in this process; its last line is JSON."""
    try:
        answer: Found = {"status": "ok", "found": STEPS[name].work()}
    except Skipped as reason:
        answer = {"status": "skipped", "said": str(reason)}
    except Exception:  # any error is the result
        answer = {"status": "FAILED", "said": traceback.format_exc()[-3000:]}
    print("\n" + json.dumps(answer, default=str))


class Smoke:
    """A run of the smoke test.

    Args:
        options: As `main` reads them.
    """

    def __init__(self, options: argparse.Namespace) -> None:
        self.options, self.dry, self.until = options, options.dry, time.perf_counter() + options.seconds
        self.folders = [] if options.dry else [RESULTS, *filter(None, [options.output])]
        self.results: dict[str, Found] = {}
        self.lock = Lock()

    def run(self, names: list[str]) -> None:
        """Runs steps; first those that an earlier run on the same GPU and torch did not reach, or that failed."""
        before = self.before()
        if "environment" in names or not self.dry:
            self.note("environment")  # shows whether the earlier results are of this GPU
        here, there = (each.get("environment", {}).get("found", {}) for each in (self.results, before))
        is_same = here and all(here.get(key) == there.get(key) for key in ("device", "torch"))
        earlier = {name: found for name, found in before.items() if name in STEPS} if is_same else {}
        self.results = {**earlier, **self.results}
        done = {name for name, found in earlier.items() if found["status"] in ("ok", "skipped")}
        others = [name for name in names if name != "environment"]
        for group in ([n for n in others if n not in done], [n for n in others if n in done]):
            with ThreadPoolExecutor(1 if self.dry else AT_ONCE) as pool:
                list(pool.map(self.note, [name for name in group if not STEPS[name].is_alone]))
            for name in group:
                if STEPS[name].is_alone:
                    self.note(name)

    def before(self) -> dict[str, Found]:
        """The results of earlier runs."""
        path = RESULTS / RESULT
        found: dict[str, Found] = {} if self.dry or not path.is_file() else json.loads(path.read_text())
        return found

    def note(self, name: str) -> None:
        """Runs a step, prints and writes its result; if the time is over, its earlier result is kept."""
        left = self.until - time.perf_counter()
        limit = STEPS[name].seconds * (DRY_SECONDS if self.dry else 1)
        found: Found = {"status": "not reached", "said": "the time was over"}
        if left > 0:
            found = outcome(name, self.options, min(limit, left))
            if found["status"] == "FAILED" and found["seconds"] > left - 1 and left < limit:
                found["status"] = "not reached"
        shown = json.dumps(found["found"]) if "found" in found else found["said"]
        with self.lock:
            print(f"{found['status']:<12}{name:<12}{found.get('seconds', 0):>6.1f} s  {shown}", flush=True)
            if found["status"] != "not reached" or name not in self.results:
                self.results[name] = found
            for folder in self.folders:
                folder.mkdir(exist_ok=True, parents=True)
                ordered = {each: self.results[each] for each in STEPS if each in self.results}
                (folder / RESULT).write_text(json.dumps(ordered, indent=1) + "\n")


def main() -> int:
    """Runs the steps; exit code 1 if one failed."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--steps", default=",".join(STEPS), help="names, joined by commas")
    parser.add_argument("--dry", action="store_true", help="what a CPU can do; writes no result")
    parser.add_argument("--seconds", type=float, help="of all steps together; 540, or with --dry no limit")
    parser.add_argument("--output", type=Path, help="a folder for a copy of the result")
    parser.add_argument("--only", help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.only:
        only(options.only)
        return 0
    names = options.steps.split(",")
    if unknown := set(names) - set(STEPS):
        parser.error(f"no such step: {', '.join(sorted(unknown))}. Allowed: {', '.join(STEPS)}.")
    if options.seconds is None:
        options.seconds = float("inf") if options.dry else 540
    smoke = Smoke(options)
    smoke.run(names)
    by_status = {
        status: [name for name in names if smoke.results[name]["status"] == status]
        for status in ("FAILED", "not reached")
    }
    print(
        f"{len(names)} steps; "
        + "; ".join(f"{status}: {', '.join(found) or 'none'}" for status, found in by_status.items())
    )
    return int(bool(by_status["FAILED"]))


if __name__ == "__main__":
    sys.exit(main())
