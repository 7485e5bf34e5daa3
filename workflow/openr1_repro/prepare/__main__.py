"""A data set as published becomes prompts worth training on.

    python -m openr1_repro.prepare --settings @settings.json --assets results/assets --output results/prompts/NAME

Writes ``train.parquet`` and ``validation.parquet`` (columns: prompt, problem, solution, answer, uuid, source, problem_type, prompt_tokens and
``keep_columns``), ``funnel.json`` (rows in and out of every filter, with examples) and ``card.html`` (the same to look at).
The same files, settings and library versions give the same bytes, whatever the number of cores.
"""

import argparse
import hashlib
import math
from pathlib import Path

import numpy as np
import polars as pl

from openr1_repro.stage import UserError, add_settings_argument, parse_settings, replacing, run, write_json, write_text

from .answers import answer_form, usable_answers
from .card import render_card
from .contamination import contaminated
from .duplicates import clusters, preference
from .filters import empty, lists_choices, not_among, not_self_contained
from .funnel import Funnel
from .prompts import PromptCounter, write_prompts
from .read import files_of, read_problems, read_rows
from .select import first_in_share, held_back, lottery, shares
from .settings import NearDuplicates, PassRate, StageSettings
from .text import normal_form


def main() -> None:
    """Read the command line, prepare, write."""
    parser = argparse.ArgumentParser(prog="python -m openr1_repro.prepare", description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    add_settings_argument(parser)
    parser.add_argument("--assets", type=Path, required=True, help="folder of downloaded models and data sets")
    parser.add_argument("--output", type=Path, required=True, help="folder to write")
    parser.add_argument("--pass-rates", type=Path, help="pass_rates.parquet of openr1_repro.prepare.pass_rate, for prepare.pass_rate")
    parser.add_argument("--cache", type=Path, help="folder that keeps math-verify's verdicts on answers between runs")
    arguments = parser.parse_args()
    prepare(parse_settings(arguments.settings, StageSettings), arguments.assets, arguments.output, arguments.pass_rates, arguments.cache)


def prepare(stage: StageSettings, assets: Path, output: Path, pass_rates: Path | None = None, cache: Path | None = None) -> None:
    """Run the funnel and write its results whole or not at all.

    Raises:
        UserError: for settings that do not fit the data, damaged files, and a funnel that lets nothing through.
    """
    settings = stage.prepare
    counter = PromptCounter(assets / "models" / stage.model / "files", stage.chat) if settings.max_prompt_tokens else None
    benchmarks = {
        name: read_problems(assets / "datasets" / b.dataset / "files", b.files, b.problem_column) for name, b in stage.benchmarks.items()
    }  # fmt: skip

    rows = pl.concat([read_rows(part, position, assets, settings) for position, part in enumerate(settings.datasets)])
    if rows.is_empty():
        raise UserError(f"{files_of(settings.datasets[0], assets)[0]}: no rows in prepare.datasets")
    inputs = [
        {"asset": part.asset, "files": len(files_of(part, assets)), "rows": rows.filter(pl.col("part") == position).height, "weight": part.weight}
        for position, part in enumerate(settings.datasets)
    ]
    funnel = Funnel()
    drop = funnel.drop

    # What the data set says about itself.
    rows = drop(rows, "empty problem", empty("problem"), "datasets")
    rows = drop(rows, "empty answer", empty("answer"), "datasets")
    if settings.require_solution:
        rows = drop(rows, "empty solution", pl.when(pl.col("solution_chars").fill_null(0) == 0).then(pl.lit("no solution")), "require_solution")
    rows = _fill_uuid(rows)
    for column, values in (
        ("question_type", settings.question_types), ("problem_type", settings.problem_types), ("source", settings.sources),
    ):  # fmt: skip
        if values is not None:
            rows = drop(rows, column.replace("_", " "), not_among(column, values), f"{column}s")
    if settings.verified_trace:
        few = pl.when(pl.col("traces") < settings.verified_trace.min).then(pl.format("{} right traces", pl.col("traces")))
        rows = drop(rows, "verified trace", few, "verified_trace")

    # What the text says.
    if settings.self_contained:
        rows = drop(rows, "self-contained", not_self_contained(), "self_contained")
    if settings.choices == "drop":
        rows = drop(rows, "multiple choice", lists_choices(), "choices")
    rows = rows.with_columns(answer_form(pl.col("answer")).alias("answer_form"))
    if settings.answer:
        rejected = pl.col("answer").str.strip_chars(" .$").str.to_lowercase().is_in(settings.answer.reject)
        long = pl.col("answer").str.len_chars() > settings.answer.max_chars
        reason = pl.when(rejected).then(pl.lit("stands for no answer")).when(long).then(pl.lit("too long")).when(pl.col("answer_form") == "").then(pl.lit("no content"))
        rows = drop(rows, "answer text", reason, "answer")
        if settings.answer.parse:
            verdicts = usable_answers(rows["answer"].unique(maintain_order=True), settings.answer.timeout, cache)
            good = pl.col("answer").replace_strict(verdicts, return_dtype=pl.Boolean)
            rows = drop(rows, "answer parses", pl.when(~good).then(pl.lit("math-verify cannot use it")), "answer.parse")

    # What other rows and benchmarks say.
    near = settings.near_duplicates or NearDuplicates()
    rows = rows.lazy().with_columns(normal_form(pl.col("problem")).alias("normal")).collect()
    if settings.contradictions:
        several = pl.col("answer_form").n_unique().over("normal") > 1
        rows = drop(rows, "contradictory answers", pl.when(several).then(pl.lit("another answer elsewhere")), "contradictions")
    rows = rows.with_columns(preference(rows))
    if settings.exact_duplicates:
        kept = pl.col("uuid").sort_by("preference").first().over("normal")
        first = pl.col("preference") == pl.col("preference").min().over("normal")
        rows = drop(rows, "exact duplicates", pl.when(~first).then(pl.format("equal: {}", kept)), "exact_duplicates")
    if settings.contamination and benchmarks:
        rows = drop(rows, "contamination", contaminated(rows["problem"], benchmarks, settings.contamination), "contamination")
    rows = rows.with_columns(pl.Series("cluster", clusters(rows["normal"], near)))
    if settings.near_duplicates:
        same = ["cluster", "answer_form"] if near.same_answer else ["cluster"]
        kept = pl.col("uuid").sort_by("preference").first().over(same)
        first = pl.col("preference") == pl.col("preference").min().over(same)
        rows = drop(rows, "near duplicates", pl.when(~first).then(pl.format("nearly equal: {}", kept)), "near_duplicates")

    # What the model says.
    if counter:
        rows = rows.with_columns(pl.Series("prompt_tokens", counter.count(rows["problem"])))
        over = pl.col("prompt_tokens") > settings.max_prompt_tokens
        rows = drop(rows, "prompt length", pl.when(over).then(pl.lit("too many tokens")), "max_prompt_tokens")
    else:
        rows = rows.with_columns(pl.lit(None, pl.Int64).alias("prompt_tokens"))
    if settings.pass_rate:
        rows = drop(rows, "pass rate", _pass_rate_reason(rows, pass_rates, settings.pass_rate), "pass_rate")

    # Shares and sizes.
    if any(part.weight < 1 for part in settings.datasets):
        quotas = {position: int(rows.filter(pl.col("part") == position).height * part.weight) for position, part in enumerate(settings.datasets)}
        keep = first_in_share(rows["part"], lottery(rows["uuid"], settings.seed, "weight"), quotas)
        rows = drop(rows, "weight", pl.when(~keep).then(pl.lit("not drawn")), "datasets.weight")
    if settings.sample and rows.height > settings.sample.size:
        rank = lottery(rows["uuid"], settings.seed, "sample")
        if settings.sample.order:
            rank = np.argsort(np.lexsort((rank, -rows["order"].fill_null(-math.inf).to_numpy())))
        group = rows["stratum"].fill_null("")
        keep = first_in_share(group, rank, shares(group, settings.sample.size))
        rows = drop(rows, "sample", pl.when(~keep).then(pl.lit("not drawn")), "sample")

    rows = rows.with_columns(held_back(rows["cluster"], lottery(rows["uuid"], settings.seed, "validation"), settings.validation).alias("held_back"))
    if rows["held_back"].all():
        raise UserError(f"prepare.validation: holding back {settings.validation:,} of the {rows.height:,} rows that are left leaves none to train on; lower it")
    rows = rows[np.argsort(lottery(rows["uuid"], settings.seed, "order"))]
    with replacing(output) as draft:
        draft.mkdir()
        counts = {}
        for name, split in (("train", rows.filter(~pl.col("held_back"))), ("validation", rows.filter("held_back"))):
            counts[name] = split.height
            write_prompts(draft / f"{name}.parquet", split, stage, assets)
        record = funnel.record(inputs, rows, counts, settings)
        write_json(draft / "funnel.json", record)
        write_text(draft / "card.html", render_card(record))
    print(f"{output}: {counts['train']:,} to train on, {counts['validation']:,} to choose a checkpoint by", flush=True)


def _fill_uuid(rows: pl.DataFrame) -> pl.DataFrame:
    """Name rows that have no uuid by their problem and answer."""
    if rows["uuid"].null_count() == 0:
        return rows
    texts = rows.select(pl.when(pl.col("uuid").is_null()).then(pl.concat_str("problem", pl.lit("\0"), "answer")).alias("t"))["t"]
    names = [None if t is None else hashlib.blake2b(t.encode(), digest_size=16).hexdigest() for t in texts]
    return rows.with_columns(pl.col("uuid").fill_null(pl.Series(names, dtype=pl.String)))


def _pass_rate_reason(rows: pl.DataFrame, file: Path | None, settings: PassRate) -> pl.Expr:
    """Why a row's pass rate is not in the band.

    Raises:
        UserError: no file, or one without the columns uuid and rate.
    """
    if file is None:
        raise UserError("prepare.pass_rate is set: give --pass-rates, the file that python -m openr1_repro.prepare.pass_rate writes")
    try:
        rates = pl.read_parquet(file, columns=["uuid", "rate"]).unique("uuid", keep="first", maintain_order=True)
    except (pl.exceptions.PolarsError, OSError) as error:
        raise UserError(f"{file}: not a file of pass rates ({error}); run python -m openr1_repro.prepare.pass_rate again") from None
    rate = rows.select("uuid").join(rates, on="uuid", how="left", maintain_order="left")["rate"]
    return (
        pl.when(rate.is_null()).then(pl.lit("not sampled"))
        .when(rate <= settings.above).then(pl.lit("solved too rarely"))
        .when(rate >= settings.below).then(pl.lit("solved too often"))
    )  # fmt: skip


if __name__ == "__main__":
    run(main)
