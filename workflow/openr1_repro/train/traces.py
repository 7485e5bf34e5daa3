"""The verified traces of a data set's problems, for the supervised warm start."""

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pyarrow.parquet as pq

from openr1_repro.stage import UserError

VERDICTS = ("correctness_math_verify", "correctness_llama")
NEEDED = ("uuid", "generations")


def verified(datasets: list[Path], uuids: set[str]) -> Iterator[tuple[str, str]]:
    """The first right and complete trace of each problem, in the files' order, read batch by batch: traces are most of the bytes.

    Args:
        datasets: assets in OpenR1-Math's schema (folders with ``files/``).
        uuids: the problems wanted.

    Yields:
        (uuid, trace).

    Raises:
        UserError: if a file lacks the columns of traces or of their verdicts.
    """
    wanted = set(uuids)
    for file in (file for dataset in datasets for file in sorted((dataset / "files").rglob("*.parquet"))):
        table = pq.ParquetFile(file)
        names = set(table.schema_arrow.names)
        verdicts = [name for name in VERDICTS if name in names]
        if not set(NEEDED) <= names or not verdicts:
            raise UserError(
                f"{file}: no traces (needs {', '.join(NEEDED)} and {' or '.join(VERDICTS)}); take `warm_start` out"
            )
        columns = [*NEEDED, *verdicts, *(["is_reasoning_complete"] if "is_reasoning_complete" in names else [])]
        for batch in table.iter_batches(batch_size=256, columns=columns):
            for row in batch.to_pylist():
                trace = first_right(row, verdicts) if row["uuid"] in wanted else None
                if trace is not None:
                    wanted.discard(row["uuid"])
                    yield row["uuid"], trace


def first_right(row: dict[str, Any], verdicts: list[str]) -> str | None:
    """The first trace that any verdict calls right and that is complete; None if there is none.

    >>> row = {"generations": ["a", "b"], "correctness_math_verify": [False, True], "is_reasoning_complete": [True, True]}
    >>> first_right(row, ["correctness_math_verify"])
    'b'
    """
    for index, trace in enumerate(row["generations"] or []):
        said = [(row[name] or [])[index : index + 1] for name in verdicts]
        complete = (row.get("is_reasoning_complete") or [])[index : index + 1] != [False]
        if trace and complete and [True] in said:
            return trace
    return None
