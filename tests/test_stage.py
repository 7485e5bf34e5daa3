"""What all stages share: whole outputs, errors for people, stable names."""

import json
import subprocess
import sys
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st
from openr1_repro import stage


class Example(stage.Settings):
    """An example."""

    size: int
    name: str = "x"


def test_replacing_keeps_the_old_until_the_new_is_whole(tmp_path: Path) -> None:
    target = tmp_path / "out.json"
    stage.write_json(target, {"a": 1})
    with pytest.raises(RuntimeError), stage.replacing(target) as draft:  # noqa: PT012
        draft.write_text("half")
        raise RuntimeError
    assert json.loads(target.read_text()) == {"a": 1}
    assert [p.name for p in tmp_path.iterdir()] == ["out.json"]


def test_replacing_swaps_whole_folders(tmp_path: Path) -> None:
    target = tmp_path / "folder"
    for content in ("old", "new"):
        with stage.replacing(target) as draft:
            draft.mkdir()
            (draft / content).touch()
    assert [p.name for p in target.iterdir()] == ["new"]
    assert [p.name for p in tmp_path.iterdir()] == ["folder"]


def test_settings_errors_name_every_key() -> None:
    with pytest.raises(stage.UserError) as caught:
        stage.parse_settings('{"size": "many", "nam": 1}', Example)
    assert "--settings: size:" in str(caught.value)
    assert "--settings: nam:" in str(caught.value)


def test_settings_from_a_file(tmp_path: Path) -> None:
    (tmp_path / "s.json").write_text('{"size": 3}')
    assert stage.parse_settings(f"@{tmp_path}/s.json", Example).size == 3
    with pytest.raises(stage.UserError, match=r"missing\.json: cannot be read"):
        stage.parse_settings(f"@{tmp_path}/missing.json", Example)


def test_user_error_has_no_traceback() -> None:
    code = (
        "from openr1_repro.stage import run, UserError\n"
        "def main(): raise UserError('a.yaml:3: key: wrong\\nb.yaml:1: key: missing')\n"
        "run(main)"
    )
    done = subprocess.run(
        [sys.executable, "-c", code],
        text=True,
        capture_output=True,
        env={"PYTHONPATH": str(Path(stage.__file__).parents[1])},
    )
    assert done.returncode == 1
    assert done.stderr == "error: a.yaml:3: key: wrong\nerror: b.yaml:1: key: missing\n"


json_values = st.recursive(
    st.none() | st.booleans() | st.integers() | st.text(),
    lambda inner: st.lists(inner) | st.dictionaries(st.text(), inner),
)


@given(st.dictionaries(st.text(), json_values))
def test_digest_does_not_see_the_order_of_keys(value: dict[str, object]) -> None:
    assert stage.digest(value) == stage.digest(dict(reversed(value.items())))
    assert len(stage.digest(value)) == 12
