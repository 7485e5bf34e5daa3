"""Reading parquet files as published: only the columns asked for, and errors that name file, column and row.

Long text passes through and is not kept: a row stays in memory as what `read_rows` gives; what needs its problem or
solution later reads them again, in batches. Reading a column costs a hundredth of what is done with it.
"""

import hashlib
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl
import pyarrow as pa
import pyarrow.parquet as pq

from openr1_repro.stage import UserError

from .settings import DatasetPart, PrepareSettings

TEXT = ("problem", "solution", "answer", "question_type", "problem_type", "source", "uuid")
_BATCH = 10_000
_ROW = "__row"  # no data set has such a column


def files_of(part: DatasetPart, assets: Path) -> list[Path]:
    """The parquet files of one data set of the mixture, sorted by path.

    Raises:
        UserError: if there is none.
    """
    root = assets / "datasets" / part.asset / "files"
    files = sorted(path for path in root.glob(part.files) if path.is_file())
    if not files:
        raise UserError(
            f"{root}: no file matches prepare.datasets files: {part.files!r}; download it first, or mend the pattern"
        )
    return files


def read_rows(
    part: DatasetPart, position: int, assets: Path, settings: PrepareSettings, marks: dict[str, pl.Expr]
) -> pl.DataFrame:
    """Every row of a data set, without its problem and its long columns.

    Args:
        marks: what to note of the column problem while its text passes through.

    Returns:
        part, file, row (where it came from); answer, question_type, problem_type, source, uuid (strings; a row without
        uuid gets one from its problem and answer); problem_chars and solution_chars (null: none); traces (how many are
        right); order and stratum (of ``sample``, where it asks for them); ``marks``.

    Raises:
        UserError: a file that is no parquet file, lacks a column, has another type or holds text that is not UTF-8 or
            far too long; no rows.
    """
    trace, sample = settings.verified_trace, settings.sample
    lists = [*trace.columns, *(["is_reasoning_complete"] if trace.complete else [])] if trace else []
    needed = {"problem", "answer", *settings.keep_columns, *lists}
    needed |= {"solution"} if settings.require_solution else set()
    for values, column in (
        ("question_types", "question_type"),
        ("problem_types", "problem_type"),
        ("sources", "source"),
    ):
        needed |= {column} if getattr(settings, values) is not None else set()
    if sample:
        needed |= {column for column in (sample.order, sample.stratify) if column}

    frames = []
    for index, path in enumerate(files_of(part, assets)):
        schema = schema_of(path)
        name = {column: part.columns.get(column, column) for column in [*TEXT, *needed]}
        _check_schema(path, schema, name, needed, lists)
        text = {c: pl.col(name[c]).cast(pl.String) if name[c] in schema else pl.lit(None, pl.String) for c in TEXT}
        traces = (
            right_traces([name[c] for c in trace.columns], name["is_reasoning_complete"] if trace.complete else None)
            if trace
            else pl.lit(0)
        )
        contents = pl.concat_str(text["problem"], pl.lit("\0"), text["answer"], ignore_nulls=True)
        nameless = pl.when(text["uuid"].is_null()).then(contents)
        columns = {
            "part": pl.lit(position, pl.UInt16),
            "file": pl.lit(index, pl.UInt16),
            "row": pl.col(_ROW).cast(pl.UInt32),
            **{column: text[column] for column in TEXT if column != "solution"},
            "uuid": pl.coalesce(text["uuid"], nameless.map_batches(_digests, pl.String, is_elementwise=True)),
            "problem_chars": text["problem"].str.len_chars(),
            "solution_chars": text["solution"].str.len_chars(),
            "traces": traces.cast(pl.UInt32),
        }  # fmt: skip
        if sample and sample.order:
            columns["order"] = pl.col(name[sample.order]).cast(pl.Float64)
        if sample and sample.stratify:
            columns["stratum"] = pl.col(name[sample.stratify]).cast(pl.String)
        scan = pl.scan_parquet(path, row_index_name=_ROW).select(**columns).with_columns(**marks).drop("problem")
        try:
            frame = scan.collect(engine="streaming")
        except pl.exceptions.PolarsError as error:
            texts = [name[c] for c in TEXT if name[c] in schema]
            raise UserError(diagnose(path, texts, [name[c] for c in lists], error)) from None
        for column in ("problem", "answer", "solution"):
            length = pl.col("answer").str.len_chars() if column == "answer" else pl.col(f"{column}_chars")
            for row, chars in (
                frame.select("row", length.alias("n")).filter(pl.col("n") > settings.max_text_chars).iter_rows()
            ):
                raise UserError(
                    f"{path}: row {row}: column {name[column]!r} holds {chars:,} characters, more than "
                    f"prepare.max_text_chars ({settings.max_text_chars:,}); mend the file, or raise the limit"
                )
        frames.append(frame)
    rows = pl.concat(frames)
    if rows.is_empty():
        raise UserError(
            f"{files_of(part, assets)[0]}: no rows; download the asset again, or leave it out of prepare.datasets"
        )
    return rows


