"""Trains one model of each timm family for two steps with averaged weights, at its native size and at another.

    python benchmarks/families.py                       # a quarter of an hour on two cores
    python benchmarks/families.py --only swin_transformer,vgg     # the other results are kept

Each either works or is an error with a reason. The error is verified with timm: if timm's own model, built for the
size, returns features, the error is reported as wrong. Writes benchmarks/results/families.json.
"""

import argparse
import gc
import json
import time
from typing import Any

import timm
import torch
from measure import RESULTS, machine, write
from timm.models import _registry

from swinft import ClassificationHead, FineTuneTask
from swinft.errors import InputError
from swinft.model.settings import ComputeConfig, TaskContext
from swinft.model.trial import try_step

# By timm's module: the model with the fewest operations at its native size among the small ones.
MODELS = {
    "beit": "beit_base_patch16_224",
    "byoanet": "eca_botnext26ts_256",
    "byobnet": "mobileone_s0",
    "cait": "cait_xxs24_224",
    "coat": "coat_tiny",
    "convit": "convit_tiny",
    "convmixer": "convmixer_768_32",
    "convnext": "convnext_atto_rms",
    "cpubone": "cpubone_nano",
    "crossvit": "crossvit_tiny_240",
    "csatv2": "csatv2",
    "cspnet": "cs3darknet_focus_s",
    "cspnext": "cspnext_tiny",
    "davit": "davit_tiny",
    "deepseek_vit": "deepseek_vit_412m",
    "deit": "deit_tiny_patch16_224",
    "densenet": "densenet121",
    "dla": "dla46_c",
    "dpn": "dpn48b",
    "edgenext": "edgenext_xx_small",
    "efficientformer": "efficientformer_l1",
    "efficientformer_v2": "efficientformerv2_s0",
    "efficientnet": "tinynet_e",
    "efficientvim": "efficientvim_m1",
    "efficientvit_mit": "efficientvit_b0",
    "efficientvit_msra": "efficientvit_m0",
    "eva": "eva02_tiny_patch14_224",
    "fasternet": "fasternet_t0",
    "fastvit": "fastvit_t8",
    "focalnet": "focalnet_tiny_srf",
    "gcvit": "gcvit_xxtiny",
    "gemma4_vit": "gemma4_vit_167m",
    "ghostnet": "ghostnet_050",
    "hardcorenas": "hardcorenas_b",
    "hgnet": "hgnetv2_b0",
    "hiera": "hiera_tiny_224",
    "hieradet_sam2": "hieradet_small",
    "hrnet": "hrnet_w18_small",
    "iformer": "iformer_t",
    "inception_next": "inception_next_atto",
    "inception_resnet_v2": "inception_resnet_v2",
    "inception_v3": "inception_v3",
    "inception_v4": "inception_v4",
    "lcnetv2": "lcnetv2_small",
    "levit": "levit_128s",
    "lowformer": "lowformer_b0",
    "mambaout": "mambaout_femto",
    "maxxvit": "maxvit_pico_rw_256",
    "metaformer": "poolformerv2_s12",
    "mlp_mixer": "gmlp_ti16_224",
    "mobilenetv3": "mobilenetv3_small_050",
    "mobilenetv5": "mobilenetv5_base",
    "mobilevit": "mobilevit_xxs",
    "mvitv2": "mvitv2_tiny",
    "naflexvit": "naflexvit_base_patch16_gap",
    "nasnet": "nasnetalarge",
    "nest": "nest_tiny",
    "nextvit": "nextvit_small",
    "nfnet": "nf_regnet_b0",
    "pit": "pit_ti_224",
    "pnasnet": "pnasnet5large",
    "pvt_v2": "pvt_v2_b0",
    "qwen3_vit": "qwen3_vit_88m",
    "rdnet": "rdnet_tiny",
    "regnet": "regnetx_002",
    "repghost": "repghostnet_050",
    "repvit": "repvit_m1",
    "res2net": "res2next50",
    "resnest": "resnest14d",
    "resnet": "resnet18",
    "resnetv2": "resnetv2_18",
    "rexnet": "rexnet_100",
    "selecsls": "selecsls42",
    "senet": "legacy_seresnet18",
    "sequencer": "sequencer2d_s",
    "shvit": "shvit_s1",
    "sknet": "skresnet18",
    "starnet": "starnet_s050",
    "swiftformer": "swiftformer_xs",
    "swin_mlp": "swin_mlp_tiny_c24_patch4_window8_256",
    "swin_transformer": "swin_tiny_patch4_window7_224",
    "swin_transformer_v2": "swinv2_tiny_window8_256",
    "swin_transformer_v2_cr": "swinv2_cr_tiny_224",
    "tiny_vit": "tiny_vit_5m_224",
    "tnt": "tnt_s_legacy_patch16_224",
    "tresnet": "tresnet_m",
    "twins": "twins_svt_small",
    "vgg": "vgg11",
    "visformer": "visformer_tiny",
    "vision_transformer": "vit_tiny_patch16_224",
    "vision_transformer_hybrid": "vit_tiny_r_s16_p8_224",
    "vision_transformer_relpos": "vit_srelpos_small_patch16_224",
    "vision_transformer_sam": "samvit_base_patch16_224",
    "vitamin": "vitamin_small_224",
    "volo": "volo_d1_224",
    "vovnet": "ese_vovnet19b_dw",
    "xception": "legacy_xception",
    "xception_aligned": "xception41p",
    "xcit": "xcit_nano_12_p8_224",
}
# Transformers with identical blocks: two of them are enough, with a tenth of the memory of 24.
SHALLOW = {"beit", "deepseek_vit", "gemma4_vit", "naflexvit", "qwen3_vit", "vision_transformer_sam"}
# A multiple of its patches of 14 px: other sizes would crop the image, which is an error.
OTHER = {"deepseek_vit": 560, "eva": 252}
CLASSES, BATCH = 3, 2


