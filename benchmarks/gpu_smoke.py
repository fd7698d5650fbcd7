"""Does swinft work on this GPU at all? Short steps, each in its own process, under 10 minutes in all.

    python benchmarks/gpu_smoke.py                      # every step
    python benchmarks/gpu_smoke.py --steps fit,resume   # some of them
    python benchmarks/gpu_smoke.py --dry                # what a CPU can do of it; writes no result

Every step prints `ok`, `FAILED` or `skipped` with what it found, and one that fails or hangs does not keep the others
from running. Steps whose figures mean something run alone, the others four at a time. After every step
benchmarks/results/gpu-smoke.json is written, and a copy into the folder that `--output` names.
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
from pathlib import Path
from typing import Any

REPOSITORY = Path(__file__).parent.parent
CONFIG = "configs/bluemarble.yaml"
RESULT = "gpu-smoke.json"
SECONDS = 150  # of one step; compiling two variants of Swin-T took longer than that beside other steps
DRY = os.environ.get("SWINFT_SMOKE_DRY") == "1"

Found = dict[str, Any]


class Skipped(Exception):
    """This step cannot be done here."""


def device() -> str:
    """Where networks run."""
    return "cpu" if DRY else "cuda"


def run(*words: str, environment: dict[str, str] | None = None, code: int | None = 0, seconds: int = 120) -> str:
    """Output of `python -m swinft WORDS`.

    Raises:
        AssertionError: The exit code is another one than `code`; None for any.
    """
    command = [sys.executable, "-m", "swinft", *words]
    ended = subprocess.run(
        command, capture_output=True, text=True, timeout=seconds, env={**os.environ, **(environment or {})}
    )
    text = ended.stdout + ended.stderr
    assert code is None or ended.returncode == code, f"exit code {ended.returncode} of {words}:\n{text[-3000:]}"
    return text


def fit_words(folder: Path, name: str, *options: str) -> list[str]:
    """Words of a short fit of fold 0 of the demo."""
    words = ["fit", "--config", CONFIG, "--runs", str(folder), "--name", name, "--fold", "0"]
    return [*words, "--trainer.max_epochs", "2", "--trainer.accelerator", "cpu" if DRY else "gpu", *options]


def epochs_of(folder: Path, name: str) -> list[dict[str, float]]:
    """Lines of a fold's metrics."""
    return [json.loads(line) for line in (folder / name / "fold_0" / "metrics.jsonl").read_text().splitlines()]


def environment_step() -> Found:
    """Versions, the driver, and the GPU's capability beside what this torch was built for."""
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

    from swinft.model import window_attention as attention
    from swinft.model.backbone import create_backbone

    place, found = torch.device(device()), {}
    cases = [("swin_tiny_patch4_window7_224", 224), ("swin_base_patch4_window12_384", 384)]
    for name, size in [*cases, ("swinv2_tiny_window8_256", 256)]:
        with torch.device(place):
            model = create_backbone(name, size, pretrained=False, backbone_args={"depths": [2, 2], "embed_dim": 64,
                                                                                 "num_heads": [2, 4]})  # fmt: skip
        blocks = [module for module in model.modules() if attention._is_timms(module)]
        for kernel in ("torch",) if DRY else ("torch", "triton"):
            for block in blocks[:2]:
                for dtype in (torch.float, torch.bfloat16, torch.half)[: 1 if DRY else 3]:
                    key = f"{name} {kernel} {str(dtype)[6:]} {'shifted' if any(block.shift_size) else 'plain'}"
                    found[key] = worst_difference(block, place, kernel, dtype)
    wrong = {key: value for key, value in found.items() if not value <= (0.1 if "16" in key or "half" in key else 0.01)}
    assert not wrong, wrong
    return found


def worst_difference(block: Any, place: Any, kernel: str, dtype: Any) -> float:
    """Of output and gradients of one block, relative to the largest value of each."""
    import copy

    import torch

    from swinft.model import window_attention as attention

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

    from swinft.model.window_kernels import Windows, attend_by_parts

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
    import gpu

    if DRY:
        raise Skipped("benchmarks/gpu.py --toy does it on a CPU")
    model = gpu.Model("swin_tiny_patch4_window7_224", 224, 64)
    return {
        variant.name: gpu.measure(model, variant, 10)["train img/s"]
        for variant in gpu.VARIANTS
        if not variant.is_compiled
    }


def compiled_step() -> Found:
    """Whether 49 keys compile, by torch's operations and by Triton's kernels, and what a first step costs."""
    import gpu

    if DRY:
        raise Skipped("compiling takes minutes on a CPU")
    model = gpu.Model("swin_tiny_patch4_window7_224", 224, 64)
    found = {}
    for variant in gpu.VARIANTS:
        if variant.is_compiled and variant.kernel:
            result = gpu.measure(model, variant, 10)
            found[variant.name] = {key: result[key] for key in ("train img/s", "first step s")}
    return found


