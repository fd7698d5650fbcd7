"""Times a training step of timm's Swin, of the same with faster attention, and of swinft's whole loop.

    python benchmarks/step.py
    python benchmarks/step.py --memory returned --precision bf16
    python benchmarks/step.py --model swinv2_tiny_window8_256 --image-size 256 --batch 4 --steps 10 --precision bf16

All train the same network from the same weights on the same tensors in one process, one step each in turn, so that
other load affects all of them. swinft's step is the time from the end of one batch to the end of the next in
Lightning's loop, including loader, hooks, optimiser and schedule. If other programs use the cores, processor time is
more reliable than the clock. On a CPU, freed memory is kept, as in `swinft fit`. The effect of this is measured in
separate processes, in turn: timm's Swin in a bare loop with default memory handling, and swinft's whole loop. With
`--memory returned` freed memory is not kept, and there are no separate processes. Writes benchmarks/results/step.json,
or step-memory-returned.json.
"""

import argparse
import copy
import json
import statistics
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from itertools import cycle

import lightning.pytorch as pl
import numpy as np
import torch
from measure import machine, spread, write
from torch import Tensor, nn
from torch.nn import functional
from torch.utils.data import DataLoader

from swinft import ClassificationHead, FineTuneTask
from swinft.model.attention.swin import accelerate
from swinft.model.settings import TaskContext
from swinft.model.training.optim import param_groups
from swinft.model.training.optimizers import make_optimizer
from swinft.system.allocator import keep_freed_memory
from swinft.system.precision import autocast, cpu_is_faster_in_bf16

CLASSES = 10
WARMUP = 3  # warm-up steps, not counted
DEVICE = torch.device("cuda" if torch.cuda.is_available() else "cpu")
PRECISIONS = {"fp32": "32-true", "bf16": "bf16-mixed"}

Batch = dict[str, Tensor]
Times = dict[str, list[np.ndarray]]  # seconds by the clock and of the processor, for each step
CLOCKS = ["clock", "processor"]


def batches(options: argparse.Namespace) -> list[Batch]:
    """Four batches of noise, on the device."""
    generator = torch.Generator().manual_seed(0)
    shape = (options.batch, 3, options.image_size, options.image_size)
    made = []
    for _ in range(4):
        image = torch.randint(0, 256, shape, dtype=torch.uint8, generator=generator)
        target = torch.randint(0, CLASSES, (options.batch,), generator=generator)
        made.append({"image": image, "target": target, "row": torch.arange(options.batch)})
    return [{name: tensor.to(DEVICE) for name, tensor in batch.items()} for batch in made]


def now() -> np.ndarray:
    """Wall-clock and processor seconds, after synchronising the device."""
    if DEVICE.type == "cuda":
        torch.cuda.synchronize()
    return np.array([time.perf_counter(), time.process_time()])


def bare_step(task: FineTuneTask, net: nn.Module, data: Iterator[Batch], precision: str) -> Callable[[], None]:
    """A hand-written training step, with swinft's optimiser."""
    net = net.to(DEVICE).train()
    optimizer = make_optimizer(
        param_groups(net.backbone, [net.head], task.optim), task.optim, DEVICE, scales_loss=False
    )

    def step() -> None:
        batch = next(data)
        optimizer.zero_grad()
        with autocast(precision, DEVICE):
            loss = functional.cross_entropy(net(batch["image"]), batch["target"])
        loss.backward()
        optimizer.step()

    return step


def bare_prediction(net: nn.Module, data: Iterator[Batch], precision: str) -> Callable[[], None]:
    """A forward pass for predictions."""
    net = net.to(DEVICE).eval()

    def step() -> None:
        with torch.inference_mode(), autocast(precision, DEVICE):
            net(next(data)["image"])

    return step


def run_in_turn(steps: dict[str, Callable[[], None]], times: Times, turn: int) -> None:
    """One step of each, in rotating order."""
    names = list(steps)
    first = turn % max(1, len(names))
    for name in names[first:] + names[:first]:
        started = now()
        steps[name]()
        times[name].append(now() - started)


class Rivals(pl.Callback):
    """Times Lightning's steps, and runs the bare steps between them.

    Args:
        steps: The bare steps.
    """

    def __init__(self, steps: dict[str, Callable[[], None]]) -> None:
        self.steps = steps
        self.times: Times = {name: [] for name in [*steps, "swinft"]}
        self.resumed: np.ndarray | None = None

    def on_train_batch_end(self, trainer: pl.Trainer, task: pl.LightningModule, *_: object) -> None:
        """Stops swinft's clock, runs the others, and starts it again."""
        if self.resumed is not None:  # the first step contains the start of the training
            self.times["swinft"].append(now() - self.resumed)
            run_in_turn(self.steps, self.times, trainer.global_step)
        self.resumed = now()


def make_task(options: argparse.Namespace) -> FineTuneTask:
    """The network of all loops, always with the same weights."""
    torch.manual_seed(0)
    context = TaskContext(image_size=options.image_size)
    return FineTuneTask(ClassificationHead, options.model, False, num_outputs=CLASSES, context=context)


def take_turns(options: argparse.Namespace, steps: dict[str, Callable[[], None]]) -> Times:
    """Seconds of steps in turn, including the warm-up."""
    times: Times = {name: [] for name in steps}
    for turn in range(options.steps + WARMUP):
        run_in_turn(steps, times, turn)
    return times


