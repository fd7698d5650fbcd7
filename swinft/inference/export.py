"""Exports a network to formats that work without swinft (timm, ONNX, TorchScript, safetensors), and verifies it.

Shapes: B batch, H and W pixels, F metadata features, D embedding, K outputs.
"""

import copy
import importlib
import io
import warnings
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Any, Literal

import torch
from safetensors.torch import load, save
from torch import Tensor

from swinft.errors import InputError
from swinft.inference.parity import Predicting, example_inputs, largest_difference, output_ranges
from swinft.inference.timm_export import as_timm, of_rows
from swinft.model.backbones.memory_format import set_layout
from swinft.model.network import ImageModel

Form = Literal["timm", "onnx", "torchscript", "safetensors"]
SUFFIXES: dict[Form, str] = {
    "timm": ".safetensors",
    "onnx": ".onnx",
    "torchscript": ".pt",
    "safetensors": ".safetensors",
}
NEEDS: dict[Form, tuple[str, ...]] = {"onnx": ("onnx", "onnxruntime")}  # packages of `swinft[export]`
# Largest difference from torch's predictions, relative to their range: above the rounding of fp32 in another order of
# additions, below the effect of one weight that is wrong by a thousandth.
TOLERANCE = 1e-5
SMALLEST_RANGE = 1.0  # of the magnitude
ROUNDING = 4  # times torch's own rounding are allowed above that: its order of operations is as good as another one
OPSET = 17  # the first with LayerNormalization; every onnxruntime since 1.12 runs it


@dataclass(frozen=True)
class Exported:
    """An exported network, in memory.

    Args:
        content: The file of weights.
        compute: Runs the file: what `ImageModel.inputs` names (pixels in 0–255, metadata, mask) to outputs.
        expected: The same by the network itself.
        output: Kind of output: `predictions`, `logits` or `features`.
        usage: How to load it, as plain values.
        config: timm's config.json, written beside the weights.
        note: What the file does not contain, in a sentence.
    """

    content: bytes
    compute: Callable[..., Tensor]
    expected: Callable[..., Tensor]
    output: Literal["predictions", "logits", "features"]
    usage: dict[str, Any] = field(default_factory=dict)
    config: bytes | None = None
    note: str = ""


def check_installed(form: Form) -> None:
    """Checks that the packages of a format are installed.

    Raises:
        InputError: One is not.
    """
    for package in NEEDS.get(form, ()):
        try:
            importlib.import_module(package)
        except ImportError as error:
            raise InputError(f"--to {form} needs the package {package}: pip install 'swinft[export]'") from error


def export_net(
    net: ImageModel, form: Form, image_size: tuple[int, int], outputs: Sequence[str], resize: str
) -> Exported:
    """Exports a network.

    Args:
        net: On the CPU, in evaluation mode, with timm's own attention. Its memory format is set to plain.
        form: The format.
        image_size: Height and width in pixels.
        outputs: Names of the K outputs.
        resize: The value of `data.loading.resize`.

    Raises:
        InputError: The network cannot be exported to this format.
    """
    set_layout(net, "plain")
    if hasattr(net.backbone.model, "set_grad_checkpointing"):
        net.backbone.model.set_grad_checkpointing(False)  # not needed without training, and tracers may not support it
    example = example_inputs(net, image_size, num_images=2)
    try:
        with warnings.catch_warnings(), torch.inference_mode(False), torch.no_grad():
            warnings.simplefilter("ignore")  # about sizes that become constants: `check_parity` finds wrong results
            if form == "timm":
                return _to_timm(net, example, outputs, resize)
            if form == "safetensors":
                return _to_safetensors(net)
            return _to_onnx(net, example) if form == "onnx" else _to_torchscript(net, example)
    except InputError:
        raise
    except Exception as error:  # a converter may raise anything
        raise InputError(f"this network cannot be exported to {form}: {_reason(error)}") from error


