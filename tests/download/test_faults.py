"""Every fault of faults.py: the right bytes in the end, from the right hub, with a line that says why."""

import re

import pytest

from . import faults


@pytest.fixture(scope="module")
def outcomes(request, tmp_path_factory):
    """The selected rows, several at a time: they mostly wait."""
    items = [item for item in request.session.items if item.originalname == "test_fault"]
    rows = [item.callspec.params["row"] for item in items]
    rows = [row for row in rows if not row.mounts or faults.can_mount()]
    found = faults.run_all(rows, tmp_path_factory.mktemp("faults"), at_once=8)
    return {(row.what, row.at): outcome for row, outcome in zip(rows, found, strict=True)}


@pytest.mark.timeout(1200)
@pytest.mark.parametrize(
    "row",
    [
        pytest.param(
            row,
            id=f"{row.at}: {row.what}",
            marks=[pytest.mark.slow] * row.slow + [faults.needs_mount] * row.mounts,
        )
        for row in faults.ROWS
    ],
)
def test_fault(outcomes, row):
    outcome = outcomes[row.what, row.at]
    other = "modelscope" if row.at == "huggingface" else "huggingface"
    assert re.search(row.reads, outcome.said), outcome.said
    assert outcome.source == {"same": row.at, "other": other, None: None}[row.gives]
    assert row.after < outcome.seconds < row.within
    if row.gives is None:
        assert outcome.left.startswith("no manifest")
    else:
        assert outcome.files == faults.WANTED or "moves midway" in row.what or row.everything
        assert outcome.left == f"whole, from {outcome.source}"


def test_enough_rows():
    assert len(faults.ROWS) >= 25
