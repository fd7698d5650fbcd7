"""The Triton kernels: the numbers of torch's operations, on a GPU where there is one, else in Triton's interpreter.

The interpreter must be asked for before Triton is imported, so those tests run in a process of their own. It multiplies
bf16 as if it were whole numbers: that is tested on GPUs only.
"""

import copy
import os
import re
import subprocess
import sys
from functools import partial

import pytest
import timm
import torch
from timm.models.swin_transformer import SwinTransformerBlock
from torch import Tensor

from swinft.cli import main
from swinft.errors import InputError
from swinft.inference.predictions import Predictions
from swinft.model.attention import swin as window_attention
from swinft.model.attention.swin import TritonBlock, TritonV2Block, accelerate
from swinft.model.attention.windows import Windows, attend_by_parts
from swinft.model.training.ema import AveragedWeights
from tests.conftest import ROOT, tiny_config, write_config
from tests.model.test_window_attention import V1, V2, gradients, images, pair

IS_INTERPRETED = os.environ.get("TRITON_INTERPRET") == "1"
DEVICE = torch.device("cuda" if torch.cuda.is_available() and not IS_INTERPRETED else "cpu")
computes = pytest.mark.skipif(DEVICE.type == "cpu" and not IS_INTERPRETED, reason="the interpreter's process runs this")
in_torch = pytest.mark.skipif(IS_INTERPRETED, reason="is not about what the kernels compute")

# Grid, window, shift, heads, channels per head, images, and whether attention is cosine.
CASES = [
    ((4, 6), (2, 3), (1, 1), 2, 8, 3, False),
    ((4, 6), (2, 3), (0, 2), 2, 8, 3, True),
    ((9, 20), (3, 4), (1, 2), 1, 32, 1, False),
    ((14, 7), (7, 7), (3, 0), 1, 32, 1, False),
    ((7, 14), (7, 7), (0, 3), 2, 32, 1, True),
    ((16, 8), (8, 8), (4, 0), 2, 24, 1, True),
    ((8, 8), (8, 8), (0, 0), 1, 32, 3, False),
    ((9, 18), (9, 9), (0, 4), 1, 24, 1, True),
    ((5, 18), (5, 9), (0, 4), 3, 8, 1, False),
]
# Three tiles of 64 tokens, the last of which is cut off; in fp32 they are five, and half a minute of the interpreter.
TWELVE = ((12, 24), (12, 12), (0, 6), 1, 32, 1, False)
SMALL = ((2, 4), (2, 2), (0, 1), 1, 8, 1, True)


def arguments(case, dtype: torch.dtype) -> tuple[list[Tensor], Tensor | None, Windows]:
    """Queries, keys and values, bias, and scale of cosine attention; timm's mask; windows."""
    grid, window, shift, heads, depth, batch, cosine = case
    windows = Windows(grid, window, shift, heads)
    block = SwinTransformerBlock(heads, grid, heads, window_size=window, shift_size=shift, always_partition=True)
    assert tuple(block.window_size) == window
    assert tuple(block.shift_size) == shift
    generator = torch.Generator(DEVICE).manual_seed(0)
    random = partial(torch.randn, generator=generator, device=DEVICE)
    inputs = [random(batch, grid[0] * grid[1], 3 * heads * depth).to(dtype), random(heads, *2 * [windows.tokens])]
    inputs += [random(heads, 1, 1).exp()] if cosine else []
    mask = block.get_attn_mask(device=DEVICE) if any(shift) else None
    return [each.requires_grad_() for each in inputs], mask, windows


def attended(function, inputs: list[Tensor], mask: Tensor | None, windows: Windows) -> list[Tensor]:
    """Attention, and its gradients under a loss that no symmetry cancels."""
    qkv, bias, *cosine = inputs
    out = function(qkv, bias, mask, windows, 1.0 if cosine else 0.7, *cosine)
    weights = torch.randn(out.shape, generator=torch.Generator(DEVICE).manual_seed(1), device=DEVICE).to(out.dtype)
    return [out.detach(), *torch.autograd.grad(out, inputs, weights)]


def differences(case, dtype: torch.dtype) -> list[float]:
    """How far output and gradients are from the exact ones, relative to their norms."""
    from swinft.model.attention.triton_ops import attend

    inputs, mask, windows = arguments(case, dtype)
    exact = attended(attend_by_parts, [x.detach().double().requires_grad_() for x in inputs], mask, windows)
    own = attended(attend, inputs, mask, windows)
    assert [x.dtype for x in own] == [dtype, *(x.dtype for x in inputs)]
    return [float((x.double() - y).norm() / y.norm()) for x, y in zip(own, exact, strict=True)]


