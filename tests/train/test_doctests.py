"""The examples in the docstrings are true."""

import doctest

import pytest
from openr1_repro.train import settings, traces


@pytest.mark.parametrize("module", [settings, traces])
def test_examples(module):
    result = doctest.testmod(module)
    assert result.attempted
    assert not result.failed


@pytest.mark.train_env
def test_examples_of_the_trainer():
    pytest.importorskip("torch")
    from openr1_repro.train import trainer

    assert doctest.testmod(trainer).attempted
    assert not doctest.testmod(trainer).failed