def read_again(
    parts: list[DatasetPart],
    assets: Path,
    rows: pl.DataFrame,
    columns: list[str],
    derived: dict[str, pl.Expr] | None = None,
) -> Iterator[tuple[np.ndarray, pl.DataFrame]]:
    """Columns of the rows that are left, in batches, each file read once from its start to its end.

    Args:
        rows: part, file and row of those wanted, in any order.
        columns: by this project's names.
        derived: to compute of ``columns``, on all cores, ahead of whoever takes the batches.

    Yields:
        Where in ``rows`` each row of the batch stands (int64); ``columns`` (null where the data set has no such column)
        and ``derived``.
    """
    place = rows.select("part", "file", "row").with_row_index("place").sort("part", "file", "row")
    for position, part in enumerate(parts):
        for index, path in enumerate(files_of(part, assets)):
            wanted = place.filter(pl.col("part") == position, pl.col("file") == index)
            if wanted.is_empty():
                continue
            numbers, places = wanted["row"].to_numpy(), wanted["place"].to_numpy().astype(np.int64)
            schema, name = schema_of(path), {column: part.columns.get(column, column) for column in columns}
            take = {c: pl.col(name[c]) if name[c] in schema else pl.lit(None, pl.String) for c in columns}
            take |= {c: expression.cast(pl.String) for c, expression in take.items() if c in TEXT}
            scan = pl.scan_parquet(path, row_index_name=_ROW).select(pl.col(_ROW).cast(pl.UInt32), **take)
            scan = scan.filter(pl.col(_ROW).is_in(wanted["row"].implode())).with_columns(**derived or {})
            try:
                for batch in scan.collect_batches(chunk_size=_BATCH):
                    yield places[np.searchsorted(numbers, batch[_ROW].to_numpy())], batch.drop(_ROW)
            except pl.exceptions.PolarsError as error:
                raise UserError(diagnose(path, [n for n in name.values() if n in schema], [], error)) from None


def types_of(parts: list[DatasetPart], assets: Path, columns: list[str]) -> pl.Schema:
    """The type of each column that holds what it is in every file of every data set.

    Raises:
        UserError: if there is none.
    """
    found: dict[str, pl.DataType] = {}
    for part in parts:
        for path in files_of(part, assets):
            schema = schema_of(path)
            for column in columns:
                kind = pl.String() if column in TEXT else schema[part.columns.get(column, column)]
                here = pl.DataFrame(schema={column: kind})
                try:
                    known = pl.DataFrame(schema={column: found.get(column, pl.Null())})
                    found[column] = pl.concat([known, here], how="vertical_relaxed").schema[column]
                except pl.exceptions.PolarsError:
                    raise UserError(
                        f"{path}: column {part.columns.get(column, column)!r} is {kind}, elsewhere "
                        f"{found[column]}; leave it out of prepare.keep_columns, or map another in prepare.datasets columns"
                    ) from None
    return pl.Schema(found)


