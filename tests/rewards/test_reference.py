"""docs/grpo.md says what the docstrings say."""

import re

from openr1_repro.rewards import reference
from openr1_repro.rewards.settings import REWARD_NAMES, RewardSettings


def test_the_page_is_up_to_date():
    text = reference.PAGE.read_text(encoding="utf-8")
    assert text == reference.page(text), "run: python -m openr1_repro.rewards.reference"


def test_every_reward_has_formula_range_and_example():
    for name in REWARD_NAMES:
        section = reference.section(name)
        assert all(part in section for part in ("**Formula**", "**Range**", "```python\n>>> "))


def test_options_that_the_page_names_exist():
    text = reference.PAGE.read_text(encoding="utf-8")
    prefixes = "cosine|repetition|verify|code_(?:provider|language|eval)|piston|format_whole|length_and|gold"
    for name in re.findall(rf"`((?:{prefixes})_\w+)[`:]", text):
        assert name in RewardSettings.model_fields or name in REWARD_NAMES, name