@computes
@pytest.mark.parametrize("case", CASES)
def test_values_and_gradients_are_those_of_torchs_operations(case):
    out, *grads = differences(case, torch.float)
    assert out <= 1e-5
    assert max(grads) <= 1e-4


@computes
@pytest.mark.parametrize("dtype", [torch.half, torch.bfloat16])
@pytest.mark.parametrize("case", [CASES[3], CASES[5], TWELVE])
def test_fewer_bits_round_only(case, dtype):
    if dtype == torch.bfloat16 and IS_INTERPRETED:
        pytest.skip("the interpreter multiplies bf16 as whole numbers")
    assert max(differences(case, dtype)) <= (4e-3 if dtype == torch.half else 3e-2)


@computes
def test_programs_that_do_several_windows_add_up_what_each_gives(monkeypatch):
    from swinft.model.attention import triton_ops as window_triton

    monkeypatch.setattr(window_triton, "PROGRAMS", 4)  # 15 windows: groups of 4, and one of 3
    assert max(differences(CASES[2], torch.half)) <= 4e-3
    monkeypatch.setattr(window_triton, "PROGRAMS", 1)  # all windows: of one tile, and of several
    assert max(differences(CASES[5], torch.half)) <= 4e-3
    assert max(differences(CASES[7], torch.half)) <= 4e-3


@computes
def test_the_operators_are_what_torch_expects_of_operators():
    from swinft.model.attention.triton_ops import _attention

    (qkv, bias, cosine), _, windows = arguments(SMALL, torch.float)
    geometry = [*windows.grid, *windows.window, *windows.shift, windows.heads]
    tests = ("test_schema", "test_autograd_registration", "test_faketensor", "test_aot_dispatch_static")
    torch.library.opcheck(_attention, (qkv, bias, cosine, geometry, 0.7, True), test_utils=tests)
    torch.library.opcheck(_attention, (qkv, bias, None, geometry, 0.7, True), test_utils=(tests[0], tests[2]))


@computes
def test_parts_that_are_frozen_get_no_gradient_and_change_no_other():
    from swinft.model.attention.triton_ops import attend

    (qkv, bias, _), mask, windows = arguments(SMALL, torch.float)
    expected = torch.autograd.grad(attend(qkv, bias, mask, windows).sin().sum(), [qkv, bias])
    for kept, grad in zip((qkv, bias), expected, strict=True):
        frozen = [x if x is kept else x.detach() for x in (qkv, bias)]
        out = attend(*frozen, mask, windows)
        assert torch.equal(torch.autograd.grad(out.sin().sum(), kept)[0], grad)


@computes
def test_what_the_kernel_cannot_do_is_refused():
    from swinft.model.attention.triton_ops import attend

    (qkv, bias), mask, windows = arguments(CASES[0], torch.double)
    with pytest.raises(InputError, match=r"computes in float16, bfloat16, float32 with.*not in torch\.float64"):
        attend(qkv, bias, mask, windows)
    (qkv, bias), mask, windows = arguments(((2, 2), (2, 2), (0, 0), 1, 144, 1, False), torch.float)
    with pytest.raises(InputError, match=r"at most 128 channels per head, not in torch\.float32 with 144"):
        attend(qkv, bias, mask, windows)


def on_device(name: str) -> tuple[torch.nn.Module, torch.nn.Module]:
    """timm's backbone, and a copy with the kernel, whose two stages have 4 windows and 1."""
    timms, ours = pair(name, 32, "triton", DEVICE.type, window_size=4)
    kind = TritonBlock if name == V1 else TritonV2Block
    assert sum(type(module) is kind for module in ours.modules()) == 4
    return timms, ours


@pytest.fixture
def unchecked(monkeypatch):
    """Leaves out the comparison with timm's blocks, which other tests make, and which the interpreter takes seconds for."""
    monkeypatch.setattr(window_attention, "_check", lambda *_: None)


@computes
@pytest.mark.parametrize("name", [V1, V2])
def test_a_whole_model_equals_timms_also_copied_and_with_checkpointing(name):
    timms, ours = on_device(name)
    (theirs, their_grads), (own, own_grads) = gradients(timms, batch=1), gradients(ours, batch=1)
    torch.testing.assert_close(own, theirs, atol=1e-4, rtol=1e-4)
    for key, grad in their_grads.items():
        assert (own_grads[key] - grad).norm() <= 1e-3 * grad.norm() + 1e-4, key
    again = copy.deepcopy(ours)
    again.set_grad_checkpointing(True)
    features, grads = gradients(again.train(), batch=1)
    assert torch.equal(features, own)
    assert all(torch.equal(grads[key], own_grads[key]) for key in grads)  # recomputed, and to the bit
    averaged = AveragedWeights(ours, 0.5)
    assert torch.equal(averaged.module.eval()(images(ours, 1)), ours.eval()(images(ours, 1)))


