"""Prompts as the model will see them, without transformers: by Jinja and tokenizers, which it uses itself."""

import datetime
import json
from pathlib import Path
from typing import Any, NoReturn

import jinja2
import numpy as np
import polars as pl
import pyarrow as pa
import pyarrow.parquet as pq
from jinja2.ext import Extension
from jinja2.sandbox import ImmutableSandboxedEnvironment
from tokenizers import Tokenizer

from openr1_repro.stage import Chat, UserError, read_json

from .read import read_columns
from .settings import StageSettings

_CHUNK = 2_000
_ROW_GROUP = 10_000


class _Generation(Extension):
    """``{% generation %}…{% endgeneration %}`` marks what an assistant said; here it is only its content."""

    tags = {"generation"}

    def parse(self, parser: Any) -> Any:
        next(parser.stream)
        return parser.parse_statements(("name:endgeneration",), drop_needle=True)


def messages(problem: str, chat: Chat) -> list[dict[str, str]]:
    """One problem as the conversation that TRL and vLLM take."""
    system = [{"role": "system", "content": chat.system_prompt}] if chat.system_prompt is not None else []
    return [*system, {"role": "user", "content": problem}]


class PromptCounter:
    """Renders and counts prompts as transformers' ``apply_chat_template(…, add_generation_prompt=True)`` does."""

    def __init__(self, model: Path, chat: Chat) -> None:
        """Load ``tokenizer.json``, ``tokenizer_config.json`` and the template from a model's folder.

        Raises:
            UserError: if a file or the template is missing or wrong.
        """
        config = read_json(model / "tokenizer_config.json")
        try:
            self.tokenizer = Tokenizer.from_file(str(model / "tokenizer.json"))
        except Exception as error:  # tokenizers raises bare Exception
            raise UserError(
                f"{model / 'tokenizer.json'}: no tokenizer ({error}); set prepare.max_prompt_tokens: null to go without"
            ) from None
        self.tokenizer.no_truncation()
        self.tokenizer.no_padding()
        self.chat = chat
        template = chat.template or _model_template(model, config)
        special = {
            k: v["content"] if isinstance(v, dict) else v
            for k, v in config.items()
            if k.endswith("_token") and isinstance(v, str | dict)
        }
        environment = ImmutableSandboxedEnvironment(
            trim_blocks=True, lstrip_blocks=True, extensions=[_Generation, "jinja2.ext.loopcontrols"]
        )
        environment.filters["tojson"] = _tojson
        environment.globals["raise_exception"] = _raise
        environment.globals["strftime_now"] = lambda form: datetime.datetime.now().strftime(form)
        environment.globals.update(special)
        try:
            self.template = environment.from_string(template)
        except jinja2.TemplateError as error:
            raise UserError(f"chat.template: not a Jinja template ({error})") from None

    def render(self, problem: str) -> str:
        """The text of one prompt.

        Raises:
            UserError: if the template refuses it.
        """
        try:
            return self.template.render(
                messages=messages(problem, self.chat), tools=None, documents=None, add_generation_prompt=True
            )
        except jinja2.TemplateError as error:
            raise UserError(f"chat.template: fails on the problem {problem[:200]!r}: {error}") from None

    def count(self, problems: pl.Series) -> np.ndarray:
        """Tokens of every prompt: int64 [problems]."""
        counts = np.empty(len(problems), np.int64)
        for start in range(0, len(problems), _CHUNK):
            texts = [self.render(problem) for problem in problems[start : start + _CHUNK]]
            encodings = self.tokenizer.encode_batch_fast(texts, add_special_tokens=False)
            counts[start : start + len(texts)] = [len(encoding) for encoding in encodings]
        return counts


def write_prompts(path: Path, rows: pl.DataFrame, stage: StageSettings, assets: Path) -> None:
    """Write rows, in their order, as TRL takes them; the long columns are read now, for these rows only."""
    settings = stage.prepare
    late = ["solution", *settings.keep_columns]
    parts = []
    for position, part in enumerate(settings.datasets):
        kept = rows.filter(pl.col("part") == position).select("file", "row")
        parts.append(read_columns(part, assets, kept, late).with_columns(pl.lit(position, pl.UInt16).alias("part")))
    rows = rows.join(
        pl.concat(parts, how="vertical_relaxed"), on=["part", "file", "row"], how="left", maintain_order="left"
    )
    texts = ["problem", "solution", "answer", "uuid", "source", "problem_type"]
    message = pa.struct([("role", pa.string()), ("content", pa.string())])
    columns: dict[str, pa.Array] = {
        "prompt": pa.array([messages(p, stage.chat) for p in rows["problem"]], pa.list_(message))
    }
    columns |= {name: rows[name].to_arrow().cast(pa.string()) for name in texts}
    columns["prompt_tokens"] = rows["prompt_tokens"].to_arrow()
    columns |= {name: rows[name].to_arrow() for name in settings.keep_columns if name not in columns}
    write_table(path, pa.table(columns))


def write_table(path: Path, table: pa.Table) -> None:
    """Write parquet whose bytes depend on the table alone."""
    pq.write_table(table, path, compression="zstd", row_group_size=_ROW_GROUP)


def _model_template(model: Path, config: dict[str, Any]) -> str:
    file = model / "chat_template.jinja"
    template = file.read_text(encoding="utf-8") if file.is_file() else config.get("chat_template")
    if isinstance(template, list):  # several named ones: transformers takes "default"
        template = {t["name"]: t["template"] for t in template}.get("default")
    if not template:
        raise UserError(
            f"{model}: the model has no chat template (chat_template.jinja or tokenizer_config.json); set chat.template"
        )
    return template


def _tojson(
    value: Any, ensure_ascii: bool = False, indent: int | None = None, separators: Any = None, sort_keys: bool = False
) -> str:
    return json.dumps(value, ensure_ascii=ensure_ascii, indent=indent, separators=separators, sort_keys=sort_keys)


def _raise(message: str) -> NoReturn:
    raise jinja2.TemplateError(message)
