"""Chooses the precision, attention and batch of a run: in this process for a CPU, in a child process for a GPU.

The parent process of the folds must not hold any GPU memory.
"""

import json
import math
import os
from collections.abc import Callable, Sequence
from dataclasses import asdict, replace
from functools import partial
from pathlib import Path
from tempfile import TemporaryDirectory

import torch
from jsonargparse import Namespace

from swinft.data.schema import Schema
from swinft.errors import InputError
from swinft.model.attention.swin import FastAttention, attentions, refuse_impossible, restore, set_attention
from swinft.model.compiling import COMPILED_STEPS, should_compile
from swinft.model.network import ImageModel
from swinft.model.timing import StepTimer, choose
from swinft.printing import format_rate
from swinft.run.compute.choices import NAMES, Choice, default_choice, format_rates, halved, read_cached, write_cached
from swinft.run.compute.out_of_memory import LackOfMemory, explain_out_of_memory, out_of_memory_explained
from swinft.run.compute.trial import Candidates, Trial, TriedTask, cache_key
from swinft.run.experiment import Experiment
from swinft.run.folds.planned import Planned
from swinft.run.folds.teacher import teacher_of, teachers_of
from swinft.system.allocator import keep_freed_memory, return_freed_memory
from swinft.system.memory import memory_use
from swinft.system.precision import Precision, autocast, half_dtype
from swinft.system.processes import Child, run_children

LONG = 300.0  # seconds of training from which on a trial is worthwhile
SHARE = 0.05  # the trial may take this fraction of the training time
# Maximum seconds of a trial: on a CPU; on a GPU, where a process has to start; and if every candidate is compiled.
MOST_SECONDS, MOST_ON_GPU, MOST_COMPILED = 30.0, 60.0, 600.0
# Maximum images of a timed step on a CPU: it is slow there, and the time per image hardly depends on the batch.
MOST_IMAGES = 8
STEP_SECONDS = 1.0  # maximum duration of such a step
IN_CHILD = {"cuda"}  # types of devices that the parent of the folds must not use
REQUEST, ROWS, ANSWER = "request.json", "rows.pt", "answer.json"
KILLED = 137  # exit code of a process that the system kills, most often for lack of memory


def select_compute(
    experiment: Experiment, schema: Schema, tried: TriedTask, device: torch.device, planned: Planned
) -> Choice:
    """Chooses precision and attention: the configured ones, the fastest in a timed trial, or by rule.

    With `on_out_of_memory: halve` also the batch: a first step of a full one is tried on every device.

    Args:
        experiment: The experiment.
        schema: Schema of the tables.
        tried: The network, on the CPU, and rows to train on.
        device: Where the run trains.
        planned: Images and steps of the run.

    Raises:
        InputError: The network or the device does not support the configured attention, or a training step of a full
            batch fails.
    """
    config = experiment.config
    refuse_impossible(tried.task, config.model.compute.fast_attention)
    if config.on_out_of_memory == "halve":
        return _select_batch(experiment, schema, tried, device, planned)
    if config.trainer.fast_dev_run:  # it runs batches of everything anyway
        return default_choice(config, device)
    if device.type in IN_CHILD:
        return select_in_child(experiment, schema, tried, device, planned)
    return select_in_process(config, tried, device, planned) if device.type == "cpu" else default_choice(config, device)


def _select_batch(
    experiment: Experiment, schema: Schema, tried: TriedTask, device: torch.device, planned: Planned
) -> Choice:
    """The choice for the first of ever smaller batches that fits into memory, each tried in a process of its own.

    Raises:
        InputError: The last one cannot be halved, or a step fails for another reason.
    """
    config, halvings = experiment.config, 0
    while True:
        smaller = experiment.with_config(halved(config, halvings))
        try:
            choice = select_in_child(smaller, schema, tried, device, planned)
        except LackOfMemory as error:
            size = smaller.config.data.batch_size
            if size % 2:
                odd = f"on_out_of_memory is halve, and data.batch_size {size} cannot be halved"
                more = "" if size == 1 else f": set it to a multiple of a power of two, such as {32 * -(-size // 32)}"
                raise InputError(f"{error}\n  {odd}{more}.") from error
            halvings += 1
            continue
        if halvings:
            step = smaller.config.trainer.accumulate_grad_batches
            print(
                f"out of memory with data.batch_size {config.data.batch_size}: every fold is trained with "
                f"data.batch_size {smaller.config.data.batch_size} and trainer.accumulate_grad_batches {step} "
                "(on_out_of_memory: halve)"
            )
        return replace(choice, halvings=halvings)


