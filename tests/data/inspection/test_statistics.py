"""Statistics of images, compared with NumPy and SciPy."""

import numpy as np
import pytest
from PIL import Image
from scipy.ndimage import convolve

from swinft.data.inspection.statistics import STATISTICS, statistics


@pytest.mark.parametrize(("dtype", "white"), [(np.uint8, 255), (np.uint16, 65535), (np.float32, 1)])
def test_statistics_are_those_of_numpy_in_shares_of_white(dtype, white):
    shares = np.random.default_rng(0).random((9, 7, 3))
    pixels = (shares * white).astype(dtype)
    found = dict(zip(STATISTICS, statistics(pixels), strict=True))
    for k, name in enumerate(("red", "green", "blue")):
        assert found[f"mean_{name}"] == pytest.approx(shares[..., k].mean(), abs=0.005)
        assert found[f"spread_{name}"] == pytest.approx(shares[..., k].std(), abs=0.005)
    grey = shares @ [0.299, 0.587, 0.114]
    edges = convolve(grey, [[0, 1, 0], [1, -4, 1], [0, 1, 0]], mode="mirror")
    assert found["sharpness"] == pytest.approx(edges.std(), rel=0.02)


def test_statistics_of_a_pixel_of_what_is_not_finite_and_of_a_blurred_image():
    assert statistics(np.full((1, 1, 3), 255, np.uint8)).tolist() == [1, 1, 1, 0, 0, 0, 0]
    assert not statistics(np.full((4, 4, 3), np.nan, np.float32)).any()
    sharp = np.random.default_rng(0).integers(0, 256, (32, 32, 3), dtype=np.uint8)
    blurred = np.asarray(Image.fromarray(sharp).resize((8, 8), Image.Resampling.BOX).resize((32, 32)))
    assert statistics(blurred)[-1] < statistics(sharp)[-1] / 4
