"""The mutants still fit the code; running them all takes a quarter of an hour: `python -m tests.integration.faults.mutants`."""

import pytest

from tests.conftest import ROOT
from tests.integration.faults.mutants import MUTANTS


@pytest.mark.parametrize("mutant", MUTANTS, ids=lambda mutant: mutant.name)
def test_a_mutant_changes_one_place(mutant):
    assert (ROOT / mutant.file).read_text().count(mutant.old) == 1
    assert mutant.old != mutant.new
    assert all((ROOT / test.partition("::")[0]).is_file() for test in mutant.tests if test.startswith("tests/"))
