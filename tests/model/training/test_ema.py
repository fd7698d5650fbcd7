"""Averaged weights: exact where exactness matters."""

import pytest
import timm
import torch
from timm.utils import ModelEmaV3
from torch import nn

from swinft.cli import main
from swinft.errors import InputError
from swinft.model.training.ema import AveragedWeights, EMAConfig, ema_update
from tests.conftest import power_gone_after, tiny_config, write_config


def tiny_swin() -> nn.Module:
    # Window 7, as in every real Swin: truncation corrupts the indices of this window at these decays.
    return timm.create_model("swin_tiny_patch4_window7_224", img_size=56, embed_dim=12, depths=(1, 1), num_heads=(1, 2))


def integer_buffers(module: nn.Module) -> dict[str, torch.Tensor]:
    return {name: buffer for name, buffer in module.named_buffers() if not buffer.is_floating_point()}


@pytest.mark.parametrize("decay", [0.9, 0.9995, 0.9999])
def test_integer_buffers_equal_a_fresh_models(decay):
    net = tiny_swin()
    averaged = AveragedWeights(net, decay)
    averaged._num_updates = 10**6  # warmed up: the decay is the full one
    for _ in range(3):
        averaged.update(net)
    fresh = integer_buffers(tiny_swin())
    assert len(fresh) >= 2
    for name, buffer in integer_buffers(averaged.module).items():
        assert torch.equal(buffer, fresh[name]), name


def test_the_plain_average_would_corrupt_them():
    """The control: what `use_buffers=True` averaging does to the same index."""
    index = next(iter(integer_buffers(tiny_swin()).values()))
    corrupted = (index * 0.9999 + index * (1 - 0.9999)).to(index.dtype)
    assert not torch.equal(corrupted, index)


def test_an_update_is_the_weighted_mean_of_every_parameter():
    averaged, current = tiny_swin(), tiny_swin()
    before = [p.clone() for p in averaged.parameters()]
    ema_update(averaged, current, 0.75)
    for old, new, now in zip(before, averaged.parameters(), current.parameters(), strict=True):
        torch.testing.assert_close(new, 0.75 * old + 0.25 * now)


@pytest.mark.parametrize(("decay", "same_as_current"), [(0.0, True), (1.0, False)])
def test_the_ends_of_the_decay(decay, same_as_current):
    averaged, current = nn.Linear(3, 3), nn.Linear(3, 3)
    before = averaged.weight.clone()
    ema_update(averaged, current, decay)
    torch.testing.assert_close(averaged.weight, current.weight if same_as_current else before)


def test_running_statistics_are_copied():
    averaged, current = nn.BatchNorm1d(2), nn.BatchNorm1d(2)
    current(torch.randn(8, 2) + 5)
    ema_update(averaged, current, 0.999)
    assert torch.equal(averaged.running_mean, current.running_mean)
    assert int(averaged.num_batches_tracked) == 1


def test_the_count_survives_saving_and_the_decay_warms_up():
    net = nn.Linear(1, 1, bias=False)
    averaged = AveragedWeights(net, 0.999)
    net.weight.data.fill_(averaged.module.weight.item() + 1)
    start = averaged.module.weight.item()
    averaged.update(net)
    assert averaged.module.weight.item() - start == pytest.approx(0.9)  # decay 1/10 at the first update
    again = AveragedWeights(net, 0.999)
    again.load_state_dict(averaged.state_dict())
    again.update(net)
    assert int(again.updates) == 2


def test_it_is_never_trained():
    averaged = AveragedWeights(nn.Sequential(nn.Linear(2, 2), nn.Dropout()), 0.9)
    averaged.train()
    assert not any(module.training for module in averaged.modules())
    assert not any(p.requires_grad for p in averaged.parameters())


@pytest.mark.parametrize("power", [2 / 3, 0.9])
def test_the_power_warm_up_is_timms(power):
    config = EMAConfig(0.9, "power", gamma=2.0, power=power, start_steps=3)
    timms = ModelEmaV3(nn.Linear(1, 1), 0.9, 0.0, 3, True, 2.0, power)
    # timm counts from 1, and lets the first step that it averages go by as a copy.
    assert [config.decay_at(n) for n in range(60)] == pytest.approx([timms.get_decay(n + 1) for n in range(60)])


def test_without_a_warm_up_the_decay_acts_from_its_start_on():
    net = nn.Linear(1, 1, bias=False)
    averaged = AveragedWeights(net, EMAConfig(0.75, "none", start_steps=1))
    for value in (4.0, 8.0):
        net.weight.data.fill_(value)
        averaged.update(net)
    assert averaged.module.weight.item() == 0.75 * 4 + 0.25 * 8
    assert [EMAConfig(0.999).decay_at(n) for n in (0, 10, 10**6)] == [0.1, 11 / 20, 0.999]


@pytest.mark.parametrize(
    ("wrong", "message"),
    [
        ({"decay": 1.0}, "ema_decay.decay is 1.0"),
        ({"warmup": "linear"}, "warmup is 'linear'"),
        ({"gamma": 2.0}, "gamma and power do nothing with warmup ratio"),
    ],
)
def test_wrong_settings_of_an_average_are_refused(wrong, message):
    with pytest.raises(InputError, match=message):
        EMAConfig(**wrong)


def test_a_number_and_its_mapping_train_the_same_and_a_warm_up_another(competition, tmp_path, capsys):
    def oof(name, *options, **changes):
        config = tiny_config(competition, tmp_path / "runs", name=name, **changes)
        path = write_config(tmp_path / f"{name}.yaml", config)
        words = ["fit", "--config", str(path), "--fold", "0"]
        if not options:
            assert main(words) == 0
        else:
            with power_gone_after(1):
                main(words)
            assert main([*words, *options]) == 0
        return (tmp_path / "runs" / name / "fold_0" / "weights.safetensors").read_bytes()

    number = oof("number", **{"model.ema_decay": 0.9})
    assert oof("mapping", **{"model.ema_decay": {"decay": 0.9}}) == number
    changed = {"model.ema_decay": {"decay": 0.9, "warmup": "power", "start_steps": 1}}
    whole = oof("whole", **changed)
    assert whole != number
    assert oof("again", "--resume", **changed) == whole
    late = write_config(
        tmp_path / "late.yaml", tiny_config(competition, tmp_path, **{"model.ema_decay": {"start_steps": 99}})
    )
    assert main(["check", "--config", str(late)]) == 2
    assert "start_steps is 99, and training takes 4: nothing would be averaged" in capsys.readouterr().err
    wrong = write_config(tmp_path / "w.yaml", tiny_config(competition, tmp_path, **{"model.ema_decay": {"decai": 0.9}}))
    assert main(["check", "--config", str(wrong)]) == 2
    assert "decai" in capsys.readouterr().err
