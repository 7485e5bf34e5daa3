"""Benchmark files to problems: what the user says and what the answer should be."""

import hashlib
import random
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from string import ascii_uppercase
from typing import Any

import jinja2
import polars as pl

from openr1_repro.evaluate.protocol import PROTOCOLS
from openr1_repro.evaluate.settings import VALIDATION, BenchmarkSettings, StageSettings
from openr1_repro.stage import UserError

READERS: dict[str, Callable[..., pl.DataFrame]] = {
    ".parquet": pl.read_parquet,
    ".jsonl": pl.read_ndjson,
    ".json": pl.read_json,
    ".csv": pl.read_csv,
}


@dataclass(frozen=True)
class Problem:
    """One row of a benchmark."""

    benchmark: str
    item: int
    """The row's index through the benchmark's files."""
    problem: str
    messages: list[dict[str, str]]
    """System and user message: what the chat template gets."""
    gold: str


def load_problems(settings: StageSettings, assets: Path) -> list[Problem]:
    """All problems of the benchmarks in ``settings``, in the order of ``evaluate.benchmarks``.

    Raises:
        UserError: a benchmark without files or rows, a column that is missing or null, a template that is not Jinja.
    """
    protocol = PROTOCOLS[settings.evaluate.protocol]
    system = settings.chat.system_prompt if protocol.system_prompt else None
    problems = []
    for name in settings.evaluate.benchmarks:
        benchmark = settings.benchmarks[name]
        prompt = protocol.prompt if protocol.prompt and not benchmark.choices else benchmark.prompt
        problems += _load_benchmark(name, benchmark, prompt, system, assets)
    return problems


def load_validation(prompts: Path) -> list[Problem]:
    """The held-out training prompts (``validation.parquet`` of the prepare stage) as they would be trained on."""
    path = prompts / "validation.parquet"
    rows = _read(path)
    if missing := {"prompt", "problem", "answer"} - set(rows.columns):
        raise UserError(f"{path}: no column {', '.join(sorted(missing))}; run the prepare stage again")
    return [
        Problem(VALIDATION, item, row["problem"], row["prompt"], row["answer"])
        for item, row in enumerate(rows.iter_rows(named=True))
    ]


def _read(path: Path) -> pl.DataFrame:
    try:
        return READERS[path.suffix](path)
    except (OSError, pl.exceptions.PolarsError) as error:
        raise UserError(f"{path}: cannot be read ({str(error).splitlines()[0]}); download it anew") from None


def _load_benchmark(
    name: str, benchmark: BenchmarkSettings, prompt: str, system: str | None, assets: Path
) -> list[Problem]:
    key = f"config/benchmarks/{name}.yaml"
    folder = assets / "datasets" / benchmark.dataset / "files"
    paths = sorted(path for path in folder.glob(benchmark.files) if path.suffix in READERS)
    if not paths:
        raise UserError(f"{key}: files: {benchmark.files!r} matches no parquet, jsonl, json or csv file in {folder}")
    environment = jinja2.Environment(undefined=jinja2.StrictUndefined, keep_trailing_newline=True)
    try:
        prompt_template, gold_template = environment.from_string(prompt), environment.from_string(benchmark.gold)
    except jinja2.TemplateSyntaxError as error:
        raise UserError(f"{key}: prompt or gold is not Jinja: line {error.lineno}: {error.message}") from None

    problems: list[Problem] = []
    for path in paths:
        rows = _read(path)
        wanted = [benchmark.problem_column, *benchmark.choices]
        if missing := [column for column in wanted if column not in rows.columns]:
            raise UserError(
                f"{key}: no column {', '.join(map(repr, missing))} in {path}; it has {', '.join(map(repr, rows.columns))}"
            )
        for row in rows.iter_rows(named=True):
            item = len(problems)
            if item == benchmark.num_problems:
                break
            if not all(isinstance(row[column], str) and row[column] for column in wanted):
                raise UserError(
                    f"{path}: row {item}: {', '.join(wanted)} must be text; drop the row or name another column"
                )
            problem = row[benchmark.problem_column]
            values: dict[str, Any] = {**row, "problem": problem}
            try:
                if benchmark.choices:
                    values["choices"], gold = _shuffled(problem, [row[column] for column in benchmark.choices])
                else:
                    gold = gold_template.render(values)
                user = prompt_template.render(values)
            except jinja2.UndefinedError as error:
                raise UserError(
                    f"{key}: prompt or gold: {error.message}; {path} has {', '.join(rows.columns)}"
                ) from None
            messages = [{"role": "user", "content": user}]
            if system is not None:
                messages.insert(0, {"role": "system", "content": system})
            problems.append(Problem(name, item, problem, messages, gold))
    if not problems:
        raise UserError(f"{key}: {folder} has no rows")
    return problems


def _shuffled(problem: str, options: list[str]) -> tuple[list[str], str]:
    """The options in an order that only the problem decides, and the letter of the first one."""
    order = list(range(len(options)))
    random.Random(hashlib.sha256(problem.encode()).hexdigest()).shuffle(order)
    return [options[i] for i in order], ascii_uppercase[order.index(0)]
