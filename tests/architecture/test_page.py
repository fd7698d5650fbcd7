"""The page and the drawings: complete, without requests, and with names as text."""

import base64
import hashlib
import re
import shutil

import numpy as np
import pytest
from PIL import Image

from swinft.architecture.drawings import cut, joined, region_map
from swinft.architecture.layout import Layout
from swinft.cli import main

SMALL = '{"embed_dim": 8, "depths": [2, 2], "num_heads": [1, 2], "window_size": 4}'
NAMES = ["patches", "windows", "blocks", "mask", "merging", "biases"]


def test_a_page_of_a_run_has_its_drawings_and_no_requests(tiny_run, tmp_path, capsys):
    folder = tmp_path / "<script>alert(1)</script> {{7*7}} $x$"
    shutil.copytree(tiny_run, folder)
    small = ["--model.backbone", "swin_tiny_patch4_window7_224", "--model.backbone_args", SMALL]
    Image.fromarray(np.random.default_rng(0).integers(0, 255, (50, 90, 3), np.uint8)).save(tmp_path / "photo.png")
    drawn = ["--drawings", str(tmp_path / "d"), "--image", str(tmp_path / "photo.png")]
    words = [str(folder), *small, *drawn, "--output", str(tmp_path / "page.html"), "--receptive-field", "off"]
    assert main(["inspect", *words]) == 0
    assert "page.html written" in capsys.readouterr().out
    page = (tmp_path / "page.html").read_text()
    assert page.count("<script") == 1
    assert "&lt;script&gt;alert(1)&lt;/script&gt; {{7*7}} $x$" in page
    style = re.search(r"<style>(.*?)</style>", page, re.DOTALL)[1]
    assert base64.b64encode(hashlib.sha256(style.encode()).digest()).decode() in page
    assert "default-src 'none'" in page
    assert not re.search(r"""(src|href)=["'](?!data:)""", page)
    assert "prefers-color-scheme: dark" in page
    files = sorted((tmp_path / "d").iterdir())
    assert {file.stem for file in files} == set(NAMES)
    for file in files:
        assert Image.open(file).size[0] > 200
        assert file.stat().st_size < 600_000  # of noise, which no format compresses
        assert base64.b64encode(file.read_bytes()).decode() in page
    frames = Image.open(tmp_path / "d" / "blocks.gif").n_frames
    assert frames > 6


def test_padded_windows_are_drawn_and_other_networks_are_not(tmp_path, capsys):
    small = ["--model.backbone_args", SMALL, "--receptive-field", "off", "--drawings", str(tmp_path / "d")]
    words = ["--model.backbone", "swinv2_tiny_window8_256", "--image-size", "[40, 72]", "--sizing", "img_size"]
    assert main(["inspect", *words, *small]) == 0
    assert {file.stem for file in (tmp_path / "d").iterdir()} == set(NAMES)
    assert main(["inspect", "--model.backbone", "resnet10t", "--drawings", str(tmp_path / "e")]) == 2
    assert "none of the networks has shifted windows, of which the drawings are: remove --drawings, or" in (
        capsys.readouterr().err
    )
    (tmp_path / "text.png").write_text("no image")
    assert main(["inspect", *words, *small, "--image", str(tmp_path / "text.png")]) == 2
    assert "--image: " in capsys.readouterr().err
    (tmp_path / "folder.html").mkdir()
    for where, message in (("folder.html", "is a folder"), ("text.png/page.html", "with --output")):
        assert main(["inspect", "--model.backbone", "resnet10t", "--output", str(tmp_path / where)]) == 2
        assert message in capsys.readouterr().err


def test_tokens_are_drawn_where_they_are():
    image = np.random.default_rng(0).integers(0, 255, (12, 8, 3), np.uint8)
    parts = cut(image, (6, 4))
    for token in range(24):
        row, column = 2 * (token // 4), 2 * (token % 4)
        assert np.array_equal(parts[token], image[row : row + 2, column : column + 2])
    assert np.array_equal(joined(parts, np.arange(24).reshape(6, 4)), image)
    rolled = np.roll(np.arange(24).reshape(6, 4), (-2, -1), (0, 1))
    assert np.array_equal(joined(parts, rolled), np.roll(image, (-4, -2), (0, 1)))
    assert (joined(parts, np.array([[-1]])) == 128).all()


@pytest.mark.parametrize("token", range(4))
def test_regions_are_the_tokens_that_attend_to_each_other(token):
    allowed = np.array([[[True, False], [False, True]], [[True, True], [True, True]]])
    layout = Layout((2, 2), (1, 2), np.array([[0, 1], [2, 3]]), allowed)
    assert layout.keys_of(token) == [[0], [1], [2, 3], [2, 3]][token]
    assert region_map(layout).tolist() == [0, 1, 2, 2]
