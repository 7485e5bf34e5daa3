"""Reading parquet files as published: only the columns asked for, and errors that name file, column and row."""

import hashlib
from pathlib import Path
from typing import Any

import polars as pl
import pyarrow as pa
import pyarrow.parquet as pq

from openr1_repro.stage import UserError

from .settings import DatasetPart, PrepareSettings

TEXT = ("problem", "solution", "answer", "question_type", "problem_type", "source", "uuid")


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


def read_rows(part: DatasetPart, position: int, assets: Path, settings: PrepareSettings) -> pl.DataFrame:
    """Every row of a data set, without its long columns.

    Returns:
        part, file, row (where it came from); problem, answer, question_type, problem_type, source, uuid (strings; a row
        without uuid gets one from its problem and answer); solution_chars (null: none); traces (how many are right);
        order and stratum (of ``sample``).

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
        columns = {
            "part": pl.lit(position, pl.UInt16),
            "file": pl.lit(index, pl.UInt16),
            "row": pl.col("row").cast(pl.UInt32),
            **{column: text[column] for column in TEXT if column != "solution"},
            "solution_chars": text["solution"].str.len_chars(),
            "traces": traces.cast(pl.UInt32),
            "order": (pl.col(name[sample.order]) if sample and sample.order else pl.lit(None)).cast(pl.Float64),
            "stratum": (pl.col(name[sample.stratify]) if sample and sample.stratify else pl.lit(None)).cast(pl.String),
        }  # fmt: skip
        try:
            frame = pl.scan_parquet(path, row_index_name="row").select(**columns).collect(engine="streaming")
        except pl.exceptions.PolarsError as error:
            texts = [name[c] for c in TEXT if name[c] in schema]
            raise UserError(diagnose(path, texts, [name[c] for c in lists], error)) from None
        for column in ("problem", "answer", "solution"):
            length = pl.col("solution_chars") if column == "solution" else pl.col(column).str.len_chars()
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
    if rows["uuid"].null_count():
        contents = rows.select(pl.concat_str("problem", pl.lit("\0"), "answer", ignore_nulls=True))["problem"]
        names = pl.Series([hashlib.blake2b(text.encode(), digest_size=16).hexdigest() for text in contents])
        rows = rows.with_columns(pl.col("uuid").fill_null(names))
    return rows


def read_columns(part: DatasetPart, assets: Path, kept: pl.DataFrame, columns: list[str]) -> pl.DataFrame:
    """The long columns of the rows that are left.

    Args:
        kept: file and row of the rows wanted, all of this data set.

    Returns:
        file, row and ``columns`` (null where the data set has no such column), in no promised order.
    """
    frames = []
    for index, path in enumerate(files_of(part, assets)):
        schema = schema_of(path)
        wanted = kept.lazy().filter(pl.col("file") == index)
        take = [
            pl.col(source) if (source := part.columns.get(c, c)) in schema else pl.lit(None, pl.String) for c in columns
        ]
        rows = pl.scan_parquet(path, row_index_name="row").select(
            pl.lit(index, pl.UInt16).alias("file"),
            pl.col("row").cast(pl.UInt32),
            *(e.alias(c) for e, c in zip(take, columns, strict=True)),
        )
        try:
            frames.append(rows.join(wanted.select("row"), on="row", how="semi").collect(engine="streaming"))
        except pl.exceptions.PolarsError as error:
            raise UserError(diagnose(path, [part.columns.get(c, c) for c in columns], [], error)) from None
    return pl.concat(frames)


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
