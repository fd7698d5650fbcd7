"""What images.csv says of the images of rows."""

import csv

import numpy as np
import pytest
from PIL import Image


def test_a_run_records_sizes_and_statistics_of_every_image(tiny_run, competition):
    with (tiny_run / "images.csv").open(newline="") as file:
        lines = {(line["split"], line["id"]): line for line in csv.DictReader(file)}
    assert len(lines) == 30
    line = lines["test", "t3"]
    assert (line["width"], line["height"]) == ("36", "40")
    with Image.open(competition / "images" / "t3.jpg") as image:
        red, green, blue = (np.asarray(channel).mean() / 255 for channel in image.convert("RGB").split())
    for name, wanted in (("red", red), ("green", green), ("blue", blue)):
        assert float(line[f"mean_{name}"]) == pytest.approx(wanted, abs=0.02)  # the image is shrunk before