def alone(options: argparse.Namespace, who: str, precision: str) -> list[float]:
    """Seconds of training steps by the clock, of timm's network in a bare loop or of swinft, alone in a process."""
    task = make_task(options)
    if who == "swinft":
        keep_freed_memory(DEVICE)
        accelerate(task.net, DEVICE)
        times = train(options, task, {}, PRECISIONS[precision])["swinft"]
    else:
        step = bare_step(task, task.net, cycle(batches(options)), PRECISIONS[precision])
        times = take_turns(options, {"timm": step})["timm"]
    return [float(clock) for clock, _ in times[WARMUP:]]


def whole(options: argparse.Namespace, precision: str) -> dict[str, object]:
    """Median seconds of steps of both, each in a separate process, and the ratio per round."""
    rounds: list[dict[str, float]] = []
    for number in range(options.rounds):
        found = {}
        for who in ("timm", "swinft") if number % 2 else ("swinft", "timm"):
            command = [sys.executable, __file__, "--alone", who, "--precision", precision, "--model", options.model]
            for name in ("image_size", "batch", "steps"):
                command += [f"--{name.replace('_', '-')}", str(getattr(options, name))]
            done = subprocess.run(command, capture_output=True, text=True, check=True)
            found[who] = statistics.median(json.loads(done.stdout.splitlines()[-1]))
        rounds.append(found)
    return {"seconds": rounds, "speed": spread([found["timm"] / found["swinft"] for found in rounds])}


def train(options: argparse.Namespace, task: FineTuneTask, nets: dict[str, nn.Module], precision: str) -> Times:
    """Seconds of training steps, swinft's and the bare ones."""
    data = batches(options)
    rivals = Rivals({name: bare_step(task, net, cycle(data), precision) for name, net in nets.items()})
    steps = options.steps + WARMUP + 1
    trainer = pl.Trainer(
        accelerator=DEVICE.type, devices=1, precision=precision, max_steps=steps, callbacks=[rivals], logger=False,
        enable_checkpointing=False, enable_progress_bar=False, enable_model_summary=False, limit_val_batches=0,
    )  # fmt: skip
    trainer.fit(task, DataLoader([data[i % len(data)] for i in range(steps)], batch_size=None))
    return rivals.times


def predict(options: argparse.Namespace, nets: dict[str, nn.Module], precision: str) -> Times:
    """Seconds of forward passes of the bare networks."""
    data = batches(options)
    return take_turns(options, {name: bare_prediction(net, cycle(data), precision) for name, net in nets.items()})


def summary(times: Times) -> dict[str, dict[str, dict[str, float]]]:
    """Quartiles of the seconds, and of the speed relative to timm's and the time relative to the bare loop's."""
    measured = {name: np.array(values[WARMUP:]) for name, values in times.items()}
    result: dict[str, dict[str, dict[str, float]]] = {}
    for name, own in measured.items():
        kinds = {"seconds": own, "speed": measured["timm"] / own, "over_bare": own / measured["fast"]}
        for column, clock in enumerate(CLOCKS):
            row = result.setdefault(name, {}).setdefault(clock, {})
            for kind, values in kinds.items():
                low, median, high = np.quantile(values[:, column], [0.25, 0.5, 0.75]).tolist()
                row |= {kind: median, f"{kind}_low": low, f"{kind}_high": high}
    return result


def measure(options: argparse.Namespace, precision: str) -> dict[str, object]:
    """Both measurements in one precision."""
    task = make_task(options)
    nets = {"timm": copy.deepcopy(task.net), "fast": copy.deepcopy(task.net)}
    accelerate(nets["fast"], DEVICE)
    accelerate(task.net, DEVICE)
    predictions = summary(predict(options, nets, PRECISIONS[precision]))
    return {"train": summary(train(options, task, nets, PRECISIONS[precision])), "predict": predictions}


def main() -> None:
    """Measures, writes the results and prints them."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--model", default="swin_tiny_patch4_window7_224")
    parser.add_argument("--image-size", type=int, default=224, help="pixels")
    parser.add_argument("--batch", type=int, default=32, help="images")
    parser.add_argument("--steps", type=int, default=16, help="that are timed")
    parser.add_argument("--precision", choices=list(PRECISIONS), nargs="+", help="default: all that are fast here")
    parser.add_argument("--rounds", type=int, default=5, help="of processes of their own")
    parser.add_argument("--memory", choices=["kept", "returned"], default="kept", help="when freed, by everybody")
    parser.add_argument("--alone", choices=["timm", "swinft"], help="measure this one, print one line of JSON")
    options = parser.parse_args()
    has_bf16 = DEVICE.type == "cuda" or cpu_is_faster_in_bf16()
    precisions = options.precision or (["fp32", "bf16"] if has_bf16 else ["fp32"])
    if options.alone:
        print(json.dumps(alone(options, options.alone, precisions[-1])))
        return
    if options.memory == "kept":  # as in `swinft fit`
        keep_freed_memory(DEVICE)
    about = machine()
    processes = whole(options, precisions[-1]) if options.memory == "kept" else None
    results = {precision: measure(options, precision) for precision in precisions}
    written = {"options": vars(options), "machine": about, "results": results, "processes of their own": processes}
    write("step" if options.memory == "kept" else "step-memory-returned", written)


if __name__ == "__main__":
    main()
