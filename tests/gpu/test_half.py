"""fp16 as on GPUs without bf16 units, on a CPU: loss scaling, steps that it skips, and number formats."""

import pytest
import torch
from lightning.pytorch.plugins.precision import MixedPrecision

from swinft.cli import main
from swinft.model import window_attention
from swinft.model.backbone import create_backbone
from tests.conftest import TINY_SWIN, tiny_config, write_config
from tests.model.test_task import Rows, make_task
from tests.model.test_task import fit as fit_task


def half(**options) -> MixedPrecision:
    """What Lightning makes of `16-mixed` on a GPU, for this CPU."""
    return MixedPrecision("16-mixed", "cpu", torch.amp.GradScaler("cpu", **options))


@pytest.fixture
def checked(monkeypatch) -> list[torch.dtype]:
    """What the attention's check computes in, in the order of its calls."""
    dtypes: list[torch.dtype] = []
    results = window_attention._results

    def seen(block, x, dtype):
        dtypes.append(dtype)
        return results(block, x, dtype)

    monkeypatch.setattr(window_attention, "_results", seen)
    return dtypes


def test_w6_the_attention_is_checked_in_what_a_trainer_trains_in(checked):
    fit_task(make_task(), Rows(8), max_epochs=1, plugins=[half()])
    assert set(checked) == {torch.float, torch.half}
    checked.clear()
    fit_task(make_task(), Rows(8), max_epochs=1)
    assert set(checked) == {torch.float}


def test_w6_the_attention_is_checked_in_what_a_run_trains_and_predicts_in(checked, competition, tmp_path):
    changes = {"trainer.precision": "bf16-mixed", "trainer.max_epochs": 1}
    config = write_config(tmp_path / "c.yaml", tiny_config(competition, tmp_path / "runs", **changes))
    assert main(["fit", "--config", str(config), "--fold", "0"]) == 0
    assert checked.count(torch.bfloat16) == checked.count(torch.float)
    per_network = len(checked) // 2  # one that trains, one that predicts
    checked.clear()
    assert main(["predict", str(tmp_path / "runs" / "tiny"), "--folds", "0", "--device", "cpu"]) == 0
    assert set(checked) == {torch.float, torch.bfloat16}
    assert len(checked) == per_network


def test_s12_a_kernel_is_compiled_for_the_formats_that_are_used_only(monkeypatch):
    model = create_backbone("swin_tiny_patch4_window7_224", 32, False, backbone_args=dict(TINY_SWIN)).model
    dtypes = []
    monkeypatch.setattr(window_attention, "_refuse_triton", lambda *_: None)
    monkeypatch.setattr(window_attention, "_results", lambda block, x, dtype: dtypes.append(dtype) or [x])
    window_attention.accelerate(model, torch.device("cpu"), "triton", torch.half)
    assert set(dtypes) == {torch.float, torch.half}


@pytest.mark.parametrize("name", ["swin_tiny_patch4_window7_224", "swinv2_tiny_window8_256"])
def test_w6_large_weights_are_no_false_alarm_in_fp16(name):
    size = {"swinv2_tiny_window8_256": 64}.get(name, 56)
    model = create_backbone(name, size, False, backbone_args={"depths": [1, 2]}).model
    with torch.no_grad():
        for parameter in model.parameters():
            if parameter.ndim == 2:
                parameter *= 8
    window_attention.accelerate(model, dtype=torch.half)
