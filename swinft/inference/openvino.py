"""OpenVINO predicts in torch's place on a CPU: the same predictions, several times as fast.

torch multiplies fp32 matrices on a CPU with a library that is slow on many of them, and its threads wait for one
another at every operation. OpenVINO compiles the whole network, and lets every core work on images of its own.

Shapes: B batch, H and W pixels, F metadata features, K outputs.
"""

import os
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any, Literal

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from swinft.errors import InputError
from swinft.inference.parity import Predicting, example_inputs, largest_difference
from swinft.model.backbones.memory_format import set_layout
from swinft.model.network import ImageModel

OpenVINOPrecision = Literal["f32", "bf16"]

# Largest difference from torch's fp32 predictions, as a share of their range. In f32 only the order of additions
# differs. A bf16 number has 8 significant bits, an error of 0.4 % each: torch's own bf16 is as far away.
TOLERANCES: dict[OpenVINOPrecision, float] = {"f32": 1e-4, "bf16": 5e-2}
# A network whose predictions hardly vary over the images of the check cannot be held to a share of next to nothing:
# fp32 itself rounds at 1e-7 of the magnitude.
SMALLEST_RANGE = 0.1
# Images per request. Small enough that a batch is shared out evenly, and that a core which somebody else holds up
# delays little; larger ones are no faster.
CHUNK = 4
CHECKED_IMAGES = 5  # unlike the traced batch, and not a multiple of anything


class OpenVINONet:
    """A compiled network; predicts like `ImageModel` and takes its place in `predict_rows`.

    Args:
        compiled: An `openvino.CompiledModel`: float32 pixels (B, 3, H, W) and, with metadata, float32 (B, F) to
            predictions (B, K).
        num_outputs: K.
        has_metadata: Whether it takes metadata.

    Attributes:
        deviation: Largest difference from torch that `compile_net` found, as a share of the predictions' range.
    """

    def __init__(self, compiled: Any, num_outputs: int, has_metadata: bool) -> None:
        self.num_outputs = num_outputs
        self.has_metadata = has_metadata
        self.deviation = float("nan")
        self.num_requests = int(compiled.get_property("OPTIMAL_NUMBER_OF_INFER_REQUESTS"))
        self._queue = _import_openvino().AsyncInferQueue(compiled, self.num_requests)

    def predict(self, image: Tensor, features: Tensor | None = None) -> Tensor:
        """Pixels (B, 3, H, W), uint8 or float in 0–255, and metadata (B, F) to float32 predictions (B, K)."""
        tensors = [image, features] if self.has_metadata and features is not None else [image]
        # One compiled network serves both kinds of pixels: the zoomed view's are fractions, and converting whole
        # ones takes no measurable time.
        arrays = [tensor.to("cpu", torch.float32).contiguous().numpy() for tensor in tensors]
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
        precision: `f32`, or `bf16` for CPUs that multiply it: faster, and less exact.
        num_threads: Threads to compute with; None for one per core.

    Raises:
        InputError: OpenVINO is not installed, cannot convert the network, or predicts something else.
    """
    openvino = _import_openvino()
    set_layout(net, "plain")  # OpenVINO has an order of its own
    model = _convert(openvino, net, image_size)
    options: dict[str, Any] = {
        "PERFORMANCE_HINT": "THROUGHPUT",  # a stream per core: nobody waits for the others after every operation
        "INFERENCE_PRECISION_HINT": precision,  # OpenVINO's default is bf16 wherever the CPU has it
    }
    if num_threads is not None:
        options["INFERENCE_NUM_THREADS"] = num_threads
    compiled = openvino.compile_model(model, "CPU", options)
    predictor = OpenVINONet(compiled, net.head.num_outputs, net.metadata is not None)
    predictor.deviation = _deviation(predictor, net, image_size)
    if not predictor.deviation <= TOLERANCES[precision]:  # `not`, for NaN compares as False
        raise InputError(
            f"OpenVINO's predictions differ from torch's by {predictor.deviation:.1e} of their range; "
            f"{TOLERANCES[precision]:.0e} is allowed in {precision}. Predict with `--backend torch`."
        )
    return predictor


def _import_openvino() -> Any:
    try:
        import openvino
    except ImportError as error:
        raise InputError("OpenVINO is not installed: pip install 'swinft[openvino]'") from error
    return openvino


def _convert(openvino: Any, net: ImageModel, image_size: tuple[int, int]) -> Any:
    """The `openvino.Model` of a network, for any number of images.

    Tracing is a second or more faster than `torch.export`, gives a network of the same speed, and takes every backbone
    tried. What it could get wrong, a branch or a size that became a constant, the comparison with torch finds.

    Raises:
        InputError: OpenVINO does not know an operation of the network.
    """
    example = example_inputs(net, image_size, num_images=2)
    try:
        with warnings.catch_warnings(), torch.inference_mode(False), torch.no_grad(), _quiet_openvino():
            warnings.simplefilter("ignore")  # each constant is reported, and that torch would rather be exported
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
    """Keeps `convert_model` from reporting its use to its makers, which it does unasked except in automated builds."""
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
    """Largest difference from torch's fp32 predictions, as a share of the range of each of the K outputs."""
    example = example_inputs(net, image_size, CHECKED_IMAGES)
    with torch.inference_mode(), torch.autocast("cpu", enabled=False):
        expected = net.predict(*example)
    return largest_difference(predictor.predict(*example), expected, SMALLEST_RANGE)
