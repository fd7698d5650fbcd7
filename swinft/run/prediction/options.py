"""What is predicted, with what and where: the options of `swinft predict`, checked."""

from dataclasses import dataclass
from typing import Literal

import torch

from swinft.data.loading.workers import NumWorkers
from swinft.errors import InputError, number_of
from swinft.model.compiling import CompilePolicy
from swinft.ranges import COUNT, check_ranges
from swinft.system.device import check_usable
from swinft.system.precision import Precision, choose_device


@dataclass(frozen=True)
class PredictOptions:
    """How a run predicts. What is not given is as in the run's config.

    Args:
        views: Test-time augmentations: identity, hflip, vflip, rot90, rot180, rot270, transpose, scale, or the class
            path of your own; by default the config's `predict.views`.
        folds: Folds to average; by default all of them.
        root: The data's folder where it is another than in training; the training rows need not be there. By default
            the config's `data.root`.
        test: A CSV of rows to predict; by default the config's `data.test` or sample submission.
        batch_size: Images per batch; by default the config's.
        num_workers: Processes that decode, for each device, or `auto`; by default the config's.
        device: `auto`, `cpu`, `cuda`, `cuda:1`, `mps`.
        devices: Devices of this kind that share the rows, one process each.
        backend: What computes. `openvino` is for CPUs, several times as fast as torch there; it needs
            `pip install 'swinft[openvino]'`, and is compared with torch before it is used.
        compile: Compile the backbone with `torch.compile`, or `auto`; by default the config's `predict.compile`.
        precision: Number format of the networks: `32-true`, `bf16-mixed`, `16-mixed` (GPUs only), or `auto` for what
            the folds were trained in where the device has units for it, and 32-true elsewhere.
        output: Where the predictions go; by default the run's test_predictions.csv.
        part: A share of the rows, `0/4` to `3/4`, into `output`: what `devices` starts, one process for each.
        allow_code: Packages or modules whose classes the run's config may name, besides the trusted ones.

    Raises:
        InputError: A number is out of its range, or the part is none.
    """

    views: list[str] | None = None
    folds: list[int] | None = None
    root: str | None = None
    test: str | None = None
    batch_size: int | None = None
    num_workers: NumWorkers | None = None
    device: str = "auto"
    devices: int = 1
    backend: Literal["torch", "openvino"] = "torch"
    compile: CompilePolicy | None = None
    precision: Precision = "auto"
    output: str | None = None
    part: str | None = None
    allow_code: list[str] | None = None

    def __post_init__(self) -> None:
        limits = {"--batch-size": COUNT, "--devices": COUNT}
        check_ranges("", {"--batch-size": self.batch_size, "--devices": self.devices}, limits)
        self.share()

    def share(self) -> tuple[int, int]:
        """`1/4` as (1, 4); all rows as (0, 1)."""
        if self.part is None:
            return 0, 1
        index, _, count = self.part.partition("/")
        is_share = index.isdigit() and count.isdigit() and int(index) < int(count)
        if not is_share or self.devices > 1 or not self.output:
            raise InputError(
                f"--part {self.part}: write 0/4 to 3/4 for four parts, with --output and without --devices."
            )
        return int(index), int(count)

    def place(self) -> torch.device:
        """The device, or the kind of devices, to predict on.

        Raises:
            InputError: There are not so many, or the backend cannot work there or has no such option.
        """
        openvino = self.backend == "openvino"
        place = choose_device("cpu" if openvino and self.device == "auto" else self.device)
        if self.devices > 1:
            self._check_devices(place)
        if openvino and place.type != "cpu":
            raise InputError(f"--backend openvino predicts on the CPU, not on {place}. Remove --device or --backend.")
        if openvino and self.compile is not None:
            raise InputError("--compile is torch's, and OpenVINO always compiles. Remove --compile or --backend.")
        if openvino and self.precision not in ("auto", "32-true"):
            raise InputError(f"--backend openvino is 32-true, not {self.precision}. Remove --precision or --backend.")
        first, used = place.index or 0, [place]
        if place.type == "cuda":
            used = [torch.device("cuda", first + index) for index in range(self.devices)]
        check_usable(used, "add --device cpu")
        return place

    def _check_devices(self, place: torch.device) -> None:
        """Refuses to share rows among devices that are not there.

        Raises:
            InputError: `--device` names a single one, or there are fewer GPUs.
        """
        kind, _, index = self.device.partition(":")
        if index:
            raise InputError(
                f"--device {self.device} names one device, --devices {self.devices} several: give --device {kind}."
            )
        if place.type == "cuda" and self.devices > torch.cuda.device_count():
            raise InputError(
                f"--devices is {self.devices}, but there {number_of(torch.cuda.device_count(), 'GPU', verb='is')} here."
            )
