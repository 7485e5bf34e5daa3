"""Reading parquet files as published: only the columns asked for, and errors that name file, column and row."""

from pathlib import Path

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
        raise UserError(f"{root}: no file matches prepare.datasets files: {part.files!r}; download the asset first, or mend the pattern")
    return files


def read_rows(part: DatasetPart, position: int, assets: Path, settings: PrepareSettings) -> pl.DataFrame:
    """Every row of a data set, without its long columns.

    Returns:
        part, file, row (where it came from), problem, answer, question_type, problem_type, source, uuid (strings), solution_chars (null: none),
        traces (right traces of ``verified_trace``, or those of ``correctness_math_verify`` if there is such a column, else 0), order and stratum
        (of ``sample``).

    Raises:
        UserError: a file that is no parquet file, lacks a column, has another type or holds text that is not UTF-8 or far too long.
    """
    frames = []
    for index, path in enumerate(files_of(part, assets)):
        schema = _schema(path)
        need = {"problem", "answer"} | ({"solution"} if settings.require_solution else set()) | set(settings.keep_columns)
        need |= {"question_type"} if settings.question_types else set()
        need |= {"problem_type"} if settings.problem_types else set()
        need |= {"source"} if settings.sources else set()
        sample = settings.sample
        need |= {c for c in (sample.order, sample.stratify) if c} if sample else set()
        trace = settings.verified_trace
        lists = [*trace.columns, *(["is_reasoning_complete"] if trace.complete else [])] if trace else []
        name = {c: part.columns.get(c, c) for c in [*TEXT, *need, *lists, "correctness_math_verify"]}
        for column in [*sorted(need), *lists]:
            if name[column] not in schema:
                raise UserError(
                    f"{path}: no column {name[column]!r} (it has: {', '.join(schema)}); map it in prepare.datasets columns, or switch off what needs it"
                )
        for column in TEXT:
            if name[column] in schema and schema[name[column]] not in (pl.String, pl.Null, pl.Categorical):
                raise UserError(f"{path}: column {name[column]!r} is {schema[name[column]]}, not text; map another in prepare.datasets columns")
        for column in lists:
            if schema[name[column]] not in (pl.List(pl.Boolean), pl.Null, pl.List(pl.Null)):
                raise UserError(f"{path}: column {name[column]!r} is {schema[name[column]]}, not a list of booleans; name others in verified_trace.columns")
        columns = [
            pl.lit(position, pl.UInt16).alias("part"),
            pl.lit(index, pl.UInt16).alias("file"),
            *(_text(name[c], schema).alias(c) for c in TEXT if c != "solution"),
            _text(name["solution"], schema).str.len_chars().alias("solution_chars"),
            (_right_traces([name[c] for c in trace.columns], name["is_reasoning_complete"] if trace.complete else None) if trace else
             _right_traces([name["correctness_math_verify"]], None) if schema.get(name["correctness_math_verify"]) == pl.List(pl.Boolean) else
             pl.lit(0)).cast(pl.UInt32).alias("traces"),
            (pl.col(name[sample.order]).cast(pl.Float64) if sample and sample.order else pl.lit(None, pl.Float64)).alias("order"),
            (pl.col(name[sample.stratify]).cast(pl.String) if sample and sample.stratify else pl.lit(None, pl.String)).alias("stratum"),
        ]  # fmt: skip
        try:
            frame = pl.scan_parquet(path, row_index_name="row").select(*columns[:2], pl.col("row").cast(pl.UInt32), *columns[2:]).collect(engine="streaming")
        except pl.exceptions.PolarsError as error:
            raise UserError(_diagnose(path, [name[c] for c in TEXT if name[c] in schema], [name[c] for c in lists], error)) from None
        for column in ("problem", "answer", "solution"):
            length = pl.col(column).str.len_chars() if column != "solution" else pl.col("solution_chars")
            long = frame.select("row", length.alias("n")).filter(pl.col("n") > settings.max_text_chars)
            if long.height:
                row, chars = long.row(0)
                raise UserError(
                    f"{path}: row {row}: column {name[column]!r} holds {chars:,} characters, more than prepare.max_text_chars ({settings.max_text_chars:,}); "
                    "mend the file, or raise the limit"
                )
        frames.append(frame)
    return pl.concat(frames)