@computes
def test_it_compiles_without_a_break(unchecked):
    _, ours = on_device(V2)  # what V1 does, and cosines
    expected = gradients(ours, batch=1)
    torch.compiler.reset()
    ours.layers[0].compile(backend="aot_eager", fullgraph=True)
    features, grads = gradients(ours, batch=1)
    torch.testing.assert_close(features, expected[0], atol=1e-5, rtol=1e-5)
    torch.testing.assert_close(grads, expected[1], atol=1e-2, rtol=1e-3)


@computes
def test_dropout_is_refused_from_the_start_and_when_it_is_switched_on_later(unchecked):
    with pytest.raises(InputError, match=r"attn_drop_rate is 0\.3. Remove attn_drop_rate from model\.backbone_args"):
        pair(V1, 32, "triton", DEVICE.type, window_size=4, attn_drop_rate=0.3)
    _, ours = on_device(V1)
    ours.layers[0].blocks[0].attn.attn_drop.p = 0.5
    ours.eval()(images(ours, 1))
    with pytest.raises(InputError, match=r"attn_drop_rate is 0\.5"):
        ours.train()(images(ours, 1))


@computes
def test_a_kernel_that_computes_something_else_is_refused(monkeypatch):
    from swinft.model.attention import triton_ops as window_triton

    right = window_triton.attend
    monkeypatch.setattr(window_triton, "attend", lambda qkv, bias, mask, *rest: right(qkv, bias, None, *rest))
    with pytest.raises(RuntimeError, match="differs from timm's"):  # tokens that only the shift made neighbours
        pair(V1, 32, "triton", DEVICE.type, window_size=4)


@in_torch
def test_the_interpreter_finds_the_same_numbers():
    pytest.importorskip("triton")
    words = [sys.executable, "-m", "pytest", __file__, "-p", "no:cacheprovider", "-rs"]
    done = subprocess.run(
        words, cwd=ROOT, env={**os.environ, "TRITON_INTERPRET": "1"}, capture_output=True, text=True, timeout=500
    )
    assert done.returncode == 0, done.stdout
    assert " passed" in done.stdout
    assert "the interpreter's process runs this" not in done.stdout


