"""Measures Swin on one NVIDIA GPU: training, prediction, swinft's loop, and the speed of the input.

    python benchmarks/gpu.py                      # the most important first, until 420 s have passed
    python benchmarks/gpu.py --seconds 120        # what fits; a second run on the same GPU continues
    python benchmarks/gpu.py --toy                # tiny networks on the CPU, not compiled; a test runs this

For each model: timm's definition with its own attention and with torch's fused one, and swinft's (timm's weights,
faster window attention in torch's operations), each eager and with `torch.compile`, as a bare loop on images already on
the device. FLOPs are those of matrix multiplications in timm's forward pass, times three for training; the peak is the
data sheet's, or that of a 8192³ matrix product in bf16 for other chips. Images per second are of many steps without
synchronisation, as in a real loop; "one by one" synchronises after every step. Then `swinft fit` and `swinft predict`
compared with hand-written loops; the speed of swinft's loader from its cache, from JPEGs and from images on the device,
and of training on them; and convolutional networks in both memory formats.

A separate process measures. A case that takes too long is killed; one that does not fit into the remaining seconds is
skipped, and reported; a failure is recorded with its error. benchmarks/results/gpu.json is written after every variant,
with a copy in the folder `--output`, so that an interrupted run loses nothing. A later run measures what is missing,
and repeats what depends on changed code.
"""

import argparse
import hashlib
import json
import math
import re
import tempfile
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import partial
from importlib.metadata import version
from pathlib import Path
from typing import Any

from gpu_cases import (
    DEVICE,
    EFFICIENTNET,
    LAYOUTS,
    LOADER_IMAGES,
    RESNET,
    SWIN_B,
    SWIN_B_384,
    SWIN_T,
    TOY,
    TOY_RESNET,
    VARIANTS,
    Model,
    Variant,
    about_device,
    make_competition,
    measured,
    optimizer_groups,
    own_commands,
    own_loop,
    supply,
)
from measure import RESULTS, machine, write
from worker import Worker

ATTENTION = Path(__file__).parent.parent / "swinft" / "model" / "attention"
COMPILED = [variant for variant in VARIANTS if variant.is_compiled]
EAGER = [variant for variant in VARIANTS if not variant.is_compiled]
# What the goals compare first: the faster one of ours and of timm's on an H200.
RIVALS = ("fast attention, compiled", "timm fused, compiled")


@dataclass(frozen=True)
class Case:
    """A measurement.

    Args:
        keys: Nested keys of its result.
        work: Measures it, in a separate process.
        least: Minimum of seconds: it is not started with fewer left.
        most: Seconds after which it is killed.
        kernel: Of swinft's window attention; None if it does not depend on that.
    """

    keys: tuple[str, ...]
    work: Callable[[], dict[str, Any]]
    least: float = 10
    most: float = 90
    kernel: str | None = None

    @property
    def name(self) -> str:
        """Name in the output."""
        return "/".join(self.keys)


def of_model(model: Model, variants: list[Variant], peak: float, steps: int, factor: float = 1) -> Iterator[Case]:
    """The variants of a model; compilation takes a multiple of the time for Swin-T."""
    for variant in variants:
        keys = ("models", str(model), "variants", variant.name)
        work = partial(measured, model, variant, steps, peak)
        least, most = (30 * factor, 200 * factor) if variant.is_compiled else (10, 60)
        yield Case(keys, work, least, most, variant.kernel)


def plan(found: dict[str, Any], root: Path, options: argparse.Namespace) -> Iterator[Case]:
    """All cases, the most important first."""
    peak, steps = found["peak TFLOP/s"] * 1e12, options.steps
    tiny, base, net = (TOY, TOY, TOY_RESNET) if options.toy else (SWIN_T, SWIN_B, RESNET)
    compiled = [] if options.toy else COMPILED
    # A busy CPU takes ten seconds to start one.
    workers = dict.fromkeys(("commands", "device", "JPEG"), 0 if options.toy else options.workers)
    workers["cache"] = options.workers

    def supplied(source: str) -> Case:
        return Case(("supply", source), partial(supply, root, tiny, workers[source], source), 30, 120)

    first = [variant for name in RIVALS for variant in compiled if variant.name == name]
    others = [variant for variant in compiled if variant.name not in RIVALS]
    # Each of the goals by its first measurement, then what completes them.
    yield Case(("commands",), partial(own_commands, root, tiny, workers["commands"]), 60, 200)
    yield from of_model(base, first[:1], peak, steps, factor=1.5)
    yield supplied("cache")
    yield from of_model(tiny, first, peak, steps)
    yield from of_model(tiny, EAGER, peak, steps)
    yield Case(("loop",), partial(own_loop, tiny, steps, None), 20, 90)
    yield from of_model(tiny, others, peak, steps)
    yield from of_model(base, [*first[1:], *others], peak, steps, factor=1.5)
    yield Case(("loop with averaged weights",), partial(own_loop, tiny, steps, 0.999), 20, 90)
    yield supplied("device")
    yield supplied("JPEG")
    yield from of_model(net, LAYOUTS, peak, steps)
    if not options.toy:
        yield from of_model(EFFICIENTNET, LAYOUTS, peak, steps)
        yield from of_model(SWIN_B, EAGER[::-1], peak, steps)
        yield from of_model(SWIN_B_384, [*EAGER[::-1], *COMPILED[::-1]], peak, steps, factor=1.5)
    yield Case(("optimizer",), partial(optimizer_groups, tiny))