def read_columns(part: DatasetPart, assets: Path, kept: pl.DataFrame, columns: list[str]) -> pl.DataFrame:
    """The long columns of the rows that are left.

    Args:
        kept: file and row of the rows wanted, all of this data set.

    Returns:
        file, row and ``columns`` (null where the data set has no such column), in no promised order.
    """
    frames = []
    for index, path in enumerate(files_of(part, assets)):
        schema = _schema(path)
        wanted = kept.lazy().filter(pl.col("file") == index)
        take = [pl.col(source) if (source := part.columns.get(c, c)) in schema else pl.lit(None, pl.String) for c in columns]
        rows = pl.scan_parquet(path, row_index_name="row").select(
            pl.lit(index, pl.UInt16).alias("file"), pl.col("row").cast(pl.UInt32), *(e.alias(c) for e, c in zip(take, columns, strict=True))
        )
        try:
            frames.append(rows.join(wanted.select("row"), on="row", how="semi").collect(engine="streaming"))
        except pl.exceptions.PolarsError as error:
            raise UserError(_diagnose(path, [part.columns.get(c, c) for c in columns], [], error)) from None
    return pl.concat(frames)


def read_problems(root: Path, pattern: str, column: str) -> list[str]:
    """A benchmark's problems, in file and row order.

    Raises:
        UserError: no file, an unreadable one, or no such column.
    """
    files = sorted(path for path in root.glob(pattern) if path.suffix in (".parquet", ".jsonl", ".json", ".csv") and path.is_file())
    if not files:
        raise UserError(f"{root}: no parquet, jsonl, json or csv file matches {pattern!r}; download the benchmark first, or mend its files pattern")
    problems: list[str] = []
    for path in files:
        readers = {".parquet": pl.read_parquet, ".jsonl": pl.read_ndjson, ".json": pl.read_json, ".csv": pl.read_csv}
        try:
            frame = readers[path.suffix](path)
        except (pl.exceptions.PolarsError, OSError) as error:
            raise UserError(f"{path}: cannot be read as {path.suffix[1:]} ({_first_line(error)}); download it again") from None
        if column not in frame.columns:
            raise UserError(f"{path}: no column {column!r} (it has: {', '.join(frame.columns)}); mend the benchmark's problem_column")
        problems += frame[column].cast(pl.String).fill_null("").to_list()
    return problems


def _schema(path: Path) -> dict[str, pl.DataType]:
    try:
        return dict(pl.read_parquet_schema(path))
    except (pl.exceptions.PolarsError, OSError) as error:
        raise UserError(f"{path}: not a whole parquet file ({_first_line(error)}); download it again") from None


def _text(column: str, schema: dict[str, pl.DataType]) -> pl.Expr:
    return pl.col(column).cast(pl.String) if column in schema else pl.lit(None, pl.String)


def _right_traces(columns: list[str], complete: str | None) -> pl.Expr:
    """How many traces a row has that any of ``columns`` calls right, and that are ``complete``; nulls count as no."""

    def flags(column: str) -> pl.Expr:
        return pl.col(column).cast(pl.List(pl.UInt8)).list.eval(pl.element().fill_null(0))

    right = flags(columns[0])
    for column in columns[1:]:  # a list that is null has no opinion
        right = pl.coalesce(right + flags(column), right, flags(column))
    right = right.list.eval((pl.element() > 0).cast(pl.UInt8))
    if complete:
        right = right * flags(complete)
    return right.list.sum().fill_null(0)


def _diagnose(path: Path, text: list[str], lists: list[str], error: Exception) -> str:
    """Why Polars could not read a file: the first bad row, found by reading its columns again as bytes."""
    try:
        file = pq.ParquetFile(path)
        start = 0
        for group in range(file.num_row_groups):
            for column in text:
                array = file.read_row_group(group, columns=[column]).column(0)
                if pa.types.is_string(array.type) or pa.types.is_large_string(array.type):
                    for row, value in enumerate(array.cast(pa.large_binary()).to_pylist()):
                        try:
                            (value or b"").decode()
                        except UnicodeDecodeError as bad:
                            return f"{path}: row {start + row}: column {column!r} is not valid UTF-8 (byte {bad.start}: {bad.object[bad.start]:#04x}); mend the file"
            if lists:
                table = file.read_row_group(group, columns=lists).to_pylist()
                for row, values in enumerate(table):
                    if len({len(v) for v in values.values() if v is not None}) > 1:
                        return f"{path}: row {start + row}: columns {', '.join(map(repr, lists))} have lists of different lengths; mend the file"
            start += file.metadata.row_group(group).num_rows
    except (pa.ArrowException, OSError) as damage:
        return f"{path}: damaged parquet file ({_first_line(damage)}); download it again"
    return f"{path}: cannot be read ({_first_line(error)}); download it again"


def _first_line(error: Exception) -> str:
    return (str(error).splitlines() or [type(error).__name__])[0]
