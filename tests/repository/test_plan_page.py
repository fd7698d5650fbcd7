"""docs/plan.md: the GPUs that it names, the constants of an estimate, and how near measured plans were."""

import json
import re

from swinft.run.plan import estimate, gpus, plan
from tests.conftest import ROOT

PAGE = " ".join((ROOT / "docs" / "plan.md").read_text().split())


def test_the_page_names_every_gpu():
    assert re.search(r"takes a number and a name: ([^.]+)\.", PAGE)[1].split(", ") == list(gpus.GPUS)


def test_the_page_has_the_constants_of_an_estimate():
    for said in (
        f"that of {estimate.TRAINED:.2f} of the peak rate, of a prediction {estimate.PREDICTED:.2f}",
        f"A fold starts in {estimate.START_UP:g} s, and its first batches take {estimate.FIRST:g} s more",
        f"{estimate.MARGIN - 1:.0%} more for the allocator".replace("%", " %"),
        f"and {estimate.CONTEXT / 2**30:g} GiB for CUDA",
        f"Scores and report take {plan.AFTER:g} s in the plan",
        f"`--seconds` ({plan.SECONDS:g}) is the time",
    ):
        assert said in PAGE


def test_the_page_says_how_near_the_measured_plans_were():
    cases = json.loads((ROOT / "benchmarks" / "results" / "plan.json").read_text())["cases"]
    number, percent = map(int, re.search(r"(\d+) plans were within (\d+) % of the time", PAGE).groups())
    off = max(abs(case["planned seconds"] / case["measured seconds"] - 1) for case in cases)
    assert number == len(cases)
    assert percent / 100 - 0.01 < off <= percent / 100