def fastest(found: dict[str, Any], model: Model, variants: list[Variant], kind: str = "train") -> tuple[float, str]:
    """Images per second and name of the fastest measured variant; NaN if none was measured."""
    rows = found.get("models", {}).get(str(model), {}).get("variants", {})
    rates = {v.name: rows[v.name][f"{kind} img/s"] for v in variants if f"{kind} img/s" in rows.get(v.name, {})}
    name = max(rates, key=lambda each: rates[each], default="")
    return rates.get(name, math.nan), name


def attention(found: dict[str, Any], model: Model) -> list[dict[str, Any]]:
    """The fastest measured attention, and the one that `swinft fit` chose."""
    chosen, winners = found.get("commands", {}).get("attention", {}), []
    for what, kind in (("training", "train"), ("prediction", "predict")):
        for how, variants in (("eager", EAGER), ("compiled", COMPILED)):
            rate, name = fastest(found, model, variants, kind)
            if name:
                # `swinft fit` compiles only if configured: it chooses among eager variants.
                own = chosen.get(what) if how == "eager" else None
                winners.append({"what": what, "how": how, "fastest": name, "img/s": rate, "swinft fit": own})
    return winners


def own_share(found: dict[str, Any], what: str) -> float:
    """Speed of the attention that `swinft fit` chose for Swin-T, relative to the fastest eager one; NaN if unknown."""
    rows = found.get("models", {}).get(str(SWIN_T), {}).get("variants", {})
    kind = {"training": "train", "prediction": "predict"}[what]
    name = found.get("commands", {}).get("attention", {}).get(what, "")
    return float(rows.get(name, {}).get(f"{kind} img/s", math.nan)) / fastest(found, SWIN_T, EAGER, kind)[0]


def goals(found: dict[str, Any]) -> list[dict[str, Any]]:
    """The goals; `met` is None if not measured."""
    supplied, run = found.get("supply", {}), found.get("commands", {})
    ours = [variant for variant in VARIANTS if variant.kernel]
    theirs = [variant for variant in COMPILED if not variant.kernel]
    (best, own), (rival, other) = fastest(found, SWIN_T, ours), fastest(found, SWIN_T, theirs)
    fed = [supplied.get(f"cache training img/s{end}", math.nan) for end in ("", ", images ready")]
    loop = [run.get(f"fit {end}", math.nan) for end in ("by hand img/s", "img/s")]
    against = f"Swin-T trained, ours{own and f' ({own})'} × the faster of timm compiled{other and f' ({other})'}"
    wanted = [
        (against, best / rival, "least", 1.3),
        # Less than the margin of the choice would be chance.
        *(
            (f"attention that swinft fit takes in {what}, × the fastest", own_share(found, what), "least", 0.95)
            for what in ("training", "prediction")
        ),
        ("Swin-B trained, images/s", fastest(found, SWIN_B, ours)[0], "least", 2500),
        ("Swin-T from cached JPEGs, × images that lie ready", fed[0] / fed[1], "least", 0.95),
        ("steps of swinft fit, × the time of a loop by hand", loop[0] / loop[1], "most", 1.03),
    ]
    return [
        {
            "what": what,
            "value": None if math.isnan(value) else value,
            "bound": bound,
            "limit": limit,
            "met": None if math.isnan(value) else bool(value >= limit if bound == "least" else value <= limit),
        }
        for what, value, bound, limit in wanted
    ]


def put(found: dict[str, Any], keys: tuple[str, ...], result: dict[str, Any]) -> None:
    """Stores a result under nested keys; the supply's sources share one table."""
    *sections, last = keys[:1] if keys[0] == "supply" and "error" not in result else keys
    place = found
    for key in sections:
        place = place.setdefault(key, {})
    place[last] = place.get(last, {}) | result if keys[0] == "supply" else result
    found.setdefault("done", []).append("/".join(keys))


