"""Every fault of faults.py: the right bytes in the end, from the right hub, with a line that says why."""

import re

import pytest

from . import faults


@pytest.fixture(scope="module")
def outcomes(tmp_path_factory):
    found = faults.run_all(faults.ROWS, tmp_path_factory.mktemp("faults"))
    return {(row.what, row.at): outcome for row, outcome in zip(faults.ROWS, found, strict=True)}


@pytest.mark.timeout(1200)
@pytest.mark.parametrize("row", faults.ROWS, ids=lambda row: f"{row.at}: {row.what}")
def test_fault(outcomes, row):
    outcome = outcomes[row.what, row.at]
    other = "modelscope" if row.at == "huggingface" else "huggingface"
    assert re.search(row.reads, outcome.said), outcome.said
    assert outcome.source == {"same": row.at, "other": other, None: None}[row.gives]
    assert outcome.files == faults.WANTED or "moves midway" in row.what or row.everything
    assert outcome.left == f"whole, from {outcome.source}"
    assert outcome.seconds < row.within


def test_enough_rows():
    assert len(faults.ROWS) >= 25