def check_parity(net: ImageModel, exported: Exported, batches: Sequence[tuple[Tensor, ...]]) -> float:
    """Compares the outputs of an exported file with the network's.

    Args:
        net: The network.
        exported: The exported network.
        batches: Images, uint8 or float in 0–255, and metadata if the network takes it.

    Returns:
        The largest difference, relative to the range of the outputs.

    Raises:
        InputError: It is above `TOLERANCE` and above `ROUNDING` times the rounding of torch's fp32, or a batch cannot
            be computed.
    """
    is_one_unit = exported.output != "predictions" or net.head.gives_probabilities
    pairs = [_outputs(exported, batch) for batch in batches]
    ranges = output_ranges(torch.cat([expected for _, expected in pairs]), SMALLEST_RANGE, is_one_unit)
    found = 0.0
    for batch, (computed, expected) in zip(batches, pairs, strict=True):
        difference = largest_difference(computed, expected, ranges)
        is_close = difference <= TOLERANCE or difference <= ROUNDING * _rounding(net, exported, batch, expected, ranges)
        if not is_close:  # also if it is NaN
            raise InputError(
                f"the exported network's {exported.output} differ from torch's by {difference:.1e} of their range in a "
                f"batch of {len(expected)}; {TOLERANCE:.0e} is allowed. Nothing is written."
            )
        found = max(found, difference)
    return found


def _rounding(
    net: ImageModel, exported: Exported, batch: tuple[Tensor, ...], expected: Tensor, ranges: Tensor
) -> float:
    """Largest difference of torch's outputs from those in float64; 0 if the network cannot be computed in float64."""
    net.double()
    try:
        with torch.inference_mode(), torch.autocast("cpu", enabled=False):
            exact = exported.expected(*(tensor.double() if tensor.is_floating_point() else tensor for tensor in batch))
    except RuntimeError:  # a layer that computes in float32, with weights of float64
        return 0.0
    finally:
        net.float()  # the same weights as before
    return largest_difference(expected.double(), exact.double(), ranges)


def _outputs(exported: Exported, batch: tuple[Tensor, ...]) -> tuple[Tensor, Tensor]:
    """Outputs of a batch, each (B, K): by the exported network, and by torch.

    Raises:
        InputError: The exported network fails, or its outputs have another shape.
    """
    with torch.inference_mode(), torch.autocast("cpu", enabled=False):
        expected = exported.expected(*batch)
        try:
            computed = exported.compute(*batch)
        except Exception as error:  # an exported graph may fail at some batch sizes, with any error
            raise InputError(
                f"the exported network fails at a batch of {len(batch[0])}: {_reason(error)}. Nothing is written."
            ) from error
    if computed.shape != expected.shape:
        raise InputError(
            f"the exported network returns {tuple(computed.shape)} where torch returns {tuple(expected.shape)}. "
            f"Nothing is written."
        )
    return computed, expected


def _reason(error: Exception) -> str:
    """The first line of an error's message."""
    return (str(error).strip().splitlines() or [type(error).__name__])[0]


def _to_safetensors(net: ImageModel) -> Exported:
    """The weights with swinft's own names."""
    content = save({name: tensor.detach().contiguous() for name, tensor in net.state_dict().items()})
    fresh = copy.deepcopy(net)
    for tensor in fresh.state_dict().values():
        tensor.zero_()  # so that a missing tensor is detected
    fresh.load_state_dict(load(content))
    compute, expected = Predicting(fresh).eval(), Predicting(net).eval()
    return Exported(content, compute, expected, "predictions", {"function": "safetensors.torch.load_file"})


def _to_timm(net: ImageModel, example: tuple[Tensor, ...], outputs: Sequence[str], resize: str) -> Exported:
    """The weights of a timm model, with the head as its classifier if the head is one linear layer."""
    form = as_timm(net, example, outputs, resize)
    usage = {"function": "timm.create_model", "model_name": form.architecture, "arguments": form.arguments}
    if form.has_head and net.fusion is not None:
        usage["row"] = "the mean of the logits of its images that are there"
    return Exported(
        form.content,
        of_rows(net, form.model, form.has_head),
        of_rows(net, None, form.has_head),
        "logits" if form.has_head else "features",
        usage,
        form.config,
        form.note,
    )


