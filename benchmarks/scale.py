"""Measures how a forward pass scales with the image size at constant window size.

    python benchmarks/scale.py
    python benchmarks/scale.py --sizes 112 224 --batch 1 --rounds 2

Counts the multiply-accumulates (MACs) of a Swin-T with windows of 7 at each size, times its forward pass in torch fp32,
and draws both. Attention within windows is linear in the number of pixels, so a doubled side should cost four times as
much. The exception is 112 px: its last stage is 3.5 patches wide and is padded to 4, so that 224 px cost less than four
times as much. About 2 minutes on 2 cores. Writes benchmarks/results/scale.json and scale.png.
"""

import argparse
from itertools import pairwise
from typing import Any

import timm
import torch
from matplotlib.figure import Figure
from measure import RESULTS, add_timing, interleave, load, machine, ratios, spread, write
from torch.utils.flop_counter import FlopCounterMode

from swinft.system.allocator import keep_freed_memory

MODEL = "swin_tiny_patch4_window7_224"
WINDOW = 7


def create(size: int) -> Any:
    """A Swin-T without its classifier, whose cost is independent of the image size."""
    return timm.create_model(MODEL, img_size=size, window_size=WINDOW, num_classes=0).eval()


def count(model: Any, size: int) -> dict[str, float]:
    """Counted MACs of an image, in total and in attention, and the latter by the closed form.

    The closed form of window attention on h × w patches with C channels and windows of M × M is 4hwC² + 2M²hwC: the
    projections to queries, keys, values and out, then the two products within each window.
    """
    with torch.inference_mode(), FlopCounterMode(display=False) as counter:
        model(torch.zeros(1, 3, size, size))
    total = counter.get_total_flops() / 2  # a multiply and an add
    by_module = counter.get_flop_counts()
    attention = sum(sum(counts.values()) for name, counts in by_module.items() if name.endswith(".attn")) / 2
    closed = 0
    for block in (block for stage in model.layers for block in stage.blocks):
        height, width = block.input_resolution
        rows, columns = block.window_size
        closed += 4 * height * width * block.dim**2 + 2 * rows * columns * height * width * block.dim
    return {"macs": total, "attention_macs": attention, "attention_macs_closed_form": closed}


def measure(sizes: list[int], batch: int, timing: argparse.Namespace) -> dict[str, Any]:
    """MACs and seconds by size, and their growth from each size to the next."""
    models = {size: create(size) for size in sizes}
    images = {size: torch.rand(batch, 3, size, size) for size in sizes}
    with torch.inference_mode():
        seconds, disturbed = interleave(
            [{str(size): lambda size=size: models[size](images[size]) for size in sizes}], timing
        )
    by_size = {
        str(size): {**count(models[size], size), "seconds_per_image": spread([s / batch for s in seconds[str(size)]])}
        for size in sizes
    }
    growth = {
        f"{small} to {large} px": {
            "macs": by_size[str(large)]["macs"] / by_size[str(small)]["macs"],
            "seconds": ratios(seconds[str(large)], seconds[str(small)]),
        }
        for small, large in pairwise(sizes)
    }
    return {"disturbed_measurements": disturbed, "sizes": by_size, "growth": growth}


def draw(results: dict[str, Any], batch: int, clock: str) -> Figure:
    """Plots time and MACs over the side, logarithmic, each with a line proportional to the pixels."""
    sizes = [int(size) for size in results["sizes"]]
    rows = list(results["sizes"].values())
    figure = Figure(figsize=(10, 4.2), layout="constrained")
    left, right = figure.subplots(1, 2)
    times = [{key: value * 1e3 for key, value in row["seconds_per_image"].items()} for row in rows]
    middle = [value["median"] for value in times]
    errors = [[t["median"] - t["low"] for t in times], [t["high"] - t["median"] for t in times]]
    left.errorbar(sizes, middle, errors, marker="o", capsize=4, label="measured: median, range")
    left.set(ylabel=f"{clock} per image (ms)", title=f"torch fp32, batches of {batch}")
    series = {"all": "macs", "W-MSA, counted": "attention_macs", "W-MSA, closed form": "attention_macs_closed_form"}
    for (label, key), style in zip(series.items(), ("o-", "s-", "k+"), strict=True):
        right.plot(sizes, [row[key] / 1e9 for row in rows], style, label=label, markersize=6 if style != "k+" else 12)
    right.set(ylabel="MACs per image (10⁹)", title="multiply-accumulates")
    base = sizes.index(224) if 224 in sizes else 0
    for axes, at_base in ((left, middle[base]), (right, rows[base]["macs"] / 1e9)):
        linear = [at_base * (size / sizes[base]) ** 2 for size in sizes]
        axes.plot(sizes, linear, ":", color="grey", label=f"pixels, through {sizes[base]} px")
        axes.set(xscale="log", yscale="log", xlabel="side of the image (px)")
        axes.set_xticks(sizes, [str(size) for size in sizes])
        axes.minorticks_off()
        axes.grid(alpha=0.3)
        axes.legend()
    figure.suptitle(f"Swin-T, windows of {WINDOW} × {WINDOW}")
    return figure


def main() -> None:
    """Measures, prints, writes and draws."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--sizes", type=int, nargs="+", default=[112, 224, 448, 896], help="sides in pixels, ascending")
    parser.add_argument("--batch", type=int, default=4, help="images per forward, the same at every size")
    add_timing(parser, rounds=7)
    parser.add_argument("--return-memory", action="store_true", help="let the C library return freed memory at once")
    arguments = parser.parse_args()
    torch.set_num_threads(arguments.threads or torch.get_num_threads())
    torch.manual_seed(0)
    keeps_memory = not arguments.return_memory and keep_freed_memory(torch.device("cpu"))
    about = {"machine": machine(), "keeps_memory": keeps_memory}
    results = measure(arguments.sizes, arguments.batch, arguments)
    about["load_after"] = load()
    write("scale", {**about, **vars(arguments), "model": MODEL, "window": WINDOW, **results})
    draw(results, arguments.batch, "CPU time" if arguments.cpu_time else "time").savefig(RESULTS / "scale.png", dpi=120)


if __name__ == "__main__":
    main()