def judge(found: dict[str, Any], cases: list[Case]) -> None:
    """Computes derived results."""
    found |= {"goals": goals(found), "attention": attention(found, SWIN_T)}
    found["not measured"] = [case.name for case in cases if case.name not in found["done"]]


def save(found: dict[str, Any], cases: list[Case], options: argparse.Namespace) -> None:
    """Writes the results so far."""
    judge(found, cases)
    if options.toy:
        return
    for folder in filter(None, [RESULTS, options.output]):
        folder.mkdir(parents=True, exist_ok=True)
        (folder / "gpu.json").write_text(json.dumps(found, indent=1) + "\n")


def code() -> str:
    """Which code computes the attention."""
    files = sorted(ATTENTION.glob("*.py"))
    return hashlib.sha256(b"".join(file.read_bytes() for file in files)).hexdigest()[:16]


def begin(about: dict[str, Any], options: argparse.Namespace) -> dict[str, Any]:
    """The device, and earlier results on the same device that are still valid."""
    earlier = RESULTS / "gpu.json"
    if not options.toy and not options.remeasure and earlier.is_file():
        found: dict[str, Any] = json.loads(earlier.read_text())
        if found["device"] == about["device"] and found["machine"]["torch"] == version("torch"):
            if found.get("code") != code():
                forget_ours(found)
            return found | {"code": code()}
    return {"machine": machine(), **about, "code": code(), "done": []}


def forget_ours(found: dict[str, Any]) -> None:
    """Drops all results of the faster attention after its code changed."""
    ours = {variant.name for variant in VARIANTS if variant.kernel}
    for rows in (model["variants"] for model in found.get("models", {}).values()):
        for name in ours & set(rows):
            del rows[name]
    for key in set(found) & {"loop", "loop with averaged weights", "commands", "supply"}:
        del found[key]
    kept = [name for name in found["done"] if name.startswith("models/") and name.rpartition("/")[2] not in ours]
    found["done"] = kept


def chosen(cases: list[Case], patterns: list[str]) -> list[Case]:
    """The cases whose names contain a pattern, in the order of the patterns; all cases without patterns."""
    found = [case for pattern in patterns for case in cases if re.search(pattern, case.name)]
    return list(dict.fromkeys(found)) if patterns else cases


def measure_all(options: argparse.Namespace, root: Path, worker: Worker) -> dict[str, Any]:
    """Measures cases until the time is over, and writes after every case."""
    until = time.perf_counter() + options.seconds
    found = begin(worker.ask(about_device, 60), options)
    cases = list(plan(found, root, options))
    for case in chosen(cases, options.cases):
        left = until - time.perf_counter()
        if case.name in found["done"]:
            continue
        if left < case.least:
            print(f"{case.name}: left out, {left:.0f} s are left, and it takes {case.least:.0f}", flush=True)
            continue
        if case.keys[0] in ("commands", "supply") and not (root / "train.csv").exists():
            make_competition(root, 160 if options.toy else LOADER_IMAGES)
            left = until - time.perf_counter()
        try:
            result = worker.ask(case.work, min(case.most, left))
        except TimeoutError as error:
            if left < case.most:
                print(f"{case.name}: left out, it was not done when the time was over", flush=True)
                continue
            result = {"error": str(error)}
        shown = {key: round(value, 2) if isinstance(value, float) else value for key, value in result.items()}
        print(f"{options.seconds - until + time.perf_counter():5.0f} s  {case.name}: {shown}", flush=True)
        put(found, case.keys, result)
        save(found, cases, options)
    save(found, cases, options)
    return found


def main() -> None:
    """Measures, prints, writes the results after every variant."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--toy", action="store_true", help="tiny networks, few steps; writes nothing")
    parser.add_argument("--steps", type=int, default=20)
    parser.add_argument("--workers", type=int, default=12)
    parser.add_argument("--seconds", type=float, default=420, help="of everything together")
    parser.add_argument(
        "--cases",
        nargs="+",
        default=[],
        metavar="PATTERN",
        help="only cases named so, in this order: loop 'base.*fused'",
    )
    parser.add_argument("--remeasure", action="store_true", help="measure again what an earlier run has")
    parser.add_argument("--output", type=Path, help="a folder for a copy of the result")
    options = parser.parse_args()
    if not options.toy and DEVICE.type != "cuda":
        parser.error("there is no NVIDIA GPU here; --toy exercises the script on the CPU")
    if options.toy:
        options.steps, options.workers, options.seconds = 2, 1, 3600
    worker = Worker()
    with tempfile.TemporaryDirectory() as folder:
        try:
            found = measure_all(options, Path(folder), worker)
        finally:
            worker.end()
    print(*found["attention"], *found["goals"], sep="\n")
    if not options.toy:
        write("gpu", found)


if __name__ == "__main__":
    main()