def read_problems(root: Path, pattern: str, column: str) -> list[str]:
    """A benchmark's problems, in file and row order.

    Raises:
        UserError: no file, an unreadable one, or no such column.
    """
    files = sorted(
        path for path in root.glob(pattern) if path.suffix in (".parquet", ".jsonl", ".json", ".csv") and path.is_file()
    )
    if not files:
        raise UserError(
            f"{root}: no parquet, jsonl, json or csv file matches {pattern!r}; download it first, or mend files"
        )
    readers: dict[str, Any] = {
        ".parquet": pl.read_parquet, ".jsonl": pl.read_ndjson, ".json": pl.read_json, ".csv": pl.read_csv,
    }  # fmt: skip
    problems: list[str] = []
    for path in files:
        try:
            frame = readers[path.suffix](path)
        except (pl.exceptions.PolarsError, OSError) as error:
            raise UserError(
                f"{path}: cannot be read as {path.suffix[1:]} ({_first_line(error)}); download it again"
            ) from None
        if column not in frame.columns:
            raise UserError(f"{path}: no column {column!r} (it has: {', '.join(frame.columns)}); mend problem_column")
        problems += frame[column].cast(pl.String).fill_null("").to_list()
    return problems


def right_traces(columns: list[str], complete: str | None) -> pl.Expr:
    """How many traces of a row any of ``columns`` calls right and ``complete`` calls complete; null is no."""

    def flags(column: str) -> pl.Expr:
        return pl.col(column).cast(pl.List(pl.UInt8)).list.eval(pl.element().fill_null(0))

    right = flags(columns[0])
    for column in columns[1:]:
        right = pl.coalesce(right + flags(column), right, flags(column))  # a null list has no opinion
    right = right.list.eval((pl.element() > 0).cast(pl.UInt8))
    if complete:
        right = right * flags(complete)
    return right.list.sum().fill_null(0)


def schema_of(path: Path) -> dict[str, pl.DataType]:
    """Column names and types of a parquet file."""
    try:
        return dict(pl.read_parquet_schema(path))
    except (pl.exceptions.PolarsError, OSError) as error:
        raise UserError(f"{path}: not a whole parquet file ({_first_line(error)}); download it again") from None


def _digests(texts: pl.Series) -> pl.Series:
    """A name for each text; null for null."""
    names = [None if text is None else hashlib.blake2b(text.encode(), digest_size=16).hexdigest() for text in texts]
    return pl.Series(texts.name, names, pl.String)


def _check_schema(
    path: Path, schema: dict[str, pl.DataType], name: dict[str, str], needed: set[str], lists: list[str]
) -> None:
    for column in sorted(needed):
        if name[column] not in schema:
            raise UserError(
                f"{path}: no column {name[column]!r} (it has: {', '.join(schema)}); "
                "map it in prepare.datasets columns, or switch off the filter that needs it"
            )
    for column in TEXT:
        kind = schema.get(name[column], pl.String())
        if kind not in (pl.String, pl.Null, pl.Categorical):
            raise UserError(
                f"{path}: column {name[column]!r} is {kind}, not text; map another in prepare.datasets columns"
            )
    for column in lists:
        if schema[name[column]] not in (pl.List(pl.Boolean), pl.Null, pl.List(pl.Null)):
            raise UserError(
                f"{path}: column {name[column]!r} is {schema[name[column]]}, not lists of booleans; "
                "name others in prepare.verified_trace.columns"
            )


def diagnose(path: Path, text: list[str], lists: list[str], error: Exception) -> str:
    """Why Polars could not read a file: the first bad row, found by reading its columns again as bytes."""
    try:
        file = pq.ParquetFile(path)
        start = 0
        for group in range(file.num_row_groups):
            for column in text:
                array = file.read_row_group(group, columns=[column]).column(0)
                for row, value in enumerate(array.cast(pa.large_binary()).to_pylist()):
                    try:
                        (value or b"").decode()
                    except UnicodeDecodeError as bad:
                        return (
                            f"{path}: row {start + row}: column {column!r} is not valid UTF-8 "
                            f"(byte {bad.start} is {value[bad.start]:#04x}); mend the file, or download it again"
                        )
            for row, values in enumerate(file.read_row_group(group, columns=lists).to_pylist() if lists else []):
                if len({len(v) for v in values.values() if v is not None}) > 1:
                    return f"{path}: row {start + row}: columns {', '.join(lists)} differ in length; mend the file"
            start += file.metadata.row_group(group).num_rows
    except (pa.ArrowException, OSError) as damage:
        return f"{path}: damaged parquet file ({_first_line(damage)}); download it again"
    return f"{path}: cannot be read ({_first_line(error)}); download it again"


def _first_line(error: Exception) -> str:
    return (str(error).splitlines() or [type(error).__name__])[0]
