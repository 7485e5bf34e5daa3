"""The examples in the docstrings are true."""

import doctest

import pytest
from openr1_repro.prepare import answers, contamination, ngrams, select


@pytest.mark.parametrize("module", [answers, contamination, ngrams, select])
def test_examples(module):
    result = doctest.testmod(module)
    assert result.attempted
    assert not result.failed
