"""`swinft inspect` through the command line: figures of the papers, runs, sizes, errors."""

import pytest
import timm

import swinft
from swinft.cli import main
from tests.json_documents import document_of

QUICK = ["--receptive-field", "off"]
# Parameters with 1000 classes, and 10⁹ MACs without the classifier (arXiv 2103.14030, table 1, and Microsoft's README).
PAPER = {
    224: {"swin_tiny_patch4_window7_224": (28_288_354, 4.49), "swin_small_patch4_window7_224": (49_606_258, 8.74)},
    384: {
        "swin_base_patch4_window12_384": (87_903_584, 47.08),
        "swin_large_patch4_window12_384": (196_735_516, 103.92),
    },
}
PAPER[224] |= {
    "swin_base_patch4_window7_224": (87_768_224, 15.43),
    "swin_large_patch4_window7_224": (196_532_476, 34.47),
}


def inspected(capsys, *words):
    return document_of(capsys, "inspect", *words, *QUICK)["networks"]


def stages(network):
    return [part for part in network["parts"] if part["name"].startswith("stage")]


@pytest.mark.slow
@pytest.mark.parametrize("side", PAPER)
def test_parameters_and_macs_are_those_of_the_paper(side, capsys):
    found = inspected(capsys, "--model.backbone", *PAPER[side])
    assert [each["name"] for each in found] == list(PAPER[side])
    for each in found:
        parameters, gmacs = PAPER[side][each["name"]]
        assert each["image_size"] == [side, side]
        assert each["parameters"] == parameters
        assert round(each["macs_without_classifier"] / 1e9, 2) == gmacs
        assert each["macs"] == each["macs_by_torch"] == sum(part["macs"] for part in each["parts"])