# Names every place where the CPU waits for the GPU, once `fit` is past its start.
WATCH = """
import os
if os.environ.get("SWINFT_SMOKE_WATCH"):
    import torch, warnings
    from lightning.pytorch import Trainer
    original = Trainer.fit
    def fit(self, *words, **options):
        warnings.simplefilter("always")
        torch.cuda.set_sync_debug_mode("warn")
        try:
            return original(self, *words, **options)
        finally:
            torch.cuda.set_sync_debug_mode("default")
    Trainer.fit = fit
"""


def fit_step() -> Found:
    """The demo's fold 0, two epochs, and the lines of code that make the CPU wait for the GPU."""
    with tempfile.TemporaryDirectory() as folder:
        root = Path(folder)
        (root / "sitecustomize.py").write_text("" if DRY else WATCH)
        path = os.pathsep.join([folder, *filter(None, [os.environ.get("PYTHONPATH")])])
        text = run(*fit_words(root, "a"), environment={"PYTHONPATH": path, "SWINFT_SMOKE_WATCH": "1"})
        waits = [line for line in text.splitlines() if "called a synchronizing" in line]
        places = [re.sub(r": UserWarning.*|^.*site-packages/", "", line) for line in waits]
        places = [place.removeprefix(f"{REPOSITORY}/")[-90:] for place in places]
        lines = {place: places.count(place) for place in places}
        steps = sum(1 for _ in epochs_of(root, "a")) * 8
        return {"seconds": [line["seconds"] for line in epochs_of(root, "a")], "steps, about": steps, "waits": lines}


def half_step() -> Found:
    """fp16 and fp32: both learn, and nothing is said that is not so."""
    found: Found = {}
    with tempfile.TemporaryDirectory() as folder:
        for precision in ("32-true",) if DRY else ("16-mixed", "32-true"):
            text = run(*fit_words(Path(folder), precision, "--trainer.precision", precision))
            found[precision] = [line["val_log_loss"] for line in epochs_of(Path(folder), precision)]
            warned = [line for line in text.splitlines() if "Warning" in line]
            found[f"{precision} warnings"] = warned[:5]
            assert all(0 < value < 3 for value in found[precision]), found
    return found


def resume_step() -> Found:
    """Four epochs at once, and the same ended after the second and resumed: are the weights the same bytes?"""
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
    """Compares the weights of a fold that ran through with those of one that was ended and resumed."""
    weights = []
    for kind in ("whole", "ended"):
        words = fit_words(folder, f"{name}-{kind}".replace(" ", "_").replace(",", ""), *options)
        words += ["--trainer.max_epochs", "4"]
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
        path = folder / words[words.index("--name") + 1] / "fold_0" / "weights.safetensors"
        weights.append(path.read_bytes())
    return "same bytes" if weights[0] == weights[1] else "other bytes"


def input_step() -> Found:
    """Images augmented on the device, and loader processes: both fit; seconds of the second epoch."""
    found = {}
    cases = {
        "cpu, 0 workers": [],
        "cpu, 4 workers": ["--data.num_workers", "4"],
        "device": ["--data.augment_on", "device", "--data.cache", "true"],
    }
    with tempfile.TemporaryDirectory() as folder:
        for name, options in cases.items():
            words = fit_words(Path(folder), name.replace(" ", "_").replace(",", ""), *options)
            run(*words, environment={"XDG_CACHE_HOME": folder})
            found[name] = epochs_of(Path(folder), words[words.index("--name") + 1])[-1]["seconds"]
    return found


def predict_step() -> Found:
    """Two views of one fold on the GPU, plain and compiled, beside the CPU's fp32."""
    import numpy as np
    import pandas as pd

    with tempfile.TemporaryDirectory() as folder:
        root = Path(folder)
        run(*fit_words(root, "a"))
        tables, seconds = {}, {}
        cases = {"cpu": ["--device", "cpu"], "gpu": ["--device", device()]}
        if not DRY:
            cases["compiled"] = ["--device", "cuda", "--compile", "true"]
        for name, options in cases.items():
            started = time.perf_counter()
            output = root / f"{name}.csv"
            run("predict", str(root / "a"), "--folds", "0", "--views", "identity,hflip", "--output", str(output),
                *options)  # fmt: skip
            seconds[name] = round(time.perf_counter() - started, 1)
            tables[name] = pd.read_csv(output).select_dtypes("number").to_numpy()
        worst = {name: float(np.abs(table - tables["cpu"]).max()) for name, table in tables.items()}
        assert max(worst.values()) < 2e-2, worst
        return {"largest difference": worst, "seconds": seconds}


def memory_step() -> Found:
    """A batch that no GPU holds: exit code, and what is said."""
    if DRY:
        raise Skipped("memory of a GPU")
    with tempfile.TemporaryDirectory() as folder:
        options = ["--model.backbone", "swin_large_patch4_window12_384", "--model.backbone_args", "null"]
        options += ["--data.image_size", "768", "--data.batch_size", "300", "--data.cache", "false"]
        text = run(*fit_words(Path(folder), "a", *options), code=None, seconds=SECONDS - 5)
    assert "out of memory" in text.lower(), text[-2000:]
    return {"said": text[-700:], "lines": len(text.splitlines())}


