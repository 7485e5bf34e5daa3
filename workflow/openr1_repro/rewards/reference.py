"""The part of docs/grpo.md that describes each reward, made from its docstring: ``python -m openr1_repro.rewards.reference``."""

import inspect
from pathlib import Path

from openr1_repro.rewards import functions
from openr1_repro.rewards.settings import REWARD_NAMES

PAGE = Path(__file__).parents[3] / "docs" / "grpo.md"
BEGIN = "<!-- from the docstrings: python -m openr1_repro.rewards.reference -->"
END = "<!-- end -->"


def section(name: str) -> str:
    """A reward's docstring as Markdown: what it rewards, formula, range, remarks, example."""
    text = inspect.getdoc(getattr(functions, name)) or ""
    parts = [f"### `{name}`"]
    for paragraph in text.split("\n\n"):
        if paragraph.startswith("Formula:"):
            formula, _, bounds = paragraph.removeprefix("Formula:").partition("\nRange:")
            parts.append(f"- **Formula** {' '.join(formula.split())}\n- **Range** {' '.join(bounds.split())}")
        elif paragraph.startswith(">>>"):
            parts.append(f"```python\n{paragraph}\n```")
        else:
            parts.append(" ".join(paragraph.split()).replace("``", "`"))
    return "\n\n".join(parts)


def page(text: str) -> str:
    """The page ``text`` with the part between the marks made anew."""
    before, _, rest = text.partition(BEGIN)
    _, _, after = rest.partition(END)
    body = "\n\n".join(section(name) for name in REWARD_NAMES)
    return f"{before}{BEGIN}\n\n{body}\n\n{END}{after}"


if __name__ == "__main__":
    PAGE.write_text(page(PAGE.read_text(encoding="utf-8")), encoding="utf-8")
