"""A data set as published becomes prompts worth training on.

    python -m openr1_repro.prepare --settings @settings.json --assets results/assets --output results/prompts/NAME

Writes ``train.parquet`` and ``validation.parquet`` (columns: prompt, problem, solution, answer, uuid, source,
problem_type, prompt_tokens and ``keep_columns``), ``dropped.parquet`` (step and reason of every row that went),
``funnel.json`` (rows in and out of every filter, with examples) and ``card.html`` (the same to look at).
The same files, settings and library versions give the same bytes, whatever the number of cores.
"""

import argparse
import functools
from pathlib import Path

import numpy as np
import polars as pl

from openr1_repro.stage import (
    UserError,
    add_settings_argument,
    parse_settings,
    replacing,
    run,
    write_json,
    write_text,
)

from .answers import answer_form, canonical_answers
from .card import render_card
from .contamination import Benchmarks
from .duplicates import clusters, contradictory, preference, repeats
from .filters import empty, lists_choices, not_among, not_in_band, not_self_contained, unusable_text
from .funnel import Funnel, record
from .look import look_at_problems, problems_of
from .prompts import PromptCounter, write_prompts, write_table
from .read import read_problems, read_rows
from .select import held_back, lottery, not_drawn, not_sampled
from .settings import NearDuplicates, StageSettings
from .text import normal_form