def families() -> set[str]:
    """Modules of the installed timm that define models for use."""
    return {_registry._model_to_module[name] for name in timm.list_models() if not name.startswith("test_")}


def arguments(family: str) -> dict[str, Any] | None:
    """Arguments that shrink a family's model."""
    return {"depth": 2} if family in SHALLOW else None


def try_model(family: str, size: int) -> str:
    """`works`, or the error message."""
    targets = torch.arange(CLASSES).repeat(2)
    try:
        for _ in range(2):
            task = FineTuneTask(
                ClassificationHead, MODELS[family], False, arguments(family), ema_decay=0.9, num_outputs=CLASSES,
                context=TaskContext(image_size=size), compute=ComputeConfig(fast_attention=False),
            )  # fmt: skip
            task.initialize(targets)
            try_step(task, targets, None, (size, size), BATCH)
    except InputError as error:
        return str(error)
    finally:
        gc.collect()
    return "works"


def timm_works(family: str, size: int) -> bool:
    """Whether timm's own model, built for the size if possible, returns features for an image of this size."""
    for more in ({"img_size": size}, {}):
        try:
            model = timm.create_model(MODELS[family], num_classes=0, **(arguments(family) or {}), **more).eval()
            with torch.inference_mode():
                features = model(torch.zeros(1, 3, size, size))
            if isinstance(features, torch.Tensor) and features.ndim == 2:
                return True
        except Exception:  # any error: it does not work
            continue
    return False


def other_size(family: str, native: int) -> int:
    """A size that is not the native one, a multiple of 32 and near it."""
    return OTHER.get(family, native // 32 * 32 + 32)


def row(family: str) -> dict[str, Any]:
    """The result for one family at both sizes."""
    config = timm.get_pretrained_cfg(MODELS[family])
    native = config.input_size[-1] if config else 224
    started = time.perf_counter()
    found: dict[str, Any] = {"model": MODELS[family], "native": native, "other": other_size(family, native)}
    for key in ("native", "other"):
        said = try_model(family, found[key])
        found[f"at {key}"] = said
        found[f"{key} is true"] = said == "works" or not timm_works(family, found[key])
    return found | {"seconds": round(time.perf_counter() - started, 1)}


def main() -> None:
    """Tries every family."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--only", help="families, joined by commas")
    options = parser.parse_args()
    missing = families() - set(MODELS)
    if missing:
        print(f"families without a model here: {', '.join(sorted(missing))}")
    file = RESULTS / "families.json"
    found = json.loads(file.read_text())["families"] if options.only and file.is_file() else {}
    for family in options.only.split(",") if options.only else sorted(MODELS):
        found[family] = row(family)
        print(family, found[family], flush=True)
    write("families", {"machine": machine(), "missing": sorted(missing), "families": dict(sorted(found.items()))})


if __name__ == "__main__":
    main()