def compiled_for(
    capability: int, dtype: torch.dtype, window: int, cosine: bool, depth: int = 32
) -> dict[str, tuple[int, int, int]]:
    """Shared memory, registers per thread and spilled bytes of the kernels, compiled as for a GPU that need not be here."""
    from triton.backends.compiler import GPUTarget
    from triton.backends.nvidia.compiler import get_ptxas
    from triton.compiler import ASTSource, compile

    from swinft.model.attention import triton_kernels
    from swinft.model.attention.triton_ops import OPTIONS, tile_side

    number = {torch.half: "*fp16", torch.bfloat16: "*bf16", torch.float: "*fp32"}[dtype]
    tile = tile_side(window**2, dtype)
    tiles = -(-(window**2) // tile)
    types = dict.fromkeys(("qkv", "out", "grad", "qkv_grad"), number) | dict.fromkeys(("bias", "log_sums"), "*fp32")
    types |= {"scale": "fp32", "bias_grad": None, "cosine": "*fp32" if cosine else None, "cosine_grad": None}
    types |= {
        "ROWS": window,
        "COLUMNS": window,
        "D": depth,
        "PADDED_D": max(16, depth),
        "IS_MASKED": True,
        "TILE": tile,
    }
    launches = {"forward": (triton_kernels.forward, {})}
    if tiles == 1:
        all_gradients = {"bias_grad": "*fp32", "cosine_grad": types["cosine"], "QUERY_STEPS": 1, "KEY_STEPS": 1}
        launches["backward"] = (triton_kernels.backward, all_gradients)
    else:
        steps = {"queries": (1, tiles), "keys": (tiles, 1), "pairs": (1, 1)}
        for name, (queries, keys) in steps.items():
            own = {"qkv_grad": None, "bias_grad": "*fp32"} if name == "pairs" else {}
            own |= {"cosine_grad": types["cosine"]} if name == "queries" else {}
            launches[name] = (triton_kernels.backward, own | {"QUERY_STEPS": queries, "KEY_STEPS": keys})
    found = {}
    for name, (kernel, own) in launches.items():
        values = {key: (types | own).get(key, "i32") for key in kernel.arg_names}
        signature = {key: value if isinstance(value, str) else "constexpr" for key, value in values.items()}
        constants = {key: value for key, value in values.items() if not isinstance(value, str)}
        aligned = {(i,): [["tt.divisibility", 16]] for i, value in enumerate(values.values()) if str(value)[0] == "*"}
        source = ASTSource(kernel, signature, constants, aligned)
        binary = compile(source, target=GPUTarget("cuda", capability, 32), options=OPTIONS)
        architecture = f"sm_{capability}" + ("a" if capability >= 90 else "")
        words = [get_ptxas(capability).path, "-v", f"--gpu-name={architecture}", "-", "-o", os.devnull]
        told = subprocess.run(words, input=binary.asm["ptx"], capture_output=True, text=True, check=True).stderr
        registers, spilled = (
            int(re.search(p, told)[1]) for p in (r"Used (\d+) registers", r"(\d+) bytes spill stores")
        )
        found[name] = (binary.metadata.shared, registers, spilled)
    return found


@in_torch
@pytest.mark.slow
@pytest.mark.parametrize("cosine", [False, True])
@pytest.mark.parametrize("dtype", [torch.half, torch.bfloat16, torch.float])
@pytest.mark.parametrize("window", [4, 7, 8, 12, 16])
@pytest.mark.parametrize("capability", [80, 86, 90])
def test_the_kernels_fit_into_registers_and_shared_memory(capability, window, dtype, cosine):
    """Without a GPU. 48 KiB are what every GPU gives a program, so that several fit beside one another."""
    pytest.importorskip("triton")
    found = compiled_for(capability, dtype, window, cosine)
    print(capability, window, str(dtype), "V2" if cosine else "V1", found)
    for shared, _, spilled in found.values():
        assert shared <= 48 * 1024
        assert spilled <= 256


@in_torch
def test_a_cpu_and_a_model_without_swin_are_refused():
    timms, _ = pair(V1)
    with pytest.raises(InputError, match=r"is 'triton', which needs.*fast_attention: true") as found:
        accelerate(timms, torch.device("cpu"), "triton")
    assert "'cpu'" in str(found.value)
    with pytest.raises(InputError, match="no block of timm's Swin"):
        accelerate(timm.create_model("resnet18"), kernel="triton")


@in_torch
def test_missing_triton_and_old_gpus_are_named(monkeypatch):
    monkeypatch.setattr(torch.cuda, "get_device_capability", lambda device: (7, 5))
    monkeypatch.setattr(torch.cuda, "get_device_name", lambda device: "Tesla T4")
    assert "or later, but the device is Tesla T4" in window_attention.triton_problem(torch.device("cuda"))
    monkeypatch.setattr(torch.cuda, "get_device_capability", lambda device: (8, 0))
    assert window_attention.triton_problem(torch.device("cuda")) is None
    monkeypatch.setattr(window_attention.importlib.util, "find_spec", lambda name: None)
    assert "which is not installed" in window_attention.triton_problem(torch.device("cuda"))


@in_torch
def test_a_config_that_asks_for_it_on_a_cpu_is_refused(competition, tmp_path, capsys):
    changes = {"model.fast_attention": "triton", "trainer.accelerator": "cpu"}
    config = write_config(tmp_path / "c.yaml", tiny_config(competition, tmp_path / "runs", **changes))
    assert main(["fit", "--config", str(config), "--fold", "0"]) == 2
    assert "Write model.fast_attention: true." in capsys.readouterr().err
    config = write_config(tmp_path / "d.yaml", tiny_config(competition, tmp_path / "runs", **changes | {"name": "d"}))
    assert main(["fit", "--config", str(config), "--model.fast_attention", "tritn"]) == 2


@in_torch
def test_a_run_trained_with_it_is_predicted_elsewhere_which_is_said(competition, tmp_path, capsys):
    pytest.importorskip("triton")
    changes = {"model.fast_attention": "triton", "trainer.accelerator": "cpu", "trainer.max_epochs": 1}
    config = write_config(tmp_path / "c.yaml", tiny_config(competition, tmp_path / "runs", **changes))
    words = [sys.executable, "-m", "swinft", "fit", "--config", str(config), "--fold", "0"]
    environment = {**os.environ, "TRITON_INTERPRET": "1"}
    done = subprocess.run(words, cwd=ROOT, env=environment, capture_output=True, text=True, timeout=300)
    assert done.returncode == 0, done.stderr
    run, output = tmp_path / "runs" / "tiny", tmp_path / "predictions.csv"
    assert main(["predict", str(run), "--folds", "0", "--device", "cpu", "--output", str(output)]) == 0
    assert capsys.readouterr().out.count("but the device is 'cpu': predicting as with true") == 1
    assert len(Predictions.read(output, 3)) == 6
