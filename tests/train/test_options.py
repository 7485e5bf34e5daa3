"""The snapshot of upstream options equals what the train environment has installed."""

import pytest

pytest.importorskip("torch")
pytestmark = pytest.mark.train_env

from openr1_repro.train import options, settings  # noqa: E402


def test_the_snapshot_is_what_is_installed():
    installed = options.installed()
    snapshot = settings.options()
    for group, rows in installed.items():
        held = {name: snapshot[group].get(name) for name in rows} if group == "versions" else snapshot[group]
        assert held == rows, f"{group} differs: python -m openr1_repro.train.options"
