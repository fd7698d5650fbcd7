"""The options of `swinft predict`, and their checks."""

from dataclasses import dataclass
from typing import Literal

import torch

from swinft.data.loading.workers import NumWorkers
from swinft.data.roots import resolved_root
from swinft.errors import InputError, number_of
from swinft.model.compiling import CompilePolicy
from swinft.ranges import COUNT, check_ranges
from swinft.system.cluster.place import LOCAL, check_place
from swinft.system.device import check_usable
from swinft.system.precision import Precision, choose_device


@dataclass(frozen=True)
class PredictOptions:
    """Options of a prediction. Defaults come from the run's config.

    Args:
        views: Test-time augmentations: identity, hflip, vflip, rot90, rot180, rot270, transpose, scale, or the class
            path of a custom view; by default the config's `predict.views`.
        folds: Folds to average; by default those that score rows. `all` is the training on every row.
        root: The data's folder if it differs from that of the training; the training rows need not be there. By
            default the config's `data.root`. `kaggle://SLUG` for a mount on Kaggle.
        test: A CSV of rows to predict; by default the config's `data.test` or sample submission.
        batch_size: Images per batch; by default the config's.
        num_workers: Loader workers per device, or `auto`; by default the config's.
        device: `auto`, `cpu`, `cuda`, `cuda:1`, `mps`.
        devices: Number of devices of this type that divide the rows, one process each.
        on: Where these processes run: `local`; `ray`, a Ray cluster of this machine; `HOST:PORT` or `ray://HOST:PORT`
            of a Ray cluster.
        backend: `torch`, or `openvino` for CPUs: several times as fast there; it needs
            `pip install 'swinft[openvino]'`, and is compared with torch before it is used.
        compile: Compile the backbone with `torch.compile`, or `auto`; by default the config's `predict.compile`.
        precision: `32-true`, `bf16-mixed`, `16-mixed` (GPUs only), or `auto` for that of the training if the device
            has units for it, otherwise 32-true.
        output: File of the predictions; by default the run's test_predictions.csv.
        part: A part of the rows, `0/4` to `3/4`, written to `output`; used by the processes that `devices` starts.
        allow_code: Packages or modules whose classes the run's config may name, besides the trusted ones.

    Raises:
        InputError: A number is out of its range, or the part is invalid.
    """

    views: list[str] | None = None
    folds: list[int | str] | None = None
    root: str | None = None
    test: str | None = None
    batch_size: int | None = None
    num_workers: NumWorkers | None = None
    device: str = "auto"
    devices: int = 1
    on: str = LOCAL
    backend: Literal["torch", "openvino"] = "torch"
    compile: CompilePolicy | None = None
    precision: Precision = "auto"
    output: str | None = None
    part: str | None = None
    allow_code: list[str] | None = None

    def __post_init__(self) -> None:
        limits = {"--batch-size": COUNT, "--devices": COUNT}
        check_ranges("", {"--batch-size": self.batch_size, "--devices": self.devices}, limits)
        if self.root:
            object.__setattr__(self, "root", resolved_root(self.root))
        check_place(self.on)
        self.share()

    @property
    def is_divided(self) -> bool:
        """Whether other processes predict."""
        return self.devices > 1 or self.on != LOCAL

    def share(self) -> tuple[int, int]:
        """`1/4` as (1, 4); all rows as (0, 1).

        Raises:
            InputError: `part` is no part, has no `output`, or stands beside options that divide the rows as well.
        """
        if self.part is None:
            return 0, 1
        index, _, count = self.part.partition("/")
        is_part = index.isdigit() and count.isdigit() and int(index) < int(count)
        if not is_part or self.is_divided or not self.output:
            raise InputError(
                f"--part {self.part}: write 0/4 to 3/4 for four parts, with --output and without --devices and --on."
            )
        return int(index), int(count)

    def torch_device(self) -> torch.device:
        """The device to predict on, or the type of several devices.

        Raises:
            InputError: There are too few devices, or the backend does not support the device or an option.
        """
        openvino = self.backend == "openvino"
        device = choose_device("cpu" if openvino and self.device == "auto" else self.device)
        if self.is_divided:
            self._check_devices(device)
        if openvino and device.type != "cpu":
            raise InputError(f"--backend openvino predicts on the CPU, not on {device}. Remove --device or --backend.")
        if openvino and self.compile is not None:
            raise InputError("--compile is torch's, and OpenVINO always compiles. Remove --compile or --backend.")
        if openvino and self.precision not in ("auto", "32-true"):
            raise InputError(f"--backend openvino is 32-true, not {self.precision}. Remove --precision or --backend.")
        first, used = device.index or 0, [device]
        if device.type == "cuda" and self.on == LOCAL:
            used = [torch.device("cuda", first + index) for index in range(self.devices)]
        check_usable(used, "add --device cpu")
        return device

    def _check_devices(self, device: torch.device) -> None:
        """Checks the number of devices.

        Raises:
            InputError: `--device` names a single one, or there are fewer GPUs.
        """
        kind, _, index = self.device.partition(":")
        if index:
            several = f"--devices {self.devices} several" if self.on == LOCAL else f"--on {self.on} one of a node"
            raise InputError(f"--device {self.device} names one device, {several}: give --device {kind}.")
        if device.type == "cuda" and self.on == LOCAL and self.devices > torch.cuda.device_count():
            raise InputError(
                f"--devices is {self.devices}, but there {number_of(torch.cuda.device_count(), 'GPU', verb='is')} here."
            )
