"""Prompts and their lengths: without transformers, and equal to transformers'."""

from pathlib import Path

import polars as pl
import pytest
from openr1_repro.prepare.prompts import PromptCounter
from openr1_repro.stage import Chat, UserError

from .conftest import TEMPLATE, write_tokenizer

PROBLEMS = [
    "Find $x$.", "", "  two\n\nlines \t", "<|User|> inside <|Assistant|>", "naïve ﬁ 数学 🧮", "a" * 500, "{{ 1 }} {% raw %}", "</think> <s>", "3+4=7 " * 40,
]  # fmt: skip
SEED = Path("config/templates/deepseek-r1-reasoning.jinja")
TEMPLATES = {
    "own": None,
    "seed": SEED.read_text(),
    "blocks": "{% for m in messages %}\n    {% if m.role == 'system' %}\n[{{ m.content | trim }}]\n    {% else %}\n{{ m | tojson }}{{ eos_token }}\n"
    "    {% endif %}\n{% endfor %}\n{% if add_generation_prompt %}{% generation %}<|Assistant|>{% endgeneration %}{% endif %}",
    "controls": "{% for m in messages %}{% if loop.index > 1 %}{% break %}{% endif %}{{ m['content'] }}{% endfor %}{{ tools or 'no tools' }}",
}


@pytest.mark.train_env
@pytest.mark.parametrize("system", [None, "Think first.\nThen answer."])
@pytest.mark.parametrize("name", TEMPLATES)
def test_equal_to_apply_chat_template(tmp_path: Path, name: str, system: str | None) -> None:
    transformers = pytest.importorskip("transformers")
    write_tokenizer(tmp_path)
    chat = Chat(template=TEMPLATES[name], system_prompt=system)
    theirs = transformers.PreTrainedTokenizerFast.from_pretrained(tmp_path)
    counter = PromptCounter(tmp_path, chat)
    counts = counter.count(pl.Series([f"Find {i}." for i in range(200)] + PROBLEMS))[200:]
    for problem, count in zip(PROBLEMS, counts.tolist(), strict=True):
        messages = [{"role": "user", "content": problem}]
        if system is not None:
            messages.insert(0, {"role": "system", "content": system})
        options = {"chat_template": chat.template, "add_generation_prompt": True}
        assert counter.render(problem) == theirs.apply_chat_template(messages, tokenize=False, **options)
        assert count == len(
            theirs.apply_chat_template(messages, tokenize=True, return_dict=True, **options)["input_ids"]
        )


@pytest.mark.train_env
def test_equal_to_the_embedded_model() -> None:
    """As AutoTokenizer loads it, which by ``model_type`` picks a class of its own."""
    transformers = pytest.importorskip("transformers")
    (model,) = Path("workflow/resources/hub/models").iterdir()
    theirs = transformers.AutoTokenizer.from_pretrained(model)
    for chat in (Chat(), Chat(template=SEED.read_text(), system_prompt="Think.")):
        counter = PromptCounter(model, chat)
        for problem, count in zip(PROBLEMS, counter.count(pl.Series(PROBLEMS)).tolist(), strict=True):
            messages = [{"role": "user", "content": problem}]
            if chat.system_prompt:
                messages.insert(0, {"role": "system", "content": chat.system_prompt})
            ids = theirs.apply_chat_template(
                messages, chat_template=chat.template, add_generation_prompt=True, return_dict=True
            )["input_ids"]
            assert count == len(ids)


def test_counts_what_it_renders(tmp_path: Path) -> None:
    write_tokenizer(tmp_path)
    counter = PromptCounter(tmp_path, Chat(system_prompt="Hi."))
    assert counter.render("Find $x$.") == "<s>Hi.<|User|>Find $x$.<|Assistant|>"
    assert counter.count(pl.Series(["\u00e9" * 7])).tolist() == [
        3 + 3 + 14
    ]  # three special tokens, three letters, two bytes each


def test_template_from_its_own_file_goes_first(tmp_path: Path) -> None:
    write_tokenizer(tmp_path)
    (tmp_path / "chat_template.jinja").write_text("only {{ messages[0].content }}")
    assert PromptCounter(tmp_path, Chat()).render("this") == "only this"


def test_refusals_name_file_or_key(tmp_path: Path) -> None:
    with pytest.raises(UserError, match=r"tokenizer_config\.json: missing"):
        PromptCounter(tmp_path, Chat())
    write_tokenizer(tmp_path, template="")
    with pytest.raises(UserError, match="no chat template"):
        PromptCounter(tmp_path, Chat())
    with pytest.raises(UserError, match=r"chat\.template: not a Jinja template"):
        PromptCounter(tmp_path, Chat(template="{% if %}"))
    with pytest.raises(UserError, match="needs a system prompt"):
        PromptCounter(tmp_path, Chat(template="{{ raise_exception('needs a system prompt') }}")).render("x")
    write_tokenizer(tmp_path, TEMPLATE)
    (tmp_path / "tokenizer.json").write_text("{")
    with pytest.raises(UserError, match=r"tokenizer\.json: no tokenizer"):
        PromptCounter(tmp_path, Chat())