def test_attention_costs_what_the_formulas_of_the_paper_say(capsys):
    (found,) = inspected(capsys, "--model.backbone", "swin_tiny_patch4_window7_224")
    assert (found["parameters"], round(found["macs_without_classifier"] / 1e9, 2)) == (28_288_354, 4.49)
    assert found["parameters_without_classifier"] == 27_519_354
    assert found["macs"] == found["macs_by_torch"]
    for part, depth, heads in zip(stages(found), (2, 2, 6, 2), (3, 6, 12, 24), strict=True):
        (h, w), c, attention = part["grid"], part["channels"], part["attention"]
        assert attention["per_block"] == 4 * h * w * c**2 + 2 * 49 * h * w * c
        assert attention["macs"] == depth * attention["per_block"]
        assert (attention["heads"], attention["keys"], part["blocks"]) == (heads, 49, depth)
        shifts = [[0, 0], [0, 0] if h == 7 else [3, 3]] * (depth // 2)
        assert [each["shift"] for each in attention["windows"]] == shifts
        if h > 7:
            assert attention["if_global"] == 4 * h * w * c**2 + 2 * (h * w) ** 2 * c
    assert round(stages(found)[0]["attention"]["ratio"], 2) == 13.81
    assert stages(found)[3]["attention"]["ratio"] is None
    masked = stages(found)[0]["attention"]["windows"][1]["masked"]
    kept = (7 * 49 + 9 + 16) / (8 * 49)  # along one side: seven whole windows, and one of 4 + 3
    assert masked == pytest.approx(1 - kept**2)


def test_at_another_size_windows_divide_the_grid_or_it_is_said_what_padding_does(capsys):
    small = '{"embed_dim": 8, "depths": [2, 2, 2, 2], "num_heads": [1, 1, 2, 2]}'
    words = ["--model.backbone", "swin_tiny_patch4_window7_224", "--image-size", "256", "--model.backbone_args", small]
    (fitted,) = inspected(capsys, *words)
    assert [each["attention"]["windows"][0]["window"] for each in stages(fitted)] == [[8, 8]] * 4
    assert not any(window["padding"] for part in stages(fitted) for window in part["attention"]["windows"])
    assert fitted["notes"] == []
    (padded,) = inspected(capsys, *words, "--sizing", "img_size")
    windows = [part["attention"]["windows"][1] for part in stages(padded)]
    assert [each["padded"] for each in windows] == [[70, 70], [35, 35], [21, 21], [14, 14]]
    assert all(each["opposite_edges_attend"] for each in windows)
    assert windows[0]["padding"] == pytest.approx(1 - 64**2 / 70**2)
    assert padded["macs"] == padded["macs_by_torch"] > fitted["macs"]
    assert "tokens of opposite edges attend to each other" in padded["notes"][1]


def test_backbones_of_other_kinds_side_by_side(capsys):
    names = ["vit_tiny_patch16_224", "resnet18", "mixer_s32_224"]
    assert main(["inspect", "--model.backbone", *names, "--receptive-field", "off"]) == 0
    out = capsys.readouterr().out
    assert max(map(len, out.splitlines())) <= 120
    compared = out.split("\n\n")[3].splitlines()
    assert [line.split()[0] for line in compared[1:]] == names
    vit, resnet, mixer = inspected(capsys, "--model.backbone", *names)
    assert stages(vit)[0]["attention"]["keys"] == 197
    assert stages(vit)[0]["attention"]["reach"] == "all tokens"
    assert [part["blocks"] for part in stages(vit)] == [12]
    assert [(part["grid"][0], part["channels"], part["blocks"]) for part in stages(resnet)] == [
        (56, 64, 2),
        (28, 128, 2),
        (14, 256, 2),
        (7, 512, 2),
    ]
    assert not any(part["attention"] for each in (resnet, mixer) for part in stages(each))
    assert all(each["macs"] == each["macs_by_torch"] for each in (vit, resnet, mixer))


def test_attention_is_told_from_products_with_weights(capsys):
    """A learnt query, position products of queries with weights, and heads that attend one after another."""
    small = ["--model.backbone_args", '{"depth": 1, "embed_dim": 24, "num_heads": 2}']
    siglip, sam = inspected(
        capsys, "--model.backbone", "vit_base_patch16_siglip_224", "samvit_base_patch16_224", *small
    )
    assert (stages(siglip)[0]["attention"]["keys"], stages(siglip)[0]["attention"]["reach"]) == (196, "all tokens")
    assert (stages(sam)[0]["attention"]["keys"], stages(sam)[0]["attention"]["reach"]) == (196, "all tokens")
    (cascaded,) = inspected(capsys, "--model.backbone", "efficientvit_m0")
    assert [(part["attention"]["reach"], part["attention"]["keys"]) for part in stages(cascaded)[:2]] == [
        ("windows", 49),
        ("all tokens", 49),
    ]
    (coarse,) = inspected(capsys, "--model.backbone", "efficientformerv2_s0")
    assert (stages(coarse)[2]["attention"]["reach"], stages(coarse)[2]["attention"]["keys"]) == ("fewer keys", 49)
    assert all(each["macs"] == each["macs_by_torch"] for each in (siglip, sam, cascaded, coarse))


def test_attention_counts_also_where_timm_knows_no_grid(capsys):
    (found,) = inspected(capsys, "--model.backbone", "twins_pcpvt_small")
    whole = timm.create_model("twins_pcpvt_small")
    assert [part["name"] for part in found["parts"]] == ["stage 1", "head"]
    assert found["parts"][1]["parameters"] == sum(each.numel() for each in whole.head.parameters())
    assert found["attention_share"] > 0.2
    assert (found["parts"][0]["attention"]["reach"], found["parts"][0]["attention"]["ratio"]) == (None, None)
    printed = str(swinft.inspect(backbone=["twins_pcpvt_small", "resnet18"], receptive_field="off"))
    assert printed.split("\n\n")[2].splitlines()[1].split()[-2:] == [f"{found['attention_share']:.0%}", "49"]


# Parameters as timm builds them, and blocks of each stage.
FAMILIES = {
    "swinv2_tiny_window8_256": [2, 2, 6, 2],
    "swinv2_cr_tiny_224": [2, 2, 6, 2],
    "swin_s3_tiny_224": [2, 2, 6, 2],
    "deit_tiny_distilled_patch16_224": [12],
    "beit_base_patch16_224": [12],
    "vit_small_patch14_dinov2": [12],
    "eva02_tiny_patch14_224": [12],
    "convnext_atto": [2, 2, 6, 2],
    "convnextv2_atto": [2, 2, 6, 2],
    "resnet50": [3, 4, 6, 3],
    "resnetv2_50": [3, 4, 6, 3],
    "regnety_002": [1, 1, 4, 7],
    "tf_efficientnet_lite0": [1, 2, 2, 6, 5],
    "tf_efficientnetv2_s": [2, 4, 4, 15, 15],
    "mobilenetv3_small_100": None,
    "mobilenetv4_conv_small": [0, 2, 2, 6, 7],
    "rdnet_tiny": [3, 4, 16, 4],
    "dpn68": [3, 4, 12, 3],
    "efficientvit_m0": [1, 2, 3],
    "repvgg_a0": [2, 4, 14, 1],
    "starnet_s1": None,
    "fasternet_t0": [1, 2, 8, 2],
    "vit_base_patch16_siglip_224": [12],
    "cait_xxs24_224": None,
    "hiera_tiny_224": [1, 2, 7, 2],
    "fastvit_t8": [2, 2, 4, 2],
    "mixer_b16_224": [12],
    "resmlp_12_224": [12],
    "gmlp_s16_224": [30],
    "maxvit_tiny_tf_224": [2, 2, 5, 2],
    "xcit_nano_12_p16_224": [12],
    "pvt_v2_b0": [2, 2, 2, 2],
    "halonet26t": [1, 2, 2, 2, 2],
    "vgg11": None,
    "inception_v3": [1, 2, 3, 5, 3],
    "densenet121": [0, 6, 12, 24, 16],
    "ese_vovnet39b": [1, 2, 1, 2, 2],
    "hrnet_w18_small": None,
    "nfnet_f0": None,
    "poolformer_s12": [2, 2, 6, 2],
    "coatnet_nano_rw_224": [3, 4, 6, 3],
    "levit_128s": None,
    "efficientformer_l1": None,
    "nest_tiny": [1, 2, 8],
    "twins_svt_small": None,
    "davit_tiny": [2, 2, 6, 2],
    "focalnet_tiny_srf": [2, 2, 6, 2],
    "edgenext_xx_small": [2, 2, 6, 2],
}


NO_MAPS = {
    "hrnet_w18_small",
    "pit_ti_224",
    "twins_svt_small",
}  # whose modules return lists, or tokens without their grid


@pytest.mark.slow
@pytest.mark.parametrize("name", FAMILIES)
def test_any_family_is_counted_as_torch_counts_it(name, capsys):
    (found,) = inspected(capsys, "--model.backbone", name)
    whole = timm.create_model(name, num_classes=1000)  # some have none by default
    assert found["parameters"] == sum(each.numel() for each in whole.parameters())
    assert found["macs"] == found["macs_by_torch"] > 0
    if name not in NO_MAPS:
        assert all(part["grid"] for part in stages(found))
    if FAMILIES[name]:
        assert [part["blocks"] for part in stages(found)] == FAMILIES[name]
    made = swinft.inspect(backbone=name)
    known = [part.field for part in made.networks[0].parts[1:-1] if part.grid is not None]
    assert all(field is not None and field.height > 0 for field in known)


def test_the_network_of_a_run_with_its_head(tiny_run, capsys):
    (found,) = inspected(capsys, str(tiny_run))
    assert found["image_size"] == [32, 32]
    network = swinft.open_run(tiny_run).network(0)
    assert found["parameters"] == sum(each.numel() for each in network.parameters())
    head = sum(each.numel() for each in network.head.parameters())
    assert found["parameters"] - found["parameters_without_classifier"] == head
    assert [part["grid"] for part in found["parts"][:3]] == [[8, 8], [8, 8], [4, 4]]
    made = swinft.inspect([swinft.open_run(tiny_run)], "vit_tiny_patch16_224")
    assert [each.image_size for each in made.networks] == [(32, 32), (224, 224)]
    assert made.networks[0].parts[1].field.how == "windows"
    assert set(made.to_frame()["network"]) == {str(tiny_run), "vit_tiny_patch16_224"}


@pytest.mark.parametrize(
    ("words", "message"),
    [
        ([], "name what to inspect"),
        (["--model.backbone", "swin_tinny_patch4_window7_224"], "Did you mean 'swin_tiny_patch4_window7_224'?"),
        (["--model.backbone", "swin_tiny_patch4_window7_224", "--image-size", "225"], "Set 224 or 228."),
        (["--model.backbone", "vit_tiny_patch16_224", "--image-size", "4"], "Allowed: a number from 8"),
        (["--model.backbone", "resnet18", "--image-size", "[8, 9, 10]"], "give one side, or height and width"),
        (["--model.backbone", "resnet18", "--image", "x.png", "--output", "x.html"], "no file 'x.png'"),
        (["--model.backbone", "resnet18", "--image", "x.png"], "add --output FILE.html"),
        (["--model.backbone", "resnet18", "--output", "x.pdf"], "name it FILE.html"),
        (["--model.backbone", "resnet18", "--model.backbone_args", '{"depth": 3}'], "model.backbone_args"),
        (["--model.backbone", "resnet18", "--classes", "-1"], "a whole number from 0"),
        (["--model.backbone_args", '{"a": 1}', "RUN"], "--model.backbone_args is for --model.backbone"),
        (["RUN", "--image-size", "64"], "--image-size is for backbones"),
        (["RUN", "--sizing", "img_size"], "--sizing is for backbones"),
        (["--model.backbone", "resnet18", "--sizing", "fit"], "sizing"),
    ],
)
def test_wrong_use_is_an_error_with_its_fix(words, message, tiny_run, capsys):
    assert main(["inspect", *(str(tiny_run) if word == "RUN" else word for word in words)]) == 2
    assert message in capsys.readouterr().err
