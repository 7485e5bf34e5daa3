import sys
from pathlib import Path

import pytest

sys.path.insert(
    0, str(Path(__file__).parent)
)  # for `tiny` and `running`, here and in the commands that the tests start


@pytest.fixture(scope="module")
def inputs(tmp_path_factory):
    """A folder with a tiny model and prompts for it."""
    import tiny

    folder = tmp_path_factory.mktemp("inputs")
    tiny.make_model(folder / "model")
    tiny.make_prompts(folder / "prompts")
    return folder