def _to_torchscript(net: ImageModel, example: tuple[Tensor, ...]) -> Exported:
    """A traced network: pixels to predictions."""
    file = io.BytesIO()
    torch.jit.save(torch.jit.trace(Predicting(net).eval(), example, check_trace=False), file)  # type: ignore[no-untyped-call]
    content = file.getvalue()
    compute = torch.jit.load(io.BytesIO(content))  # type: ignore[no-untyped-call]
    return Exported(content, compute, Predicting(net).eval(), "predictions", {"function": "torch.jit.load"})


def _to_onnx(net: ImageModel, example: tuple[Tensor, ...]) -> Exported:
    """An ONNX graph: float32 pixels to predictions, for any number of images.

    torch's older exporter converts every backbone tried, much faster than the one based on `torch.export`. The latter
    is used if the older one does not support an operation, or no longer exists.
    """
    names = net.inputs
    try:
        content = _by_trace(net, example, names)
    except Exception as error:  # an exporter may raise anything
        try:
            content = _by_torch_export(net, example, names)
        except Exception as second:
            raise InputError(
                f"this network cannot be exported to onnx: by tracing, {_reason(error)}; by torch.export, "
                f"{_reason(second)}"
            ) from second
    expected = Predicting(net).eval()
    return Exported(content, _session(content, names), expected, "predictions", {"function": "InferenceSession"})


def _by_trace(net: ImageModel, example: tuple[Tensor, ...], names: list[str]) -> bytes:
    file: Any = io.BytesIO()
    # The exporter does not know expm1. In a torch without these functions, the other exporter takes over.
    torch.onnx.register_custom_op_symbolic("aten::expm1", _expm1, OPSET)  # type: ignore[attr-defined]
    try:
        torch.onnx.export(
            Predicting(net).eval(),
            example,
            file,
            dynamo=False,
            input_names=names,
            output_names=["predictions"],
            dynamic_axes={name: {0: "batch"} for name in [*names, "predictions"]},
            opset_version=OPSET,
        )
    finally:
        torch.onnx.unregister_custom_op_symbolic("aten::expm1", OPSET)  # type: ignore[attr-defined]
    return bytes(file.getvalue())


def _expm1(graph: Any, value: Any) -> Any:
    """exp(x) − 1 by operations of ONNX, also near 0: 2 sinh(x / 2) exp(x / 2)."""
    half = graph.op("Mul", value, graph.op("Constant", value_t=torch.tensor(0.5)))
    product = graph.op("Mul", graph.op("Sinh", half), graph.op("Exp", half))
    return graph.op("Add", product, product)


def _by_torch_export(net: ImageModel, example: tuple[Tensor, ...], names: list[str]) -> bytes:
    batch = torch.export.Dim("batch")
    program = torch.onnx.export(
        Predicting(net).eval(),
        example,
        dynamo=True,
        input_names=names,
        output_names=["predictions"],
        dynamic_shapes=tuple({0: batch} for _ in example),
        external_data=False,
        verbose=False,
    )
    assert program is not None
    return bytes(program.model_proto.SerializeToString())


def _session(content: bytes, names: list[str]) -> Callable[..., Tensor]:
    """A function that runs an ONNX file with onnxruntime on the CPU."""
    import onnxruntime  # optional dependency

    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = torch.get_num_threads()
    options.log_severity_level = 3  # errors
    session = onnxruntime.InferenceSession(content, options, providers=["CPUExecutionProvider"])

    def compute(*tensors: Tensor) -> Tensor:
        arrays = [(tensor if tensor.dtype == torch.bool else tensor.float()).numpy() for tensor in tensors]
        return torch.from_numpy(session.run(None, dict(zip(names, arrays, strict=True)))[0])

    return compute