def main() -> None:
    """Read the command line, prepare, write."""
    parser = argparse.ArgumentParser(
        prog="python -m openr1_repro.prepare",
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    add_settings_argument(parser)
    parser.add_argument("--assets", type=Path, required=True, help="folder of downloaded models and data sets")
    parser.add_argument("--output", type=Path, required=True, help="folder to write")
    parser.add_argument("--pass-rates", type=Path, help="file that openr1_repro.prepare.pass_rate wrote")
    parser.add_argument("--cache", type=Path, help="folder that keeps math-verify's readings of answers between runs")
    a = parser.parse_args()
    prepare(parse_settings(a.settings, StageSettings), a.assets, a.output, a.pass_rates, a.cache)


def prepare(
    stage: StageSettings, assets: Path, output: Path, pass_rates: Path | None = None, cache: Path | None = None
) -> None:
    """Run the funnel; write its results whole or not at all.

    Raises:
        UserError: for settings that do not fit the data, damaged files, and a funnel that lets nothing through.
    """
    settings = stage.prepare
    counter = (
        PromptCounter(assets / "models" / stage.model / "files", stage.chat) if settings.max_prompt_tokens else None
    )
    benchmarks = {
        name: read_problems(assets / "datasets" / b.dataset / "files", b.files, b.problem_column)
        for name, b in stage.benchmarks.items()
    }
    marks = {"no_problem": empty("problem")}
    if settings.self_contained:
        marks["not_self_contained"] = not_self_contained()
    if settings.choices == "drop":
        marks["lists_choices"] = lists_choices()
    rows = pl.concat(
        [read_rows(part, position, assets, settings, marks) for position, part in enumerate(settings.datasets)]
    )
    texts = functools.partial(problems_of, settings.datasets, assets)
    counts_in = [rows.filter(pl.col("part") == position).height for position in range(len(settings.datasets))]
    funnel = Funnel()

    # What the data set says about itself.
    rows = funnel.drop(rows, "empty problem", "datasets", pl.col("no_problem"))
    rows = funnel.drop(rows, "empty answer", "datasets", empty("answer"))
    if settings.require_solution:
        no_solution = pl.when(pl.col("solution_chars").fill_null(0) == 0).then(pl.lit("no solution"))
        rows = funnel.drop(rows, "empty solution", "require_solution", no_solution)
    if settings.question_types is not None:
        rows = funnel.drop(rows, "question type", "question_types", not_among("question_type", settings.question_types))
    if settings.problem_types is not None:
        rows = funnel.drop(rows, "problem type", "problem_types", not_among("problem_type", settings.problem_types))
    if settings.sources is not None:
        rows = funnel.drop(rows, "source", "sources", not_among("source", settings.sources))
    if settings.verified_trace:
        few = pl.col("traces") < settings.verified_trace.min
        too_few = pl.when(few).then(pl.format("{} right traces", "traces"))
        rows = funnel.drop(rows, "verified trace", "verified_trace", too_few)

    # What the text says.
    if settings.self_contained:
        rows = funnel.drop(rows, "self-contained", "self_contained", pl.col("not_self_contained"))
    if settings.choices == "drop":
        rows = funnel.drop(rows, "multiple choice", "choices", pl.col("lists_choices"))
    rows = rows.drop(*marks, "question_type", "problem_type")  # done with
    rows = rows.with_columns(answer_form(pl.col("answer")).alias("answer_form"))
    if settings.answer:
        unusable = unusable_text(settings.answer.max_chars, settings.answer.reject)
        rows = funnel.drop(rows, "answer text", "answer", unusable)
        if settings.answer.parse:
            readings = canonical_answers(rows["answer"], settings.answer.timeout, cache)
            rows = rows.with_columns(
                pl.col("answer").replace_strict(readings, return_dtype=pl.String).alias("answer_form")
            )
            unread = pl.when(pl.col("answer_form").is_null()).then(pl.lit("math-verify cannot use it"))
            rows = funnel.drop(rows, "answer parses", "answer.parse", unread)

    # What other rows and the benchmarks say.
    near = settings.near_duplicates or NearDuplicates()
    known = Benchmarks(benchmarks, settings.contamination) if settings.contamination and benchmarks else None
    rows, bands = look_at_problems(rows, settings.datasets, assets, near, known, counter)
    if settings.contradictions:
        rows = funnel.drop(rows, "contradictory answers", "contradictions", contradictory(rows, settings.answer))
    rows = rows.with_columns(preference(rows))
    if settings.exact_duplicates:
        rows = funnel.drop(rows, "exact duplicates", "exact_duplicates", repeats("equal", ["normal"]))
    if known:
        rows = funnel.drop(rows, "contamination", "contamination", pl.col("contamination"))
    left, normal = rows["place"].to_numpy(), normal_form(pl.col("problem"))
    sizes = rows["problem_chars"].to_numpy()
    labels = clusters((band[left] for band in bands), sizes, lambda some: texts(rows[some], normal), near)
    rows = rows.drop("place", "normal", "contamination").with_columns(pl.Series("cluster", labels))
    del bands
    if settings.near_duplicates:
        twins = repeats("nearly equal", ["cluster", "answer_form"] if near.same_answer else ["cluster"])
        rows = funnel.drop(rows, "near duplicates", "near_duplicates", twins)

    # What the model says.
    if counter:
        too_long = pl.when(pl.col("prompt_tokens") > settings.max_prompt_tokens).then(pl.lit("too many tokens"))
        rows = funnel.drop(rows, "prompt length", "max_prompt_tokens", too_long)
    if settings.pass_rate:
        rows = funnel.drop(rows, "pass rate", "pass_rate", not_in_band(rows["uuid"], pass_rates, settings.pass_rate))

    # Shares, sizes, order.
    if any(part.weight < 1 for part in settings.datasets):
        shares = {position: part.weight for position, part in enumerate(settings.datasets)}
        quotas = {position: int(rows.filter(pl.col("part") == position).height * w) for position, w in shares.items()}
        rank = lottery(rows["uuid"], settings.seed, "weight")
        rows = funnel.drop(rows, "weight", "datasets.weight", not_drawn(rows["part"], rank, quotas))
    if settings.sample:
        rows = funnel.drop(rows, "sample", "sample", not_sampled(rows, settings))
    held = held_back(rows["cluster"], lottery(rows["uuid"], settings.seed, "validation"), settings.validation)
    if held.all():
        raise UserError(
            f"prepare.validation: {settings.validation:,} rows to hold back, {rows.height:,} are left; lower it"
        )
    order = np.argsort(lottery(rows["uuid"], settings.seed, "order"))
    splits = {"train": rows[order].filter(~held[order]), "validation": rows[order].filter(held[order])}

    with replacing(output) as draft:
        draft.mkdir()
        for name, split in splits.items():
            write_prompts(draft / f"{name}.parquet", split, stage, assets)
        dropped = pl.concat(funnel.dropped).sort("part", "file", "row")
        assets_in_order = dict(enumerate(part.asset for part in settings.datasets))
        dropped = dropped.with_columns(
            pl.col("part").replace_strict(assets_in_order, return_dtype=pl.String).alias("dataset")
        )
        write_table(draft / "dropped.parquet", dropped.drop("part").to_arrow())
        funnel_json = record(funnel, settings, counts_in, splits, texts)
        write_json(draft / "funnel.json", funnel_json)
        write_text(draft / "card.html", render_card(funnel_json))
    print(f"{output}: {splits['train'].height:,} to train on, {splits['validation'].height:,} held back", flush=True)


if __name__ == "__main__":
    run(main)