def select_in_process(
    config: Namespace, tried: TriedTask, device: torch.device, planned: Planned, log: Callable[[str], None] = print
) -> Choice:
    """The same as `select_compute`, in this process.

    On devices other than CPUs it always runs a training step of a full batch: an unsupported operation or a lack of
    memory must be found before the first fold.

    Args:
        config: The config.
        tried: The network, on the device, and rows to train on.
        device: Where the run trains.
        planned: Images and steps of the run.
        log: Prints what was timed.

    Raises:
        InputError: The training step fails.
    """
    rule, candidates = default_choice(config, device), Candidates.of(config, tried.task, device)
    try:
        if config.on_out_of_memory == "halve":
            _full_step(config, tried, device, rule, log, evaluates=True)
        if device.type in IN_CHILD:
            choice = _select_on_gpu(config, tried, device, rule, candidates, planned, log)
        else:
            choice = _select_on_cpu(config, tried, rule, candidates, planned.images)
    finally:
        restore(tried.task)
    for line in choice.lines():
        log(line)
    return choice


def _select_on_cpu(config: Namespace, tried: TriedTask, rule: Choice, candidates: Candidates, images: int) -> Choice:
    """Times a few images: a step is slow here, but the time per image hardly depends on the batch."""
    device = torch.device("cpu")
    # A compiled network would be timed eagerly here: compiling takes longer than the trial may.
    if not candidates.is_open or config.model.compute.compile is True:
        return rule
    if images * tried.seconds < LONG:  # an upper limit: the first step of a process is its slowest
        return rule
    count = max(2, min(MOST_IMAGES, config.data.batch_size, int(STEP_SECONDS / tried.seconds)))
    keep_freed_memory(device)  # as in a fold's process
    try:
        trial = Trial(tried, device, count, rule, min(MOST_SECONDS, SHARE * images * tried.seconds))
        if images * trial.step() / count < LONG:
            return rule
        return _cached_or_timed(config, device, count, candidates, trial)
    finally:
        return_freed_memory()


def _select_on_gpu(
    config: Namespace,
    tried: TriedTask,
    device: torch.device,
    rule: Choice,
    candidates: Candidates,
    planned: Planned,
    log: Callable[[str], None],
) -> Choice:
    """Runs a training step of a full batch, then times full batches, compiled if the run is.

    Raises:
        InputError: The step fails.
    """
    count = config.data.batch_size
    seconds = _full_step(config, tried, device, rule, log)
    expected = planned.images * seconds / count
    if not candidates.is_open or expected < LONG:
        return rule
    is_compiled = should_compile(
        config.model.compute.compile, planned.steps, COMPILED_STEPS, "steps", device, lambda _: None
    )
    most = MOST_COMPILED if is_compiled else MOST_ON_GPU
    trial = Trial(tried, device, count, rule, min(most, SHARE * expected), is_compiled)
    return _cached_or_timed(config, device, count, candidates, trial)


def _full_step(
    config: Namespace,
    tried: TriedTask,
    device: torch.device,
    rule: Choice,
    log: Callable[[str], None],
    evaluates: bool = False,
) -> float:
    """Seconds of a training step of a full batch; if asked, a batch of the validation must fit, too.

    Raises:
        InputError: The step fails.
    """
    count = config.data.batch_size
    with out_of_memory_explained(partial(_explained, config, device)):
        seconds = Trial(tried, device, count, rule, math.inf).step()
        if evaluates:
            Trial(tried, device, count, rule, math.inf).predict()
    use = memory_use(device)
    log(f"a training step of {count} images on {device}: {format_rate(count / seconds)} img/s, {use.describe()}")
    return seconds


def _explained(config: Namespace, device: torch.device, error: Exception) -> LackOfMemory:
    return explain_out_of_memory(error, config, device, "a training step of a full batch, tried before the run")


def _cached_or_timed(
    config: Namespace, device: torch.device, count: int, candidates: Candidates, trial: Trial
) -> Choice:
    """The choice from the cache of this machine, or from a new trial."""
    key = cache_key(config, device, count, candidates)
    choice = read_cached(key)
    if choice is None:
        choice = trial.choice(candidates)
        write_cached(key, choice)
    return choice


