"""Prediction with OpenVINO on a CPU: the same predictions as torch, several times as fast.

On many CPUs torch multiplies fp32 matrices with a slow library, and its threads synchronise at every operation.
OpenVINO compiles the whole network, and every core processes different images.

Shapes: B batch, H and W pixels, F metadata features, K outputs.
"""

import os
import warnings
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Any, Literal

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from swinft.errors import InputError
from swinft.extras import import_extra
from swinft.inference.parity import Predicting, example_inputs, largest_difference, output_ranges
from swinft.model.backbones.memory_format import set_layout
from swinft.model.network import ImageModel

OpenVINOPrecision = Literal["f32", "bf16"]

# Largest difference from torch's fp32 predictions, relative to their range. In f32 only the order of additions differs.
# A bf16 number has 8 significant bits, an error of 0.4 % each: torch's own bf16 differs as much.
TOLERANCES: dict[OpenVINOPrecision, float] = {"f32": 1e-4, "bf16": 5e-2}
# Lower limit of the range, relative to the magnitude: if predictions hardly vary over the images of the check, even the
# rounding of fp32 (1e-7 of the magnitude) would be a large fraction of their range.
SMALLEST_RANGE = 0.1
# Images per request. Small enough that a batch is distributed evenly, and that a core busy with other programs delays
# little; larger requests are not faster.
CHUNK = 4
CHECKED_IMAGES = 5  # another size than the traced batch, and a prime


class OpenVINONet:
    """A compiled network; predicts like `ImageModel`, and replaces it in `predict_rows`.

    Args:
        compiled: An `openvino.CompiledModel`: float32 pixels and, where `inputs` names them, metadata and which images
            are there, to predictions (B, K).
        num_outputs: K.
        inputs: What it takes, as `ImageModel.inputs`.

    Attributes:
        deviation: Largest difference from torch that `compile_net` found, relative to the predictions' range.
    """

    def __init__(self, compiled: Any, num_outputs: int, inputs: Sequence[str]) -> None:
        self.num_outputs = num_outputs
        self.inputs = inputs
        self.deviation = float("nan")
        self.num_requests = int(compiled.get_property("OPTIMAL_NUMBER_OF_INFER_REQUESTS"))
        self._queue = _import_openvino().AsyncInferQueue(compiled, self.num_requests)

    def predict(self, image: Tensor, features: Tensor | None = None, image_mask: Tensor | None = None) -> Tensor:
        """Inputs as in `ImageModel.forward` to float32 predictions (B, K)."""
        given = {"image": image, "features": features, "image_mask": image_mask}
        tensors = [tensor for name in self.inputs if (tensor := given[name]) is not None]
        # One compiled network for uint8 and float pixels (the view `scale` returns floats): the conversion of uint8
        # takes no measurable time.
        arrays = [
            (tensor.cpu() if tensor.dtype == torch.bool else tensor.to("cpu", torch.float32)).contiguous().numpy()
            for tensor in tensors
        ]
        predictions = np.empty((len(image), self.num_outputs), np.float32)

        def keep(request: Any, start: int) -> None:
            part: NDArray[np.float32] = request.get_output_tensor(0).data
            predictions[start : start + len(part)] = part

        self._queue.set_callback(keep)
        size = max(1, min(CHUNK, -(-len(image) // self.num_requests)))
        for start in range(0, len(image), size):
            self._queue.start_async([array[start : start + size] for array in arrays], start)
        self._queue.wait_all()
        return torch.from_numpy(predictions)


def compile_net(
    net: ImageModel,
    image_size: tuple[int, int],
    precision: OpenVINOPrecision = "f32",
    num_threads: int | None = None,
) -> OpenVINONet:
    """Compiles a network for this CPU, and compares its predictions with torch's.

    Args:
        net: A network on the CPU, in evaluation mode.
        image_size: Height and width in pixels.
        precision: `f32`, or `bf16` for CPUs with bf16 units: faster, and less exact.
        num_threads: Number of threads; None for one per core.

    Raises:
        InputError: OpenVINO is not installed, cannot convert the network, or its predictions differ.
    """
    openvino = _import_openvino()
    set_layout(net, "plain")  # OpenVINO chooses its own memory format
    model = _convert(openvino, net, image_size)
    options: dict[str, Any] = {
        "PERFORMANCE_HINT": "THROUGHPUT",  # a stream per core: no synchronisation after every operation
        "INFERENCE_PRECISION_HINT": precision,  # OpenVINO's default is bf16 wherever the CPU has it
    }
    if num_threads is not None:
        options["INFERENCE_NUM_THREADS"] = num_threads
    compiled = openvino.compile_model(model, "CPU", options)
    predictor = OpenVINONet(compiled, net.head.num_outputs, net.inputs)
    predictor.deviation = _deviation(predictor, net, image_size)
    if not predictor.deviation <= TOLERANCES[precision]:  # also true for NaN
        raise InputError(
            f"OpenVINO's predictions differ from torch's by {predictor.deviation:.1e} of their range; "
            f"{TOLERANCES[precision]:.0e} is allowed in {precision}. Predict with `--backend torch`."
        )
    return predictor


def _import_openvino() -> Any:
    return import_extra("openvino", "openvino", "OpenVINO")


def _convert(openvino: Any, net: ImageModel, image_size: tuple[int, int]) -> Any:
    """The `openvino.Model` of a network, for any number of images.

    Tracing is a second or more faster than `torch.export`, yields a network of the same speed, and works for every
    backbone tried. If a branch or a size became a constant, the comparison with torch finds it.

    Raises:
        InputError: OpenVINO does not support an operation of the network.
    """
    example = example_inputs(net, image_size, num_images=2)
    try:
        with warnings.catch_warnings(), torch.inference_mode(False), torch.no_grad(), _quiet_openvino():
            warnings.simplefilter("ignore")  # one for each constant, and a recommendation of torch.export
            model = openvino.convert_model(Predicting(net).eval(), example_input=example)
    except Exception as error:
        reason = str(error).strip().splitlines() or [type(error).__name__]
        raise InputError(
            f"OpenVINO cannot convert this network: {reason[0]} Predict with `--backend torch`."
        ) from error
    model.reshape({index: [-1, *tensor.shape[1:]] for index, tensor in enumerate(example)})
    return model


@contextmanager
def _quiet_openvino() -> Iterator[None]:
    """Disables the telemetry of `convert_model`, which is on by default except in CI builds."""
    before = os.environ.get("CI")
    os.environ["CI"] = "true"
    try:
        yield
    finally:
        if before is None:
            del os.environ["CI"]
        else:
            os.environ["CI"] = before


def _deviation(predictor: OpenVINONet, net: ImageModel, image_size: tuple[int, int]) -> float:
    """Largest difference from torch's fp32 predictions, relative to the range of each of the K outputs."""
    example = example_inputs(net, image_size, CHECKED_IMAGES)
    with torch.inference_mode(), torch.autocast("cpu", enabled=False):
        given = dict(zip(net.inputs, example, strict=True))
        expected = net.predict(**given)
    return largest_difference(predictor.predict(**given), expected, output_ranges(expected, SMALLEST_RANGE))
