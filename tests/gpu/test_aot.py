"""The Triton kernels, compiled for GPUs that are not there: what they take of a multiprocessor has ceilings.

What is compiled are the launches of `window_triton` themselves: their kernels, tiles and arguments.
"""

import re
import subprocess
from pathlib import Path

import pytest
import torch

triton = pytest.importorskip("triton")

from triton.backends import nvidia  # noqa: E402
from triton.backends.compiler import GPUTarget  # noqa: E402
from triton.compiler import ASTSource  # noqa: E402

from swinft.model.attention import triton_ops as window_triton  # noqa: E402
from swinft.model.attention.windows import Windows  # noqa: E402

if triton.knobs.runtime.interpret:
    pytest.skip("kernels are interpreted here, not compiled", allow_module_level=True)

ARCHITECTURES = [80, 86, 89, 90, 120]
DTYPES = {torch.float: "fp32", torch.half: "fp16", torch.bfloat16: "bf16", torch.long: "i64"}
DEPTH = 32  # channels per head of every published Swin
MOST_SHARED = 99 * 1024  # bytes per block on sm_86, 89 and 120, which have the least
MOST_STACK = 512  # bytes per thread: registers that have been spilled. On sm_75, which is refused, it is up to 4,096
CUOBJDUMP = Path(nvidia.__file__).parent / "bin" / "cuobjdump"


def launches(side: int, dtype: torch.dtype, is_masked: bool, is_cosine: bool, monkeypatch) -> list[tuple]:
    """Kernel, signature, constants and alignments of every launch of a training step, in Triton's words."""
    found = []

    def keep(launch, kernel, programs, tensors, *sizes, **steps):
        values = [*tensors, *sizes, *launch.sizes]
        given = dict(zip(kernel.arg_names, values, strict=False)) | steps
        assert list(given) == kernel.arg_names
        signature, constants, attrs = {}, {}, {}
        for index, (name, value) in enumerate(given.items()):
            if kernel.params[index].is_constexpr or value is None:
                signature[name], constants[name] = "constexpr", value
            elif isinstance(value, torch.Tensor):
                signature[name], attrs[(index,)] = f"*{DTYPES[value.dtype]}", [["tt.divisibility", 16]]
            else:
                signature[name] = "fp32" if isinstance(value, float) else "i32"
        found.append((kernel, signature, constants, attrs))

    monkeypatch.setattr(window_triton._Launch, "run", keep)
    windows = Windows((2 * side, 2 * side), (side, side), (side // 2,) * 2 if is_masked else (0, 0), 2)
    tokens = side * side
    qkv = torch.zeros(1, 4 * tokens, 3 * 2 * DEPTH, dtype=dtype, requires_grad=True)
    bias = torch.zeros(2, tokens, tokens, requires_grad=True)
    mask = torch.zeros(4, tokens, tokens) if is_masked else None
    cosine = torch.ones(2, 1, 1, requires_grad=True) if is_cosine else None
    window_triton.attend(qkv, bias, mask, windows, DEPTH**-0.5, cosine).sum().backward()
    return found


def compiled(launch: tuple, architecture: int, tmp_path: Path) -> tuple[int, int, int]:
    """Bytes of shared memory, registers, and bytes of stack of a launch's kernel."""
    kernel, signature, constants, attrs = launch
    source = ASTSource(kernel, signature, constants, attrs)
    made = triton.compile(source, target=GPUTarget("cuda", architecture, 32), options=window_triton.OPTIONS)
    cubin = tmp_path / "kernel.cubin"
    cubin.write_bytes(made.asm["cubin"])
    said = subprocess.run([CUOBJDUMP, "-res-usage", cubin], capture_output=True, text=True, check=True).stdout
    registers, stack = (int(re.search(rf"{what}:(\d+)", said)[1]) for what in ("REG", "STACK"))
    return made.metadata.shared, registers, stack


def assert_fits(launch: tuple, architecture: int, tmp_path: Path) -> None:
    shared, registers, stack = compiled(launch, architecture, tmp_path)
    assert 0 < shared <= MOST_SHARED
    assert 0 < registers <= 255
    assert stack <= MOST_STACK


@pytest.fixture(autouse=True)
def _own_cache(tmp_path, monkeypatch):
    """A kernel that was compiled before would not be compiled."""
    monkeypatch.setenv("TRITON_CACHE_DIR", str(tmp_path / "triton"))


@pytest.mark.parametrize("architecture", [80, 90])
def test_s12_each_kernel_compiles_for_a_gpu_that_is_not_there(architecture, tmp_path, monkeypatch):
    found = launches(7, torch.bfloat16, True, False, monkeypatch)
    assert [launch[0].__name__ for launch in found] == ["forward", "backward"]
    for launch in found:
        assert_fits(launch, architecture, tmp_path)


@pytest.mark.slow
@pytest.mark.parametrize("is_masked", [False, True])
@pytest.mark.parametrize("dtype", [torch.float, torch.half, torch.bfloat16], ids=str)
@pytest.mark.parametrize(("side", "is_cosine"), [(7, False), (8, True), (12, False)])
@pytest.mark.parametrize("architecture", ARCHITECTURES)
def test_s12_every_launch_compiles_for_every_architecture(
    architecture, side, is_cosine, dtype, is_masked, tmp_path, monkeypatch
):
    found = launches(side, dtype, is_masked, is_cosine, monkeypatch)
    assert {launch[0].__name__ for launch in found} == {"forward", "backward"}
    for launch in found:
        assert_fits(launch, architecture, tmp_path)
