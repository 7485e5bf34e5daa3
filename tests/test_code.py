"""A digest that follows what code does: not its comments, but the code it imports."""

import shutil
from pathlib import Path

import pytest
from openr1_repro import code

MODULES = {
    "__init__.py": "",
    "shared.py": '"""Shared."""\nLIMIT = 3  # three\n',
    "other.py": "UNRELATED = 1\n",
    "stage/__init__.py": "",
    "stage/__main__.py": "def main():\n    from package.stage.inner import step\n    return step()\n",
    "stage/beside.py": "WIDTH = 1\n",
    "stage/inner.py": 'from . import beside\nfrom ..shared import LIMIT\n\ndef step():\n    """Do it."""\n    return LIMIT\n',
}


@pytest.fixture
def package(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    folder = tmp_path / "package"
    for name, text in MODULES.items():
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_text(text)
    monkeypatch.setattr(code, "PACKAGE", folder)
    return folder


@pytest.mark.parametrize(
    ("name", "before", "after", "changes"),
    [
        ("shared.py", "# three", "# 3, as agreed", False),
        ("shared.py", '"""Shared."""', '"""Shared by all."""', False),
        ("stage/inner.py", '    """Do it."""\n', "", False),
        ("stage/inner.py", "return LIMIT", "return (LIMIT)", False),
        ("other.py", "1", "2", False),
        ("stage/beside.py", "1", "2", True),
        ("shared.py", "LIMIT = 3", "LIMIT = 4", True),
        ("stage/inner.py", "return LIMIT", "return LIMIT + 1", True),
        ("stage/__init__.py", "", "import os\n", True),
    ],
)
def test_digest_follows_meaning(package: Path, name: str, before: str, after: str, changes: bool) -> None:
    code._meaning.cache_clear()
    first = code.code_digest("stage.__main__")
    file = package / name
    file.write_text(file.read_text().replace(before, after, 1) if before else after)
    code._meaning.cache_clear()
    assert (code.code_digest("stage.__main__") != first) is changes


def test_layout_of_checkout_does_not_matter(package: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    first = code.code_digest("stage.__main__")
    elsewhere = tmp_path / "elsewhere" / "package"
    shutil.copytree(package, elsewhere)
    monkeypatch.setattr(code, "PACKAGE", elsewhere)
    assert code.code_digest("stage.__main__") == first