def select_attention(
    nets: Sequence[ImageModel],
    images: int,
    batch_size: int,
    size: tuple[int, int],
    device: torch.device,
    precision: Precision,
    log: Callable[[str], None] = print,
) -> None:
    """Sets the attention that predicts fastest, if the run's choice was made on another device.

    Args:
        nets: Networks of one architecture, on the device, with our attention.
        images: Images that each network predicts, counting every view.
        batch_size: Images per batch.
        size: Height and width in pixels.
        device: Device of the networks.
        precision: Precision of the prediction.
        log: Prints what was timed.
    """
    candidates = attentions(nets[0], device)
    if len(candidates) < 2:
        return
    count = batch_size if device.type != "cpu" else min(batch_size, MOST_IMAGES)
    pixels = torch.zeros(count, nets[0].backbone.num_channels, *size, dtype=torch.uint8, device=device)
    watch = StepTimer(device, math.inf)
    found: dict[FastAttention, float] = {}
    dtype = half_dtype(precision) or torch.float

    def forward() -> None:
        with torch.inference_mode(), autocast(precision, device):
            nets[0].backbone(pixels)

    for candidate in candidates:
        failures: list[str] = []
        set_attention(nets[0], device, candidate, failures.append, dtype)
        seconds = None if failures else watch.median(forward)
        if seconds is not None:
            found[candidate] = seconds
        if candidate is True and (seconds is None or images * len(nets) * seconds / count < LONG):
            break
    chosen = choose(found, True)
    for net in nets:
        set_attention(net, device, chosen, dtype=dtype)
    if len(found) > 1:
        rates = {NAMES[candidate]: count / seconds for candidate, seconds in found.items()}
        log(f"attention in prediction {format_rates(NAMES[chosen], rates)}")


def select_in_child(
    experiment: Experiment, schema: Schema, tried: TriedTask, device: torch.device, planned: Planned
) -> Choice:
    """The same as `select_compute`, in a child process `swinft check --trial FOLDER`.

    Raises:
        LackOfMemory: A step does not fit, with `on_out_of_memory: halve`.
        InputError: A step fails; the output of the process says why.
    """
    allowed = experiment.config.allow_code
    with TemporaryDirectory() as name:
        folder = Path(name)
        (folder / "config.yaml").write_text(experiment.dump(), encoding="utf-8")
        request = {"device": str(device), "planned": planned, "schema": schema.to_dict(), "size": tried.size}
        (folder / REQUEST).write_text(json.dumps(request), encoding="utf-8")
        torch.save({"targets": tried.targets, "features": tried.features}, folder / ROWS)
        words = ["check", "--config", str(folder / "config.yaml"), "--trial", name]
        words += ["--allow-code", ",".join(allowed)] if allowed else []
        code = run_children({0: Child(words, experiment.secrets())}, [{}])[0]
        if code == KILLED and experiment.config.on_out_of_memory == "halve":
            raise LackOfMemory("the trial step was killed, most often for lack of memory.")
        if code:
            raise InputError(f"the trial step on {device} ended with exit code {code}; its output is above.")
        answer = json.loads((folder / ANSWER).read_text(encoding="utf-8"))
    if isinstance(answer, str):
        raise LackOfMemory(answer)
    return Choice.from_dict(answer)


def run_trial(experiment: Experiment, folder: Path) -> None:
    """Runs the trial requested in a folder, in the child process.

    Raises:
        InputError: A training step of a full batch fails on the device.
    """
    config = experiment.config
    request = json.loads((folder / REQUEST).read_text(encoding="utf-8"))
    rows = torch.load(folder / ROWS, weights_only=True)
    device = torch.device(request["device"])
    deterministic = config.trainer.deterministic
    torch.use_deterministic_algorithms(bool(deterministic), warn_only=deterministic == "warn")
    if deterministic:  # as Lightning does in a fold; without it, torch up to 2.9 refuses every product of matrices
        os.environ.setdefault("CUBLAS_WORKSPACE_CONFIG", ":4096:8")
    task = experiment.task(Schema.from_dict(request["schema"]), pretrained=False)
    task.initialize(rows["targets"], rows["features"])
    task.teacher = teacher_of(experiment, 0, teachers_of(experiment))
    tried = TriedTask(task.to(device), rows["targets"], rows["features"], tuple(request["size"]), seconds=0.0)
    answer: dict[str, object] | str
    try:
        answer = asdict(select_in_process(config, tried, device, Planned(*request["planned"])))
    except LackOfMemory as error:
        if config.on_out_of_memory == "error":
            raise
        answer = str(error)  # another process tries a smaller batch
    (folder / ANSWER).write_text(json.dumps(answer), encoding="utf-8")