def together_step() -> Found:
    """Two folds at once on one GPU, with Triton's kernels, whose cache they share."""
    kernel = "true" if DRY else "triton"
    with tempfile.TemporaryDirectory() as folder:
        options = ["--model.fast_attention", kernel]
        words = fit_words(Path(folder), "a", *options)
        environment = {"TRITON_CACHE_DIR": f"{folder}/triton"}
        run(*words, environment=environment)
        (fold,) = [index for index, word in enumerate(words) if word == "--fold"]
        others = [[*words[: fold + 1], str(k), *words[fold + 2 :], "--resume"] for k in (1, 2)]
        with ThreadPoolExecutor(2) as pool:
            list(pool.map(lambda each: run(*each, environment=environment), others))
    return {}


def whole_step() -> Found:
    """`fit` of three folds, as its own processes, `predict` and `submit`: the whole way."""
    with tempfile.TemporaryDirectory() as folder:
        words = fit_words(Path(folder), "a")
        fold = words.index("--fold")
        del words[fold : fold + 2]
        started = time.perf_counter()
        run(*words, "--data.folds", "null", seconds=SECONDS - 20)
        run("predict", f"{folder}/a", "--device", device())
        run("submit", f"{folder}/a")
        lines = len((Path(folder) / "a" / "submission.csv").read_text().splitlines())
        assert lines == 103, lines
        return {"seconds": round(time.perf_counter() - started, 1)}


STEPS: dict[str, Callable[[], Found]] = {
    function.__name__.removesuffix("_step"): function
    for function in (
        environment_step, attention_step, sdpa_step, speed_step, compiled_step, whole_step, fit_step, half_step,
        resume_step, input_step, predict_step, together_step, memory_step,
    )
}  # fmt: skip
ALONE = {"environment", "speed", "compiled", "memory"}


def outcome(name: str, dry: bool) -> Found:
    """Runs one step in a process of its own."""
    environment = {**os.environ, "SWINFT_SMOKE_DRY": str(int(dry))}
    started = time.perf_counter()
    process = subprocess.Popen(
        [sys.executable, __file__, "--only", name], stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True,
        env=environment, cwd=REPOSITORY, start_new_session=True,
    )  # fmt: skip
    try:
        text, _ = process.communicate(timeout=SECONDS * (3 if dry else 1))
    except subprocess.TimeoutExpired:
        os.killpg(process.pid, signal.SIGKILL)
        text = process.communicate()[0] + f"\nended after {SECONDS} s"
    found: Found = {"status": "FAILED", "said": text[-3000:]}
    if process.returncode == 0 and text.strip():
        found = json.loads(text.strip().splitlines()[-1])
    found["seconds"] = round(time.perf_counter() - started, 1)
    print(f"{found['status']:<8}{name:<12}{found['seconds']:>6.1f} s  "
          f"{json.dumps(found.get('found')) if 'found' in found else found.get('said', '')}", flush=True)  # fmt: skip
    return found


def only(name: str) -> None:
    """One step, in this process; its last line is JSON."""
    try:
        answer: Found = {"status": "ok", "found": STEPS[name]()}
    except Skipped as reason:
        answer = {"status": "skipped", "said": str(reason)}
    except Exception:  # whatever it is, it is the finding
        answer = {"status": "FAILED", "said": traceback.format_exc()[-3000:]}
    print("\n" + json.dumps(answer, default=str))


def main() -> int:
    """Runs the steps; exit code 1 if one failed."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--steps", default=",".join(STEPS), help="names, joined by commas")
    parser.add_argument("--dry", action="store_true", help="what a CPU can do; writes no result")
    parser.add_argument("--output", type=Path, help="a folder for a copy of the result")
    parser.add_argument("--only", help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.only:
        only(options.only)
        return 0
    names = options.steps.split(",")
    if unknown := set(names) - set(STEPS):
        parser.error(f"no such step: {', '.join(sorted(unknown))}. Allowed: {', '.join(STEPS)}.")
    results: dict[str, Found] = {}

    def note(name: str) -> None:
        results[name] = outcome(name, options.dry)
        folders = [] if options.dry else [REPOSITORY / "benchmarks" / "results", *filter(None, [options.output])]
        for folder in folders:
            folder.mkdir(exist_ok=True, parents=True)
            (folder / RESULT).write_text(json.dumps({n: results[n] for n in STEPS if n in results}, indent=1) + "\n")

    for name in filter(lambda name: name in ALONE - {"compiled", "memory"}, names):
        note(name)
    with ThreadPoolExecutor(1 if options.dry else 4) as pool:
        list(pool.map(note, [name for name in names if name not in ALONE]))
    for name in filter(lambda name: name in ("memory", "compiled"), names):  # what may take all there is comes last
        note(name)
    failed = [name for name, found in results.items() if found["status"] == "FAILED"]
    print(f"{len(results) - len(failed)} of {len(results)} steps did not fail" + f"; failed: {failed}" * bool(failed))
    return int(bool(failed))


if __name__ == "__main__":
    sys.exit(main())
