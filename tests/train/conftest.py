import sys
from pathlib import Path

import pytest

sys.path.insert(0, str(Path(__file__).parent))  # `tiny` and `running` are for all tests here
import tiny


@pytest.fixture(scope="module")
def inputs(tmp_path_factory):
    """A folder with a tiny model and prompts for it."""
    folder = tmp_path_factory.mktemp("inputs")
    tiny.make_model(folder / "model")
    tiny.make_prompts(folder / "prompts")
    return folder
