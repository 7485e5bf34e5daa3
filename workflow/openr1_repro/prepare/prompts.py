"""Prompts as the model will see them, without transformers: by Jinja and tokenizers, which it uses itself."""

import datetime
import json
import tempfile
from collections.abc import Iterator
from contextlib import ExitStack
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

from .read import read_again, types_of
from .settings import StageSettings

_CHUNK = 2_000
_ROW_GROUP = 10_000
_TEXTS = ["problem", "solution", "answer", "uuid", "source", "problem_type"]
_SHORT = ["answer", "uuid", "source", "prompt_tokens"]  # these are in memory, all others in the files
_PLACE = "__place"  # no data set has such a column


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
    """Write rows, in their order, as TRL takes them; their long columns are read now, for these rows only."""
    rows = rows.select("part", "file", "row", *_SHORT)
    late = [c for c in dict.fromkeys([*_TEXTS, *stage.prepare.keep_columns]) if c not in _SHORT]
    with ExitStack() as stack:
        writer: pq.ParquetWriter | None = None
        for group in _in_order(path.parent, rows, late, stage, assets):
            table = _as_trl_takes_them(group, stage)
            writer = writer or stack.enter_context(pq.ParquetWriter(path, table.schema, compression="zstd"))
            writer.write_table(table)
            del group, table  # or two of each were in memory


def _as_trl_takes_them(rows: pl.DataFrame, stage: StageSettings) -> pa.Table:
    message = pa.struct([("role", pa.string()), ("content", pa.string())])
    columns: dict[str, pa.Array] = {
        "prompt": pa.array([messages(p, stage.chat) for p in rows["problem"]], pa.list_(message))
    }
    columns |= {name: rows[name].to_arrow().cast(pa.string()) for name in _TEXTS}
    columns["prompt_tokens"] = rows["prompt_tokens"].to_arrow()
    columns |= {name: rows[name].to_arrow() for name in stage.prepare.keep_columns if name not in columns}
    return pa.table(columns)


def _in_order(
    folder: Path, rows: pl.DataFrame, late: list[str], stage: StageSettings, assets: Path
) -> Iterator[pl.DataFrame]:
    """Rows with their late columns, a row group at a time.

    The order is random, and the files are read but once from start to end: what belongs to a row group waits for it
    in a file of ``folder``.
    """
    starts = range(0, max(rows.height, 1), _ROW_GROUP)
    types = types_of(stage.prepare.datasets, assets, late)
    schema = pl.DataFrame(schema={_PLACE: pl.Int64, **types}).to_arrow().schema
    with tempfile.TemporaryDirectory(dir=folder) as scratch:
        files = [Path(scratch, str(number)) for number in range(len(starts))]
        with ExitStack() as stack:
            sinks = [stack.enter_context(pa.ipc.new_stream(str(file), schema)) for file in files]
            for places, batch in read_again(stage.prepare.datasets, assets, rows, late):
                batch = batch.cast(types).select(pl.Series(_PLACE, places), *late)
                for (number,), piece in batch.group_by(pl.col(_PLACE) // _ROW_GROUP):
                    sinks[number].write_table(piece.to_arrow().cast(schema))
        for start, file in zip(starts, files, strict=True):
            with pa.ipc.open_stream(str(file)) as source:
                texts = pl.DataFrame(source.read_all()).sort(_PLACE)
            file.unlink()
            yield rows[start : start + _ROW_GROUP].select(_SHORT).hstack(texts.drop(_PLACE))
            del texts


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
